"""Evaluate published weights again, in the way that their model card describes, and compare the results."""

import copy
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reslight.analysis.datasets import check_left_out, data_of, split_to_evaluate
from reslight.messages import UsageError, counted
from reslight.metrics import EvalCounts, Evaluator
from reslight.models import ResNet
from reslight.multi_label import MultiLabelCounts, MultiLabelEvaluator
from reslight.regular_file import is_regular
from reslight.weights import Record
from reslight.weights.calibration import Calibration
from reslight.weights.card import numbers_in
from reslight.weights.folder import (
    CARD,
    CONFIG,
    MODEL,
    Description,
    check_for_other_libraries,
    load_network,
    read_card,
    read_description,
    read_golden,
)
from reslight.weights.golden import TOLERANCE
from reslight.weights.results import AnyResult, EvalResult, MultiLabelResult
from reslight.weights.saving import write_folder

if TYPE_CHECKING:
    from reslight.data import ImageDataModule

Counts = EvalCounts | MultiLabelCounts
_NLL_TOLERANCE = 1e-4
"""The relative tolerance of the loss, and that of mAP and macro F1; the counts must be equal."""
_ECE_TOLERANCE = 5e-4
"""An image may change its bin by the rounding of its probability."""
_ROOT = "data"
_BATCH = 500
_DTYPES = {"64": torch.float64, "bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32}


@dataclass(frozen=True)
class Check:
    """The result of one comparison: a line to print, and whether the weights are as their card says."""

    text: str
    good: bool


def verify(description: Description, root: str | None = None, labels: str | None = None, *, record_it: bool = False) -> Iterator[Check]:
    """Yield the comparisons of a folder of weights with its config.json: the file, the golden logits, the card, the results.

    Args:
        description: The description of the folder.
        root: The folder of the images, for datasets on disk; `data` if None. Weights without results are evaluated on the images of
            a folder that is given.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.
        record_it: Write the result of weights without any to their config.json and card, if all else is as it says, and the images are
            of the dataset that the weights were trained on.

    Raises:
        OSError: a missing file of weights or golden logits, or a folder that cannot be written.
        UsageError: a dataset that cannot be loaded, or a result that cannot be recorded.
    """
    record = description.record
    if record_it:
        _check_may_record(description)
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
    if record_it and not (has_card and difference <= TOLERANCE):
        yield Check("nothing is evaluated and written, as the weights are not as they were saved", good=False)
        return
    if record_it or not (record.metrics or record.calibration):
        yield from _first_result(net, description, root, labels, record_it=record_it)
        return
    if has_card:
        is_same = numbers_in(read_card(description.folder), record)
        yield Check(f"{CARD} has {'the numbers of' if is_same else 'other numbers than'} config.json", is_same)
    if root is None and record.data.get("kind") and not Path(_ROOT).is_dir():
        raise UsageError("the results are those of a folder of images: give it as --data, and its label file, if it has one, as --labels.")
    data = data_of(record, root or _ROOT, labels)
    for claimed in record.metrics:
        split = claimed.split if claimed.split in data.splits else split_to_evaluate(data)
        if split in {one.split for one in record.metrics} - {claimed.split}:
            yield Check(f"{claimed.split}: {data.name} has no such images", good=False)
            continue
        yield _compare(claimed, split, *evaluate(net, record, data, split, claimed.precision, claimed.batch_size), data)
    if record.calibration:
        yield _compare_calibration(net, record.calibration, data)


def _check_may_record(description: Description) -> None:
    """Check that a result may be written to a folder of weights, before the images are evaluated.

    Raises:
        UsageError: weights with results or without the name of their dataset, or a folder that cannot be written.
    """
    folder, record = description.folder, description.record
    if record.metrics:
        raise UsageError(f"--record is {folder}: its card has results, which are compared. Leave it out.")
    if "name" not in record.data:
        raise UsageError(
            f"--record is {folder}: a card has results on the dataset of the training, and these weights do not say which it was. "
            "Leave --record out."
        )
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--record is {folder}: you may not write to it. Copy the folder, or leave --record out.")


def evaluate(
    net: ResNet, record: Record, data: "ImageDataModule", split: str, precision: str, batch_size: int
) -> tuple[Counts, float | None]:
    """Return the counts of a network on a split and, with one label for each image, its expected calibration error.

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
    classes = record.net.num_classes
    evaluator = MultiLabelEvaluator(classes) if record.multi_label else Evaluator(classes, details=True)
    with torch.inference_mode(), mixed:
        for images, labels, _ in EvalLoader(data.splits[split], batch_size=batch_size, rank=0, devices=1):
            evaluator.update(network(normalizer(images, layout)), labels)
    return evaluator.counts(), evaluator.details().ece if isinstance(evaluator, Evaluator) else None


def _compare_calibration(net: ResNet, claimed: Calibration, data: "ImageDataModule") -> Check:
    """Compare the calibration error with the temperature: of the validation images that it was fitted to, or of the test images."""
    from reslight.analysis.report.outcome import Part
    from reslight.analysis.temperature import evaluated

    name, said = ("val", claimed.ece) if claimed.test_ece is None else ("test", claimed.test_ece)
    split = data.splits.get(name)
    if split is None or (name == "val" and split.fingerprint != claimed.fingerprint):
        why = "not the validation images that it was fitted to" if name == "val" else "no test images"
        return Check(f"temperature: {why}", good=False)
    part = Part.evaluate(net, split)
    ece = evaluated(part.logits.double() / claimed.temperature, part.labels)[1].ece
    is_same = abs(ece - said) <= _ECE_TOLERANCE
    claim = "as on the card" if is_same else f"the card says {said:.4f}"
    images = f"{len(split):,} {'validation' if name == 'val' else 'test'} images"
    return Check(f"temperature {claimed.temperature:.4f}: ECE {ece:.4f} on {images}; {claim}", is_same)


def _compare(claimed: AnyResult, split: str, counts: Counts, ece: float | None, data: "ImageDataModule") -> Check:
    fingerprint = data.splits[split].fingerprint
    if split != claimed.split or claimed.fingerprint not in (None, fingerprint):
        found = _in_words(counts, percent=True)
        return Check(f"{split}: not the images of the card, their fingerprint is {fingerprint[:12]}...: {found}", good=False)
    values = ((getattr(claimed, name), value) for name, value in asdict(counts).items())
    is_same = all(math.isclose(a, b, rel_tol=_NLL_TOLERANCE) if isinstance(b, float) else a == b for a, b in values)
    found, said = _in_words(counts), f"{claimed.in_words()}, {claimed.nll / claimed.total:.4f}"
    if isinstance(claimed, EvalResult) and claimed.ece is not None and ece is not None:
        is_same &= abs(ece - claimed.ece) <= _ECE_TOLERANCE
        found, said = f"{found}, ECE {ece:.4f}", f"{said}, ECE {claimed.ece:.4f}"
    claim = "as on the card" if is_same else f"the card says {said}"
    return Check(f"{claimed.split}: {found}; {claim}", is_same)


def _first_result(net: ResNet, description: Description, root: str | None, labels: str | None, *, record_it: bool) -> Iterator[Check]:
    """Evaluate weights that have no results: on the images in `root`, or on those of scikit-learn; write the result if it is asked for."""
    record = description.record
    nothing = "the card has no evaluation results to compare"
    if root is None and record.data.get("name") != "digits" and not record_it:
        yield Check(f"{nothing}; --data ROOT evaluates the weights on the images in ROOT", good=True)
        return
    data = data_of(record, root or _ROOT, labels, ("test",) if record_it else ())
    split = split_to_evaluate(data)
    if record_it:
        _check_dataset(data, record, split, root or _ROOT)
    how: dict[str, Any] = {"precision": "64-true" if record.dtype == "float64" else "32-true", "batch_size": _BATCH}
    counts, ece = evaluate(net, record, data, split, **how)
    found = f"{split} of {data.name}: {_in_words(counts, percent=True)}"
    if not record_it:
        yield Check(f"{found}; {nothing}", good=True)
        return
    about = data.data_info()["splits"][split]
    if skipped := about.get("skipped"):
        yield Check(f"{found}; not written: {counted(skipped, 'image')} could not be read, and a card counts all of them", good=False)
        return
    if read_description(description.folder).sha256 != description.sha256:
        yield Check(f"{found}; not written: meanwhile {description.folder} has other weights", good=False)
        return
    fields = asdict(counts) | how | {"split": split, "fingerprint": about["fingerprint"]}
    result = EvalResult(**fields, ece=ece) if isinstance(counts, EvalCounts) else MultiLabelResult(**fields)
    write_folder(net, description.folder, replace(record, metrics=(result,)))
    yield Check(f"{found}; written to {CONFIG} and {CARD}", good=True)


def _check_dataset(data: "ImageDataModule", record: Record, split: str, root: str) -> None:
    """Check that a result on a split may be written to a card: its images are of the dataset that the card names.

    Raises:
        UsageError: other images.
    """
    # CIFAR and the digits compare their images with the original ones themselves.
    if not getattr(data, "is_of_training", "kind" not in record.data):
        raise UsageError(
            f"--data is {root}: a card has results on the dataset of the training, and this is not known to be it. Give that dataset, with "
            "its training images, or leave --record out."
        )
    if split == "val":
        check_left_out(record.data, data.splits[split].fingerprint, root)


def _in_words(counts: Counts, *, percent: bool = False) -> str:
    loss = f"{counts.nll / counts.total:.4f}"
    if isinstance(counts, MultiLabelCounts):
        return f"mAP {100 * counts.mAP:.2f} %, all labels of {counts.exact} of {counts.total} correct, mean BCE {loss}"
    share = f" ({100 * counts.correct1 / counts.total:.2f} %)" if percent else ""
    return f"{counts.correct1} of {counts.total} correct{share}, mean NLL {loss}"
