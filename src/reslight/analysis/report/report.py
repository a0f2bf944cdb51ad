"""Put a report together."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from reslight.analysis.datasets import validation_fingerprint
from reslight.analysis.report.calibration import calibrate, calibration_section
from reslight.analysis.report.copies import copies_section
from reslight.analysis.report.label_errors import likely_label_errors
from reslight.analysis.report.multi_label import decisions_section, reliability_section, scores_section
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
from reslight.analysis.report.sources import Source, load_images, open_source
from reslight.analysis.temperature import evaluated
from reslight.data.loading.labels import class_counts
from reslight.data.loading.loaders import AnySplit
from reslight.data.stream.images import UNKNOWN
from reslight.messages import counted, data_root_called, shortened
from reslight.multi_label import evaluate_scores

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


def report(sources: Sequence[str], root: str, labels: str | None = None) -> Report:
    """Evaluate a network on its test images, or on its validation images if there are no others, and report what it gets wrong.

    Of several runs, such as those of a cross-validation, each is evaluated on its own validation images.

    Args:
        sources: One run, folder or name of weights; or several runs of one dataset.
        root: The folder of the images.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.

    Raises:
        OSError: missing weights, runs or images.
        UsageError: images that do not fit the network.
    """
    opened = [open_source(source, root, labels) for source in sources]
    first = opened[0]
    with data_root_called("--data"):
        name = load_images(opened, root)
    title = shortened([source.title for source in opened])
    parts = [Part.evaluate(source.net, source.data.splits[name]) for source in opened]
    outcome = Outcome(parts, first.data.labels, title, f"{_SPLITS[name]} of {first.data.name}")
    lines, sections = _several_labels(outcome) if first.net.multi_label else _one_label(outcome, opened, name)
    histories = [source.history for source in opened if source.history]
    splits: dict[str, AnySplit] = {split: first.data.splits[split] for split in ("train", "val", "test") if split in first.data.splits}
    copies = copies_section(splits, list(outcome.names), COPIES)  # reads all images, so that those that cannot be read are known
    known: dict[str, Tensor] = {split: images.readable().labels for split, images in splits.items()} | {name: parts[0].labels}
    counts = {split: class_counts(one, len(outcome.names)).tolist() for split, one in known.items() if _are_known(one)}
    sections = [
        sections[0],
        *([("Curves", curves_section(histories))] if histories else []),
        *sections[1:],
        ("Near copies in different splits", copies),
        ("Images of each class", histogram_section(counts, outcome.names)),
    ]
    return Report(page(f"Report on {title}", sections), lines)


def _are_known(labels: Tensor) -> bool:
    """Return whether the labels of a split are known; those of a stream are when its images have been read."""
    return bool((labels != UNKNOWN).all())


def _one_label(outcome: Outcome, opened: Sequence[Source], name: str) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return what to print, and the sections on images that have one label each; the first one is the summary.

    Args:
        outcome: The images of the split `name`.
        opened: The networks.
        name: The name of the split that was evaluated.
    """
    first, splits = opened[0], opened[0].data.splits
    stored = first.calibration if len(opened) == 1 else None
    if stored and stored.fingerprint == splits[name].fingerprint:
        stored = None  # fitted to these very images: what it is worth shows on others
    validation, known = None, validation_fingerprint(first.trained_on)
    if name == "test" and stored is None and "val" in splits and known in (None, splits["val"].fingerprint):
        validation = Outcome([Part.evaluate(first.net, splits["val"])], outcome.names, outcome.title, "")
    calibrated = calibrate(outcome, validation, stored)
    counts, details = evaluated(outcome.logits, outcome.labels)
    wrong = likely_label_errors(calibrated.logits.softmax(dim=1), outcome.labels)
    where = f"None of them was used in the training of {'the network' if len(opened) == 1 else 'the network that judges it'}."
    summary = (
        f"{counts.correct1:,} of {counts.total:,} {text(outcome.images)} are predicted right: "
        f"<strong>{counts.correct1 / counts.total:.2%}</strong>. {counted(len(wrong[0]), 'label')} {'is' if len(wrong[0]) == 1 else 'are'} "
        "likely wrong."
    )
    lines = (
        f"{counts.correct1:,} of {counts.total:,} {outcome.images} right ({counts.correct1 / counts.total:.2%})",
        f"likely wrong labels: {len(wrong[0]):,}",
    )
    return lines, [
        ("", paragraph(summary)),
        ("Confusion", confusion_section(details, outcome.names)),
        ("Classes", classes_section(details, outcome.names)),
        ("Calibration", calibration_section(outcome, calibrated)),
        ("The most confident mistakes", mistakes_section(outcome, calibrated.logits, MISTAKES, right=False)),
        ("The least sure right predictions", mistakes_section(outcome, calibrated.logits, UNSURE, right=True)),
        ("Likely wrong labels", label_errors_section(outcome, wrong, calibrated.logits, WRONG_LABELS, where)),
    ]


def _several_labels(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return what to print, and the sections on images that have several labels each; the first one is the summary."""
    counts, results = evaluate_scores(outcome.logits, outcome.labels)
    micro = counts.fractions()["f1_micro"]
    of_images = f"of {counts.total:,} {outcome.images}"
    decisions = f"{counts.tp:,} labels right, {counts.fp:,} wrong and {counts.fn:,} missed"
    lines = (
        f"mAP {100 * counts.mAP:.2f} %, F1 {100 * micro:.2f} % ({decisions})",
        f"all labels {of_images} right: {counts.exact:,} ({counts.exact / counts.total:.2%})",
    )
    summary = (
        f"All labels are right for {counts.exact:,} {text(of_images)}. Mean average precision: <strong>{counts.mAP:.2%}</strong>. "
        f"F1 over all labels: {micro:.2%} ({decisions})."
    )
    return lines, [
        ("", paragraph(summary)),
        ("Classes", scores_section(results, outcome.names)),
        ("Calibration", reliability_section(outcome)),
        ("The most confident wrong labels", decisions_section(outcome, MISTAKES, missed=False)),
        ("The most confident missed labels", decisions_section(outcome, MISTAKES, missed=True)),
    ]
