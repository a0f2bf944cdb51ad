"""Number the values of all loggers alike: `step` is optimizer steps done, `epoch` counts from 1.

Lightning numbers by the batch, from 0, and takes the number of a step from before it: a value that a callback logs would be one step
and one epoch behind the values that the classifier records.
"""

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning.pytorch import Trainer

from reslight import lightning_private
from reslight.messages import counted, shortened

log = logging.getLogger(__name__)

LogMetrics = Callable[..., None]


def number_loggers(trainer: Trainer, loaded: tuple[int, int] = (0, 0)) -> None:
    """Number what the trainer's loggers get from now on.

    Args:
        trainer: The trainer.
        loaded: Step and epoch of the checkpoint that validate or test loaded.
    """
    for logger in trainer.loggers:
        restore_logger(logger)
        logger.log_metrics = partial(_log_numbered, trainer, loaded, logger.log_metrics)  # type: ignore[method-assign]  # of any class


def restore_loggers(trainer: Trainer) -> None:
    """Undo `number_loggers`: the trainer's loggers may serve another trainer next."""
    for logger in trainer.loggers:
        restore_logger(logger)


def restore_logger(logger: Any) -> None:
    """Undo `number_loggers` for one logger."""
    if getattr(vars(logger).get("log_metrics"), "func", None) is _log_numbered:
        del logger.log_metrics


def epoch_of(trainer: Trainer) -> int:
    """Return the epoch of the present training batch, counted from 1; that of the last batch between two epochs."""
    per_epoch = trainer.num_training_batches
    if math.isinf(per_epoch) or not per_epoch:
        return trainer.current_epoch + 1
    return epoch_of_batch(lightning_private.batches_begun(trainer), per_epoch)


def epoch_of_batch(number: int, per_epoch: float) -> int:
    """Return the epoch of a training batch, both counted from 1; 1 where an epoch has no known length."""
    return 1 if math.isinf(per_epoch) else max(0, number - 1) // int(per_epoch) + 1


def report_rare_values(trainer: Trainer) -> bool:
    """At the end of an epoch, warn of values of single steps if trainer.log_every_n_steps leaves them out of whole epochs.

    Returns:
        Whether there are such values.
    """
    steps, every = math.inf, getattr(trainer, "log_every_n_steps", 0)  # an attribute that Lightning does not declare
    if math.isfinite(trainer.num_training_batches):
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    names = lightning_private.names_of_step_values(trainer)
    if not (names and trainer.loggers and every > steps) or getattr(trainer, "fast_dev_run", False):
        return False
    if trainer.is_global_zero:
        log.warning(
            "trainer.log_every_n_steps is %d: an epoch has %s, and what is logged for single steps (%s) is recorded in one step "
            "of %d only. Set it to at most %d.",
            *(every, counted(int(steps), "step"), shortened(names, 5), every, steps),
        )
    return True


def _log_numbered(
    trainer: Trainer, loaded: tuple[int, int], log_metrics: LogMetrics, metrics: Mapping[str, Any], step: int | None = None
) -> None:
    if trainer.state.fn != "fit":
        step, epoch = (trainer.global_step, epoch_of(trainer)) if trainer.global_step >= loaded[0] else loaded
    else:
        epoch = epoch_of(trainer)
        if step in (None, lightning_private.logged_step(trainer)):  # any other number is one that a callback chose
            step = trainer.global_step
            if lightning_private.step_is_open(trainer):
                step += 1
            if lightning_private.epoch_begins(trainer):
                step, epoch = step + 1, epoch + (lightning_private.batches_begun(trainer) > 0)
    log_metrics({**metrics, "epoch": epoch}, step=step)
