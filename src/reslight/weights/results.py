"""Evaluation results of weights, as config.json has them, checked field by field.

The two kinds have no base class for the fields that they share: it would put these first, and config.json has the fields in this order.
"""

import math
import reprlib
from dataclasses import asdict, dataclass, fields
from typing import Any

from reslight.messages import UsageError, check_keys
from reslight.multi_label import f1
from reslight.weights.field_checks import check_count, check_sum, check_text


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """What a network got right on a split, with all that is needed to evaluate it again."""

    split: str
    """`test` or `val`."""
    total: int
    """Number of images."""
    correct1: int
    """Number of images whose most probable class is the label."""
    correct5: int | None
    """Number of images whose label is among the five most probable classes; None with five classes or fewer."""
    nll: float
    """Sum of the negative log-likelihoods of the labels, in nats."""
    precision: str
    """Lightning's name of the precision, such as `32-true`."""
    batch_size: int
    """Number of images in a batch."""
    fingerprint: str | None
    """sha256 of the split's images and labels in canonical order; None if unknown."""
    ece: float | None = None
    """Expected calibration error without a temperature, 0 to 1; None in results of earlier versions."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a value of the wrong type, or an impossible one.
        """
        for name in ("total", "correct1", "batch_size"):
            check_count(name, getattr(self, name))
        if self.ece is not None:
            _check_share("ece", self.ece)
        if self.correct5 is not None:
            check_count("correct5", self.correct5)
        if not self.total > 0 or not self.correct1 <= (self.total if self.correct5 is None else self.correct5) <= self.total:
            counts = f"{self.correct1} (top-1) and {self.correct5} (top-5) of {self.total}"
            raise UsageError(f"metrics count {counts} images correct: they must grow from top-1 to top-5 to the total.")
        _check_conditions(self)

    def in_words(self) -> str:
        """Return the main result."""
        return f"{self.correct1} of {self.total} correct"


@dataclass(frozen=True, kw_only=True)
class MultiLabelResult:
    """The same as `EvalResult` for images with several labels each: each class is predicted if its probability is above 0.5."""

    split: str
    """`test` or `val`."""
    total: int
    """Number of images."""
    exact: int
    """Number of images of which the predicted classes are exactly the labels."""
    tp: int
    """Predicted classes that are labels, over all images."""
    fp: int
    """Predicted classes that are no labels."""
    fn: int
    """Labels that are not predicted."""
    mAP: float
    """Mean of the average precision of the classes that have images, 0 to 1."""
    f1_macro: float
    """Mean of F1 of the classes that have images, 0 to 1."""
    nll: float
    """Binary cross-entropy, averaged over the classes and summed over the images, in nats."""
    precision: str
    """Lightning's name of the precision, such as `32-true`."""
    batch_size: int
    """Number of images in a batch."""
    fingerprint: str | None
    """sha256 of the split's images and labels in canonical order; None if unknown."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a value of the wrong type, or an impossible one.
        """
        for name in ("total", "exact", "tp", "fp", "fn", "batch_size"):
            check_count(name, getattr(self, name))
        if not (self.total > 0 and self.exact <= self.total):
            raise UsageError(f"metrics count {self.exact} of {self.total} images exact: they must be at most the total, which is above 0.")
        for name in ("mAP", "f1_macro"):
            _check_share(name, getattr(self, name))
        _check_conditions(self)

    @property
    def f1_micro(self) -> float:
        """F1 over all decisions, 0 to 1; 0 without any."""
        return f1(self.tp, self.fp, self.fn)

    def in_words(self) -> str:
        """Return the main result."""
        return f"mAP {100 * self.mAP:.2f} %, all labels of {self.exact} of {self.total} correct"


AnyResult = EvalResult | MultiLabelResult


def to_dict(result: AnyResult) -> dict[str, Any]:
    """Return a result as plain JSON types; `result_of` is the inverse."""
    values = asdict(result)
    return {name: value for name, value in values.items() if name != "ece" or value is not None}  # as earlier versions write and read it


def _check_share(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise UsageError(f"metrics.{name} is {reprlib.repr(value)}: it must be a number from 0 to 1.")


def _check_conditions(result: AnyResult) -> None:
    """Check the fields that results of all kinds have."""
    if type(result.nll) not in (int, float) or not math.isfinite(result.nll):
        raise UsageError(f"metrics.nll is {result.nll!r}: it must be a finite number.")
    if result.split not in ("test", "val"):
        raise UsageError(f"metrics.split is {reprlib.repr(result.split)}: it must be test or val.")
    if result.batch_size < 1:
        raise UsageError("metrics.batch_size is 0: it must be at least 1.")
    check_text("metrics.precision", result.precision, 40)
    if result.fingerprint is not None:
        check_sum("metrics.fingerprint", result.fingerprint)


def result_of(data: Any, multi_label: bool) -> AnyResult:
    """Return the result in an entry of `metrics`.

    Raises:
        UsageError: no object, an unknown or missing key, or a value that is not allowed.
    """
    if not isinstance(data, dict):
        raise UsageError(f"reslight.metrics has {reprlib.repr(data)}: each entry must be an object.")
    kind = MultiLabelResult if multi_label else EvalResult
    keys = tuple(one.name for one in fields(kind))
    check_keys(data, keys, [key for key in keys if key != "ece"], "reslight.metrics")
    return kind(**data)
