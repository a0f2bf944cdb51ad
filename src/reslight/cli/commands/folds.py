"""`reslight folds`: a table over the folds of a cross-validation."""

from collections.abc import Sequence

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table


def add_parsers(commands: Commands) -> None:
    """Add the command of this file."""
    about = "print the validation results of the folds of a cross-validation, their mean and standard deviation"
    more = "Train each fold with `reslight fit --data.fold K/N`; the runs must have the same settings otherwise."
    parser = commands.add_parser("folds", help=about, description=f"{about.capitalize()}. {more}")
    about = "a run's folder, such as runs/finetune/1; runs/finetune means all its runs with a fold"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=about)
    runs(parser, folds)


def folds(runs: Sequence[str]) -> bool:
    """Print a table over the folds of a cross-validation.

    Args:
        runs: Folders of runs, or of configurations.

    Returns:
        Whether there is a finished run of each fold.

    Raises:
        OSError: a missing run.
        UsageError: runs that do not belong to one cross-validation.
    """
    from reslight.analysis.folds import cross_validation, fit_command

    found = cross_validation(runs)
    names = found.names
    rows = [
        [f"{one.number}/{one.count}", f"{one.images:,}", *(f"{one.metrics[n]:.4f}" for n in names), str(one.run.folder)]
        for one in found.folds
    ]
    rows.append(["mean", "", *(f"{found.mean(name):.4f}" for name in names), ""])
    if len(found.folds) > 1:
        rows.append(["std", "", *(f"{found.deviation(name):.4f}" for name in names), ""])
    print(table(["fold", "images", *names, "run"], rows))
    if found.correct:
        correct, images = found.correct
        print(f"all folds: {correct:,} of {images:,} images correct ({100 * correct / images:.2f} %)")
    for run in found.unfinished:
        print(f"not finished: {run.folder}, which is left out")
    for number in found.missing:
        print(f"missing: fold {number}/{found.count}. Train it: {fit_command(found, number)}")
    return not found.missing
