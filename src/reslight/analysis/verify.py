"""Evaluate published weights again, in the way that their model card describes, and compare the results."""

import copy
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reslight.messages import UsageError, data_root_called, shortened, visible
from reslight.metrics import EvalCounts, Evaluator
from reslight.models import ResNet
from reslight.multi_label import MultiLabelCounts, MultiLabelEvaluator
from reslight.preprocess import Preprocess
from reslight.regular_file import is_regular
from reslight.weights import Record
from reslight.weights.calibration import Calibration
from reslight.weights.card import numbers_in
from reslight.weights.folder import CARD, CONFIG, MODEL, Description, check_for_other_libraries, load_network, read_card, read_golden
from reslight.weights.golden import TOLERANCE
from reslight.weights.results import AnyResult

Counts = EvalCounts | MultiLabelCounts
if TYPE_CHECKING:
    from reslight.data import ImageDataModule

_NLL_TOLERANCE = 1e-4
"""The relative tolerance of the loss, and that of mAP and macro F1; the counts must be equal."""
_ECE_TOLERANCE = 5e-4
"""An image may change its bin by the rounding of its probability."""
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
    if not record.metrics and not record.calibration:
        yield _first_result(net, record, root, labels)
        return
    if has_card:
        is_same = numbers_in(read_card(description.folder), record)
        yield Check(f"{CARD} has {'the numbers of' if is_same else 'other numbers than'} config.json", is_same)
    data = data_of(record, root or _ROOT, labels)
    for claimed in record.metrics:
        split = claimed.split if claimed.split in data.splits else next(iter(data.splits))
        if split in {one.split for one in record.metrics} - {claimed.split}:
            yield Check(f"{claimed.split}: {data.name} has no such images", good=False)
            continue
        yield _compare(claimed, split, evaluate(net, record, data, split, claimed.precision, claimed.batch_size), data)
    if record.calibration:
        yield _compare_calibration(net, record.calibration, data)


def evaluate(net: ResNet, record: Record, data: "ImageDataModule", split: str, precision: str, batch_size: int) -> Counts:
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
    evaluator = MultiLabelEvaluator(record.net.num_classes) if record.multi_label else Evaluator(record.net.num_classes)
    with torch.inference_mode(), mixed:
        for images, labels, _ in EvalLoader(data.splits[split], batch_size=batch_size, rank=0, devices=1):
            evaluator.update(network(normalizer(images, layout)), labels)
    return evaluator.counts()


def _compare_calibration(net: ResNet, claimed: Calibration, data: "ImageDataModule") -> Check:
    from reslight.analysis.report.outcome import Part
    from reslight.analysis.temperature import evaluated

    split = data.splits.get("val")
    if split is None or split.fingerprint != claimed.fingerprint:
        return Check("temperature: not the validation images that it was fitted to", good=False)
    part = Part.evaluate(net, split)
    ece = evaluated(part.logits.double() / claimed.temperature, part.labels)[1].ece
    is_same = abs(ece - claimed.ece) <= _ECE_TOLERANCE
    claim = "as on the card" if is_same else f"the card says {claimed.ece:.4f}"
    return Check(f"temperature {claimed.temperature:.4f}: ECE {ece:.4f} on {len(split):,} validation images; {claim}", is_same)


def _compare(claimed: AnyResult, split: str, counts: Counts, data: "ImageDataModule") -> Check:
    fingerprint = data.splits[split].fingerprint
    if split != claimed.split or claimed.fingerprint not in (None, fingerprint):
        found = _in_words(counts, percent=True)
        return Check(f"{split}: not the images of the card, their fingerprint is {fingerprint[:12]}...: {found}", good=False)
    values = ((getattr(claimed, name), value) for name, value in asdict(counts).items())
    is_same = all(math.isclose(a, b, rel_tol=_NLL_TOLERANCE) if isinstance(b, float) else a == b for a, b in values)
    found = _in_words(counts)
    claim = "as on the card" if is_same else f"the card says {claimed.in_words()}, {claimed.nll / claimed.total:.4f}"
    return Check(f"{claimed.split}: {found}; {claim}", is_same)


