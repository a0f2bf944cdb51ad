"""`Record`: what config.json says about weights, checked field by field."""

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from reslight.messages import UsageError, check_keys, counted
from reslight.models import ResNetConfig
from reslight.preprocess import Preprocess
from reslight.weights.calibration import Calibration
from reslight.weights.field_checks import check_sum, check_text
from reslight.weights.results import AnyResult, EvalResult, MultiLabelResult, result_of, to_dict
from reslight.weights.verified_file import MOST, VerifiedFile

FORMAT = 1
"""Version of the object `reslight` in config.json; raised when its meaning changes."""
Kind = Literal["average", "raw", "other"]
DTYPES = ("float32", "float64", "float16")
_MAX_LABELS, _MAX_LABEL = 1_000_000, 1_000
_MAX_RESULTS = 100
"""Evaluation results that are read: the card has a row and a YAML entry for each."""
_MAX_ABOUT = 2**16
"""Largest size of `data`, `recipe` and `run` as JSON, in bytes: PyYAML writes them to the card at about 100 kB a second."""
_MAX_ACTIVATION = 2**25
"""Largest number of values that a layer may return for one image: a config.json of a few bytes could ask for gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything that config.json says about the weights beside it, except their sha256.

    Raises:
        UsageError: a field that is out of range or does not fit the network.
    """

    net: ResNetConfig
    """The network."""
    preprocess: Preprocess
    """What the network expects to be done to an image."""
    labels: tuple[str, ...] | None = None
    """Name of each class; None if the classes have no names."""
    name: str = "custom"
    """Name of the architecture, for display; `net` is what is built."""
    weights: Kind = "other"
    """`average`: of the weights over training; `raw`: the weights of the last step; `other`: not known."""
    dtype: str = "float32"
    """dtype of the parameters and batch norm statistics. `float16` is that of convolutions and classifier in the file; all else in it, and
    the network, have float32."""
    metrics: tuple[AnyResult, ...] = ()
    """Evaluation results of these weights."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The training data: its name, sizes and fingerprints of the splits, and more."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the training run."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Seed, steps, hardware and versions of the training run."""
    license: str | None = None
    """An SPDX identifier, such as apache-2.0; None if none was chosen."""
    multi_label: bool = False
    """Whether an image may have several classes: the sigmoid of a logit is then the probability of its class."""
    calibration: Calibration | None = None
    """The temperature that the logits are divided by before the softmax; None without one."""
    files: tuple[VerifiedFile, ...] = ()
    """Exported files of these weights that were evaluated in their own runtimes."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.preprocess.channels != self.net.in_channels:
            raise UsageError(f"preprocess has {counted(self.preprocess.channels, 'channel')}: the network takes {self.net.in_channels}.")
        if (values := _largest_activation(self.net, self.preprocess.shape)) > _MAX_ACTIVATION:
            raise UsageError(
                f"preprocess.size is {self.preprocess.size}: a layer of this network would return {values:,} values for an image: "
                f"at most {_MAX_ACTIVATION:,} are allowed. Use a smaller size."
            )
        if not isinstance(self.multi_label, bool):
            raise UsageError(f"multi_label is {reprlib.repr(self.multi_label)}: it must be true or false.")
        if self.calibration is not None and (self.multi_label or not isinstance(self.calibration, Calibration)):
            raise UsageError(f"calibration is {reprlib.repr(self.calibration)}: it must be a Calibration, for one label of each image.")
        if not (
            isinstance(self.files, tuple | list) and len(self.files) <= MOST and all(isinstance(one, VerifiedFile) for one in self.files)
        ):
            raise UsageError(f"files is {reprlib.repr(self.files)}: it must be a list of at most {MOST} VerifiedFiles.")
        kind = MultiLabelResult if self.multi_label else EvalResult
        if not (isinstance(self.metrics, tuple | list) and all(isinstance(one, kind) for one in self.metrics)):
            raise UsageError(f"metrics is {reprlib.repr(self.metrics)}: it must be a list of reslight.weights.{kind.__name__}.")
        if len(self.metrics) > _MAX_RESULTS:
            raise UsageError(f"metrics has {len(self.metrics):,} results: at most {_MAX_RESULTS} are allowed. Leave some out.")
        if self.labels is not None:
            if len(self.labels) != self.net.num_classes:
                raise UsageError(f"labels has {counted(len(self.labels), 'name')}: the network has {self.net.num_classes} classes.")
            for label in self.labels:
                check_text("labels", label, _MAX_LABEL)
        if self.weights not in get_args(Kind):
            raise UsageError(f"weights is {reprlib.repr(self.weights)}: it must be one of {', '.join(get_args(Kind))}.")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype is {reprlib.repr(self.dtype)}: it must be one of {', '.join(DTYPES)}.")
        check_text("name", self.name, 100)
        if self.license is not None:
            check_text("license", self.license, 100)
        for name in ("data", "recipe", "run"):
            if not isinstance(getattr(self, name), Mapping):
                raise UsageError(f"{name} is {reprlib.repr(getattr(self, name))}: it must be an object.")
            if (size := len(json.dumps(getattr(self, name), default=str))) > _MAX_ABOUT:
                raise UsageError(f"{name} has {size:,} bytes as JSON: at most {_MAX_ABOUT:,} are allowed. Leave some of it out.")
        if "name" in self.data:
            check_text("data.name", self.data["name"], 100)
        splits = self.data.get("splits", {})
        if not isinstance(splits, Mapping) or not all(isinstance(split, Mapping) for split in splits.values()):
            raise UsageError(f"data.splits is {reprlib.repr(splits)}: it must be an object of objects.")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data for JSON; `from_dict` is the inverse."""
        values = {"format": FORMAT} | {one.name: getattr(self, one.name) for one in fields(self)}
        if not self.multi_label:  # as earlier versions write and read it
            del values["multi_label"]
        if self.calibration is None:
            del values["calibration"]
        else:
            values["calibration"] = self.calibration.to_dict()
        if not self.files:
            del values["files"]
        else:
            values["files"] = [one.to_dict() for one in self.files]
        return values | {
            "net": self.net.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "labels": None if self.labels is None else list(self.labels),
            "metrics": [to_dict(result) for result in self.metrics],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` gave `data` for.

        Raises:
            UsageError: an unknown or missing key, or a value that is not allowed.
        """
        if type(written := data.get("format")) is not int or written != FORMAT:
            newer = type(written) is int and written > FORMAT
            fix = "Install a newer reslight." if newer else "The folder is damaged: get it again."
            raise UsageError(f"reslight.format is {reprlib.repr(written)}: this version of reslight reads {FORMAT}. {fix}")
        keys = ("format", *(one.name for one in fields(cls)))
        check_keys(data, keys, [key for key in keys if key not in ("multi_label", "calibration", "files")], "reslight")
        values = {key: value for key, value in data.items() if key != "format"}
        for name, kind in (("net", dict), ("preprocess", dict), ("metrics", list), ("files", list)):
            if not isinstance(values.get(name, kind()), kind):
                raise UsageError(
                    f"reslight.{name} is {reprlib.repr(values[name])}: it must be {'a list' if kind is list else 'an object'}."
                )
        labels = values["labels"]
        if labels is not None and not (isinstance(labels, list) and len(labels) <= _MAX_LABELS):
            raise UsageError(f"reslight.labels is {reprlib.repr(labels)}: it must be a list or null.")
        return cls(
            **values
            | {
                "net": ResNetConfig.from_dict(values["net"]),
                "preprocess": Preprocess.from_dict(values["preprocess"]),
                "labels": None if labels is None else tuple(labels),
                "calibration": Calibration.from_dict(values["calibration"]) if "calibration" in values else None,
                "files": tuple(map(VerifiedFile.from_dict, values.get("files", []))),
                "metrics": tuple(result_of(one, values.get("multi_label") is True) for one in values["metrics"]),
            }
        )


def _largest_activation(net: ResNetConfig, shape: tuple[int, int]) -> int:
    """Return the largest number of values that a layer of a network returns for one image."""
    layers = [(1 if net.stem == "small" else 2, net.stem_width)]  # by how much the image was shrunk, and the channels
    for index, width in enumerate(net.widths):
        inner = width * net.width_per_group // 64 * net.groups
        first = 2 ** max(0, index - 1)  # a first block's first convolution may still have the size of the stage before
        stride = 1 if net.stem == "small" else 4
        layers += [(stride * first, inner), (stride * 2**index, width * net.expansion)]
    return max(math.prod(-(-side // shrunk) for side in shape) * channels for shrunk, channels in layers)


def check_sha256(sums: Any, names: tuple[str, ...]) -> dict[str, str]:
    """Check the sha256 sums in config.json, and return them by the file's name.

    Raises:
        UsageError: values that are not sha256 sums, or sums of other files.
    """
    if not isinstance(sums, dict):
        raise UsageError(f"sha256 is {reprlib.repr(sums)}: it must be an object with the keys {', '.join(names)}.")
    check_keys(sums, names, names, "sha256")
    for name, value in sums.items():
        check_sum(f"sha256 of {name}", value)
    return sums
