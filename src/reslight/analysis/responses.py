"""Standard deviations of a network's layer responses: Figure 7 of He et al. 2015.

A response is what a batch norm puts out: after the norm, and before the ReLU or the addition that follows it. There is one for every
convolution of the stem and of the residual branches; shortcuts have none. In a pre-activation network, whose norms stand before the
convolutions, they are what goes through the ReLUs into the convolutions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reslight.analysis.figure import COLOURS, FONT, PALE, dress, new_figure
from reslight.messages import UsageError
from reslight.models import ResNet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BATCH = 250


@dataclass(frozen=True)
class Responses:
    """Of one network.

    Args:
        name: For people.
        layers: The batch norms' names, in the order in which the signal meets them.
        std: The standard deviation of each one's output, over images, positions and channels; population, not sample.
        images: How many images that was measured on.
        is_plain: Whether it has no shortcuts.
    """

    name: str
    layers: tuple[str, ...]
    std: tuple[float, ...]
    images: int
    is_plain: bool = False

    @property
    def mean(self) -> float:
        """Mean of the standard deviations."""
        return sum(self.std) / len(self.std)


def norms_of(net: ResNet) -> Mapping[str, nn.BatchNorm2d]:
    """The batch norms whose outputs are responses, by name and in order."""
    return {
        name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d) and "downsample" not in name.split(".")
    }


def responses(net: ResNet, batches: Iterable[Tensor], name: str = "") -> Responses:
    """Measure a network's responses in evaluation mode, as it was trained: with running statistics.

    Args:
        net: The network; its mode is as it was afterwards.
        batches: Normalised images, each (N, C, H, W).
        name: For people.

    Raises:
        ValueError: There are no images.
    """
    norms = norms_of(net)
    sums = {layer: torch.zeros(3, dtype=torch.float64) for layer in norms}  # values, their sum, the sum of their squares

    def watch(layer: str) -> "torch.utils.hooks.RemovableHandle":
        def see(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
            # of the very output, before a ReLU overwrites it; the variance around the batch's own mean loses no digits
            var, mean = torch.var_mean(out.double(), correction=0)
            count = torch.tensor(float(out.numel()), dtype=torch.float64)
            sums[layer] += torch.stack([count, count * mean.cpu(), count * (var + mean**2).cpu()])

        return norms[layer].register_forward_hook(see)

    handles, was_training, images = [watch(layer) for layer in norms], net.training, 0
    try:
        net.eval()
        with torch.inference_mode():
            for batch in batches:
                net(batch)
                images += len(batch)
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    if not images:
        raise UsageError("there are no images to measure responses on")
    std = [float((squares / count - (total / count) ** 2).clamp_min(0).sqrt()) for count, total, squares in sums.values()]
    return Responses(name, tuple(norms), tuple(std), images, net.config.shortcut == "none")


def image_batches(net: ResNet, data: Mapping[str, Any], root: str, images: int) -> Iterator[Tensor]:
    """Test images as the network is fed with them, in batches (N, C, H, W).

    Args:
        net: A network with its `preprocess`.
        data: What is known of its training data: name, kind, val_size.
        root: Folder of the images, for data sets that have one.
        images: How many at most, evenly spaced over the set, for sets may lie class by class.

    Raises:
        ValueError: It is no data set that reslight has.
        OSError: It is not there.
    """
    from reslight.analysis.verify import data_set
    from reslight.data.loading.loaders import EvalLoader

    made = data_set(data, net.preprocess, root)
    made.setup("test")
    normalizer = net.preprocess.normalizer("cpu", net.fc.weight.dtype)
    split = made.splits["test"]
    every, begin, left = max(1, len(split) // images), 0, images
    for pixels, _, _ in EvalLoader(split, batch_size=BATCH, rank=0, devices=1):
        taken = pixels[-begin % every :: every][:left]
        begin, left = begin + len(pixels), left - len(taken)
        if len(taken):
            yield normalizer(taken, torch.channels_last)


def draw_responses(measured: Sequence[Responses]) -> "Figure":
    """Figure 7: above the layers in their order, below sorted from the largest standard deviation to the smallest.

    Raises:
        ValueError: There is nothing to draw, or no matplotlib to draw with.
    """
    if not measured:
        raise UsageError("there are no responses to draw; give weights or runs")
    figure = new_figure(7.2, 6.4)
    axes = figure.subplots(2, 1)
    for number, one in enumerate(measured):
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": "--" if one.is_plain else "-", "linewidth": 1.8}
        order = range(1, len(one.std) + 1)
        axes[0].plot(order, one.std, **look)
        axes[1].plot(order, sorted(one.std, reverse=True), **look)
    longest = max(len(one.std) for one in measured)
    for axis, text in zip(axes, ("layer index (original)", "layer index (sorted by magnitude)"), strict=True):
        dress(axis, text, "std")
        axis.set_xlim(0, longest + 1)
        axis.set_ylim(bottom=0)
    names = [one.name.replace("$", r"\$") for one in measured]  # between two of them would be mathematics
    axes[1].legend(axes[1].lines, names, loc="upper right", fontsize=FONT, framealpha=0.9, edgecolor=PALE)
    return figure
