"""`OptimizationModule`: gives a network its optimizer and its learning rate."""

import logging
import math
from dataclasses import replace
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer

from reslight import lightning_private
from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.plain import plain
from reslight.training.evaluation import EvaluationModule
from reslight.training.lightning_callbacks import prepare_learning_rate_finder, report_batch_size
from reslight.training.optim import LearningRate, OptimConfig, ScheduleConfig, as_config, build_optimizer, with_shorter_warmup
from reslight.training.plateau import Plateau
from reslight.training.run_length import batches_of_run, first_validation
from reslight.training.scheduler import StepScheduler
from reslight.training.warmup import ErrorWarmup

log = logging.getLogger(__name__)


class OptimizationModule(EvaluationModule):
    """Builds the optimizer of a network, and computes the learning rate of each step in closed form.

    A subclass may change what `configure_optimizers` returns, or return an optimizer and a scheduler of its own, which are left alone.

    Attributes:
        net: The network.
        optim: The settings of the optimizer.
        schedule: The settings of the learning rate over the run.
    """

    net: ResNet

    def __init__(self, optim: OptimConfig, schedule: ScheduleConfig) -> None:
        super().__init__()
        self.optim = as_config(OptimConfig, optim)
        self.schedule = as_config(ScheduleConfig, schedule)
        self._reset_schedule()
        self._step_drops = 0  # of the plateau, in the last step
        self._run_schedule: LearningRate | None = None
        self._scheduler: StepScheduler | None = None
        self._first_lr = math.nan
        self._resumes, self._trains, self._in_trial = False, False, False
        self._step_recorder: Callback | None = None  # which Lightning removes for the time of a tuner's trial
        self._batches_per_epoch: float | None = None  # of the checkpoint that training resumes from

    def _reset_schedule(self) -> None:
        schedule = self.schedule
        self._warmup = ErrorWarmup(schedule.warmup_until_error)
        self._plateau = Plateau(schedule.monitor, schedule.patience, schedule.threshold)

    def setup(self, stage: str) -> None:
        """Forget the checkpoint that an earlier fit resumed from."""
        super().setup(stage)
        if stage == "fit":
            self._resumes, self._trains, self._in_trial, self._batches_per_epoch = False, False, False, None

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer and its learning rate, a closed form of the step.

        Raises:
            UsageError: another length of an epoch than in the checkpoint that was loaded before.
        """
        self._run_schedule = self.schedule_of_run()
        optimizer = build_optimizer(self.optim, self.net)
        self._scheduler = StepScheduler(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._scheduler, "interval": "step"}}

    @property
    def lr(self) -> float:
        """Peak learning rate: `optim.lr`, under the name that Lightning's LearningRateFinder sets.

        With a new value, groups of parameters that have another learning rate keep its ratio to this one, `sgd_lr` of Muon included.
        """
        return self.optim.lr

    @lr.setter
    def lr(self, value: float) -> None:
        ratio = float(value) / self.optim.lr
        sgd_lr = self.optim.sgd_lr * (ratio if self.optim.name == "muon" else 1)
        self.optim = replace(self.optim, lr=float(value), sgd_lr=sgd_lr)
        if "optim" in self.hparams:
            self.save_hyperparameters({**self.hparams, "optim": plain(self.optim)})  # loggers get what was saved last
        if lightning_private.trainer_of(self) and self._run_schedule and (scheduler := self._active_scheduler()):
            log.info("model.optim.lr is %g now: it was %g.", self.optim.lr, self._run_schedule.peak)
            self._run_schedule = replace(self._run_schedule, peak=self.optim.lr)
            scheduler.keep_settings()
            scheduler.scale(ratio)
            scheduler.restore_settings()
            scheduler.go_to(scheduler.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the settings of the optimizer's groups: a tuner saves a checkpoint before it changes them."""
        super().on_save_checkpoint(checkpoint)
        if scheduler := self._active_scheduler():
            scheduler.keep_settings()

    def schedule_of_run(self) -> LearningRate:
        """Return the learning rate over the run of the attached trainer.

        Raises:
            UsageError: an epoch without batches or of another length than in the checkpoint, or a schedule that does not fit into the run.
        """
        lightning_private.setup_training_data(self.trainer)
        batches, saved = self.trainer.num_training_batches, self._batches_per_epoch
        if 0 in (batches, self.trainer.limit_train_batches):
            raise UsageError("an epoch has no training batches: it needs at least one. Set trainer.limit_train_batches above 0.")
        if saved not in (None, batches):
            raise UsageError(
                f"an epoch has {batches} batches: it had {saved} in the checkpoint, and a run cannot resume with longer or shorter epochs. "
                "Set data.batch_size, data.val_size and trainer.limit_train_batches as they were."
            )
        monitor = self.schedule.monitor
        if self.schedule.name == "plateau":
            self._check_validation()
        if self.schedule.name == "plateau" and monitor != "val/loss" and self.multi_label != (monitor == "val/mAP"):
            kind, other = ("several labels", "val/mAP") if self.multi_label else ("one label", "val/acc1")
            raise UsageError(f"model.schedule.monitor is {monitor}: each image has {kind}. Use val/loss or {other}.")
        if self.schedule.name == "plateau" and self.schedule.monitor == "val/acc5" and self.config.num_classes <= 5:
            raise UsageError(f"model.schedule.monitor is val/acc5: {self.config.num_classes} classes have no val/acc5. Use val/acc1.")
        total = self.trainer.estimated_stepping_batches
        if total < 0:  # Lightning's -1 for a loader without a length
            total = math.inf
        per_epoch = batches / self.trainer.accumulate_grad_batches
        if math.isfinite(per_epoch):
            per_epoch = math.ceil(per_epoch)
        # A run of one step, which tests that everything works, is too short for a warm-up.
        schedule = replace(self.schedule, warmup=0) if getattr(self.trainer, "fast_dev_run", False) else self.schedule
        return LearningRate(with_shorter_warmup(schedule, total, per_epoch), self.optim.lr, total, per_epoch)

    def _check_validation(self) -> None:
        """Check that there is a validation in the run, for the plateau.

        Raises:
            UsageError: no validation images, or a run that ends before the first validation.
        """
        needs = f"model.schedule.name is plateau: it needs a validation, which gives {self.schedule.monitor}"
        loaders_are_empty = self.trainer.val_dataloaders is not None and not sum(self.trainer.num_val_batches)
        if not self.trainer.enable_validation or loaders_are_empty:
            raise UsageError(f"{needs}. Set data.val_size and trainer.limit_val_batches above 0, or another schedule.")
        batches, first = batches_of_run(self.trainer), first_validation(self.trainer)
        if batches < first:
            raise UsageError(
                f"{needs}. The first one would be after {first:g} training batches, and the run has {batches:g}. "
                "Lower trainer.check_val_every_n_epoch or trainer.val_check_interval, train longer, or set another schedule."
            )

    def on_fit_start(self) -> None:
        """Compute the learning rate again: a tuner may have changed the batch size or the learning rate."""
        report_batch_size(self.trainer, self.data_info)
        self._update_data_info()
        if scheduler := self._active_scheduler():
            scheduler.keep_settings()  # as a subclass may have changed them
            self._run_schedule = self.schedule_of_run()
            self._report_shorter_warmup(self._run_schedule)
            scheduler.restore_settings()
            scheduler.go_to(scheduler.last_epoch)

    def on_train_start(self) -> None:
        """On a resume, give the optimizer the configuration's settings in place of those in the checkpoint.

        Raises:
            UsageError: a tuner that runs in the middle of training, or that needs a longer one.
        """
        self._in_trial = self._step_recorder is not None and self._step_recorder not in lightning_private.callbacks_of(self.trainer)
        if self._in_trial and self._trains:
            raise UsageError(
                "a BatchSizeFinder or LearningRateFinder runs in the middle of training: the learning rate and the order of the images "
                "are those of a whole run. Use one that runs before the first step, as Lightning's own do."
            )
        if self._in_trial:
            prepare_learning_rate_finder(self.trainer)
            return
        self._trains = True
        if self.schedule.name == "plateau":
            self._check_validation()  # again, since Lightning sets the loaders up after `on_fit_start`
        if self.global_step == 0:  # a trial leaves nothing
            self._reset_schedule()
            self.recorded.clear()
        if scheduler := self._active_scheduler():
            if self._resumes:
                scheduler.restore_settings()
            scheduler.go_to(self.global_step)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the learning rate of this step, which the scheduler has changed when the step is recorded.

        A LearningRateFinder tries each learning rate for all groups: those with another peak keep its ratio to `optim.lr`.
        """
        if self._in_trial and self._scheduler and self._scheduler.optimizer in self.trainer.optimizers and not self._active_scheduler():
            self._scheduler.scale_as_peaks(self.optim.lr)
        self._step_drops = self._plateau.drops
        self._first_lr = float(optimizer.param_groups[0].get("lr", math.nan))

    def on_validation_epoch_end(self) -> None:
        """Record the metrics, and let the learning rate drop on a plateau."""
        super().on_validation_epoch_end()
        lr, scheduler, plateau = self._run_schedule, self._active_scheduler(), self._plateau
        is_counted = self.trainer.state.fn == "fit" and not (self.trainer.sanity_checking or self._in_trial)
        if self.schedule.name != "plateau" or not is_counted or lr is None or scheduler is None:
            return
        if not lightning_private.validation_is_scheduled(self.trainer):  # a resume repeats neither this stop nor its validation
            return
        if lr.is_warm(self.global_step, self._warmup.warm_at) and plateau.update(self.recorded[plateau.monitor]):
            scheduler.go_to(scheduler.last_epoch)  # Lightning has stepped it before the validation

    def _report_shorter_warmup(self, lr: LearningRate) -> None:
        set_length, unit = self.schedule.warmup, self.schedule.unit
        if lr.schedule.warmup < set_length and not getattr(self.trainer, "fast_dev_run", False) and self.global_rank == 0:
            length = f"{set_length:g} {unit}{'' if set_length == 1 else 's'}"
            log.warning(
                "model.schedule.warmup is %s: the run has %d steps. The warm-up is shortened to half of the run.", length, lr.total_steps
            )

    def _active_scheduler(self) -> StepScheduler | None:
        """Return the scheduler that `configure_optimizers` made; None where a subclass has one of its own."""
        own, active = self._scheduler, [config.scheduler for config in self.trainer.lr_scheduler_configs]
        return own if own is not None and active == [own] else None

    def _lr_factor(self, step: int) -> float:
        lr = self._run_schedule
        return lr(step, self._warmup.warm_at, self._plateau.drops) / lr.peak if lr else 1.0

    def _last_lr(self) -> float:
        """Return the learning rate of the last step: the schedule's, or that of the first group where a subclass changed it."""
        scheduler = self._active_scheduler()
        if scheduler is None or scheduler.has_other_peaks or self._run_schedule is None:
            return self._first_lr
        return self._run_schedule(max(0, self.global_step - 1), self._warmup.warm_at, self._step_drops)
