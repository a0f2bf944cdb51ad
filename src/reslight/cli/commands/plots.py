"""`reslight plot` and `reslight responses`: pictures of finished work."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reslight.cli.parser import Commands, runs
from reslight.messages import UsageError

if TYPE_CHECKING:
    from reslight.analysis import History


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = "draw the error curves of runs in one picture"
    more = (
        "thin and dashed the training error, bold the validation error, a dot the test error once it was measured. Takes matplotlib: "
        "pip install 'reslight[plot]'"
    )
    parser = commands.add_parser("plot", help=about, description=f"{about.capitalize()}: {more}")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, such as runs/digits/1; runs/digits is its newest run")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture; .png, .pdf or .svg")
    runs(parser, plot)
    about = "draw the standard deviations of networks' layer responses"
    parser = commands.add_parser("responses", help=about, description=f"{about.capitalize()}, as figure 7 of He et al. 2015 does.")
    parser.add_argument("sources", nargs="+", metavar="RUN|FOLDER|NAME", help="a run's folder, or weights")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture; .png, .pdf or .svg")
    parser.add_argument("--data", dest="root", default="data", metavar="ROOT", help="folder of the images (default: data)")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="test images to measure on, at most (default: 1000)")
    runs(parser, responses)


def plot(runs: Sequence[str], output: str) -> None:
    """Draw the error curves of runs in one picture, and print what they came to.

    Args:
        runs: Folders of runs or of configurations, or files in a run's folder; a run that is named twice is drawn once.
        output: Where the picture goes; its ending says in which format.

    Raises:
        ValueError: There is nothing to draw, or nothing to draw it with or as.
        FileNotFoundError: A run or the picture's folder is not there.
    """
    from reslight.analysis import draw, find_run, names_of, read_run, save

    found = {run.folder.resolve(): run for run in map(find_run, runs)}
    histories = [read_run(run) for run in found.values()]
    save(draw(histories), Path(output))
    print(f"written {output}")
    names = names_of(histories)
    for name, history in zip(names, histories, strict=True):
        print(f"{name.ljust(max(map(len, names)))}  {_outcome(history)}")


def responses(sources: Sequence[str], output: str, root: str, images: int) -> None:
    """Measure the layer responses of networks on test images, draw them as Figure 7 of He et al. 2015, and print their means.

    Args:
        sources: Runs, or folders or names of weights.
        output: Where the picture goes; its ending says in which format.
        root: Folder of the images, for data sets that have one.
        images: How many test images at most.

    Raises:
        OSError: Something is not there, or cannot be written.
        ValueError: A network or its data set cannot be had, or there is nothing to draw with.
    """
    from reslight.analysis.figure import format_of, new_figure, save
    from reslight.analysis.responses import draw_responses, image_batches
    from reslight.analysis.responses import responses as measure
    from reslight.runs.trained import load_with_data_info

    if images < 1:
        raise UsageError(f"--images is {images}; it must be at least 1")
    format_of(Path(output))
    new_figure(1, 1)  # that there is matplotlib is better known before
    measured = []
    for source in sources:
        net, data, name = load_with_data_info(source)
        measured.append(measure(net, image_batches(net, data, root, images), name))
        one = measured[-1]
        print(f"{one.name}  {len(one.layers)} layers, mean std {one.mean:.4f}, on {one.images:,} test images of {data['name']}", flush=True)
    save(draw_responses(measured), Path(output))
    print(f"written {output}")


def _outcome(history: "History") -> str:
    """A run's length and its errors at the end."""
    said = []
    if history.training.steps:
        said.append(f"training {history.training.errors[-1]:.2f} %")
    if errors := history.validation.errors:
        best = min(errors)
        at = history.validation.steps[errors.index(best)]
        said.append(f"validation {errors[-1]:.2f} % (best {best:.2f} % at step {at})")
    for step, error in zip(history.test.steps, history.test.errors, strict=True):
        said.append(f"test {error:.2f} %" + ("" if step == history.steps else f" at step {step}"))
    return f"{history.epochs} epoch{'s' if history.epochs > 1 else ''}, error: {', '.join(said)}"
