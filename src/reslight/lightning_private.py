"""Every access to private or undeclared parts of Lightning, one function each.

pyproject.toml limits Lightning's version, and tests/test_lightning_private.py has a test for each function, which fails when
Lightning renames what the function reads or writes.
"""

import inspect
import operator
import traceback
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, WeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.trainer.connectors import checkpoint_connector
from lightning.pytorch.tuner.lr_finder import _LRCallback
from torch.optim.swa_utils import AveragedModel


def trainer_of(module: LightningModule) -> Trainer | None:
    """Return the module's trainer; the public property raises an error where there is none."""
    return module._trainer


def order_number_types() -> None:
    """Put int before float where an argument of the Trainer may be either, so that a parser reads 4 as 4 batches, and not as 4.0.

    Python keeps one object for `Optional[Union[int, float]]` and `Optional[Union[float, int]]`, the one that a program made first.
    Libraries such as gradio make the second; Lightning's annotations are then it, too, if it is imported after them.
    """
    annotations = inspect.unwrap(Trainer.__init__).__annotations__
    for name, hint in annotations.items():
        kinds = get_args(hint)
        if int in kinds and float in kinds and kinds.index(float) < kinds.index(int):
            annotations[name] = reduce(operator.or_, (int, *(kind for kind in kinds if kind is not int)))


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the trainer's callbacks, an attribute that Lightning sets without declaring it."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # not declared
    return callbacks


def remove_callbacks(trainer: Trainer, kinds: tuple[type[Callback], ...]) -> None:
    """Remove the callbacks of these classes from a trainer."""
    trainer.callbacks = [one for one in callbacks_of(trainer) if not isinstance(one, kinds)]  # type: ignore[attr-defined]  # not declared


def setup_training_data(trainer: Trainer) -> None:
    """Set up the training loader, so that `num_training_batches` is known.

    Lightning does so after `configure_optimizers`, where the schedule already needs the length of an epoch.
    """
    trainer.fit_loop.setup_data()


def restore_training_loaders(trainer: Trainer) -> None:
    """Give the training loaders their states from the checkpoint, if Lightning has not done so.

    Lightning does so when it sets the loaders up, which a module that reads the length of an epoch in `configure_optimizers`
    makes it do before it restores the checkpoint. A checkpoint from before the first batch, such as that of a batch size finder,
    whose batches are of another size, has no state that matters.
    """
    loop = trainer.fit_loop
    if loop._combined_loader is None:
        return
    states, loop._combined_loader_states_to_load = loop._combined_loader_states_to_load, []
    if batches_completed(trainer):
        loop._combined_loader._load_state_dicts(states)


def batches_begun(trainer: Trainer) -> int:
    """Return the number of training batches of the whole run that have begun, the present one included.

    Unlike `current_epoch`, this number is correct from the first moment of a resumed run.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def batches_completed(trainer: Trainer) -> int:
    """Return the number of training batches of the whole run that are completed.

    Lightning's epoch counter is one ahead after a resume from a checkpoint that was saved at the end of training or of an epoch.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.completed


def set_epochs_done(trainer: Trainer, epochs: int) -> None:
    """Set the number of completed epochs, before Lightning counts an epoch as complete that was cut short."""
    trainer.fit_loop.epoch_progress.current.processed = epochs  # type: ignore[attr-defined]  # an attribute of the tracker's subclass


