"""The sections of a report on a network with several labels for each image: each class is a decision of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reslight.analysis.report.charts import Line, line_chart
from reslight.analysis.report.outcome import Outcome
from reslight.analysis.report.page import bar, paragraph, table, text
from reslight.analysis.report.sections import CLASS_OF_HEAT_MAP, MAX_ROWS, pictures
from reslight.metrics import BINS
from reslight.multi_label import ClassResults, f1

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Probabilities above which classes are predicted, compared in a table."""


def scores_section(results: ClassResults, names: Sequence[str]) -> str:
    """Return precision, recall, F1 and average precision of each class, the lowest average precision first."""
    f1_of = [score or 0.0 for score in results.f1]
    known = sorted((ap, number) for number, ap in enumerate(results.ap) if ap is not None)
    rows = []
    for ap, number in known:
        has, given, right = results.positives[number], results.predicted[number], results.correct[number]
        shares = [f"{right / given:.1%}" if given else "", f"{right / has:.1%}", f"{f1_of[number]:.1%}", f"{ap:.1%}"]
        rows.append([text(names[number]), f"{has:,}", f"{given:,}", *shares, bar(ap)])
    caption = "The lowest average precision first" + (f": {MAX_ROWS} of {len(rows):,} classes" if len(rows) > MAX_ROWS else "")
    head = ["class", "images", "predicted", "precision", "recall", "F1", "average precision", ""]
    return paragraph("A class is predicted if its probability is above 0.5.", dim=True) + table(caption, head, rows[:MAX_ROWS])


def reliability(probabilities: Tensor, has: Tensor) -> Tensor:
    """Return the decisions whose probability is in each of `BINS` equal bins.

    Args:
        probabilities: float64, any shape.
        has: Whether each label is there, bool, of the same shape.

    Returns:
        float64 `(BINS, 3)`: the number of decisions, those whose label is there, and the sum of the probabilities.
    """
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1]
    bins = torch.bucketize(probabilities.contiguous(), edges).flatten()
    values = torch.stack([torch.ones_like(probabilities), has.double(), probabilities]).flatten(1).T
    return torch.zeros(BINS, 3, dtype=torch.float64).index_add_(0, bins, values)


def calibration_error(bins: Tensor) -> float:
    """Return the mean difference between probability and share over the bins of `reliability`, weighted by their decisions, 0 to 1."""
    return float((bins[:, 1] - bins[:, 2]).abs().sum() / bins[:, 0].sum())


def reliability_section(outcome: Outcome) -> str:
    """Return how far the probability of a class can be believed: of all decisions, and of each class."""
    probabilities, has = outcome.logits.sigmoid(), outcome.labels.bool()
    bins = reliability(probabilities, has)
    points = [(probability / count, there / count) for count, there, probability in bins.tolist() if count]
    title = "Share of decisions whose label is there by their probability, in 15 bins"
    lines = [Line("ideal", [(0, 0), (1, 1)], "gray dashed"), Line("all decisions", points, "blue", dots=True)]
    errors = sorted(
        (-calibration_error(reliability(probabilities[:, one], has[:, one])), one) for one in has.any(dim=0).nonzero().flatten().tolist()
    )
    rows = [
        [
            text(outcome.names[one]),
            f"{float(has[:, one].double().mean()):.2%}",
            f"{float(probabilities[:, one].mean()):.2%}",
            f"{-error:.2%}",
        ]
        for error, one in errors[:MAX_ROWS]
    ]
    return "".join(
        [
            paragraph(
                f"ECE of all {has.numel():,} decisions, 15 bins: {calibration_error(bins):.2%}. It is mostly that of frequent "
                "classes: look at each. No temperature is fitted, as one number cannot serve them all."
            ),
            line_chart(lines, "probability", "share that has the label", (0, 1), (0, 1), title),
            table("The largest calibration error first", ["class", "images", "mean probability", "ECE"], rows),
            _levels_table(probabilities, has),
        ]
    )


def _levels_table(probabilities: Tensor, has: Tensor) -> str:
    rows = []
    for level in LEVELS:
        given = probabilities > level
        right, predicted, wanted = int((given & has).sum()), int(given.sum()), int(has.sum())
        shares = [f"{right / predicted:.1%}" if predicted else "", f"{right / max(1, wanted):.1%}"]
        rows.append([f"above {level:g}", f"{predicted:,}", *shares, f"{f1(right, predicted - right, wanted - right):.1%}"])
    caption = "All labels that are predicted above a probability, as by reslight classify --threshold"
    return table(caption, ["probability", "predicted", "precision", "recall", "F1"], rows)


def worst_decisions(probabilities: Tensor, has: Tensor, most: int, *, missed: bool) -> list[tuple[int, int]]:
    """Return the image and the class of the most confident mistakes: first the worst of each class, then the second of each, and so on.

    Args:
        probabilities: `(N, num_classes)`.
        has: Whether each label is there, bool `(N, num_classes)`.
        most: The most mistakes to return.
        missed: Return labels that are there and not predicted, not those that are predicted and not there.
    """
    chosen = has & (probabilities <= 0.5) if missed else ~has & (probabilities > 0.5)
    confidence = torch.where(chosen, 1 - probabilities if missed else probabilities, -1.0)
    best = confidence.topk(min(most, len(confidence)), dim=0)  # of each class
    found = [
        (rank, -value, image, one)
        for rank, (values, images) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True))
        for one, (value, image) in enumerate(zip(values, images, strict=True))
        if value >= 0
    ]
    return [(image, one) for *_, image, one in sorted(found)[:most]]


def decisions_section(outcome: Outcome, most: int, *, missed: bool) -> str:
    """Return images with the most confident wrong or missed labels, see `worst_decisions`."""
    probabilities, has = outcome.logits.sigmoid(), outcome.labels.bool()
    worst = worst_decisions(probabilities, has, most, missed=missed)
    if not worst:
        return paragraph("No label is missed." if missed else "No label that is predicted is wrong.")
    captions = [
        f"<strong>{text(outcome.names[one])}</strong> {float(probabilities[image, one]):.1%}{', missed' if missed else ''}; "
        f"labelled {text(outcome.label(image))}"
        for image, one in worst
    ]
    about = (
        f"The most confident one of each class first. A label may be wrong, too. {CLASS_OF_HEAT_MAP['missed' if missed else 'predicted']}"
    )
    return paragraph(about, dim=True) + pictures(outcome, [image for image, _ in worst], [one for _, one in worst], captions)
