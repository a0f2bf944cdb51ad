"""Put a report together."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reslight.analysis.datasets import check_left_out, datamodule_of, training_data, validation_fingerprint
from reslight.analysis.report.calibration import calibrate, calibration_section
from reslight.analysis.report.copies import copies_section
from reslight.analysis.report.label_errors import likely_label_errors
from reslight.analysis.report.outcome import Outcome, Part
from reslight.analysis.report.page import page, paragraph, text
from reslight.analysis.report.sections import (
    classes_section,
    confusion_section,
    curves_section,
    histogram_section,
    label_errors_section,
    mistakes_section,
)
from reslight.analysis.temperature import evaluated
from reslight.data.loading.labels import class_counts
from reslight.messages import UsageError, counted, data_root_called, shortened, visible
from reslight.models import ResNet
from reslight.runs.folder import Run, find_run_or_weights
from reslight.runs.history import History, read_run
from reslight.runs.trained import net_of_run
from reslight.weights.calibration import Calibration
from reslight.weights.catalog import CATALOG
from reslight.weights.interop.timm_folder import read_any_description
from reslight.weights.loading import load
from reslight.weights.locate import locate

if TYPE_CHECKING:
    from reslight.data import ImageDataModule

log = logging.getLogger(__name__)

MISTAKES, UNSURE, WRONG_LABELS, COPIES = 24, 12, 24, 12
"""The most pictures of each kind."""
_SPLITS = {"test": "test images", "val": "validation images"}


@dataclass(frozen=True, eq=False)
class Report:
    """A report and what it found.

    Attributes:
        html: The page.
        lines: The most important findings, for the terminal.
    """

    html: str
    lines: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Source:
    net: ResNet
    data: "ImageDataModule"
    trained_on: Mapping[str, Any]
    title: str
    calibration: Calibration | None
    history: History | None


def report(sources: Sequence[str], root: str, labels: str | None = None) -> Report:
    """Evaluate a network on its test images, or on its validation images if there are no others, and report what it gets wrong.

    Of several runs, such as those of a cross-validation, each is evaluated on its own validation images.

    Args:
        sources: One run, folder or name of weights; or several runs of one dataset.
        root: The folder of the images.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.

    Raises:
        OSError: missing weights, runs or images.
        UsageError: a network with several labels for an image, or images that do not fit the network.
    """
    opened = [_open(source, root, labels) for source in sources]
    first = opened[0]
    with data_root_called("--data"):
        name = _load(opened, root)
    title = shortened([source.title for source in opened])
    parts = [Part.evaluate(source.net, source.data.splits[name]) for source in opened]
    outcome = Outcome(parts, first.data.labels, title, f"{_SPLITS[name]} of {first.data.name}")
    splits = first.data.splits
    stored = first.calibration if len(opened) == 1 else None
    if stored and stored.fingerprint == splits[name].fingerprint:
        stored = None  # fitted to these very images: what it is worth shows on others
    validation, known = None, validation_fingerprint(first.trained_on)
    if name == "test" and stored is None and "val" in splits and known in (None, splits["val"].fingerprint):
        validation = Outcome([Part.evaluate(first.net, splits["val"])], first.data.labels, title, "")
    calibrated = calibrate(outcome, validation, stored.temperature if stored else None)
    counts, details = evaluated(outcome.logits, outcome.labels)
    probabilities = calibrated.logits.softmax(dim=1)
    wrong = likely_label_errors(probabilities, outcome.labels)
    where = f"None of them was used in the training of {'the network' if len(opened) == 1 else 'the network that judges it'}."
    histories = [source.history for source in opened if source.history]
    order = [split for split in ("train", "val", "test") if split in splits]
    per_split: dict[str, list[int]] = {split: class_counts(splits[split].labels, len(outcome.names)).tolist() for split in order}
    summary = (
        f"{counts.correct1:,} of {counts.total:,} {text(outcome.images)} are predicted right: "
        f"<strong>{counts.correct1 / counts.total:.2%}</strong>. {counted(len(wrong[0]), 'label')} {'is' if len(wrong[0]) == 1 else 'are'} "
        "likely wrong."
    )
    sections = [
        ("", paragraph(summary)),
        *([("Curves", curves_section(histories))] if histories else []),
        ("Confusion", confusion_section(details, outcome.names)),
        ("Classes", classes_section(details, outcome.names)),
        ("Calibration", calibration_section(outcome, calibrated)),
        ("The most confident mistakes", mistakes_section(outcome, calibrated.logits, MISTAKES, right=False)),
        ("The least sure right predictions", mistakes_section(outcome, calibrated.logits, UNSURE, right=True)),
        ("Likely wrong labels", label_errors_section(outcome, wrong, calibrated.logits, WRONG_LABELS, where)),
        ("Near copies in different splits", copies_section({split: splits[split] for split in order}, list(outcome.names), COPIES)),
        ("Images of each class", histogram_section(per_split, outcome.names)),
    ]
    lines = (
        f"{counts.correct1:,} of {counts.total:,} {outcome.images} right ({counts.correct1 / counts.total:.2%})",
        f"likely wrong labels: {len(wrong[0]):,}",
    )
    return Report(page(f"Report on {title}", sections), lines)


def _open(source: str, root: str, labels: str | None) -> _Source:
    if run := find_run_or_weights(source):
        net, about = net_of_run(run)
        title, history, calibration = run.name, _history(run), None
    else:
        record = read_any_description(locate(source)).record
        net, about, history = load(source), training_data(record), None
        title, calibration = source if source in CATALOG else record.name, record.calibration
    if net.multi_label:
        raise UsageError(
            f"{source} gives an image several labels: a report is about networks that give one. `reslight verify` evaluates it."
        )
    with data_root_called("--data"):
        data = datamodule_of(about, net.preprocess, root, labels)
    if data.num_classes != net.config.num_classes or (net.labels is not None and tuple(net.labels) != tuple(data.labels)):
        raise UsageError(
            f"--data is {root}: its {counted(data.num_classes, 'class', 'classes')}, such as {visible(data.labels[0])}, are not those of "
            f"{source}. Give the dataset of the network."
        )
    return _Source(net, data, about, title, calibration, history)


def _history(run: Run) -> History | None:
    """Return the curves of a run; None, with a warning, if it has none, for instance before the end of its first epoch."""
    try:
        return read_run(run)
    except (FileNotFoundError, UsageError) as error:
        log.warning("the report has no curves: %s", error)
        return None


def _load(opened: Sequence[_Source], root: str) -> str:
    """Load the images of each source, and return the name of the split to evaluate."""
    first = opened[0].data
    if len(opened) == 1 and getattr(first, "has_test", True):
        first.setup("test")
        with suppress(OSError):  # a folder of test images alone
            first.setup("fit")  # for the class histogram and near copies
        return "test"
    for source in opened:
        if not source.data.has_validation:
            raise UsageError(
                f"{source.title} has no validation images in {root}: a report is about images that were not trained on. Add some."
            )
        source.data.setup("fit")
        check_left_out(source.trained_on, source.data.splits["val"].fingerprint, root)
    prints = [source.data.splits["val"].fingerprint for source in opened]
    if len(set(prints)) < len(prints):
        raise UsageError("two of the runs have the same validation images: several runs must be those of a cross-validation. Give one run.")
    return "val"
