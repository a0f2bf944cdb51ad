"""The sections of a report, each a function that returns HTML."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reslight.analysis.explain import large
from reslight.analysis.gradcam import enlarged, overlay, rgb
from reslight.analysis.report.charts import Line, line_chart
from reslight.analysis.report.outcome import Outcome
from reslight.analysis.report.page import bar, cards, pair, paragraph, table, text
from reslight.metrics import ConfusionAndCalibration
from reslight.runs.history import History

MAX_MATRIX = 20
"""The most classes whose confusion is a table of all pairs."""
MAX_ROWS = 200
"""The most classes that are listed."""
CLASS_OF_HEAT_MAP = {key: f"The class of the heat map is the {key} one." for key in ("predicted", "missed")}


def curves_section(histories: Sequence[History]) -> str:
    """Return the error curves of runs."""
    charts = []
    for history in histories:
        found = [
            ("training", history.training, "orange dashed"),
            ("validation", history.validation, "blue"),
            ("test", history.test, "gray"),
        ]
        lines = [Line(name, [*zip(curve.steps, curve.errors, strict=True)], look) for name, curve, look in found if curve.steps]
        highest = max(max(error for _, error in line.points[len(line.points) // 10 :]) for line in lines)
        unit = "100 % - mAP" if history.multi_label else "error (%)"
        run = "/".join(history.folder.resolve().parts[-2:])
        title = f"{'100 % - mAP' if history.multi_label else 'Errors'} of the run {run} over its steps"
        charts.append(paragraph(text(title, 100), dim=True) + line_chart(lines, "step", unit, (0, history.steps), (0, highest), title))
    return "".join(charts)


def confusion_section(details: ConfusionAndCalibration, names: Sequence[str]) -> str:
    """Return the confusion matrix; of many classes, the most frequent confusions."""
    if len(names) <= MAX_MATRIX:
        rows = []
        for label, counts in enumerate(details.confusion.tolist()):
            total = max(1, sum(counts))
            cells = [
                f'<td class="share{" right" * (label == prediction)}" style="--share:{(count / total) ** 0.5:.3f}">{count or ""}</td>'
                for prediction, count in enumerate(counts)
            ]
            rows.append([text(names[label], 30), *cells])
        return table("Images by label (rows) and prediction (columns)", ["label", *(text(name, 30) for name in names)], rows)
    wrong = details.pairs[details.pairs[:, 0] != details.pairs[:, 1]]
    worst = wrong[wrong[:, 2].argsort(descending=True, stable=True)][:MAX_MATRIX].tolist()
    rows = [[text(names[label]), f'<td class="text">{text(names[prediction])}</td>', f"{images:,}"] for label, prediction, images in worst]
    return table(f"The most frequent confusions of {len(names):,} classes", ["label", "prediction", "images"], rows)


def classes_section(details: ConfusionAndCalibration, names: Sequence[str]) -> str:
    """Return precision, recall and F1 of each class, the lowest F1 first."""
    scores = sorted((f1, number, precision, recall) for number, (precision, recall, f1) in enumerate(per_class(details)))
    totals = details.totals
    rows = [
        [text(names[number]), f"{totals[number]:,}", f"{precision:.1%}", f"{recall:.1%}", f"{f1:.1%}", bar(f1)]
        for f1, number, precision, recall in scores
        if totals[number]
    ]
    caption = "The lowest F1 first" if len(rows) <= MAX_ROWS else f"The {MAX_ROWS} classes with the lowest F1 of {len(rows):,}"
    return table(caption, ["class", "images", "precision", "recall", "F1", ""], rows[:MAX_ROWS])


def per_class(details: ConfusionAndCalibration) -> list[tuple[float, float, float]]:
    """Return precision, recall and F1 of each class, 0 to 1; 0 where a class has no images or no predictions."""
    predicted = torch.zeros(details.num_classes, dtype=torch.int64).index_add_(0, details.pairs[:, 1], details.pairs[:, 2]).tolist()
    columns = zip(details.correct, predicted, details.totals, strict=True)
    return [(right / max(1, given), right / max(1, total), 2 * right / max(1, given + total)) for right, given, total in columns]


def pictures(outcome: Outcome, numbers: Sequence[int], classes: Sequence[int], captions: Sequence[str]) -> str:
    """Return images with heat maps.

    Args:
        outcome: The images.
        numbers: Which of them.
        classes: The class of each heat map.
        captions: HTML for each, below its name.
    """
    figures = []
    for number, shown, caption in zip(numbers, classes, captions, strict=True):
        part, row = outcome.place(number)
        images, heat = part.images(torch.tensor([row]), torch.tensor([shown]))
        enlarged_image = large(images[0])
        mixed = overlay(rgb(enlarged_image), enlarged(heat, (enlarged_image.shape[1], enlarged_image.shape[2]))[0])
        name, label, wanted = part.name(row), outcome.label(number), outcome.names[shown]
        both = [(rgb(images[0]), f"{name}, labelled {label}"), (mixed, f"the same image with the heat map of {wanted}")]
        figures.append(pair(both, f'{caption}<br><span class="dim">{text(name)}</span>'))
    return cards(figures)


def mistakes_section(outcome: Outcome, logits: Tensor, most: int, *, right: bool) -> str:
    """Return the mistakes with the highest probabilities, or the right predictions with the lowest."""
    best = logits.softmax(dim=1).max(dim=1)
    wanted = (best.indices == outcome.labels) == right
    order = best.values.argsort(stable=True, descending=not right)
    numbers = order[wanted[order]][:most].tolist()
    if not numbers:
        return paragraph("No prediction is right." if right else "No prediction is wrong.")
    names, captions = outcome.names, []
    for number in numbers:
        predicted, label = int(best.indices[number]), int(outcome.labels[number])
        second = int(logits[number].topk(2).indices[1])
        told = f"rather than {text(names[second])}" if right else f"labelled {text(names[label])}"
        captions.append(f"<strong>{text(names[predicted])}</strong> {float(best.values[number]):.1%}, {told}")
    return paragraph(CLASS_OF_HEAT_MAP["predicted"], dim=True) + pictures(outcome, numbers, best.indices[numbers].tolist(), captions)


def label_errors_section(outcome: Outcome, found: tuple[Tensor, Tensor], logits: Tensor, most: int, where: str) -> str:
    """Return the images whose labels are likely wrong."""
    numbers, likely = (one.tolist() for one in found)
    about = paragraph(
        f"{len(numbers):,} of {len(outcome.labels):,} {text(outcome.images)}. {where} Confident learning on calibrated probabilities; the "
        "label has a probability of 1 % or less. Look at each before you change a label: a confident mistake of the network looks the same."
    )
    if not numbers:
        return about
    probabilities, names = logits.softmax(dim=1), outcome.names
    captions = [
        f"labelled {text(names[int(outcome.labels[number])])} ({float(probabilities[number, outcome.labels[number]]):.2%}), "
        f"likely <strong>{text(names[label])}</strong> ({float(probabilities[number, label]):.1%})"
        for number, label in zip(numbers[:most], likely, strict=False)
    ]
    rows = []
    for number, label in zip(numbers[:MAX_ROWS], likely, strict=False):
        part, row = outcome.place(number)
        cells = [names[int(outcome.labels[number])], names[label]]
        rows.append([text(part.name(row)), *(f'<td class="text">{text(cell)}</td>' for cell in cells)])
    listed = table(
        "The least likely label first" + (f", {MAX_ROWS} of them" if len(numbers) > MAX_ROWS else ""), ["image", "label", "likely"], rows
    )
    return (
        about + pictures(outcome, numbers[:most], likely[:most], captions) + f"<details><summary>All as a list</summary>{listed}</details>"
    )


def histogram_section(counts: Mapping[str, Sequence[int]], names: Sequence[str]) -> str:
    """Return the number of images of each class in each split, the most frequent class first."""
    splits = list(counts)
    order = sorted(range(len(names)), key=lambda number: -counts[splits[0]][number])
    shown = order if len(order) <= 2 * MAX_MATRIX else [*order[:MAX_MATRIX], *order[-MAX_MATRIX:]]
    largest = max(1, *counts[splits[0]])
    rows = [[text(names[one]), *(f"{counts[split][one]:,}" for split in splits), bar(counts[splits[0]][one] / largest)] for one in shown]
    cut = "" if shown is order else f": the {MAX_MATRIX} most and the {MAX_MATRIX} least frequent of {len(names):,}"
    return table(f"Images of each class{cut}", ["class", *map(text, splits), f"{text(splits[0])}, relative"], rows)
