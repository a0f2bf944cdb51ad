"""Networks as a training could have left them, for the tests of whatever saves, loads or converts them."""

from typing import TypeVar

import torch

Net = TypeVar("Net", bound=torch.nn.Module)


def scrambled(net: Net, seed: int = 1) -> Net:
    """The network in eval mode, with statistics that are not those of a new one."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.num_batches_tracked.fill_(7)
    return net.eval()
