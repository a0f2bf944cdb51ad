"""The exponential moving average of the weights, on the device of the network and without waiting for it."""

from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn

from reslight.lightning_private import averaged_model


class WeightAverage(EMAWeightAveraging):
    """Averages as Lightning's EMAWeightAveraging does, to the bit.

    Lightning's keeps the average on the CPU, because it is made before the network is on its device, copies every weight there in each
    step, and reads the number of updates from the device twice a step.

    Args:
        decay: Decay of the average per step.
        device: Device of the network.
    """

    def __init__(self, decay: float, device: torch.device) -> None:
        super().__init__(device=device, decay=decay)
        self._decay, self._has_begun = decay, False

    @property
    def state_key(self) -> str:
        """The name in checkpoints, that of Lightning's callback."""
        return EMAWeightAveraging.__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average."""
        super().setup(trainer, pl_module, stage)
        self._has_begun = False
        if stage == "fit":
            averaged_model(self).update_parameters = self._update  # type: ignore[method-assign]  # torch offers no hook for the whole update

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the average."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._has_begun = False

    @torch.no_grad()
    def _update(self, model: nn.Module) -> None:
        """Update parameters and buffers; the first update copies them."""
        average = averaged_model(self)
        is_first = not self._has_begun and int(average.n_averaged) == 0  # read once, not in each step
        self._has_begun = True
        averages: list[Tensor] = []
        values: list[Tensor] = []
        pairs = zip(chain(average.module.parameters(), average.module.buffers()), chain(model.parameters(), model.buffers()), strict=True)
        for old, new in pairs:
            if is_first:
                old.copy_(new)
            elif old.is_floating_point():
                averages.append(old)
                values.append(new)
            else:
                old.copy_(self._decay * old + (1 - self._decay) * new)
        if averages:
            torch._foreach_mul_(averages, self._decay)
            torch._foreach_add_(averages, torch._foreach_mul(values, 1 - self._decay))
        average.n_averaged += 1
