"""Summarize a cross-validation: the validation results of the runs of its folds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any

from reslight.messages import UsageError, counted, shortened
from reslight.runs.folder import Run, find_run, runs_in
from reslight.runs.json_file import read_json_file
from reslight.runs.yaml_file import read

_FOLD = "data.init_args.fold"
_MAY_DIFFER = (_FOLD, "ckpt_path", "trainer.default_root_dir")
"""Settings that may differ between the runs of a cross-validation."""


@dataclass(frozen=True)
class Fold:
    """A finished run of one fold.

    Attributes:
        number: The number of the fold, from 1.
        count: The number of folds.
        images: Images of the fold, on which the run was validated; without those that could not be read.
        metrics: The validation metrics of the last weights, such as val/acc1.
        run: The run.
        settings: Its settings with dots in their keys, without those that may differ.
    """

    number: int
    count: int
    images: int
    metrics: Mapping[str, float]
    run: Run
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class CrossValidation:
    """The finished runs of a cross-validation.

    Attributes:
        folds: One run of each fold, by number.
        unfinished: Runs of folds that have not ended; they are left out.
    """

    folds: Sequence[Fold]
    unfinished: Sequence[Run]

    @property
    def count(self) -> int:
        """The number of folds."""
        return self.folds[0].count

    @property
    def missing(self) -> list[int]:
        """The numbers of the folds without a finished run."""
        return sorted(set(range(1, self.count + 1)) - {fold.number for fold in self.folds})

    @property
    def names(self) -> list[str]:
        """The metrics that all runs have, accuracies first."""
        return sorted(set.intersection(*(set(fold.metrics) for fold in self.folds)), key=lambda name: (name.endswith("loss"), name))

    def mean(self, name: str) -> float:
        """Return the mean of a metric over the folds."""
        return statistics.fmean(fold.metrics[name] for fold in self.folds)

    def deviation(self, name: str) -> float | None:
        """Return the standard deviation of a metric between the folds (n - 1 in the denominator); None for one fold."""
        return statistics.stdev(fold.metrics[name] for fold in self.folds) if len(self.folds) > 1 else None

    @property
    def correct(self) -> tuple[int, int] | None:
        """The images of all folds whose class was predicted, and all images.

        None if folds are missing, without a top-1 accuracy, and where a limit had a part of each fold evaluated.
        """
        limit = self.folds[0].settings.get("trainer.limit_val_batches")
        is_whole = limit is None or (isinstance(limit, float) and limit == 1)  # the whole number 1 means one batch
        if self.missing or "val/acc1" not in self.names or not is_whole:
            return None
        return sum(round(fold.metrics["val/acc1"] * fold.images) for fold in self.folds), sum(fold.images for fold in self.folds)


def cross_validation(paths: Sequence[str | Path]) -> CrossValidation:
    """Read the runs of a cross-validation.

    Args:
        paths: Folders of runs, or the folder of a configuration for all its runs that have a fold.

    Raises:
        OSError: a missing run.
        UsageError: a run without a fold, two runs of a fold, runs with different settings or data, or no finished run.
    """
    read_runs = [(run, _fold_of(run)) for run in _runs(paths)]
    found, unfinished = [fold for _, fold in read_runs if fold], [run for run, fold in read_runs if not fold]
    if not found:
        what = f"{shortened([run.folder for run in unfinished])} has not ended" if unfinished else "no run has a fold"
        raise UsageError(f"{shortened(list(paths))}: {what}. Train each fold with `reslight fit --data.fold K/N`.")
    found.sort(key=lambda fold: fold.number)
    for one, other in pairwise(found):
        _check_alike(found[0], other)
        if one.number == other.number:
            twice = f"{one.run.folder} and {other.run.folder}"
            raise UsageError(f"{twice} are of the same fold, {one.number}/{one.count}. Give one of them.")
    return CrossValidation(found, unfinished)


def fit_command(cross: CrossValidation, number: int) -> str:
    """Return the command that trains a missing fold."""
    return f"reslight fit --config {quote(str(cross.folds[0].run.last_config()))} --data.fold {number}/{cross.count}"


def _runs(paths: Sequence[str | Path]) -> Iterator[Run]:
    """Yield each run once."""
    seen = set()
    for path in paths:
        of_configuration = [] if Path(path).is_file() or Run(Path(path)).config.is_file() else runs_in(Path(path))
        for run in [run for run in of_configuration if _has_fold(run)] if of_configuration else [find_run(path)]:
            if run.folder.resolve() not in seen:
                seen.add(run.folder.resolve())
                yield run


def _has_fold(run: Run) -> bool:
    return run.config.is_file() and bool(_flat(read(run.last_config())).get(_FOLD))


def _fold_of(run: Run) -> Fold | None:
    """Return the result of a run; None if it has not ended.

    Raises:
        UsageError: a run without a fold, or a damaged summary.
    """
    settings = _flat(read(run.last_config()))
    if not (fold := settings.get(_FOLD)):
        raise UsageError(
            f"{run.folder} was not trained on a fold. Train each fold with `reslight fit --data.fold K/N`, and give these runs."
        )
    if not run.summary.is_file():
        return None
    summary = read_json_file(run.summary, "Train it again.")
    try:
        number, count = map(int, str(fold).split("/"))
        metrics = {str(name): float(value) for name, value in summary["metrics"].items() if str(name).startswith("val/")}
        fold_images, content = summary["data"]["splits"]["val"], summary["data"]["splits"]["train"].get("content")
        images = int(fold_images["size"]) - int(fold_images.get("skipped", 0))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{run.summary} is damaged: it has no validation metrics or no data. Train it again.") from None
    alike = {key: value for key, value in settings.items() if key not in _MAY_DIFFER} | {"the images' contents": content}
    return Fold(number, count, images, metrics, run, alike)


def _check_alike(one: Fold, other: Fold) -> None:
    """Check that two runs differ in nothing but the fold.

    Raises:
        UsageError: a difference.
    """
    differing = [key for key in {**one.settings, **other.settings} if one.settings.get(key) != other.settings.get(key)]
    if one.count != other.count:
        differing.insert(0, "the number of folds")
    if differing:
        names = shortened([key.replace(".init_args", "") for key in differing], 5)
        raise UsageError(
            f"{one.run.folder} and {other.run.folder} differ in {counted(len(differing), 'setting')}: {names}. "
            "Give runs that differ in data.fold only."
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings with dots in their keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
