"""Error curves of runs in one picture, in the style of Figure 6 of He et al. 2015."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reslight.analysis.figure import COLOURS, FONT, GREY, PALE, dress, new_figure
from reslight.messages import UsageError
from reslight.runs.history import History

if TYPE_CHECKING:  # an optional extra, and half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("", "s", "^", "v")
"""On the validation error, where there are more runs than colours."""
STYLES: Mapping[str, dict[str, Any]] = {
    "training": {"linestyle": "--", "linewidth": 1.1},
    "validation": {"linestyle": "-", "linewidth": 2.2},
    "test": {"linestyle": "", "marker": "o", "markersize": 9, "markeredgecolor": "white", "clip_on": False, "zorder": 5},
}
"""How each split is drawn; the dot may lie on the edge of the axes, which must not cut it in half."""
LONG_RUN = 20_000
"""From this many iterations on the axis counts ten thousands, as the paper's does."""


def names_of(runs: Sequence[History]) -> list[str]:
    """What tells runs apart: configuration and number, with as much of the path and of the network as it takes."""
    paths = [run.folder.resolve().parts for run in runs]
    names: list[str] = []
    for depth in range(2, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len({parts[-depth:-1] for parts in paths}) == len({parts[:-1] for parts in paths}):  # no two configurations read alike
            break
    if len({run.net for run in runs}) == 1:
        return names
    return [f"{name} ({run.net})" if run.net and run.net not in name else name for name, run in zip(names, runs, strict=True)]


def limits(runs: Sequence[History]) -> tuple[float, float]:
    """Errors (%) between which the picture shows the runs: enough of the beginning to see it come down, and all of the end.

    The first tenth of the picture and a tenth of each curve, its highest points, may lie above: else the first epochs' 70 % would press
    everything else to the floor. The picture begins at 0 unless no error comes near, as on ImageNet.
    """
    curves = [curve for run in runs for curve in run.curves if curve.steps]
    begin = _longest(runs) / 10
    reach = max(1.2 * max(_most([e for s, e in zip(c.steps, c.errors, strict=True) if s >= begin]), c.errors[-1]) for c in curves)
    reach = max(reach, 1.0)
    step = _round_up(reach / 8)
    top = min(100.0, math.ceil(reach / step) * step)
    lowest = min(min(curve.errors) for curve in curves)
    is_near_zero = lowest < max(20.0, 0.3 * top)
    return (0.0 if is_near_zero else min(math.floor(lowest / step) * step, top - 2 * step)), top


def _longest(runs: Sequence[History]) -> int:
    """The last step of all."""
    return max(run.steps for run in runs)


def _most(errors: Sequence[float]) -> float:
    """What nine of ten errors do not exceed."""
    return sorted(errors)[math.ceil(0.9 * len(errors)) - 1] if errors else 0.0


def _round_up(value: float) -> float:
    """The next of ... 0.5, 1, 2, 5, 10 ..."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value)


@dataclass(frozen=True)
class Panel:
    """One of the pictures that stand side by side.

    Args:
        title: What is in it.
        runs: The runs.
        names: What each is called.
    """

    title: str
    runs: Sequence[History]
    names: Sequence[str]


def draw(runs: Sequence[History]) -> "Figure":
    """Draw runs in one picture: thin and dashed the training error, bold the validation error, a dot the test error.

    Raises:
        ValueError: There is no run, or no matplotlib to draw with.
    """
    if not runs:
        raise UsageError("there is no run to draw; give one, such as runs/digits")
    return draw_panels([Panel("", runs, names_of(runs))])


def draw_panels(panels: Sequence[Panel], x: str = "") -> "Figure":
    """Draw runs as `draw` does, in one or more panels with the same axes.

    Args:
        panels: From left to right; none of them empty.
        x: What the steps count, if not iterations.

    Raises:
        ValueError: There is no matplotlib to draw with.
    """
    figure = new_figure(7.2 if len(panels) == 1 else 5.6 * len(panels), 4.6)
    everything = [run for panel in panels for run in panel.runs]
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (run, name) in enumerate(zip(panel.runs, panel.names, strict=True)):
            _draw_run(axes, run, name, number)
        _scale(axes, everything, x)
        _explain(axes, panel)
        axes.set_title(panel.title, fontsize=FONT)
    return figure


def _look(split: str, number: int) -> dict[str, Any]:
    """How the line of a run's split is drawn."""
    look = {"color": COLOURS[number % len(COLOURS)]} | STYLES[split]
    if split == "validation" and number >= len(COLOURS):
        look |= {"marker": MARKERS[number // len(COLOURS) % len(MARKERS)], "markevery": 0.1}
    return look


def _draw_run(axes: "Axes", run: History, name: str, number: int) -> None:
    """A run's lines and its dot."""
    for split, curve in zip(STYLES, run.curves, strict=True):
        if curve.steps:
            look = _look(split, number)
            if split != "test" and len(curve.steps) == 1:  # no line leads to it: a dash in its place
                look |= {"marker": "_", "markersize": 16, "markeredgewidth": look["linewidth"], "clip_on": False}
            axes.plot(curve.steps, curve.errors, label=f"{name} {split}", **look)


def _scale(axes: "Axes", runs: Sequence[History], x: str) -> None:
    """What the axes show, and what they say."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    longest, (bottom, top) = _longest(runs), limits(runs)
    is_long = longest >= LONG_RUN
    axes.set_xlim(0, max(longest, 1))
    axes.set_ylim(bottom - (top - bottom) / 50, top)  # a line along the bottom stays in sight
    dress(axes, f"{x or 'iter.'} (1e4)" if is_long else x or "iteration", "error (%)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1e4:g}" if is_long else f"{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))


def _explain(axes: "Axes", panel: Panel) -> None:
    """The legend: the runs by colour, then in grey what each kind of line is."""
    from matplotlib.lines import Line2D

    entries = {}
    for number, (run, name) in enumerate(zip(panel.runs, panel.names, strict=True)):
        main = "validation" if run.validation.steps else "training"
        entries[name] = Line2D([], [], **_look(main, number) | {"markevery": None})
    for split, curves in zip(STYLES, zip(*(run.curves for run in panel.runs), strict=True), strict=True):
        if any(curve.steps for curve in curves):
            entries[split] = Line2D([], [], **{"color": GREY} | STYLES[split])
    names = [name.replace("$", r"\$") for name in entries]  # between two of them would be mathematics
    outside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(panel.runs) > len(COLOURS) else {"loc": "best"}
    axes.legend(list(entries.values()), names, fontsize=FONT, framealpha=0.9, edgecolor=PALE, **outside)
