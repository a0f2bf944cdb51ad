"""Compute and plot the standard deviations of layer responses: figure 7 of He et al. 2015.

A response is the output of a batch norm, before the ReLU or the addition that follows. There is one for each convolution of the stem and
of the residual branches; shortcuts have none. In a pre-activation network the norms precede the convolutions: there the responses are the
inputs of the ReLUs before the convolutions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reslight.analysis.figure import COLORS, FONT, LIGHT_GRAY, label_axes, new_figure
from reslight.messages import UsageError, data_root_called
from reslight.models import ResNet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BATCH = 250


@dataclass(frozen=True)
class Responses:
    """The layer responses of one network.

    Args:
        name: The name in tables and figures.
        layers: The names of the batch norms, in forward order.
        std: The population standard deviation of the output of each, over images, positions and channels.
        images: The number of images.
        is_plain: Whether the network has no shortcuts.
    """

    name: str
    layers: tuple[str, ...]
    std: tuple[float, ...]
    images: int
    is_plain: bool = False

    @property
    def mean(self) -> float:
        """The mean of the standard deviations."""
        return sum(self.std) / len(self.std)


def norms_of(net: ResNet) -> Mapping[str, nn.BatchNorm2d]:
    """Return the batch norms whose outputs are responses, by name and in forward order."""
    return {
        name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d) and "downsample" not in name.split(".")
    }


def responses(net: ResNet, batches: Iterable[Tensor], name: str = "") -> Responses:
    """Compute the layer responses of a network in eval mode, with its running statistics.

    Args:
        net: The network; its mode is restored.
        batches: Normalized images, each batch (N, C, H, W).
        name: The name in tables and figures.

    Raises:
        UsageError: no images.
    """
    norms = norms_of(net)
    sums = {layer: torch.zeros(3, dtype=torch.float64) for layer in norms}  # number of values, their sum, the sum of their squares

    def register(layer: str) -> "torch.utils.hooks.RemovableHandle":
        def add(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
            # read here, as a ReLU overwrites the output; the variance around the mean of the batch keeps all digits
            var, mean = torch.var_mean(out.double(), correction=0)
            count = torch.tensor(float(out.numel()), dtype=torch.float64)
            sums[layer] += torch.stack([count, count * mean.cpu(), count * (var + mean**2).cpu()])

        return norms[layer].register_forward_hook(add)

    handles, was_training, images = [register(layer) for layer in norms], net.training, 0
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
        raise UsageError("there are no images to compute layer responses from. Give a dataset with test images.")
    std = [float((squares / count - (total / count) ** 2).clamp_min(0).sqrt()) for count, total, squares in sums.values()]
    return Responses(name, tuple(norms), tuple(std), images, net.config.shortcut == "none")


def image_batches(net: ResNet, data: Mapping[str, Any], root: str, images: int) -> Iterator[Tensor]:
    """Yield preprocessed test images in batches (N, C, H, W).

    Args:
        net: A network with its `preprocess`.
        data: What is known of its training data: name, kind, val_size.
        root: The folder of the images, for datasets on disk.
        images: The most images, evenly spaced over the test set, which may be sorted by class.

    Raises:
        UsageError: a dataset that reslight does not have.
        OSError: a missing dataset.
    """
    from reslight.analysis.datasets import datamodule_of
    from reslight.data.loading.loaders import EvalLoader

    with data_root_called("--data", labels="data.labels"):
        datamodule = datamodule_of(data, net.preprocess, root)
        datamodule.setup("test")
    normalizer = net.preprocess.normalizer("cpu", net.fc.weight.dtype)
    split = datamodule.splits["test"]
    every, begin, left = max(1, len(split) // images), 0, images
    for pixels, _, _ in EvalLoader(split, batch_size=BATCH, rank=0, devices=1):
        taken = pixels[-begin % every :: every][:left]
        begin, left = begin + len(pixels), left - len(taken)
        if len(taken):
            yield normalizer(taken, torch.channels_last)


def draw_responses(networks: Sequence[Responses]) -> "Figure":
    """Draw figure 7: the standard deviations in forward order above, sorted from the largest to the smallest below.

    Raises:
        UsageError: no networks.
        MissingPackageError: matplotlib is not installed.
    """
    if not networks:
        raise UsageError("there are no layer responses to draw. Give weights or runs.")
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(7.2, 6.4)
    axes = figure.subplots(2, 1)
    depths = sorted({len(one.std) for one in networks})
    # A plain and a residual network of one depth have its color, unless two networks would then look the same.
    is_by_depth = len({(len(one.std), one.is_plain) for one in networks}) == len(networks)
    for number, one in enumerate(networks):
        color = COLORS[(depths.index(len(one.std)) if is_by_depth else number) % len(COLORS)]
        look = {"color": color, "linestyle": "--" if one.is_plain else "-", "linewidth": 1.8}
        order = range(1, len(one.std) + 1)
        axes[0].plot(order, one.std, **look)
        axes[1].plot(order, sorted(one.std, reverse=True), **look)
    longest = max(len(one.std) for one in networks)
    for axis, text in zip(axes, ("layer index (original)", "layer index (sorted by magnitude)"), strict=True):
        label_axes(axis, text, "std")
        axis.set_xlim(0, longest + 1)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=0)
    names = [one.name.replace("$", r"\$") for one in networks]  # matplotlib reads text between two dollar signs as a formula
    # Below the axes, where it covers no line.
    columns = 3 if max(map(len, names)) < 18 else 2  # three longer names are wider than the figure
    figure.legend(axes[1].lines, names, loc="outside lower center", ncols=columns, fontsize=FONT, edgecolor=LIGHT_GRAY)
    return figure
