"""Where training is: read from the trainer whenever it is asked, never counted by a loader, so that a resumed run agrees."""

import math
from typing import NamedTuple

from lightning.pytorch import Trainer

from reslight.messages import UsageError


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


def order_position_of(trainer: Trainer | None, accumulation: int) -> Position:
    """Where in which epoch's order training is.

    Args:
        trainer: The trainer, if there is one.
        accumulation: What the batch was divided by.

    Raises:
        ValueError: The trainer's accumulation is another by now.
    """
    now = 1 if trainer is None else trainer.accumulate_grad_batches
    if now != accumulation:
        raise UsageError(
            f"accumulate_grad_batches went from {accumulation} to {now} in training, which would "
            f"change the batch size; keep it constant, without GradientAccumulationScheduler"
        )
    position = position_of(trainer)
    # To overfit some batches they must be the same ones in every epoch. (getattr: Lightning sets it unseen by mypy)
    return position._replace(epoch=0) if getattr(trainer, "overfit_batches", 0) else position
