"""Train on small images first: a callback that makes training images smaller for the first part of a run.

    PYTHONPATH=benchmarks reslight fit --config cifar10/muon --trainer.callbacks+=progressive.SmallFirst

A small image costs less, so that a run has more epochs for the same time. Validation and test see images of the full size.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.functional import interpolate


class SmallFirst(Callback):
    """Resizes the images of training, by area, right before the network.

    Args:
        sides: Height and width in pixels; the full size is last and is not given.
        until: Part of all steps, rising from 0 to 1, up to which the images have that size.
    """

    def __init__(self, sides: Sequence[int] = (20, 26), until: Sequence[float] = (0.4, 0.7)) -> None:
        self.phases = list(zip(until, sides, strict=True))
        self.side: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        net: nn.Module = pl_module.get_submodule("net")
        net.register_forward_pre_hook(self._resize)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        done = trainer.global_step / trainer.estimated_stepping_batches
        self.side = next((side for until, side in self.phases if done < until), None)

    def _resize(self, net: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self.side is None or not net.training:
            return None
        return (interpolate(inputs[0], size=(self.side, self.side), mode="area"),)
