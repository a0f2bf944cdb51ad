"""Draw a sheet of images as a network gets them, where it found a class in them, and the most probable classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from reslight.analysis.figure import COLORS, GRAY, new_figure
from reslight.analysis.gradcam import enlarged, grad_cam, overlay, rgb
from reslight.analysis.sheet import pixels
from reslight.messages import UsageError, suggestion, visible
from reslight.models import ResNet

if TYPE_CHECKING:  # an optional package, which takes half a second to import
    from matplotlib.figure import Figure

MAX_IMAGES = 50
"""Rows of a sheet: of more, a picture would be too large for most viewers."""
_SIDE = 128
"""Pixels: a smaller image is enlarged before the heat map is laid over it, which would be coarse otherwise."""
_LONGEST = 28
_SHOWN = 5
"""Classes in a row of the sheet."""


@dataclass(frozen=True)
class Explanation:
    """One row of the sheet.

    Attributes:
        name: Of the image.
        image: uint8 `(H, W, 3)`, as the network gets it.
        heat: uint8 `(H, W, 3)`, with the heat map over it.
        label: The class that the heat map shows.
        best: The most probable classes with their probabilities.
    """

    name: str
    image: Tensor
    heat: Tensor
    label: str
    best: Sequence[tuple[str, float]]


def class_number(net: ResNet, name: str) -> int:
    """Return the number of a class.

    Raises:
        UsageError: an unknown name.
    """
    names = list(net.labels or map(str, range(net.config.num_classes)))
    if name not in names:
        fix = suggestion(name, names, f"Use one of its names, such as {names[0]}.")
        raise UsageError(f"--class is {visible(name)}: the network has no such class. {fix}")
    return names.index(name)


def explain(net: ResNet, name: str, image: Image.Image | Tensor, number: int | None = None) -> Explanation:
    """Compute where a network found a class in an image.

    Args:
        net: A network with its `preprocess`, in eval mode.
        name: Of the image, for the sheet.
        image: What the network's `preprocess` takes.
        number: The class; the most probable one if None.
    """
    normalized = net.preprocess(image)[None].to(net.fc.weight.dtype)
    logits, heat = grad_cam(net, normalized, None if number is None else torch.tensor([number]))
    shown = large(pixels(normalized, net.preprocess)[0])
    label = int(logits.argmax()) if number is None else number
    mixed = overlay(rgb(shown), enlarged(heat, (shown.shape[1], shown.shape[2]))[0])
    names = [str(one) for one in net.labels or range(net.config.num_classes)]
    best = net.probabilities(logits)[0].sort(descending=True, stable=True)
    pairs = zip(best.indices[:_SHOWN].tolist(), best.values[:_SHOWN].tolist(), strict=True)
    return Explanation(name, rgb(shown), mixed, names[label], [(names[one], probability) for one, probability in pairs])


def large(image: Tensor, side: int = _SIDE) -> Tensor:
    """Return an image `(C, H, W)` with each pixel repeated until its long side has `side` pixels or more."""
    times = -(-side // max(image.shape[1:]))
    return image.repeat_interleave(times, 1).repeat_interleave(times, 2) if times > 1 else image


def draw_explanations(rows: Sequence[Explanation]) -> "Figure":
    """Draw a sheet with a row for each image.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_figure(7.2, 1.9 * len(rows))
    parts: Any = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1, 1, 1.1))
    for (image, heat, bars), row in zip(parts, rows, strict=True):
        for axes, shown, title in ((image, row.image, row.name), (heat, row.heat, f"Grad-CAM: {row.label}")):
            axes.imshow(shown.numpy())
            axes.set_title(_plain(title), fontsize=8)
            axes.set_axis_off()
        shown_best = row.best[::-1]
        colors = [COLORS[1] if name == row.label else COLORS[0] for name, _ in shown_best]
        bars.barh(range(len(shown_best)), [probability for _, probability in shown_best], color=colors)
        bars.set_yticks(range(len(shown_best)), [_plain(name) for name, _ in shown_best], fontsize=8)
        for place, (_, probability) in enumerate(shown_best):
            bars.text(probability + 0.02, place, f"{probability:.1%}", va="center", fontsize=7, color=GRAY)
        bars.set(xlim=(0, 1.25), xticks=())
        bars.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def _plain(text: str) -> str:
    """Return a name that is short, and that matplotlib does not take for a formula."""
    return visible(text, _LONGEST).replace("$", r"\$")
