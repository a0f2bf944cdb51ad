"""Lightning's own callbacks that need care: those that cannot work are refused, tuners are checked and left out of a run that resumes."""

import logging
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities.parsing import lightning_getattr
from torch import nn

from reslight.lightning_private import batch_size_name, callbacks_of, hide_bar_of_learning_rates, learning_rates_to_try, remove_callbacks
from reslight.messages import UsageError

if TYPE_CHECKING:
    from reslight.training.optimization import OptimizationModule

log = logging.getLogger(__name__)

FEWEST_RATES = 13
"""A LearningRateFinder leaves out the first 10 losses and the last one, and needs two for a slope."""


def refuse_callbacks(trainer: Trainer, module: "OptimizationModule") -> None:
    """Check that the callbacks work with an ImageClassifier.

    Raises:
        UsageError: a callback that does not.
    """
    for callback in callbacks_of(trainer):
        if reason := _reason_against(callback, module):
            raise UsageError(f"trainer.callbacks has {type(callback).__name__}: {reason}")


def _reason_against(callback: Callback, module: "OptimizationModule") -> str | None:
    """Return why a callback does not work, and what to do; None if it works."""
    if isinstance(callback, StochasticWeightAveraging):
        return (
            "it lengthens the run and replaces the learning rate, which is computed for the whole run. "
            "Set model.ema, such as 0.999, for an average of the weights."
        )
    # Lightning adds one to every Trainer, which has the one value of the setting.
    steps = set(callback.scheduling.values()) if isinstance(callback, GradientAccumulationScheduler) else None
    if steps not in (None, {module.trainer.accumulate_grad_batches}):
        return "it changes the batch size and the number of steps in the run. Set trainer.accumulate_grad_batches, which stays the same."
    if isinstance(callback, BackboneFinetuning) and not isinstance(getattr(module, "backbone", None), nn.Module):
        return (
            "it needs a module `backbone`, which an ImageClassifier does not have. Set model.init_from with model.freeze, "
            "or with a model.optim.backbone_lr below 1."
        )
    if isinstance(callback, ModelPruning):
        if getattr(module, "ema", None) is not None:
            return "it replaces the parameters, which an average cannot follow. Set model.ema to null."
        if not all(parameter.is_contiguous() for parameter in module.parameters()):
            return "it needs weights in the usual memory order. Set model.channels_last to false."
    return None


def leave_out_tuners(trainer: Trainer, module: "OptimizationModule", checkpoint: Mapping[str, Any]) -> None:
    """Remove tuners from a run that resumes, and use what they found when it started.

    Lightning would tune again from the checkpoint's weights, and then forget the checkpoint's step and the optimizer's state.
    """
    for callback in callbacks_of(trainer):
        if isinstance(callback, LearningRateFinder):
            module.lr = checkpoint["hyper_parameters"]["optim"]["lr"]
            log.info("LearningRateFinder is left out: the run resumes with the learning rate %g of the checkpoint.", module.lr)
        elif isinstance(callback, BatchSizeFinder):
            size = checkpoint["reslight"]["data"].get("batch_size")
            datamodule: Any = getattr(trainer, "datamodule", None)
            if size and hasattr(datamodule, "batch_size"):
                datamodule.batch_size = size
            log.info("BatchSizeFinder is left out: the run resumes with the batch size of the checkpoint.")
    remove_callbacks(trainer, (BatchSizeFinder, LearningRateFinder))


def prepare_learning_rate_finder(trainer: Trainer) -> None:
    """Check that a LearningRateFinder that begins can try all its rates, and show its bar in a terminal only.

    Lightning would end the sweep silently with the last epoch, and suggest a rate from its harmless beginning.

    Raises:
        UsageError: training is too short.
    """
    rates, epochs, batches = learning_rates_to_try(trainer), trainer.max_epochs, trainer.num_training_batches
    if rates is None:
        return
    if not sys.stderr.isatty():
        hide_bar_of_learning_rates(trainer)
    if epochs is None or epochs < 0 or math.isinf(batches):
        return
    per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
    if rates > (steps := per_epoch * epochs):
        fewer = f", or num_training_steps (num_training of Tuner.lr_find) to at most {steps}" if steps >= FEWEST_RATES else ""
        raise UsageError(
            f"trainer.max_epochs is {epochs}: LearningRateFinder tries {rates} learning rates, one in each step, and training has "
            f"{steps} steps. Set trainer.max_epochs to at least {math.ceil(rates / per_epoch)}{fewer}."
        )


def report_batch_size(trainer: Trainer, before: Mapping[str, Any]) -> None:
    """Log the batch size that a BatchSizeFinder has found.

    Args:
        trainer: The trainer.
        before: What is known of the data from before.
    """
    for callback in callbacks_of(trainer):
        if isinstance(callback, BatchSizeFinder):
            name, found = batch_size_name(callback), callback.optimal_batch_size
            if found is not None and lightning_getattr(trainer.lightning_module, name) == found:  # one that runs later has not set it yet
                log.info("BatchSizeFinder: %s is %d now%s.", name, found, f": it was {before[name]}" if name in before else "")
