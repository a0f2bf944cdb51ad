"""ImageClassifier: a ResNet, its optimizer, its schedule and its numbers, for any Lightning Trainer."""

import logging
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Self, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from reslight.messages import UsageError
from reslight.metrics import TrainingSums
from reslight.models import ResNet, ResNetConfig
from reslight.training.evaluation import Batch, Measuring
from reslight.training.finetune import frozen_parts, initial_net
from reslight.training.guards import check_loss, check_weights
from reslight.training.loss import Loss, class_of, training_loss
from reslight.training.network import check_data, net_config
from reslight.training.optim import LearningRate, OptimConfig, ScheduleConfig, as_config, build_optimizer
from reslight.training.resume import FORMAT, data_changes, environment, environment_changes
from reslight.training.warmup import ErrorWarmup

log = logging.getLogger(__name__)


class ImageClassifier(Measuring):
    """Trains and measures a ResNet on batches of (images, labels, indices).

    Args:
        net: The name of a variant (`resnet20`); a mapping of ResNetConfig's fields, alone or on top of a variant
            (`{name: resnet20, shortcut: B}`); or a ResNetConfig. The network of `init_from` if None.
        optim: The optimizer.
        schedule: The learning rate over the run.
        ema: Decay per step of the exponential moving average of the weights, for example 0.999; none if null. Validation and test
            then use the average; the raw weights are kept beside it in the checkpoint.
        label_smoothing: Share of the target spread evenly over the classes, 0 to 1.
        loss: cross_entropy, or bce: binary cross-entropy of each class for itself.
        init_from: Weights to begin with, under a new classifier: a name of `reslight weights`, a folder, OWNER/NAME[@REVISION] on the
            Hub, or timm/NAME.
        freeze: Train only what comes behind this part: stem, layer1 and so on, or body for the classifier alone; all if null.
        channels_last: Keep images and weights in (N, H, W, C) memory order, which convolutions prefer on CPUs and tensor cores.
        compile: Compile the network with torch.compile, in place: the names of the weights stay as they are.
        num_classes: Classes of the data; the command line takes it from there. None: as `net` says.
        in_channels: Channels of the images; the command line takes it from the data. None: as `net` says.

    Raises:
        ValueError: A setting that is not allowed, or a `net` that contradicts `num_classes` or `in_channels`.
    """

    def __init__(
        self,
        net: str | Mapping[str, Any] | ResNetConfig | None = None,
        optim: OptimConfig = OptimConfig(),
        schedule: ScheduleConfig = ScheduleConfig(),
        ema: float | None = None,
        *,
        label_smoothing: float = 0.0,
        loss: Loss = "cross_entropy",
        init_from: str | None = None,
        freeze: str | None = None,
        channels_last: bool = True,
        compile: bool = False,
        num_classes: int | None = None,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"model.label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        if ema is not None and not 0 < ema < 1:
            raise UsageError(f"model.ema is {ema}; it must be between 0 and 1, for example 0.999, or null for none")
        if loss not in get_args(Loss):
            raise UsageError(f"model.loss is {loss!r}; it must be one of {', '.join(get_args(Loss))}")
        if init_from is not None:
            self.net = initial_net(init_from, net, num_classes, in_channels)
        elif net is not None:
            self.net = ResNet(net_config(net, num_classes=num_classes, in_channels=in_channels))
        else:
            raise UsageError("--model.net is missing; give it, or weights to begin with as --model.init_from, or a --config that has one")
        self.config = self.net.config
        self.frozen = frozen_parts(self.net, freeze)
        for module in self.frozen:
            module.requires_grad_(False).eval()  # running statistics, too; Lightning leaves modes as they are
        self.optim = as_config(OptimConfig, optim)
        self.schedule = as_config(ScheduleConfig, schedule)
        self.label_smoothing, self.loss, self.ema, self.compile_net = label_smoothing, loss, ema, compile
        # Plain data, so that a checkpoint loads with weights_only=True and names exactly one network.
        settings = {
            "net": self.config.to_dict(),
            "optim": _plain(asdict(self.optim)),
            "schedule": _plain(asdict(self.schedule)),
            "label_smoothing": label_smoothing,
            "loss": loss,
            "init_from": init_from,
            "freeze": freeze,
            "ema": ema,
            "channels_last": channels_last,
            "compile": compile,
        }
        self.save_hyperparameters(settings, logger=False)
        if channels_last:
            layout: dict[str, Any] = {"memory_format": torch.channels_last}  # a keyword that older torch does not declare
            self.net.to(**layout)
        self.training_sums = TrainingSums()
        self._warmup = ErrorWarmup(self.schedule.warmup_until_error)
        self._rate: LearningRate | None = None
        self._steps_seen = 0
        self._trained = False
        self._batches_per_epoch: float | None = None
        self._step_losses: list[Tensor] = []  # of the batches that make the present step

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of images `(N, C, H, W)`."""
        logits: Tensor = self.net(images)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or back; what is frozen stays as in evaluation."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def setup(self, stage: str) -> None:
        """Meet the data: check that they fit the network."""
        datamodule = getattr(self.trainer, "datamodule", None)
        describe = getattr(datamodule, "describe", None)  # a person's own data module may have none
        if describe:
            self.described = describe()
            for warning in check_data(self.config, self.described, self.net.preprocess):
                log.warning("%s", warning)
        if self.compile_net and stage == "fit":
            self.net.compile()

    def configure_callbacks(self) -> list[Callback]:
        """Return what training needs: the record of each step and, with `ema`, the average of the weights."""
        if self.trainer.state.fn != "fit":
            return []
        return [_StepRecorder()] if self.ema is None else [_StepRecorder(), EMAWeightAveraging(decay=self.ema)]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer, and its learning rate in closed form, per step.

        Raises:
            ValueError: An epoch is not as long as in the checkpoint, which was loaded before.
        """
        self._rate = self.learning_rate()
        if self._batches_per_epoch not in (None, self.trainer.num_training_batches):
            raise UsageError(
                f"an epoch has {self.trainer.num_training_batches} batches and had {self._batches_per_epoch} in the checkpoint, which "
                "cannot go on in the middle of it; set data.batch_size, data.val_size and trainer.limit_train_batches as they were"
            )
        optimizer = self._build_optimizer()
        scheduler = LambdaLR(optimizer, lambda step: self._lr_factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def learning_rate(self) -> LearningRate:
        """The schedule over the run of the attached trainer."""
        self.trainer.fit_loop.setup_data()  # num_training_batches is known from here on
        if 0 in (self.trainer.num_training_batches, self.trainer.limit_train_batches):
            raise UsageError("an epoch has no training batches; trainer.limit_train_batches must be above 0")
        total = self.trainer.estimated_stepping_batches
        per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        if math.isfinite(per_epoch):
            per_epoch = math.ceil(per_epoch)
        # One step to see whether everything works has no room for a warm-up.
        schedule = replace(self.schedule, warmup=0) if getattr(self.trainer, "fast_dev_run", False) else self.schedule
        return LearningRate(schedule, self.optim.lr, total, per_epoch)

    # -- training

    def on_train_start(self) -> None:
        """After a resume: the optimizer's settings are the configuration's, not those that its state brought along."""
        self._steps_seen, self._trained = self.global_step, False
        optimizer = self.trainer.optimizers[0]
        for group, meant in zip(optimizer.param_groups, self._build_optimizer().param_groups, strict=True):
            group |= {key: value for key, value in meant.items() if key != "params"}
            group["initial_lr"] = meant["lr"]
            group["lr"] = meant["lr"] * self._lr_factor(self.global_step)
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Give stochastic depth its own random numbers: a function of (seed, step, rank), not of what ran before."""
        if self.config.drop_path:
            torch.manual_seed(_step_seed(int(os.environ.get("PL_GLOBAL_SEED", 0)), self._batches_begun(), self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        images, labels, _ = batch
        self._warmup.check(self.global_step, self._sum_over_devices)
        logits = self(images)
        loss = training_loss(logits, labels, self.loss, self.label_smoothing)
        labels = class_of(labels)
        # Reading the loss waits for the device: free on the CPU, so every step there; elsewhere only when it is read anyway.
        if loss.device.type == "cpu":
            check_loss(float(loss.detach()), self.global_step + 1, self._rate_done())
        self.training_sums.update(loss, logits, labels)
        self._warmup.update(logits, labels)
        self._step_losses.append(loss.detach())
        return loss

    def record_step(self) -> None:
        """Record the loss every `log_every_n_steps` steps: the mean over the step's batches and devices."""
        step, every = self.global_step, getattr(self.trainer, "log_every_n_steps", 0)
        if step == self._steps_seen:  # accumulation: the step is not done yet
            return
        self._steps_seen, self._trained = step, True
        losses, self._step_losses = self._step_losses, []
        if every and step % every == 0:
            loss = float(self._sum_over_devices(torch.stack(losses).float().mean())) / self.trainer.world_size
            check_loss(loss, step, self._rate_done())
            self._record({"train/loss_step": loss, "lr": self._rate_done()})

    def on_train_epoch_end(self) -> None:
        """Record the epoch's training loss and accuracy."""
        fractions = self.training_sums.fractions(self._sum_over_devices, self.device)
        check_loss(fractions.get("loss", 0.0), self.global_step, self._rate_done())
        values = {f"train/{name}": value for name, value in fractions.items()}
        # A checkpoint from between validation and here ends its epoch again, under a schedule that may be another by now.
        self._record(values | ({"lr": self._rate_done()} if self._trained else {}))
        # An epoch that was cut short goes on after a resume; Lightning would count it, or an empty one, as whole.
        per_epoch = self.trainer.num_training_batches
        if math.isfinite(per_epoch) and per_epoch:
            epochs, rest = divmod(self._batches_begun(), int(per_epoch))
            self.trainer.fit_loop.epoch_progress.current.processed = epochs  # type: ignore[attr-defined]  # a tracker's subclass has it
            if rest:
                return
        self.training_sums.reset()

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `export` and an exact resume need, as plain data; sums are those of all devices.

        Raises:
            FloatingPointError: A weight is no longer a number: the checkpoint before, which this one would replace, is worth more.
        """
        check_weights(checkpoint["state_dict"], self.global_step, self._rate_done())
        checkpoint["reslight"] = {
            "format": FORMAT,
            "environment": environment(self.trainer),
            "data": self.described,
            "precision": str(self.trainer.precision),
            "batches_per_epoch": self.trainer.num_training_batches,
            "sums": self.training_sums.state_dict(self._sum_over_devices, self.device),
            "warmup": self._warmup.state_dict(self._sum_over_devices),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there: the sums of all devices become those of the first."""
        if checkpoint["state_dict"]["net.fc.weight"].dtype == torch.float64:  # Lightning loads into float32, and converts that
            self.net.double()
        state = checkpoint.get("reslight", {})
        if self._trainer is None:
            return
        resume = self._trainer.state.fn == "fit"
        for line in data_changes(state, self.described, str(self._trainer.precision), resume=resume):
            log.warning("%s", line)
        if state and resume:
            for line in environment_changes(state.get("environment", {}), environment(self.trainer)):
                log.warning("%s", line)
            if self.global_rank == 0:
                self.training_sums.load_state_dict(state["sums"])
            self._batches_per_epoch = state["batches_per_epoch"]
            self._warmup.load_state_dict(state["warmup"], counts=self.global_rank == 0)

    # -- inside

    def _record(self, values: dict[str, float]) -> None:
        """Give values to the callbacks and, with the number of steps done, to the loggers.

        Not through `self.log` alone: it counts steps from 0 and from the last batch, so a row would not say which weights it measured.
        """
        self.recorded |= values
        fitting = self.trainer.state.fn == "fit"
        with warnings.catch_warnings():
            # trainer.test() returns only what a logger would get.
            warnings.filterwarnings("ignore", message="You called `self.log")
            self.log_dict(values, logger=not fitting, batch_size=1)
        for logger in self.trainer.loggers if fitting else ():
            logger.log_metrics({"epoch": self._epoch(), **values}, step=self.global_step)

    def _lr_factor(self, step: int) -> float:
        return self._rate(step, self._warmup.warm_at) / self._rate.peak if self._rate else 1.0

    def _build_optimizer(self) -> Optimizer:
        return build_optimizer(self.optim, self.net)

    def _rate_done(self) -> float:
        """Learning rate of the step that was just done."""
        return self._rate(max(0, self.global_step - 1), self._warmup.warm_at) if self._rate else math.nan

    def _batches_begun(self) -> int:
        """Training batches of the whole run, the present one included; Lightning keeps it over a resume, unlike `current_epoch`."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def _epoch(self) -> int:
        """The epoch of the present batch, counted from 1."""
        per_epoch = self.trainer.num_training_batches
        return self.current_epoch + 1 if math.isinf(per_epoch) else (self._batches_begun() - 1) // int(per_epoch) + 1


class _StepRecorder(Callback):
    """Calls `record_step` after each training batch.

    The module's own `on_train_batch_end` is too late: Lightning calls all callbacks before the module, and checkpoint callbacks after
    the other callbacks. A step is recorded before its checkpoint is written.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the step, if this batch completed one."""
        if isinstance(pl_module, ImageClassifier):
            pl_module.record_step()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists: what YAML and a weights-only checkpoint know."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for torch's generator, distinct for each step and rank."""
    return (seed * 1_000_003 + step) * 65_537 + rank & 0x7FFF_FFFF_FFFF_FFFF
