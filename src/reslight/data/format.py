"""What kind of tensor a network wants: the end of the data road writes it, so that no layer has to convert."""

import torch
from torch import nn


def network_format(module: nn.Module) -> tuple[torch.dtype, torch.memory_format]:
    """Return the dtype and memory format that a network's parameters have.

    Returns:
        The dtype of the first floating-point parameter, float32 where there is none; and channels_last if the first
        convolution weight of which it can be told is, else contiguous. (Of 1x1 kernels and single input channels it
        cannot: both layouts are the same.)
    """
    dtype = None
    for parameter in module.parameters():
        if dtype is None and parameter.is_floating_point():
            dtype = parameter.dtype
        if parameter.ndim == 4:
            is_channels_last = parameter.is_contiguous(memory_format=torch.channels_last)
            if is_channels_last != parameter.is_contiguous():
                return dtype or torch.float32, torch.channels_last if is_channels_last else torch.contiguous_format
    return dtype or torch.float32, torch.contiguous_format
