"""What all pictures have in common: colours that the colour-blind can tell apart, a size to read, and how they are written."""

from pathlib import Path
from typing import TYPE_CHECKING

from reslight.messages import UsageError

if TYPE_CHECKING:  # an optional extra, and half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart; without their yellow, too pale for a line on white."""
GREY, PALE, FONT = "0.35", "0.88", 13


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, its sides in inches.

    Raises:
        ValueError: There is no matplotlib to draw with.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError("drawing takes matplotlib, which is not installed; pip install 'reslight[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def dress(axes: "Axes", x: str, y: str) -> None:
    """Label axes, and take away what nobody reads."""
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    axes.tick_params(labelsize=FONT)
    axes.grid(axis="y", color=PALE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def check_name(file: Path) -> str:
    """The format in which a picture of that name is written; to ask before the work that the picture shows.

    Raises:
        ValueError: The ending names no format that is written.
        FileNotFoundError: The file's folder does not exist.
    """
    kind = file.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError(
            f"{file} is no name of a picture; it must end in {', '.join(f'.{name}' for name in FORMATS[:-1])} or .{FORMATS[-1]}"
        )
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent}, where {file.name} would go, is no folder; make it, or choose another")
    if file.is_dir():
        raise UsageError(f"{file} is a folder; give the name of a file in it, such as {file / 'curves.png'}")
    return kind


def save(figure: "Figure", file: Path) -> None:
    """Write a picture, in the format that the file's ending names; the same picture gives the same bytes.

    Raises:
        ValueError: The ending names no format that is written.
        FileNotFoundError: The file's folder does not exist.
    """
    from matplotlib import rc_context

    kind = check_name(file)
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "reslight"}):  # 42: fonts that every publisher takes
        figure.savefig(file, format=kind, dpi=200, metadata=undated)
