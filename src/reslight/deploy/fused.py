"""Blocks whose convolutions do what comes after them: the ReLU, and the addition of the shortcut.

For that, a CPU reads and writes the results of convolutions once more: a fifth of the time of a small network. torch has these operations
for what its compiler writes; they are not of its public interface. So they are used only if they give, at the start, what the public ones
give.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu_

from reslight.models import ResNet
from reslight.models.blocks import BasicBlock, Bottleneck


class FusedBlock(nn.Module):
    """A block without batch norms that computes the same, and changes its input.

    Args:
        block: In eval mode, with its batch norms folded into the convolutions.
    """

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        self.convs = nn.ModuleList(child for name, child in block.named_children() if name.startswith("conv"))
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> what the block returns."""
        *convs, last = self.convs
        out = x
        for conv in convs:
            out = _convolved(conv, out)
        return _convolved(last, out, None if self.downsample is None else self.downsample(x))


def fuse_blocks(net: ResNet) -> None:
    """Replace the blocks of a network, whose batch norms are folded, by fused ones if this torch has them."""
    if not is_supported():
        return
    for name in net.config.stage_names:
        stage = net.get_submodule(name)
        for number, block in stage.named_children():
            if isinstance(block, BasicBlock | Bottleneck):
                setattr(stage, number, FusedBlock(block))


@functools.cache
def is_supported() -> bool:
    """Return whether the operations are there, and are right for a small example in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    x, more, weight = (
        torch.randn(16, 16, 3, 3, generator=generator).to(torch.bfloat16, memory_format=torch.channels_last) for _ in range(3)
    )
    conv = nn.Conv2d(16, 16, 3, padding=1, bias=False).to(torch.bfloat16)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    plain = conv2d(x.float(), weight.float(), padding=1)
    with torch.inference_mode():
        try:
            found = (_convolved(conv, x), plain), (_convolved(conv, x, more.clone()), plain + more)
        except (AttributeError, TypeError):  # another torch
            return False
    return all(torch.allclose(one.float(), wanted.relu(), rtol=0.02, atol=0.02) for one, wanted in found)


def _convolved(conv: nn.Module, x: Tensor, more: Tensor | None = None) -> Tensor:
    """Return the ReLU of a convolution, or of its sum with a tensor, which may hold the result afterwards."""
    of = conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
    out: Tensor
    try:
        if more is None:
            out = torch.ops.mkldnn._convolution_pointwise(x, *of, "relu", [], "")
        else:
            more = more.contiguous(memory_format=torch.channels_last)
            out = torch.ops.mkldnn._convolution_pointwise_.binary(more, x, *of, "add", 1.0, "relu", [], "")
    except RuntimeError:  # not for this shape
        out = conv(x)
        relu_(out if more is None else out.add_(more))
    return out
