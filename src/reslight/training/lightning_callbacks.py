"""Lightning's own callbacks that need care: those that cannot work are refused, and tuners are left out of a run that resumes."""

import logging
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
from torch import nn

from reslight.lightning_private import callbacks_of, remove_callbacks
from reslight.messages import UsageError

if TYPE_CHECKING:
    from reslight.training.optimization import OptimizationModule

log = logging.getLogger(__name__)


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
    if isinstance(callback, GradientAccumulationScheduler) and len(set(callback.scheduling.values())) > 1:
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
