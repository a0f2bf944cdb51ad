"""Line charts as SVG, in the colors of the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reslight.analysis.report.page import text

_WIDTH, _HEIGHT = 640, 340
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 12, 14, 70
_TICKS = 5


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: In the legend.
        points: x and y of each point.
        look: Classes of the page's style: `blue`, `orange`, `gray`, `dashed`.
        dots: Whether the points are drawn.
    """

    name: str
    points: Sequence[tuple[float, float]]
    look: str
    dots: bool = False


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, x: tuple[float, float], y: tuple[float, float], title: str) -> str:
    """Return a chart.

    Args:
        lines: The lines.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        x: The least and the largest x.
        y: The least and the largest y.
        title: What the chart shows, for readers who do not see it.
    """

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - x[0]) / ((x[1] - x[0]) or 1) * (_WIDTH - _LEFT - _RIGHT)
        up = (point[1] - y[0]) / ((y[1] - y[0]) or 1) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _HEIGHT - _BOTTOM - min(max(up, 0), _HEIGHT - _TOP - _BOTTOM)

    parts = []
    for value in ticks(*y):
        at = place((x[0], value))[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(*x):
        at = place((value, y[0]))[0]
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_short(value)}</text>')
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - _BOTTOM + 40}" text-anchor="middle">{text(x_label)}</text>')
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{text(y_label)}</text>')
    for number, line in enumerate(lines):
        placed = [place(point) for point in line.points]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in placed)
        parts.append(f'<polyline class="line {line.look}" points="{path}"/>')
        if line.dots or len(placed) == 1:
            parts += [f'<circle class="{line.look}" cx="{across:.1f}" cy="{down:.1f}" r="4"/>' for across, down in placed]
        at = _LEFT + number * (_WIDTH - _LEFT) / len(lines)
        parts.append(f'<line class="line {line.look}" x1="{at:.0f}" x2="{at + 26:.0f}" y1="{_HEIGHT - 10}" y2="{_HEIGHT - 10}"/>')
        parts.append(f'<text x="{at + 32:.0f}" y="{_HEIGHT - 6}">{text(line.name)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(title, 200)}">{"".join(parts)}</svg>'


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / _TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= _TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