def _first_result(net: ResNet, record: Record, root: str | None, labels: str | None) -> Check:
    """Evaluate weights that have no results: on the images in `root`, or on those of scikit-learn."""
    nothing = "the card has no evaluation results to compare"
    if root is None and record.data.get("name") != "digits":
        return Check(f"{nothing}; --data ROOT evaluates the weights on the images in ROOT", good=True)
    data = data_of(record, root or _ROOT, labels)
    split = next(iter(data.splits))
    counts = evaluate(net, record, data, split, "64-true" if record.dtype == "float64" else "32-true", _BATCH)
    return Check(f"{split} of {data.name}: {_in_words(counts, percent=True)}; {nothing}", good=True)


def _in_words(counts: Counts, *, percent: bool = False) -> str:
    loss = f"{counts.nll / counts.total:.4f}"
    if isinstance(counts, MultiLabelCounts):
        return f"mAP {100 * counts.mAP:.2f} %, all labels of {counts.exact} of {counts.total} correct, mean BCE {loss}"
    share = f" ({100 * counts.correct1 / counts.total:.2f} %)" if percent else ""
    return f"{counts.correct1} of {counts.total} correct{share}, mean NLL {loss}"


def training_data(record: Record) -> Mapping[str, Any]:
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


def validation_fingerprint(data: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of the validation images that training left out; None if it is not known or there were none.

    Args:
        data: What is known of the training data.
    """
    found: str | None = data.get("splits", {}).get("val", {}).get("fingerprint")
    return found


def check_left_out(data: Mapping[str, Any], fingerprint: str, root: str) -> None:
    """Check that validation images are those that training left out.

    Args:
        data: What is known of the training data.
        fingerprint: Of the images.
        root: Their folder, for the message.

    Raises:
        UsageError: other images, some of which may be training images.
    """
    if validation_fingerprint(data) not in (None, fingerprint):
        raise UsageError(f"--data is {root}: its validation images are not those that training left out. Give the data of the training.")


def data_of(record: Record, root: str, labels: str | None = None, splits: Collection[str] = ()) -> "ImageDataModule":
    """Return the dataset of a record with the splits of its results loaded, or with `splits` if there are any.

    Raises:
        UsageError: a dataset with other classes or channels than the weights.
    """
    with data_root_called("--data"):
        made = _other_images(record, root, labels) or datamodule_of(training_data(record), record.preprocess, root, labels)
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
    if getattr(made, "multi_label", False) != record.multi_label:
        kinds = ("several labels", "one label") if record.multi_label else ("one label", "several labels")
        raise UsageError(f"{root} has {kinds[1]} for each image: the weights are for {kinds[0]}. Give the card's dataset as --data.")
    claimed = {result.split for result in record.metrics} | ({"val"} if record.calibration else set())
    needed = set(splits) or claimed or {"test" if getattr(made, "has_test", True) else "val"}
    if not (record.metrics or splits) and "val" in needed and not made.has_validation:
        raise UsageError(f"--data is {root}: it has neither test nor validation images. Put them into its folder test or val.")
    with data_root_called("--data"):
        stages = {"val": ("validate", made.has_validation), "test": ("test", getattr(made, "has_test", True))}
        present = {split for split, (_, is_there) in stages.items() if is_there}
        needed = needed & present or present or needed  # other images than the card's may be in another split
        for split, (stage, _) in stages.items():
            if split in needed:
                made.setup(stage)
    return made


def _other_images(record: Record, root: str, labels: str | None) -> "ImageDataModule | None":
    """Return the dataset for weights that were trained on a folder of images: its classes are found by their names, and may be few.

    Returns:
        The dataset; None for weights of another dataset or without names of classes, and for ImageNet's own folders.
    """
    from reslight.data.image_folder.label_table import LabelColumns
    from reslight.data.image_folder.other_images import EvaluationFolder
    from reslight.data.imagenet.imagenet import layout_in
    from reslight.data.imagenet.other_images import ImageNetEvaluation

    data = record.data
    is_imagenet = data.get("kind") == "ImageNet"
    if record.labels is None or data.get("kind") not in ("Folder", "ImageNet") or type(data.get("val_size", 0)) is not int:
        return None
    if is_imagenet and Path(root).is_dir() and layout_in(Path(root)):
        return None
    content = data.get("splits", {}).get("train", {}).get("content")
    settings = {"val_size": data.get("val_size", 0), "fold": data.get("fold"), "labels": labels, "preprocess": record.preprocess}
    settings["on_unknown_class"] = "skip"
    columns = LabelColumns.of_card(data.get("labels_columns"))
    kind = ImageNetEvaluation if is_imagenet else EvaluationFolder
    return kind(root, record.labels, trained_on=content, labels_columns=columns, **settings)
