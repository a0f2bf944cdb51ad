"""Make, label and save figures, in colors that color-blind readers can tell apart."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from reslight.atomic import write_files
from reslight.messages import MissingPackageError, UsageError

if TYPE_CHECKING:  # an optional package, which takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito for color-blind readers, without yellow, which is too light for a line on white."""
GRAY, LIGHT_GRAY, FONT = "0.35", "0.88", 13


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, which notebooks show.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingPackageError("matplotlib is missing: figures are drawn with it. Run pip install 'reslight[plot]'.") from error

    class ShownFigure(Figure):
        """A figure that a notebook shows, without pyplot and its global state."""

        def _repr_png_(self) -> bytes:
            image = BytesIO()
            self.savefig(image, format="png", dpi=80)
            return image.getvalue()

    return ShownFigure(figsize=(width, height), layout="constrained")


def label_axes(axes: "Axes", x: str, y: str) -> None:
    """Label the axes, and leave out the frame's upper and right sides."""
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    axes.tick_params(labelsize=FONT)
    axes.grid(axis="y", color=LIGHT_GRAY)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def format_of(file: Path) -> str:
    """Return the format of a figure's file, one of `FORMATS`; a command checks the name before it starts to work.

    Raises:
        UsageError: a folder, or another ending.
        FileNotFoundError: a missing parent folder.
    """
    kind = file.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError(f"--output is {file}: a figure is saved as .png, .pdf or .svg. Use a name that ends in one of them.")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"--output is {file}: the folder {file.parent} is missing. Make it, or choose another.")
    if file.is_dir():
        raise UsageError(f"--output is {file}: this is a folder. Give the name of a file in it, such as {file / 'curves.png'}.")
    return kind


def save(figure: "Figure", file: Path) -> None:
    """Save a figure in the format of the file's ending, whole or not at all; the same figure gives the same bytes.

    Raises:
        OSError: a file that cannot be written.
        UsageError: a folder, or another ending than .png, .pdf and .svg.
        FileNotFoundError: a missing parent folder.
    """
    from matplotlib import rc_context

    kind = format_of(file)
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "reslight"}):  # 42: TrueType fonts, which all publishers accept
        write_files({file: lambda opened: figure.savefig(opened, format=kind, dpi=200, metadata=undated)})
