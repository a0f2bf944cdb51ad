"""The errors of a run over its length, read from its folder."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from reslight.messages import UsageError
from reslight.runs.folder import _numbers


@dataclass(frozen=True)
class Curve:
    """An error at some steps of a run.

    Args:
        steps: Optimizer steps done, rising.
        errors: Errors in percent, one a step.
    """

    steps: tuple[int, ...] = ()
    errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class History:
    """What a run's folder says of its errors.

    Args:
        folder: The run's folder.
        net: Its network in a few words; None where its configuration does not name one.
        epochs: The last epoch that was measured, counted from 1.
        training: Error on the training images, a mean over each epoch.
        validation: Error on the validation images; empty where there are none.
        test: Error on the test images, at the step at which it was last measured; empty before that.
    """

    folder: Path
    net: str | None
    epochs: int
    training: Curve
    validation: Curve
    test: Curve

    @property
    def curves(self) -> tuple[Curve, Curve, Curve]:
        """All three."""
        return self.training, self.validation, self.test

    @property
    def steps(self) -> int:
        """The last step at which anything was measured."""
        return max(curve.steps[-1] for curve in self.curves if curve.steps)


def average(runs: Sequence[History]) -> History:
    """One history for several seeds: the mean of their errors at the steps at which all of them were measured.

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


def read_run(folder: Path) -> History:
    """Read what a run measured so far.

    Args:
        folder: The run's folder, as `find_run` gives it.

    Raises:
        FileNotFoundError: It has no metrics.csv.
        ValueError: No epoch was measured yet, or a file in it is not what a run writes.
    """
    path = folder / "metrics.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no metrics.csv, nothing was measured in it yet; {_another(folder)}")
    rows = _whole_rows(path)
    training, validation = _curve(rows, "train/acc1"), _curve(rows, "val/acc1")
    ends = {*training.steps[-1:], *validation.steps[-1:]}
    if not ends:
        raise UsageError(f"{folder} has no measured epoch yet; wait for the end of its first, or {_another(folder)}")
    epochs = max(int(row["epoch"]) for row in rows if int(row["step"]) in ends)
    return History(folder, _net(folder), epochs, training, validation, _test(folder))


def _another(folder: Path) -> str:
    """What to do about a run that has nothing to show."""
    others = [folder.parent / str(number) for number in _numbers(folder.parent) if str(number) != folder.name]
    measured = [other for other in others if (other / "metrics.csv").is_file()]
    return f"give another run, such as {measured[-1]}" if measured else "train one with `reslight fit`"


def _whole_rows(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without those that a crash cut.

    A number that lost its last digits still reads as a number, so a last line without its end does not count.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = [line for line in file if line.endswith("\n")]
    reader = csv.DictReader(lines)
    lacking = [name for name in ("epoch", "step") if name not in (reader.fieldnames or ())]
    if lines and lacking:
        raise UsageError(f"{path} has no column {lacking[0]}, so no run of reslight wrote it; give the folder of one")
    whole = [row for row in reader if None not in row and None not in row.values()]
    return [row for row in whole if row["epoch"].isdecimal() and row["step"].isdecimal()]


def _curve(rows: Sequence[dict[str, str]], column: str) -> Curve:
    """The errors behind a column of accuracies, where it was measured."""
    found = [(int(row["step"]), _error(row.get(column, ""))) for row in rows]
    points = [(step, error) for step, error in found if math.isfinite(error)]
    return Curve(tuple(step for step, _ in points), tuple(error for _, error in points))


def _error(accuracy: str) -> float:
    """The error in percent of an accuracy as it was written; nan for one that is missing or no number."""
    try:
        return 100 * (1 - float(accuracy))
    except ValueError:
        return math.nan


def _net(folder: Path) -> str | None:
    """The network that a run's configuration names, and what it changes of it but the two ends, which come from the data."""
    try:
        net = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model"]["net"]
        if isinstance(net, str):
            return net
        changes = [f"{key} {net[key]}" for key in net if key not in ("name", "num_classes", "in_channels")]
        return ", ".join([net["name"], *changes])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return None  # it only helps to tell runs apart


def _test(folder: Path) -> Curve:
    """What `reslight test` measured last, as one point."""
    path = folder / "test.json"
    if not path.is_file():
        return Curve()
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return Curve((int(report["step"]),), (100 * (1 - float(report["metrics"]["test/acc1"])),))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not what `reslight test` writes; measure again with `reslight test --config {folder}`") from error
