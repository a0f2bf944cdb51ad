"""The length of a run in training batches, and where its first validation is."""

import math

from lightning.pytorch import Trainer


def batches_of_run(trainer: Trainer) -> float:
    """Return the number of training batches of the whole run; infinity where its end is not known."""
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else math.inf
    steps = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    per_epoch = trainer.num_training_batches
    return min(epochs * per_epoch if per_epoch else 0, steps * trainer.accumulate_grad_batches)


def first_validation(trainer: Trainer) -> float:
    """Return the number of training batches before the first validation; 0 where it is not known, such as after a time."""
    every, per_epoch, interval = trainer.check_val_every_n_epoch, trainer.num_training_batches, trainer.val_check_batch
    if interval is None or math.isinf(interval) or math.isinf(per_epoch):
        return 0
    return interval + (0 if every is None else (every - 1) * per_epoch)