def validation_or_epoch_end_follows(trainer: Trainer) -> bool:
    """Return whether a validation or the end of the epoch follows the present batch at once."""
    loop = trainer.fit_loop
    ends = loop.epoch_loop._num_ready_batches_reached() or trainer.global_step == trainer.max_steps or trainer.should_stop
    return ends or (loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def validation_is_scheduled(trainer: Trainer) -> bool:
    """Return whether the validation that runs is one of the whole run, and not one that trainer.should_stop adds."""
    loop = trainer.fit_loop
    if loop._data_fetcher is None or trainer.val_check_batch is None:  # due after a time
        return True
    stops, trainer.should_stop = trainer.should_stop, False
    try:
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
    finally:
        trainer.should_stop = stops


def restart_validation_on_resume(checkpoint: dict[str, Any]) -> None:
    """Change a checkpoint taken during a validation so that a resumed run restarts this validation.

    Lightning itself would continue in the middle of the validation or skip it.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    earlier = progress["total"]["completed"] - progress["current"]["completed"]
    begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    progress |= {"current": begun, "total": {key: value + earlier for key, value in begun.items()}, "is_last_batch": False}


def averaged_model(callback: WeightAveraging) -> AveragedModel:
    """Return the model that a callback averages into, from its `setup` for training on."""
    assert callback._average_model is not None
    return callback._average_model


def runs_under_slurm(trainer: Trainer) -> bool:
    """Return whether Lightning detected a SLURM job, whose SIGUSR1 it handles by requeueing."""
    return isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment)


def requeue_checkpoint(trainer: Trainer) -> Path | None:
    """Return the checkpoint that Lightning saved when it requeued this SLURM job, and that `fit` without a checkpoint starts from."""
    path = trainer._checkpoint_connector._hpc_resume_path
    return Path(path) if path and SLURMEnvironment.detect() else None


def logged_step(trainer: Trainer) -> int:
    """Return the step that Lightning and its callbacks pass to loggers: batches that completed a step, without the present one."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def step_is_open(trainer: Trainer) -> bool:
    """Return whether a training batch has begun whose optimizer step is not done."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # of the tracker's subclass
    if batches.ready > batches.processed:
        return True
    return batches.ready > batches.completed and trainer.fit_loop._should_accumulate()


def epoch_begins(trainer: Trainer) -> bool:
    """Return whether the hooks `on_train_epoch_start` are being called."""
    epochs: Any = trainer.fit_loop.epoch_progress.current  # of the tracker's subclass
    return bool(epochs.ready > epochs.started)


def saved_batches(checkpoint: Mapping[str, Any]) -> int:
    """Return the number of training batches that had begun when a checkpoint was saved; 0 in one of weights only."""
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    batches: int = loops.get("epoch_loop.batch_progress", {}).get("total", {}).get("ready", 0)
    return batches


def has_hp_metric(logger: Logger) -> bool:
    """Return whether TensorBoard's table of hyper-parameters shows `hp_metric` of a logger, -1 where nothing logs it."""
    return isinstance(logger, TensorBoardLogger) and logger._default_hp_metric


def copies_process(strategy: Strategy) -> bool:
    """Return whether a strategy starts the other processes of a run by fork or spawn, and waits in this one."""
    return isinstance(strategy.launcher, _MultiProcessingLauncher)


def learning_rates_to_try(trainer: Trainer) -> int | None:
    """Return the number of learning rates that a LearningRateFinder tries, one a step; None where none runs."""
    return next((callback.num_training for callback in callbacks_of(trainer) if isinstance(callback, _LRCallback)), None)


def hide_bar_of_learning_rates(trainer: Trainer) -> None:
    """Have a LearningRateFinder that runs show no bar."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, _LRCallback):
            callback.progress_bar_refresh_rate = 0


def batch_size_name(callback: BatchSizeFinder) -> str:
    """Return the attribute of the module or the data module that a BatchSizeFinder sets."""
    return callback._batch_arg_name


def is_from_restoring(error: BaseException) -> bool:
    """Return whether an error was raised while Lightning restored a checkpoint."""
    frames = traceback.walk_tb(error.__traceback__)
    codes = [frame.f_code for frame, _ in frames if frame.f_globals.get("__name__") == checkpoint_connector.__name__]
    return any("restore" in code.co_name or code.co_name == "resume_start" for code in codes)


def names_of_step_values(trainer: Trainer) -> list[str]:
    """Return the names of the values that were logged in this epoch for single steps only, such as by `pl_module.log` in a callback."""
    values = (trainer._results or {}).values()
    return sorted({value.meta.name for value in values if value.meta.logger and value.meta.on_step and not value.meta.on_epoch})
