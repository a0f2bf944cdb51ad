"""`Record`: what is known of some weights, and its strict way to config.json and back."""

import math
import re
import reprlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from reslight.messages import UsageError
from reslight.models import ResNetConfig
from reslight.preprocess import Preprocess
from reslight.weights.strict_json import check_keys

FORMAT = 1
"""Of the object `reslight` in config.json; counted up when its meaning changes."""
Kind = Literal["average", "raw", "other"]
DTYPES = ("float32", "float64")
_MAX_LABELS, _MAX_LABEL = 1_000_000, 1_000


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """What a network got right on a split, and how that was measured: enough to measure it again."""

    split: str
    """`test` or `val`."""
    total: int
    """Images."""
    correct1: int
    """Images whose most probable class is the label."""
    correct5: int | None
    """Images whose label is among the five most probable classes; None with five classes or fewer."""
    nll: float
    """Sum of the negative log-likelihoods of the labels, in nats."""
    precision: str
    """Lightning's name, such as `32-true`."""
    batch_size: int
    """Images of a batch."""
    fingerprint: str | None
    """sha256 of the split's images and labels in canonical order; None where it is not known."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: One has the wrong type or cannot be.
        """
        for name in ("total", "correct1", "batch_size"):
            _check_count(name, getattr(self, name))
        if self.correct5 is not None:
            _check_count("correct5", self.correct5)
        if not self.total > 0 or not self.correct1 <= (self.total if self.correct5 is None else self.correct5) <= self.total:
            raise UsageError(f"metrics count {self.correct1} and {self.correct5} right of {self.total}, which cannot be")
        if type(self.nll) not in (int, float) or not math.isfinite(self.nll):
            raise UsageError(f"metrics.nll is {self.nll!r}, must be a finite number")
        if self.split not in ("test", "val"):
            raise UsageError(f"metrics.split is {reprlib.repr(self.split)}, must be test or val")
        if self.batch_size < 1:
            raise UsageError("metrics.batch_size is 0, must be at least 1")
        _check_text("metrics.precision", self.precision, 40)
        if self.fingerprint is not None:
            _check_sha256("metrics.fingerprint", self.fingerprint)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything that config.json says of the weights beside it, but for their sha256.

    Raises:
        ValueError: A field is out of range, or does not fit the network.
    """

    net: ResNetConfig
    """The network."""
    preprocess: Preprocess
    """What it must be fed with."""
    labels: tuple[str, ...] | None = None
    """Name of each class; None where they have none."""
    name: str = "custom"
    """Of the architecture, for people; `net` is what counts."""
    weights: Kind = "other"
    """The `average` over training, the `raw` weights of its last step, or of `other` origin."""
    dtype: str = "float32"
    """Of parameters and statistics."""
    metrics: tuple[EvalResult, ...] = ()
    """What was measured of these very weights."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The training data: name, sizes and fingerprints of the splits, and whatever else is known."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the training."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Seed, steps, hardware and versions."""
    license: str | None = None
    """An SPDX identifier, such as apache-2.0; None where none was chosen."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        if self.preprocess.channels != self.net.in_channels:
            raise UsageError(f"preprocess is for {self.preprocess.channels} channels and the network takes {self.net.in_channels}")
        if self.labels is not None:
            if len(self.labels) != self.net.num_classes:
                raise UsageError(f"there are {len(self.labels)} labels and the network has {self.net.num_classes} classes")
            for label in self.labels:
                _check_text("labels", label, _MAX_LABEL)
        if self.weights not in get_args(Kind):
            raise UsageError(f"weights is {reprlib.repr(self.weights)}, must be one of: {', '.join(get_args(Kind))}")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype is {reprlib.repr(self.dtype)}, must be one of: {', '.join(DTYPES)}")
        _check_text("name", self.name, 100)
        if self.license is not None:
            _check_text("license", self.license, 100)
        for name in ("data", "recipe", "run"):
            if not isinstance(getattr(self, name), Mapping):
                raise UsageError(f"{name} is {reprlib.repr(getattr(self, name))}, must be an object")
        if "name" in self.data:
            _check_text("data.name", self.data["name"], 100)
        splits = self.data.get("splits", {})
        if not isinstance(splits, Mapping) or not all(isinstance(split, Mapping) for split in splits.values()):
            raise UsageError(f"data.splits is {reprlib.repr(splits)}, must be an object of objects")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the inverse."""
        values = {"format": FORMAT} | {one.name: getattr(self, one.name) for one in fields(self)}
        return values | {
            "net": self.net.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "labels": None if self.labels is None else list(self.labels),
            "metrics": [{one.name: getattr(measured, one.name) for one in fields(measured)} for measured in self.metrics],
        }

    @classmethod
    def from_dict(cls, there: Mapping[str, Any]) -> Self:
        """What `to_dict` was called on.

        Raises:
            ValueError: A key is unknown or missing, or a value is not allowed.
        """
        if type(written := there.get("format")) is not int or written != FORMAT:
            newer = type(written) is int and written > FORMAT
            fix = "install a newer reslight" if newer else "the folder is damaged, get it again"
            raise UsageError(f"reslight.format is {reprlib.repr(written)}, and this reslight reads {FORMAT}; {fix}")
        check_keys(there, ("format", *(one.name for one in fields(cls))), "reslight")
        values = {key: value for key, value in there.items() if key != "format"}
        for name, kind in (("net", dict), ("preprocess", dict), ("metrics", list)):
            if not isinstance(values[name], kind):
                raise UsageError(f"reslight.{name} is {reprlib.repr(values[name])}, must be {'a list' if kind is list else 'an object'}")
        labels = values["labels"]
        if labels is not None and not (isinstance(labels, list) and len(labels) <= _MAX_LABELS):
            raise UsageError(f"reslight.labels is {reprlib.repr(labels)}, must be a list or null")
        return cls(
            **values
            | {
                "net": ResNetConfig.from_dict(values["net"]),
                "preprocess": Preprocess.from_dict(values["preprocess"]),
                "labels": None if labels is None else tuple(labels),
                "metrics": tuple(map(_measured, values["metrics"])),
            }
        )


def _measured(there: Any) -> EvalResult:
    if not isinstance(there, dict):
        raise UsageError(f"reslight.metrics has {reprlib.repr(there)}, must have objects")
    check_keys(there, tuple(one.name for one in fields(EvalResult)), "reslight.metrics")
    return EvalResult(**there)


def check_sha256(sums: Any, names: tuple[str, ...]) -> dict[str, str]:
    """The sha256 of each file, by its name.

    Raises:
        ValueError: They are something else, or of other files.
    """
    if not isinstance(sums, dict):
        raise UsageError(f"sha256 is {reprlib.repr(sums)}, must be an object with {', '.join(names)}")
    check_keys(sums, names, "sha256")
    for name, value in sums.items():
        _check_sha256(f"sha256 of {name}", value)
    return sums


def _check_sha256(name: str, value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise UsageError(f"{name} is {reprlib.repr(value)}, must be 64 hexadecimal digits")


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value < 2**53:
        raise UsageError(f"metrics.{name} is {reprlib.repr(value)}, must be a whole number, at least 0")


def _is_unfit(character: str) -> bool:
    """Whether it would break a line, or make one read otherwise than it is: all other characters stand in somebody's language."""
    bidirectional = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in bidirectional


def _check_text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= longest or any(map(_is_unfit, value)):
        raise UsageError(f"{name} has {reprlib.repr(value)}, must be a line of text of at most {longest:,} characters")
