"""Read the error curves of a run from its folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from reslight.messages import UsageError
from reslight.runs.folder import REPORTS, Run, runs_in
from reslight.runs.json_file import read_json_file
from reslight.runs.metrics_table import read_table
from reslight.runs.yaml_file import read

_MAX_DIGITS = 16
"""Digits of an epoch or a step in a damaged file that are read."""


@dataclass(frozen=True)
class Curve:
    """An error over the steps of a run.

    Args:
        steps: Optimizer steps done, rising.
        errors: Errors in percent, one for each step.
    """

    steps: tuple[int, ...] = ()
    errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class History:
    """The error curves of a run.

    Args:
        folder: The run's folder.
        net: The network in a few words; None if the configuration does not name one.
        epochs: The last epoch with an error, counted from 1.
        training: Error on the training images, a mean over each epoch.
        validation: Error on the validation images; empty if there are none.
        test: Error on the test images, at the step of the last `reslight test`; empty before the first.
        multi_label: Whether images have several labels: the errors are then 100 % - mAP, which training batches do not have.
    """

    folder: Path
    net: str | None
    epochs: int
    training: Curve
    validation: Curve
    test: Curve
    multi_label: bool = False

    @property
    def curves(self) -> tuple[Curve, Curve, Curve]:
        """The curves of training, validation and test."""
        return self.training, self.validation, self.test

    @property
    def steps(self) -> int:
        """The last step of all curves."""
        return max(curve.steps[-1] for curve in self.curves if curve.steps)


def average(runs: Sequence[History]) -> History:
    """Return the mean errors of several seeds, at the steps that all of them have.

    Args:
        runs: One or more runs of the same length.
    """
    curves = []
    for found in zip(*(run.curves for run in runs), strict=True):
        errors = [dict(zip(curve.steps, curve.errors, strict=True)) for curve in found]
        steps = sorted(set.intersection(*map(set, errors)))
        curves.append(Curve(tuple(steps), tuple(sum(one[step] for one in errors) / len(errors) for step in steps)))
    training, validation, test = curves
    return replace(runs[0], training=training, validation=validation, test=test)


def read_run(run: Run) -> History:
    """Read the error curves of a run so far.

    Args:
        run: The run, as `find_run` returns it.

    Raises:
        FileNotFoundError: a run without metrics.csv.
        UsageError: no finished epoch yet, or a file that no run writes.
    """
    if not run.metrics.is_file():
        raise FileNotFoundError(f"{run.metrics} is missing: the run has not logged anything yet. {_another(run)}")
    rows = _whole_rows(run.metrics)
    training, validation = _curve(rows, "train/acc1"), _curve(rows, "val/acc1")
    if several := any("train/subset_acc" in row for row in rows):
        validation = _curve(rows, "val/mAP")
        if not validation.steps and _curve(rows, "train/subset_acc").steps:
            raise UsageError(f"{run.folder} has no val/mAP, by which runs with several labels are drawn. {_another(run)}")
    ends = {*training.steps[-1:], *validation.steps[-1:]}
    if not ends:
        raise UsageError(f"{run.folder} has no finished epoch yet. Wait for its first epoch to end. {_another(run)}")
    epochs = max(int(row["epoch"]) for row in rows if int(row["step"]) in ends)
    return History(run.folder, _net(run), epochs, training, validation, _test(run, "mAP" if several else "acc1"), several)


def _another(run: Run) -> str:
    """Return what to do about a run that has nothing to show."""
    others = [other.folder for other in runs_in(run.folder.parent) if other != run and other.metrics.is_file()]
    return f"Or give another run, such as {others[-1]}." if others else "Or train one with `reslight fit`."


def _whole_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without those that a crash cut short.

    Raises:
        UsageError: a table that no run writes.
    """
    columns, rows = read_table(path)
    lacking = [name for name in ("epoch", "step") if name not in columns]
    if columns and lacking:
        raise UsageError(f"{path} has no column {lacking[0]}: it was not written by reslight. Give the folder of a run.")
    return [row for row in rows if _is_count(row["epoch"]) and _is_count(row["step"])]


def _is_count(text: str) -> bool:
    return len(text) < _MAX_DIGITS and text.isdecimal()


def _curve(rows: Sequence[dict[str, str]], column: str) -> Curve:
    """Return the errors of a column of accuracies, at the steps that have one."""
    found = [(int(row["step"]), _error(row.get(column, ""))) for row in rows]
    points = [(step, error) for step, error in found if math.isfinite(error)]
    return Curve(tuple(step for step, _ in points), tuple(error for _, error in points))


def _error(accuracy: str) -> float:
    """Return the error in percent of an accuracy in text; nan if it is missing or not a number."""
    try:
        return 100 * (1 - float(accuracy))
    except ValueError:
        return math.nan


def _net(run: Run) -> str | None:
    """Return the network that a run's configuration names, with the changes to it; classes and channels come from the data."""
    if not run.config.is_file():  # missing, or a pipe that would be waited for
        return None
    try:
        net = read(run.config)["model"]["net"]
        if isinstance(net, str):
            return net
        changes = [f"{key} {net[key]}" for key in net if key not in ("name", "num_classes", "in_channels")]
        return ", ".join([net["name"], *changes])
    except (OSError, UsageError, KeyError, TypeError):
        return None  # the name only tells runs apart in a figure


def _test(run: Run, metric: str) -> Curve:
    """Return the result of the last `reslight test` as a curve of one point."""
    path = run.folder / REPORTS["test"]
    if not path.is_file():
        return Curve()
    fix = f"Run `reslight test --config {quote(str(run.config))}` again."
    report = read_json_file(path, fix)
    try:
        return Curve((int(report["step"]),), (100 * (1 - float(report["metrics"][f"test/{metric}"])),))
    except (ValueError, KeyError, TypeError, OverflowError):
        raise UsageError(f"{path} is damaged: it has no step or no metric test/{metric}. {fix}") from None
