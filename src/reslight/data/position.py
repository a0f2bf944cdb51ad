"""Where training is: read from the trainer whenever it is asked, never counted by a loader, so that a resumed run agrees."""

import math
from typing import NamedTuple

from lightning.pytorch import Trainer


class Position(NamedTuple):
    """Where in training an iteration begins."""

    epoch: int
    batch: int
    """Batches of this device already consumed in this epoch; each accumulation step counts as one."""


def position_of(trainer: Trainer | None) -> Position:
    """Where training is, when a batch is about to be handed out or is on its way; the beginning where there is none."""
    if trainer is None or not 0 < trainer.num_training_batches < math.inf:  # no training is going on
        return Position(epoch=0, batch=0)
    # The number of batches trained on tells both. Lightning's own epoch counter is one ahead after resuming from a
    # checkpoint that was saved as training ended, or as an epoch began.
    done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
    return Position(*divmod(done, int(trainer.num_training_batches)))
