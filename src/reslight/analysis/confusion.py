"""What a network takes for what, and how far its probabilities can be believed, in one picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reslight.analysis.figure import COLOURS, GREY, new_figure

if TYPE_CHECKING:  # an optional extra, and half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED = COLOURS[:2]
MOST_NAMED = 20
"""Classes that can be read along an axis; of more, the worst are listed."""


def draw_evaluation(report: Mapping[str, Any]) -> "Figure":
    """Draw what test.json or validate.json holds: the confusion matrix, the accuracy of each class, and the calibration.

    Raises:
        ValueError: There is no matplotlib to draw with.
    """
    figure = new_figure(15, 5)
    confusion, classes, calibration = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    names = [str(row["label"]).replace("$", r"\$") for row in report["per_class"]]
    _draw_confusion(confusion, report["confusion"], names)
    _draw_classes(classes, [row["accuracy"] for row in report["per_class"]], names)
    _draw_calibration(calibration, report["calibration"])
    return figure


def _draw_confusion(axes: "Axes", confusion: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, fraction=0.046, label="share of the class")
    axes.set(xlabel="answer", ylabel="label", title="Confusion")
    if len(names) > MOST_NAMED:
        return
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for row, counts in enumerate(confusion):
        for column, count in enumerate(counts):
            if count:
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)


def _draw_classes(axes: "Axes", accuracies: Sequence[float | None], names: Sequence[str]) -> None:
    measured = [(accuracy, name) for accuracy, name in zip(accuracies, names, strict=True) if accuracy is not None]
    shown = sorted(measured)[:MOST_NAMED][::-1]
    places = range(len(shown))
    axes.barh(places, [100 * accuracy for accuracy, _ in shown], color=BLUE)
    axes.set_yticks(places, [name for _, name in shown])
    for place, (accuracy, _) in zip(places, shown, strict=True):
        inside = accuracy > 0.1
        look: dict[str, Any] = {"ha": "right", "color": "white"} if inside else {"ha": "left", "color": "black"}
        axes.text(100 * accuracy + (-1 if inside else 1), place, f"{100 * accuracy:.1f}", va="center", fontsize=8, **look)
    title = "Classes" if len(shown) == len(measured) else f"The {len(shown)} worst of {len(measured)} classes"
    axes.set(xlim=(0, 100), xlabel="accuracy (%)", title=title)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_calibration(axes: "Axes", calibration: Mapping[str, Any]) -> None:
    bins = [row for row in calibration["bins"] if row["images"]]
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="as probable as right")
    largest = max(row["images"] for row in bins)
    axes.scatter(
        [row["probability"] for row in bins],
        [row["accuracy"] for row in bins],
        s=[20 + 180 * row["images"] / largest for row in bins],
        color=RED,
        label="images of a bin (area: how many)",
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the answer", ylabel="accuracy")
    axes.set_title(f"Calibration: ECE {100 * calibration['ece']:.2f} %")
    axes.legend(loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
