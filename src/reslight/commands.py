"""The commands that are neither a Trainer's nor about weights, as plain functions. They print; heavy imports are local."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reslight.messages import UsageError

if TYPE_CHECKING:
    from reslight.analysis import History


def models(pattern: str = "*") -> None:
    """Print the architectures whose names match, with their size, their cost and where they come from.

    Raises:
        ValueError: None matches.
    """
    from reslight.models import SOURCES, VARIANTS, cost_of, list_models

    names = list_models(pattern)
    if not names:
        raise UsageError(f"no architecture matches {pattern!r}; `reslight models` lists all, and * stands for any letters")
    rows = []
    for name in names:
        config = VARIANTS[name]
        cost = cost_of(config)
        rows.append([name, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f}", f"{config.input_size}", SOURCES[name]])
    print(table(["name", "parameters", "MACs (M)", "at", "source"], rows))


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

    folders = {folder.resolve(): folder for folder in map(find_run, runs)}
    histories = [read_run(folder) for folder in folders.values()]
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
    from reslight.analysis import find_run
    from reslight.analysis.picture import check_name, new_figure, save
    from reslight.analysis.responses import draw_responses, image_batches
    from reslight.analysis.responses import responses as measure
    from reslight.training.export import described_net

    if images < 1:
        raise UsageError(f"--images is {images}; it must be at least 1")
    check_name(Path(output))
    new_figure(1, 1)  # that there is matplotlib is better known before
    measured = []
    for source in sources:
        is_run = Path(source).is_dir() and not (Path(source) / "config.json").is_file()
        net, data, name = described_net(str(find_run(source)) if is_run else source)
        measured.append(measure(net, image_batches(net, data, root, images), name))
        one = measured[-1]
        print(f"{one.name}  {len(one.layers)} layers, mean std {one.mean:.4f}, on {one.images:,} test images of {data['name']}", flush=True)
    save(draw_responses(measured), Path(output))
    print(f"written {output}")


def paper(name: str, budget: str, iterations: int | None, seeds: int, nets: Sequence[str], data: str, root: str) -> bool:
    """Run an experiment of the paper, write what came of it, and print its table.

    Args:
        name: Of the experiment.
        budget: `tiny`, `short` or `full`.
        iterations: Another number of them than the budget's.
        seeds: Each network is trained with the seeds 1 to this.
        nets: Names of the networks; all if empty.
        data: Folder of CIFAR-10.
        root: Where runs and results are kept: in `<root>/<budget>`, or `<root>/<budget>-<iterations>`. What other calls trained there
            is in the table, too.

    Returns:
        Whether no network diverged; each that did has its line on stderr.

    Raises:
        OSError: The data are not there, or something cannot be written.
        ValueError: An unknown name, or runs that are there were made with other settings.
    """
    from reslight.analysis.outcome import directions, summary
    from reslight.analysis.paper import BUDGETS, PAPER_STEPS
    from reslight.analysis.picture import new_figure
    from reslight.experiment import Plan, gather, run_experiment, write_outcome

    new_figure(1, 1)  # an evening is too long to learn that there is no matplotlib
    chosen = BUDGETS[budget] if iterations is None else replace(BUDGETS[budget], steps=iterations)
    plan = Plan(name, chosen, Path(root).expanduser() / (budget if iterations is None else f"{budget}-{iterations}"), data)
    failures = run_experiment(plan, seeds, nets)
    for line in failures:
        print(f"reslight: stopped: {line}", file=sys.stderr)
    finished = gather(plan)
    if not finished:
        return False
    written = write_outcome(plan, finished, plan.root)
    print(f"\n{plan.experiment.title}")
    print(f"here {plan.budget.data}, {plan.budget.steps:,} iterations; in the paper CIFAR-10, {PAPER_STEPS:,} iterations\n")
    print(table(*summary(plan.experiment, plan.budget, finished)))
    print("\n".join(["", *directions(plan.experiment, finished), *(f"written {path}" for path in written)]))
    return not failures


def check_data(root: str, threads: int | None = None) -> bool:
    """Open every image of a set and print what is wrong with it, see `reslight.data.check.check`.

    Args:
        root: Folder of the images, or a data set of the Hub.
        threads: Threads that open images; the machine's cores if None.

    Returns:
        Whether nothing is.

    Raises:
        OSError: There is no such set.
        ValueError: It cannot be looked through.
    """
    from reslight.data.check.check import Summary, check
    from reslight.data.check.problems import KINDS

    summary, shows = Summary(), sys.stderr.isatty()

    def say(so_far: Summary) -> None:
        if shows:
            print(f"\r{so_far.opened:,} of {so_far.images:,} images", end="", file=sys.stderr, flush=True)

    for problem in check(root, threads, summary, progress=say):
        clear = "\r\x1b[K" if shows else ""
        print(f"{clear}{KINDS[problem.kind]}: {problem}", flush=True)
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr)
    parts = ", ".join(f"{count:,} {part}" for part, count in summary.parts.items())
    print(f"{summary.opened:,} images ({parts}) of {summary.classes:,} classes, {summary.bytes / 1e6:,.1f} MB")
    for kind, count in summary.kinds.items():
        print(f"{count:>6,}  {kind}")
    print("nothing is wrong with them" if not summary.kinds else f"{summary.kinds.total():,} problems")
    return not summary.kinds


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


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; a column of numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    padded = []
    for column in columns:
        width = max(len(cell) for cell in column)
        to_right = all(not cell or cell[0].isdigit() for cell in column[1:])
        padded.append([cell.rjust(width) if to_right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))
