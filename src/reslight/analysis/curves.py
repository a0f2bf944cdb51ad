"""Plot error curves of runs in the style of figure 6 of He et al. 2015."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reslight.analysis.figure import COLORS, FONT, GRAY, LIGHT_GRAY, label_axes, new_figure
from reslight.messages import UsageError
from reslight.runs.history import History

if TYPE_CHECKING:  # an optional package, which takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("", "s", "^", "v")
"""Markers on the validation error if there are more runs than colors."""
STYLES: Mapping[str, dict[str, Any]] = {
    "training": {"linestyle": "--", "linewidth": 1.1},
    "validation": {"linestyle": "-", "linewidth": 2.2},
    "test": {"linestyle": "", "marker": "o", "markersize": 9, "markeredgecolor": "white", "clip_on": False, "zorder": 5},
}
"""The line of each split. The dot of the test error is not clipped: it may be on the edge of the axes."""
LONG_RUN = 20_000
"""The number of iterations from which the axis counts in units of ten thousand, as in the paper."""


def names_of(runs: Sequence[History]) -> list[str]:
    """Return distinct names of runs: configuration and number, with more of the path and the network if they are needed."""
    paths = [run.folder.resolve().parts for run in runs]
    names: list[str] = []
    for depth in range(2, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len({parts[-depth:-1] for parts in paths}) == len({parts[:-1] for parts in paths}):  # all configurations have distinct names
            break
    if len({run.net for run in runs}) == 1:
        return names
    return [f"{name} ({run.net})" if run.net and run.net not in name else name for name, run in zip(names, runs, strict=True)]


def limits(runs: Sequence[History]) -> tuple[float, float]:
    """Return the lowest and the highest error of the figure, in percent.

    The first tenth of the iterations and the highest tenth of the points of each curve may be above the figure: the large errors of the
    first epochs would leave little height for the rest. The figure starts at 0 unless all errors are far from it, as on ImageNet.
    """
    curves = [curve for run in runs for curve in run.curves if curve.steps]
    begin = _longest(runs) / 10
    reach = max(1.2 * max(_ninth_decile([e for s, e in zip(c.steps, c.errors, strict=True) if s >= begin]), c.errors[-1]) for c in curves)
    reach = max(reach, 1.0)
    step = _round_up(reach / 8)
    top = min(100.0, math.ceil(reach / step) * step)
    lowest = min(min(curve.errors) for curve in curves)
    is_near_zero = lowest < max(20.0, 0.3 * top)
    return (0.0 if is_near_zero else min(math.floor(lowest / step) * step, top - 2 * step)), top


def _longest(runs: Sequence[History]) -> int:
    """Return the last step of all runs."""
    return max(run.steps for run in runs)


def _ninth_decile(errors: Sequence[float]) -> float:
    """Return the error that nine of ten errors do not exceed."""
    return sorted(errors)[math.ceil(0.9 * len(errors)) - 1] if errors else 0.0


def _round_up(value: float) -> float:
    """Return the next of ... 0.5, 1, 2, 5, 10 ..."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value)


@dataclass(frozen=True)
class Panel:
    """One of the panels of a figure.

    Args:
        title: The title.
        runs: The runs.
        names: The name of each run in the legend.
    """

    title: str
    runs: Sequence[History]
    names: Sequence[str]


def draw(runs: Sequence[History]) -> "Figure":
    """Draw the errors of runs: a thin dashed line for training, a bold line for validation, a dot for the test error.

    Raises:
        UsageError: no runs.
        MissingPackageError: matplotlib is not installed.
    """
    if not runs:
        raise UsageError("there are no runs to draw. Give one, such as runs/digits.")
    if len({run.multi_label for run in runs}) > 1:
        one, other = (next(run.folder for run in runs if run.multi_label is several) for several in (True, False))
        raise UsageError(f"{one} has several labels for each image, and {other} has one: their errors differ. Draw them one by one.")
    return draw_panels([Panel("", runs, names_of(runs))])


def draw_panels(panels: Sequence[Panel], x: str = "") -> "Figure":
    """Draw runs as `draw` does, in one or more panels with the same axes.

    Args:
        panels: The panels from left to right, each with at least one run.
        x: The label of the horizontal axis, if the steps are not iterations.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_figure(7.2 if len(panels) == 1 else 5.6 * len(panels), 4.6)
    runs = [run for panel in panels for run in panel.runs]
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (run, name) in enumerate(zip(panel.runs, panel.names, strict=True)):
            _draw_run(axes, run, name, number)
        _scale(axes, runs, x, "100 - mAP (%)" if any(run.multi_label for run in runs) else "error (%)")
        _add_legend(axes, panel)
        axes.set_title(panel.title, fontsize=FONT)
    return figure


def _look(split: str, number: int) -> dict[str, Any]:
    """Return the style of a line: the color of the run and the line of the split."""
    look = {"color": COLORS[number % len(COLORS)]} | STYLES[split]
    if split == "validation" and number >= len(COLORS):
        look |= {"marker": MARKERS[number // len(COLORS) % len(MARKERS)], "markevery": 0.1}
    return look


def _draw_run(axes: "Axes", run: History, name: str, number: int) -> None:
    """Draw the lines and the dot of a run."""
    for split, curve in zip(STYLES, run.curves, strict=True):
        if curve.steps:
            look = _look(split, number)
            if split != "test" and len(curve.steps) == 1:  # a line of one point is invisible: draw a dash
                look |= {"marker": "_", "markersize": 16, "markeredgewidth": look["linewidth"], "clip_on": False}
            axes.plot(curve.steps, curve.errors, label=f"{name} {split}", **look)


def _scale(axes: "Axes", runs: Sequence[History], x: str, y: str) -> None:
    """Set the limits, the labels and the ticks of the axes."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    longest, (bottom, top) = _longest(runs), limits(runs)
    is_long = longest >= LONG_RUN
    axes.set_xlim(0, max(longest, 1))
    axes.set_ylim(bottom - (top - bottom) / 50, top)  # a line at the bottom stays visible
    label_axes(axes, f"{x or 'iter.'} (1e4)" if is_long else x or "iteration", y)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1e4:g}" if is_long else f"{x:,.0f}"))
    if longest < 10:  # a tick between two iterations would be rounded to one of them
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))


def _add_legend(axes: "Axes", panel: Panel) -> None:
    """Add the legend: the runs by color, then in gray the kinds of lines."""
    from matplotlib.lines import Line2D

    entries = {}
    for number, (run, name) in enumerate(zip(panel.runs, panel.names, strict=True)):
        main = "validation" if run.validation.steps else "training"
        entries[name] = Line2D([], [], **_look(main, number) | {"markevery": None})
    for split, curves in zip(STYLES, zip(*(run.curves for run in panel.runs), strict=True), strict=True):
        if any(curve.steps for curve in curves):
            entries[split] = Line2D([], [], **{"color": GRAY} | STYLES[split])
    names = [name.replace("$", r"\$") for name in entries]  # matplotlib reads text between two dollar signs as a formula
    outside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(panel.runs) > len(COLORS) else {"loc": "best"}
    axes.legend(list(entries.values()), names, fontsize=FONT, framealpha=0.9, edgecolor=LIGHT_GRAY, **outside)
