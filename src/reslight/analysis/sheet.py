"""Draw a sheet of images with their labels, and a histogram of the classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reslight.analysis.figure import COLORS, GRAY, new_figure
from reslight.messages import visible
from reslight.preprocess import Preprocess

if TYPE_CHECKING:  # an optional package, which takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

COLUMNS = 8
INCHES = 1.3
"""Width of an image on the sheet."""
MAX_NAMES = 30
"""The most class names that are readable along the histogram; of more classes only the ends are named."""
_LONGEST = 18
_SMALL = 64
"""Images of fewer pixels are enlarged with sharp edges."""


def pixels(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Undo the normalization of images.

    Args:
        images: Floating-point `(N, C, H, W)`, normalized.
        preprocess: How they were normalized.

    Returns:
        uint8 `(N, C, H, W)`.
    """
    normalizer = preprocess.normalizer(images.device, torch.float32)
    return ((images.float() - normalizer.shift) / normalizer.scale).round().clamp(0, 255).to(torch.uint8)


def captions(labels: Tensor, names: Sequence[str]) -> list[str]:
    """Return the class of each image; the classes of a mixed one with their probabilities, the highest first.

    Args:
        labels: int64 `(N,)`, or the probability of each class, `(N, K)`.
        names: Name of each class.
    """
    shown = [visible(name, _LONGEST) for name in names]
    if labels.ndim == 1:
        return [shown[label] for label in labels.tolist()]
    rows = (sorted(((share, number) for number, share in enumerate(row) if share >= 0.005), reverse=True) for row in labels.tolist())
    return ["\n".join(f"{shown[number]} {share:.2f}" if share < 0.995 else shown[number] for share, number in row) for row in rows]


def draw_sheet(images: Tensor, texts: Sequence[str], names: Sequence[str], counts: Sequence[int], title: str) -> "Figure":
    """Draw images with their labels and, below, the number of images of each class.

    Args:
        images: uint8 `(N, C, H, W)`; of 3 channels and more the first three are shown as RGB, otherwise the first as gray.
        texts: The label of each image.
        names: Name of each class.
        counts: Images of each class.
        title: Title of the images.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    lines = max(text.count("\n") + 1 for text in texts)
    above = rows * (INCHES * images.shape[2] / images.shape[3] + 0.13 * lines + 0.08) + 0.4
    figure = new_figure(max(columns, 5) * INCHES, above + 3.2)
    parts: Any = figure.subfigures(2, 1, height_ratios=(above, 3.2))
    sheet, histogram = parts
    _draw_images(sheet, images, texts, rows, columns)
    sheet.suptitle(_plain(title), fontsize=10)
    _draw_histogram(histogram.subplots(), names, counts)
    return figure


def draw_pairs(pairs: Sequence[tuple[Tensor, Tensor, str]], title: str) -> "Figure":
    """Draw pairs of images side by side, each with a text.

    Args:
        pairs: Two images, uint8 `(C, H, W)` of any size, and the text above them.
        title: Title of the sheet.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    columns = min(COLUMNS // 2, len(pairs))
    rows = -(-len(pairs) // columns)
    lines = max(text.count("\n") + 1 for *_, text in pairs)
    figure = new_figure(max(2 * columns, 4) * INCHES, rows * (INCHES + 0.13 * lines + 0.08) + 0.4)
    figure.suptitle(_plain(title), fontsize=10)
    grid: Any = figure.subfigures(rows, columns, squeeze=False).flatten()
    for part, (*images, text) in zip(grid, pairs, strict=False):
        part.suptitle(_plain(text), fontsize=6)
        for axes, image in zip(part.subplots(1, 2), images, strict=True):
            is_rgb = image.shape[0] >= 3
            axes.imshow((image[:3].permute(1, 2, 0) if is_rgb else image[0]).numpy(), cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
    return figure


def _draw_images(sheet: "SubFigure", images: Tensor, texts: Sequence[str], rows: int, columns: int) -> None:
    is_rgb, is_small = images.shape[1] >= 3, max(images.shape[2:]) <= _SMALL
    arrays = (images[:, :3].permute(0, 2, 3, 1) if is_rgb else images[:, 0]).cpu().numpy()
    grid = sheet.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    for axes, array, text in zip(grid, arrays, texts, strict=False):
        axes.imshow(array, cmap="gray", vmin=0, vmax=255, interpolation="nearest" if is_small else None)
        axes.set_title(_plain(text), fontsize=7, pad=2)


def _draw_histogram(axes: "Axes", names: Sequence[str], counts: Sequence[int]) -> None:
    order: Sequence[int] = range(len(counts))
    if is_cut := len(names) > MAX_NAMES:
        order = sorted(order, key=lambda number: -counts[number])
    shown = [_plain(visible(names[number], _LONGEST)) for number in order]
    axes.bar(range(len(order)), [counts[number] for number in order], color=COLORS[0], width=1.0 if is_cut else 0.8)
    if is_cut:
        axes.set_xticks([0, len(order) - 1], [shown[0], shown[-1]])
        axes.set_xlabel(f"{len(names):,} classes, the most frequent first", fontsize=9)
    else:
        axes.set_xticks(range(len(order)), shown, rotation=45, ha="right")
        for place, number in enumerate(order):
            axes.annotate(f"{counts[number]:,}", (place, counts[number]), ha="center", va="bottom", fontsize=7, color=GRAY)
    axes.set_ylabel("training images", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.01, y=0.12)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(text: str) -> str:
    """Return text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
