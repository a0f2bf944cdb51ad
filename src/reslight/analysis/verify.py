"""Evaluate published weights again, in the way that their model card describes, and compare the results."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from reslight.messages import UsageError, data_root_called, shortened, visible
from reslight.metrics import EvalCounts, Evaluator
from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.regular_file import is_regular
from reslight.weights import EvalResult, Record
from reslight.weights.card import numbers_in
from reslight.weights.folder import CARD, CONFIG, MODEL, Description, check_for_other_libraries, load_network, read_card, read_golden
from reslight.weights.golden import TOLERANCE

if TYPE_CHECKING:
    from reslight.data import ImageDataModule

_NLL_TOLERANCE = 1e-4
"""The relative tolerance of the loss; the counts must be equal."""
_ROOT = "data"
_BATCH = 500
_IMAGENET = 1000
"""Classes of ImageNet."""
_DTYPES = {"64": torch.float64, "bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32}


@dataclass(frozen=True)
class Check:
    """The result of one comparison: a line to print, and whether the weights are as their card says."""

    text: str
    good: bool


def verify(description: Description, root: str | None = None, labels: str | None = None) -> Iterator[Check]:
    """Yield the comparisons of a folder of weights with its config.json: the file, the golden logits, the card, the results.

    Args:
        description: The description of the folder.
        root: The folder of the images, for datasets on disk; `data` if None. Weights without results are evaluated on the images of
            a folder that is given.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.

    Raises:
        FileNotFoundError: a missing file of weights or golden logits.
        UsageError: a dataset that cannot be loaded.
    """
    record = description.record
    try:
        net = load_network(description)
        yield Check(f"{MODEL} is as in config.json: sha256, names, shapes, dtypes, finite values", good=True)
        check_for_other_libraries(description)
        yield Check(f"{CONFIG} has for timm and transformers what reslight writes", good=True)
        golden = read_golden(description, net)
        has_card = is_regular(description.folder / CARD)
    except UsageError as error:  # a damaged or altered file; there is nothing to evaluate
        yield Check(str(error), good=False)
        return
    difference = golden.compare(net, record.preprocess).relative_difference
    text = f"golden logits: the largest difference is {difference:.1e} of the largest logit; {TOLERANCE:.0e} is allowed"
    yield Check(text, difference <= TOLERANCE)
    if not has_card:
        yield Check(f"{CARD} is missing", good=False)
    if not record.metrics:
        yield _first_result(net, record, root, labels)
        return
    if has_card:
        is_same = numbers_in(read_card(description.folder), record)
        yield Check(f"{CARD} has {'the numbers of' if is_same else 'other numbers than'} config.json", is_same)
    data = _data_of(record, root or _ROOT, labels)
    for claimed in record.metrics:
        yield _compare(claimed, evaluate(net, record, data, claimed.split, claimed.precision, claimed.batch_size), data)


def evaluate(net: ResNet, record: Record, data: "ImageDataModule", split: str, precision: str, batch_size: int) -> EvalCounts:
    """Evaluate a network on a split.

    Args:
        net: The network.
        record: The description of its weights.
        data: The dataset with that split loaded.
        split: `test` or `val`.
        precision: Lightning's name of the precision, such as `32-true`.
        batch_size: Images per batch.

    Raises:
        UsageError: a precision that reslight does not have.
    """
    from reslight.data.loading.loaders import EvalLoader

    kind, _, mode = precision.partition("-")
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise UsageError(f"the card's precision is {precision[:20]!r}: reslight has {', '.join(_DTYPES)}. Use a newer reslight.")
    mixed: AbstractContextManager[Any] = torch.autocast("cpu", dtype) if mode == "mixed" else nullcontext()
    layout = torch.channels_last if record.recipe.get("channels_last") else torch.contiguous_format
    network = copy.deepcopy(net).to(memory_format=layout)
    if mode != "mixed":
        network.to(dtype)
    weights = network.fc.weight.dtype
    normalizer = record.preprocess.normalizer("cpu", weights)
    evaluator = Evaluator(record.net.num_classes)
    with torch.inference_mode(), mixed:
        for images, labels, _ in EvalLoader(data.splits[split], batch_size=batch_size, rank=0, devices=1):
            evaluator.update(network(normalizer(images, layout)), labels)
    return evaluator.counts()


def _compare(claimed: EvalResult, counts: EvalCounts, data: "ImageDataModule") -> Check:
    fingerprint = data.splits[claimed.split].fingerprint
    if claimed.fingerprint not in (None, fingerprint):
        return Check(f"{claimed.split}: not the images of the card, their fingerprint is {fingerprint[:12]}...", good=False)
    is_same = (counts.total, counts.correct1, counts.correct5) == (claimed.total, claimed.correct1, claimed.correct5)
    is_same &= math.isclose(claimed.nll, counts.nll, rel_tol=_NLL_TOLERANCE)
    found = f"{counts.correct1} of {counts.total} correct, mean NLL {counts.nll / counts.total:.4f}"
    claim = "as on the card" if is_same else f"the card says {claimed.correct1} of {claimed.total}, {claimed.nll / claimed.total:.4f}"
    return Check(f"{claimed.split}: {found}; {claim}", is_same)


def _first_result(net: ResNet, record: Record, root: str | None, labels: str | None) -> Check:
    """Evaluate weights that have no results: on the images in `root`, or on those of scikit-learn."""
    nothing = "the card has no evaluation results to compare"
    if root is None and record.data.get("name") != "digits":
        return Check(f"{nothing}; --data ROOT evaluates the weights on the images in ROOT", good=True)
    data = _data_of(record, root or _ROOT, labels)
    split = next(iter(data.splits))
    counts = evaluate(net, record, data, split, "64-true" if record.dtype == "float64" else "32-true", _BATCH)
    accuracy = f"{counts.correct1} of {counts.total} correct ({100 * counts.correct1 / counts.total:.2f} %)"
    return Check(f"{split} of {data.name}: {accuracy}, mean NLL {counts.nll / counts.total:.4f}; {nothing}", good=True)


def _training_data(record: Record) -> Mapping[str, Any]:
    """Return what is known of the training data.

    For weights that do not name theirs, such as converted ones: CIFAR if the input has its size and the classes its number, and no other
    names; ImageNet for 1,000 classes; or else class folders.
    """
    from reslight.data.cifar.metadata import METADATA, SIZE

    if "name" in record.data:
        return record.data
    for name, metadata in METADATA.items():
        if (record.preprocess.size, record.net.num_classes) == (SIZE, len(metadata.labels)) and record.labels in (None, metadata.labels):
            return {"name": name}
    return {"kind": "ImageNet" if record.net.num_classes == _IMAGENET else "Folder"}


def datamodule_of(data: Mapping[str, Any], preprocess: Preprocess, root: str, labels: str | None = None) -> "ImageDataModule":
    """Return the dataset that a card or a checkpoint names, without reading images.

    Args:
        data: What is known of the training data: name, kind, val_size, fold, labels_columns.
        preprocess: How images are preprocessed, for folders of images.
        root: The folder of the images, for datasets on disk.
        labels: The label file of a folder of images; None for class folders, or for `metadata.csv` and the like.

    Raises:
        UsageError: a dataset that reslight does not have.
    """
    from reslight.data import CIFAR, Digits, Folder, ImageNet
    from reslight.data.image_folder.label_table import LabelColumns

    name, val_size = data.get("name"), data.get("val_size", 0)
    if type(val_size) is not int:
        raise UsageError(f"reslight.data.val_size is {str(val_size)[:40]!r}: it must be a whole number. Get the weights again.")
    if name == "digits":
        return Digits(val_size=val_size)
    if name in ("cifar10", "cifar100"):
        return CIFAR(name, root, val_size=val_size)
    if (kind := data.get("kind")) in ("Folder", "ImageNet"):
        columns = LabelColumns.of_card(data.get("labels_columns"))
        settings: dict[str, Any] = {"val_size": val_size, "fold": data.get("fold"), "labels": labels, "labels_columns": columns}
        return (ImageNet if kind == "ImageNet" else Folder)(root, preprocess=preprocess, **settings)
    raise UsageError(
        f"the card's dataset is {str(name)[:40]!r}: reslight has digits, cifar10, cifar100 and image folders. Evaluate them yourself."
    )


def _data_of(record: Record, root: str, labels: str | None = None) -> "ImageDataModule":
    """Return the dataset of a record with the splits of its results loaded.

    Raises:
        UsageError: a dataset with other classes or channels than the weights.
    """
    with data_root_called("--data"):
        made = datamodule_of(_training_data(record), record.preprocess, root, labels)
    if missing := [visible(name) for name in record.labels or () if name not in made.labels]:
        classes = "classes" if len(missing) > 1 else "class"
        raise UsageError(f"{root} has no {classes} {shortened(missing)}, which the card has. Give the card's dataset as --data.")
    if record.labels is not None and len(made.labels) == len(record.labels) and made.labels != tuple(record.labels):
        here, there = next(pair for pair in zip(made.labels, record.labels, strict=True) if pair[0] != pair[1])
        raise UsageError(
            f"{root} has other classes than the card: {visible(here)!r} instead of {visible(there)!r}. Give the card's dataset as --data."
        )
    if (made.num_classes, made.in_channels) != (record.net.num_classes, record.net.in_channels):
        raise UsageError(
            f"{made.name} has {made.num_classes} classes and {made.in_channels} channels: the network has {record.net.num_classes} and "
            f"{record.net.in_channels}. Give the card's dataset as --data."
        )
    needed = {result.split for result in record.metrics} or {"test" if getattr(made, "has_test", True) else "val"}
    if not record.metrics and "val" in needed and not made.has_validation:
        raise UsageError(f"--data is {root}: it has neither test nor validation images. Put them into its folder test or val.")
    with data_root_called("--data"):
        for split, stage in (("val", "validate"), ("test", "test")):
            if split in needed:
                made.setup(stage)
    return made
