"""`OptimizationModule`: gives a network its optimizer and its learning rate."""

import math
from dataclasses import replace

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer

from reslight import lightning_private
from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.training.evaluation import EvaluationModule
from reslight.training.optim import LearningRate, OptimConfig, ScheduleConfig, as_config, build_optimizer
from reslight.training.scheduler import StepScheduler
from reslight.training.warmup import ErrorWarmup


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
        self._warmup = ErrorWarmup(self.schedule.warmup_until_error)
        self._run_schedule: LearningRate | None = None
        self._scheduler: StepScheduler | None = None
        self._first_lr = math.nan
        self._resumes = False
        self._batches_per_epoch: float | None = None  # of the checkpoint that training resumes from

    def setup(self, stage: str) -> None:
        """Forget the checkpoint that an earlier fit resumed from."""
        super().setup(stage)
        if stage == "fit":
            self._resumes, self._batches_per_epoch = False, None

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer and its learning rate, a closed form of the step.

        Raises:
            UsageError: another length of an epoch than in the checkpoint that was loaded before.
        """
        self._run_schedule = self.schedule_of_run()
        optimizer = build_optimizer(self.optim, self.net)
        self._scheduler = StepScheduler(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._scheduler, "interval": "step"}}

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
        total = self.trainer.estimated_stepping_batches
        per_epoch = batches / self.trainer.accumulate_grad_batches
        if math.isfinite(per_epoch):
            per_epoch = math.ceil(per_epoch)
        # A run of one step, which tests that everything works, is too short for a warm-up.
        schedule = replace(self.schedule, warmup=0) if getattr(self.trainer, "fast_dev_run", False) else self.schedule
        return LearningRate(schedule, self.optim.lr, total, per_epoch)

    def on_fit_start(self) -> None:
        """Keep the settings of the optimizer's groups as a subclass may have changed them."""
        if scheduler := self._active_scheduler():
            scheduler.keep_settings()

    def on_train_start(self) -> None:
        """On a resume, give the optimizer the configuration's settings in place of those in the checkpoint."""
        if scheduler := self._active_scheduler():
            if self._resumes:
                scheduler.restore_settings()
            scheduler.go_to(self.global_step)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the learning rate of this step, which the scheduler has changed when the step is recorded."""
        self._first_lr = float(optimizer.param_groups[0].get("lr", math.nan))

    def _active_scheduler(self) -> StepScheduler | None:
        """Return the scheduler that `configure_optimizers` made; None where a subclass has one of its own."""
        own, active = self._scheduler, [config.scheduler for config in self.trainer.lr_scheduler_configs]
        return own if own is not None and active == [own] else None

    def _lr_factor(self, step: int) -> float:
        lr = self._run_schedule
        return lr(step, self._warmup.warm_at) / lr.peak if lr else 1.0

    def _last_lr(self) -> float:
        """Return the learning rate of the last step: the schedule's, or that of the first group where a subclass changed it."""
        scheduler = self._active_scheduler()
        if scheduler is None or scheduler.has_other_peaks or self._run_schedule is None:
            return self._first_lr
        return self._run_schedule(max(0, self.global_step - 1), self._warmup.warm_at)
