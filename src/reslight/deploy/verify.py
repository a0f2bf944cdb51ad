"""Evaluate an exported file in its own runtime, on the images of the model card, and compare it with its weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reslight.analysis.datasets import data_of, split_to_evaluate
from reslight.analysis.verify import Check
from reslight.deploy.formats import format_of
from reslight.deploy.formats.opened import FileBackend, open_file
from reslight.deploy.pixels_of import labels_of, pixels_of
from reslight.messages import UsageError, visible
from reslight.metrics import Evaluator
from reslight.models import ResNet
from reslight.multi_label import THRESHOLD, MultiLabelEvaluator
from reslight.weights.catalog import CATALOG, bundled
from reslight.weights.folder import MODEL, load_network, read_description, sha256_of
from reslight.weights.record import Record
from reslight.weights.results import AnyResult, EvalResult
from reslight.weights.saving import write_folder
from reslight.weights.verified_file import MOST, VerifiedFile

if TYPE_CHECKING:
    from reslight.data import ImageDataModule

LOST = {"float32": 0.001, "int8": 0.002}
"""By precision, the share of the images that a file may get wrong in addition, at least one; with float32, also of those with other
predictions."""
_SAID = ("net", "preprocess", "labels", "multi_label", "calibration")
"""What a file must say of itself as its weights do, as users of the file rely on it."""
_ROOT = "data"
_MOST_IMAGES, _MOST_PIXELS = 500, 2**26
"""Of a batch."""


def verify_file(path: Path, root: str | None = None, labels: str | None = None, folder: Path | None = None) -> Iterator[Check]:
    """Yield the comparisons of an exported file with its weights: what it says of itself, and its results on each split of the card.

    Args:
        path: The file.
        root: The folder of the images, for datasets on disk; `data` if None.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.
        folder: The folder of its weights, whose config.json and card get the results; None writes nothing. Without it, predictions are
            compared with those of published weights, if the file was made from them.

    Raises:
        OSError: a missing file, or a folder that cannot be written.
        MissingPackageError: the runtime of the format is not installed.
        UsageError: a damaged or foreign file, a dataset that cannot be loaded, or a folder of other weights.
    """
    file = open_file(path)
    about = file.about
    net, known = _weights_of(about.sha256, folder)
    record = known or about.record  # a file could claim results that its weights never had
    yield Check(
        f"{visible(path, 200)}: {about.precision}, exported by reslight {about.version} from weights with the sha256 "
        f"{about.sha256[:12]}..., opened by {file.session.runtime}",
        good=True,
    )
    if others := [name for name in _SAID if getattr(about.record, name) != getattr(record, name)]:
        yield Check(f"{visible(path, 200)} has other values than its weights of: {', '.join(others)}; export it again", good=False)
        return
    if root is None and record.data.get("kind") and not Path(_ROOT).is_dir():
        raise UsageError("the results are those of a folder of images: give it as --data, and its label file, if it has one, as --labels.")
    data = data_of(record, root or _ROOT, labels)
    claims: list[tuple[str, AnyResult | None]] = [(one.split, one) for one in record.metrics] or [(split_to_evaluate(data), None)]
    found = []
    for split, claimed in claims:
        if split not in data.splits:
            yield Check(f"{split}: {data.name} has no such images", good=False)
            continue
        check, entry = _evaluate(file, net, data, split, claimed)
        yield check
        found += [entry] if check.good and entry else []
    if folder is not None and net is not None:
        yield _record_in(folder, net, path, found)


def _weights_of(sha256: str, folder: Path | None) -> tuple[ResNet | None, Record | None]:
    """Return the network of which a file was made, and what its folder says of it; None for what is not at hand.

    Raises:
        UsageError: a folder of other weights.
    """
    if folder is None:
        name = next((name for name, row in CATALOG.items() if row.sha256 == sha256 and row.repository is None), None)
        return (load_network(read_description(bundled(name))) if name else None), None
    description = read_description(folder)
    if description.sha256.get(MODEL) != sha256:
        raise UsageError(
            f"--record is {visible(folder, 200)}: the file was exported from weights with the sha256 {sha256[:12]}..., not from these. "
            "Give the folder of its weights."
        )
    return load_network(description), description.record


def _evaluate(
    file: FileBackend, net: ResNet | None, data: "ImageDataModule", name: str, claimed: AnyResult | None
) -> tuple[Check, VerifiedFile | None]:
    """Evaluate a file, and the network if there is one, on a split."""
    about, split = file.about, data.splits[name]
    evaluator = MultiLabelEvaluator(len(file.labels)) if file.multi_label else Evaluator(len(file.labels))
    same = total = 0
    for images, labels in _batches(split, file):
        probabilities = file.probabilities(images)
        scores = probabilities.double()
        evaluator.update(scores.logit(1e-12) if file.multi_label else scores.log(), labels)
        total += len(images)
        if net is not None:
            same += int(_is_same(probabilities, net, images).sum())
    counts: Any = evaluator.counts()
    correct = counts.exact if file.multi_label else counts.correct1
    words = f"{name}: {correct:,} of {total:,} {'with all labels ' if file.multi_label else ''}correct ({correct / total:.2%})"
    if claimed is not None:
        before = claimed.correct1 if isinstance(claimed, EvalResult) else claimed.exact
        words += f"; the weights: {before:,} of {claimed.total:,}"
    if net is not None:
        words += f"; the same prediction as in torch for {same:,}"
    if claimed is not None and claimed.fingerprint not in (None, split.fingerprint):
        return Check(f"{words}; not the images of the card, their fingerprint is {split.fingerprint[:12]}...", good=False), None
    lost = max(1, LOST[about.precision] * total)
    is_good = claimed is None or before - correct <= lost
    if about.precision == "float32":
        is_good &= net is None or total - same <= lost
        is_good &= claimed is None or correct - before <= lost
    if not is_good:
        words += f"; {about.precision} may differ in {lost:,.0f}"
    format = format_of(file.path)
    assert format is not None
    entry = VerifiedFile(
        format=format.name,
        precision=about.precision,
        nbytes=sum(one.stat().st_size for one in format.files(file.path)),
        sha256=sha256_of(file.path),
        runtime=file.session.runtime,
        split=name,
        total=total,
        correct=correct,
        same=same,
        fingerprint=split.fingerprint,
    )
    return Check(words, is_good), entry


def _batches(split: Any, file: FileBackend) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Yield decoded images of any sizes, with their labels."""
    images: list[Tensor] = []
    start = pixels = 0
    for end, image in enumerate(pixels_of(split, range(len(split)), file.preprocess), start=1):
        images.append(image)
        pixels += image[0].numel()
        if len(images) == _MOST_IMAGES or pixels > _MOST_PIXELS or end == len(split):
            yield images, labels_of(split, torch.arange(start, end))
            start, pixels, images = end, 0, []


@torch.inference_mode()
def _is_same(probabilities: Tensor, net: ResNet, images: list[Tensor]) -> Tensor:
    """Return for which images the network predicts the same: bool `(N,)`."""
    prepared = torch.stack([net.preprocess(image) for image in images]).to(net.fc.weight.dtype)
    expected = net.probabilities(net(prepared))
    if net.multi_label:
        return ((expected > THRESHOLD) == (probabilities > THRESHOLD)).all(dim=1)
    return expected.argmax(dim=1) == probabilities.argmax(dim=1)


def _record_in(folder: Path, net: ResNet, path: Path, found: list[VerifiedFile]) -> Check:
    """Write results to the config.json and the card of weights, in place of earlier ones of this format and precision."""
    if not found:
        return Check(f"nothing is written to {visible(folder, 200)}", good=False)
    record = read_description(folder).record
    kinds = {(one.format, one.precision) for one in found}
    kept = [one for one in record.files if (one.format, one.precision) not in kinds]
    write_folder(net, folder, replace(record, files=tuple([*kept, *found][-MOST:])))
    return Check(f"{visible(folder, 200)}: its card lists {visible(path.name, 200)}", good=True)
