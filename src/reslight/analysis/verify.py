"""Measuring published weights again, from the very file, as their card says they were measured."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from reslight.messages import UsageError
from reslight.metrics import EvalCounts, Evaluator
from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.weights import EvalResult, Record
from reslight.weights.card import numbers_in
from reslight.weights.folder import CARD, Description, load_network, read_card, read_golden
from reslight.weights.golden import TOLERANCE

if TYPE_CHECKING:
    from reslight.data import ImageDataModule

_NLL_TOLERANCE = 1e-4
"""Relative; the counts must be equal."""
_DTYPES = {"64": torch.float64, "bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32}


@dataclass(frozen=True)
class Check:
    """One thing that was compared, and whether it is as the card says."""

    text: str
    good: bool


def verify(described: Description, root: str = "data") -> Iterator[Check]:
    """Compare everything that can be compared with what config.json says, one after the other.

    Args:
        described: A folder's description.
        root: Folder of the images, for data sets that have one.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is damaged or altered, or the data set cannot be had.
    """
    record = described.record
    net = load_network(described)
    yield Check("model.safetensors is what config.json describes: sha256, every name, shape, dtype and value", good=True)
    difference = read_golden(described, net).compare(net, record.preprocess).relative_difference
    text = f"golden logits: the largest difference is {difference:.1e} of the largest logit, {TOLERANCE:.0e} is allowed"
    yield Check(text, difference <= TOLERANCE)
    if not record.metrics:
        yield Check("no accuracy was measured of these weights, so there is none to compare", good=True)
    else:
        same = numbers_in(read_card(described.folder), record)
        yield Check(f"{CARD} gives {'the numbers of' if same else 'other numbers than'} config.json", same)
        data = _data_of(record, root)
        yield from (_compare(measured, count(net, record, measured, data), data) for measured in record.metrics)


def count(net: ResNet, record: Record, measured: EvalResult, data: "ImageDataModule") -> EvalCounts:
    """Count what a network gets right, at the precision and batch size at which that was measured."""
    from reslight.data.loading.loaders import EvalLoader

    split = data.splits[measured.split]
    kind, _, how = measured.precision.partition("-")
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise UsageError(f"the card was measured at precision {measured.precision[:20]!r}; reslight measures at {', '.join(_DTYPES)}")
    mixed: AbstractContextManager[Any] = torch.autocast("cpu", dtype) if how == "mixed" else nullcontext()
    layout = torch.channels_last if record.recipe.get("channels_last") else torch.contiguous_format
    network = copy.deepcopy(net).to(memory_format=layout)
    if how != "mixed":
        network.to(dtype)
    weights = network.fc.weight.dtype
    normalizer = record.preprocess.normalizer("cpu", weights)
    evaluator = Evaluator(record.net.num_classes)
    with torch.inference_mode(), mixed:
        for images, labels, _ in EvalLoader(split, batch_size=measured.batch_size, rank=0, devices=1):
            evaluator.update(network(normalizer(images, layout)), labels)
    return evaluator.counts()


def _compare(measured: EvalResult, counts: EvalCounts, data: "ImageDataModule") -> Check:
    there = (measured.total, measured.correct1, measured.correct5)
    here = (counts.total, counts.correct1, counts.correct5)
    fingerprint = data.splits[measured.split].fingerprint
    if measured.fingerprint not in (None, fingerprint):
        return Check(f"{measured.split}: other images than the card's, fingerprint {fingerprint[:12]}...", good=False)
    same = there == here and math.isclose(measured.nll, counts.nll, rel_tol=_NLL_TOLERANCE)
    said = f"{counts.correct1} of {counts.total} right, mean NLL {counts.nll / counts.total:.4f}"
    claim = "as the card says" if same else f"the card says {measured.correct1} of {measured.total}, {measured.nll / measured.total:.4f}"
    return Check(f"{measured.split}: {said}; {claim}", same)


def data_set(data: Mapping[str, Any], preprocess: Preprocess, root: str) -> "ImageDataModule":
    """The data set that a card or a checkpoint names, with nothing read yet.

    Args:
        data: What is known of the training data: name, kind, val_size.
        preprocess: How images are prepared, for folders of them.
        root: Folder of the images, for data sets that have one.

    Raises:
        ValueError: It is none that reslight has.
    """
    from reslight.data import CIFAR, Digits, Folder, ImageNet

    name, val_size = data.get("name"), data.get("val_size", 0)
    if type(val_size) is not int:
        raise UsageError(f"reslight.data.val_size is {str(val_size)[:40]!r}, must be a whole number")
    if name == "digits":
        return Digits(val_size=val_size)
    if name in ("cifar10", "cifar100"):
        return CIFAR(name, root, val_size=val_size)
    if (kind := data.get("kind")) in ("Folder", "ImageNet"):
        return (ImageNet if kind == "ImageNet" else Folder)(root, preprocess=preprocess, val_size=val_size)
    raise UsageError(f"the card's data set {str(name)[:40]!r} is none that reslight has; it has digits, cifar10, cifar100, folders")


def _data_of(record: Record, root: str) -> "ImageDataModule":
    """The data set of a record, with the splits that were measured."""
    made = data_set(record.data, record.preprocess, root)
    if record.labels is not None and len(made.labels) == len(record.labels) and made.labels != tuple(record.labels):
        raise UsageError(f"{root} has other classes than the card: {_first_difference(made.labels, record.labels)}")
    if (made.num_classes, made.in_channels) != (record.net.num_classes, record.net.in_channels):
        raise UsageError(
            f"{made.name} has {made.num_classes} classes and {made.in_channels} channels, the network {record.net.num_classes} and "
            f"{record.net.in_channels}: it was not measured on that"
        )
    for stage in {"val": "validate", "test": "test"}.items():
        if any(measured.split == stage[0] for measured in record.metrics):
            made.setup(stage[1])
    return made


def _first_difference(here: Sequence[str], there: Sequence[str]) -> str:
    return next(f"{mine!r} in the place of {other!r}" for mine, other in zip(here, there, strict=True) if mine != other)
