"""Lightning's own callbacks that need care: tuners in a run that resumes."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder

if TYPE_CHECKING:
    from reslight.training.optimization import OptimizationModule

log = logging.getLogger(__name__)


def leave_out_tuners(trainer: Trainer, module: "OptimizationModule", checkpoint: Mapping[str, Any]) -> None:
    """Remove tuners from a run that resumes, and use what they found when it started.

    Lightning would tune again from the checkpoint's weights, and then forget the checkpoint's step and the optimizer's state.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector, not declared
    kept = [callback for callback in callbacks if not isinstance(callback, BatchSizeFinder | LearningRateFinder)]
    for callback in callbacks:
        if isinstance(callback, LearningRateFinder):
            module.lr = checkpoint["hyper_parameters"]["optim"]["lr"]
            log.info("LearningRateFinder is left out: the run resumes with the learning rate %g of the checkpoint.", module.lr)
        elif isinstance(callback, BatchSizeFinder):
            size = checkpoint["reslight"]["data"].get("batch_size")
            datamodule: Any = getattr(trainer, "datamodule", None)
            if size and hasattr(datamodule, "batch_size"):
                datamodule.batch_size = size
            log.info("BatchSizeFinder is left out: the run resumes with the batch size of the checkpoint.")
    trainer.callbacks = kept  # type: ignore[attr-defined]  # as above
