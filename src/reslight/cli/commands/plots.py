"""`reslight plot` and `reslight responses`: figures of runs and networks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reslight.cli.parser import Commands, runs
from reslight.messages import UsageError, counted

if TYPE_CHECKING:
    from reslight.analysis import History


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = "draw the error curves of runs in one figure"
    more = (
        "the training error is thin and dashed, the validation error bold, the test error a dot after `reslight test`. Needs matplotlib: "
        "pip install 'reslight[plot]'"
    )
    parser = commands.add_parser("plot", help=about, description=f"{about.capitalize()}: {more}")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, such as runs/digits/1; runs/digits means its newest run")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the figure to write: .png, .pdf or .svg")
    runs(parser, plot)
    about = "draw the standard deviations of networks' layer responses"
    parser = commands.add_parser("responses", help=about, description=f"{about.capitalize()}, as figure 7 of He et al. 2015.")
    parser.add_argument("sources", nargs="+", metavar="RUN|FOLDER|NAME", help="a run's folder, or a folder or name of weights")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the figure to write: .png, .pdf or .svg")
    parser.add_argument("--data", dest="root", default="data", metavar="ROOT", help="folder of the images (default: data)")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="largest number of test images to use (default: 1000)")
    runs(parser, responses)


def plot(runs: Sequence[str], output: str) -> None:
    """Draw the error curves of runs in one figure, and print their final errors.

    Args:
        runs: Folders of runs or of configurations, or files in a run's folder. A run that is given twice is drawn once.
        output: The figure to write; its suffix selects the format.

    Raises:
        UsageError: a run without metrics, or an unknown suffix.
        MissingPackageError: matplotlib is not installed.
        FileNotFoundError: a missing run, or a missing folder for the figure.
    """
    from reslight.analysis import draw, find_run, names_of, read_run, save

    found = {run.folder.resolve(): run for run in map(find_run, runs)}
    histories = [read_run(run) for run in found.values()]
    save(draw(histories), Path(output))
    print(f"written {output}")
    names = names_of(histories)
    for name, history in zip(names, histories, strict=True):
        print(f"{name.ljust(max(map(len, names)))}  {_final_errors(history)}")


def responses(sources: Sequence[str], output: str, root: str, images: int) -> None:
    """Draw the stds of networks' layer responses to test images, as figure 7 of He et al. 2015, and print their means.

    Args:
        sources: Runs, or folders or names of weights.
        output: The figure to write; its suffix selects the format.
        root: The folder of the images, for datasets on disk.
        images: The largest number of test images to use.

    Raises:
        OSError: a missing run, missing weights, or a file that cannot be written.
        UsageError: a network or dataset that cannot be loaded, or an unknown suffix.
        MissingPackageError: matplotlib is not installed.
    """
    from reslight.analysis.figure import format_of, new_figure, save
    from reslight.analysis.responses import draw_responses, image_batches
    from reslight.analysis.responses import responses as compute_responses
    from reslight.runs.trained import load_with_data_info

    if images < 1:
        raise UsageError(f"--images is {images}: it must be at least 1. Use a larger number.")
    format_of(Path(output))
    new_figure(1, 1)  # a missing matplotlib is reported before the work, not after it
    computed = []
    for source in sources:
        net, data, name = load_with_data_info(source)
        computed.append(compute_responses(net, image_batches(net, data, root, images), name))
        one = computed[-1]
        print(f"{one.name}  {len(one.layers)} layers, mean std {one.mean:.4f}, on {one.images:,} test images of {data['name']}", flush=True)
    save(draw_responses(computed), Path(output))
    print(f"written {output}")


def _final_errors(history: "History") -> str:
    """Return a run's number of epochs and its errors at the end, in one line."""
    parts = []
    if history.training.steps:
        parts.append(f"training {history.training.errors[-1]:.2f} %")
    if errors := history.validation.errors:
        best = min(errors)
        at = history.validation.steps[errors.index(best)]
        parts.append(f"validation {errors[-1]:.2f} % (best {best:.2f} % at step {at})")
    for step, error in zip(history.test.steps, history.test.errors, strict=True):
        parts.append(f"test {error:.2f} %" + ("" if step == history.steps else f" at step {step}"))
    return f"{counted(history.epochs, 'epoch')}, {'100 % - mAP' if history.multi_label else 'error'}: {', '.join(parts)}"
