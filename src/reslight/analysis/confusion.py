"""Plot the confusion matrix or the most confused classes, the accuracy of each class and the calibration; or AP and F1 of each class."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from reslight.analysis.figure import COLORS, GRAY, new_figure
from reslight.messages import visible

if TYPE_CHECKING:  # an optional package, which takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED = COLORS[:2]
MAX_NAMES = 20
"""The most class names that are readable along an axis; of more classes only the worst are named."""
MAX_MATRIX = 200
"""The most classes of which a matrix is readable; of more, the most confused pairs of classes are shown."""
_SHORT = 20
"""Characters of a class name that stands beside another."""


def draw_evaluation(report: Mapping[str, Any]) -> "Figure":
    """Draw the report of an evaluation: the confusion matrix or the most confused classes, the accuracy of each, and the calibration.

    With several labels for each image, where no class is confused with one other: average precision and F1 of each class.

    Args:
        report: The content of test.json or validate.json.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if "calibration" not in report:
        return _draw_several_labels(report)
    figure = new_figure(15, 5)
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.15))  # inches; the label of a square image would touch the edge
    confusion, classes, calibration = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    names = [_shown(row["label"], 40) for row in report["per_class"]]
    if len(names) <= MAX_MATRIX:
        _draw_confusion(confusion, report["confusion"], names)
    else:
        _draw_pairs(confusion, _most_confused(report), [row["label"] for row in report["per_class"]])
    _draw_classes(classes, [row["accuracy"] for row in report["per_class"]], names)
    _draw_calibration(calibration, report["calibration"])
    return figure


def _draw_several_labels(report: Mapping[str, Any]) -> "Figure":
    known = sorted((row for row in report["per_class"] if row["positives"]), key=lambda row: -float(row["ap"]))
    shown = known[-MAX_NAMES:]  # the worst ones
    figure = new_figure(7.2, 1.6 + 0.34 * max(4, len(shown)))
    axes = figure.subplots()
    places = range(len(shown))
    for key, name, shift, color in (("ap", "average precision", -0.2, BLUE), ("f1", "F1 at 0.5", 0.2, RED)):
        axes.barh([place + shift for place in places], [100 * row[key] for row in shown], 0.38, color=color, label=name)
    axes.set_yticks(places, [f"{_shown(row['label'], 30)} ({row['positives']:,})" for row in shown])
    axes.invert_yaxis()
    title = "Classes and their images" if len(shown) == len(known) else f"The {len(shown)} worst of {len(known)} classes, and their images"
    axes.set(xlim=(0, 100), xlabel="%", title=title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 - 0.5 / len(shown)) if shown else (0.5, -0.2), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _shown(name: object, longest: int) -> str:
    return visible(name, longest).replace("$", r"\$")  # a text between two dollars would be a formula


def _most_confused(report: Mapping[str, Any]) -> Sequence[Sequence[int]]:
    """Return the label, the prediction and the images of the most frequent confusions, the most frequent first."""
    rows = enumerate(report.get("confusion", ()))
    matrix = ((label, prediction, images) for label, row in rows for prediction, images in enumerate(row) if images)
    pairs: Iterable[Sequence[int]] = report.get("confusion_pairs") or matrix
    return nlargest(MAX_NAMES, (pair for pair in pairs if pair[0] != pair[1]), key=itemgetter(2))


def _draw_pairs(axes: "Axes", pairs: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = pairs[::-1]
    axes.barh(range(len(shown)), [images for _, _, images in shown], color=BLUE)
    texts = [f"{_shown(names[label], _SHORT)} → {_shown(names[prediction], _SHORT)}" for label, prediction, _ in shown]
    axes.set_yticks(range(len(shown)), texts, fontsize=8)
    for position, (_, _, images) in enumerate(shown):
        axes.text(images, position, f" {images:,}", va="center", fontsize=8)
    axes.margins(x=0.12)  # for the numbers
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="images", title="The most confused pairs: label → prediction")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_confusion(axes: "Axes", confusion: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    shares = [[count / max(1, total) for count in row] for row, total in zip(confusion, map(sum, confusion), strict=True)]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, fraction=0.046, label="share of the class")
    axes.set(xlabel="prediction", ylabel="label", title="Confusion")
    if len(names) > MAX_NAMES:
        return
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for row, counts in enumerate(confusion):
        for column, count in enumerate(counts):
            if count:
                color = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=color)


def _draw_classes(axes: "Axes", accuracies: Sequence[float | None], names: Sequence[str]) -> None:
    tested = [(accuracy, name) for accuracy, name in zip(accuracies, names, strict=True) if accuracy is not None]
    shown = sorted(tested)[:MAX_NAMES][::-1]
    positions = range(len(shown))
    axes.barh(positions, [100 * accuracy for accuracy, _ in shown], color=BLUE)
    axes.set_yticks(positions, [name for _, name in shown])
    for position, (accuracy, _) in zip(positions, shown, strict=True):
        is_inside = accuracy > 0.1
        look: dict[str, Any] = {"ha": "right", "color": "white"} if is_inside else {"ha": "left", "color": "black"}
        axes.text(100 * accuracy + (-1 if is_inside else 1), position, f"{100 * accuracy:.1f}", va="center", fontsize=8, **look)
    title = "Classes" if len(shown) == len(tested) else f"The {len(shown)} worst of {len(tested)} classes"
    axes.set(xlim=(0, 100), xlabel="accuracy (%)", title=title)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_calibration(axes: "Axes", calibration: Mapping[str, Any]) -> None:
    bins = [row for row in calibration["bins"] if row["images"]]
    axes.plot([0, 1], [0, 1], "--", color=GRAY, linewidth=1, label="perfect calibration")
    largest = max(row["images"] for row in bins)
    axes.scatter(
        [row["probability"] for row in bins],
        [row["accuracy"] for row in bins],
        s=[20 + 180 * row["images"] / largest for row in bins],
        color=RED,
        label="bin of images (area: their number)",
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the prediction", ylabel="accuracy")
    axes.set_title(f"Calibration: ECE {100 * calibration['ece']:.2f} %")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)  # anywhere inside it can cover a bin
    axes.spines[["top", "right"]].set_visible(False)
