"""`ImageClassifier`: trains and evaluates a ResNet in any Lightning Trainer."""

import logging
import math
import os
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from reslight import lightning_private
from reslight.messages import UsageError
from reslight.metrics import TrainingSums
from reslight.plain import plain
from reslight.renamed import new_value
from reslight.training.average import WeightAverage
from reslight.training.checkpoint_file import FORMAT
from reslight.training.classifier_settings import CompileMode, check_for_several_labels, check_settings
from reslight.training.distill import Teacher, check_distillation, distillation_loss, load_teacher
from reslight.training.finetune import frozen_parts, initial_net
from reslight.training.guards import check_loss, check_weights
from reslight.training.lightning_callbacks import leave_out_tuners, refuse_callbacks
from reslight.training.loss import Loss, is_correct, multi_label_loss, training_loss
from reslight.training.network import NetSetting, check_data_info, check_kind_of_labels
from reslight.training.numbering import report_rare_values
from reslight.training.optim import OptimConfig, ScheduleConfig
from reslight.training.optimization import OptimizationModule
from reslight.training.resume import changed_settings, check_resumable, compare_data_info, compare_environments, environment

log = logging.getLogger(__name__)


class ImageClassifier(OptimizationModule):
    """Trains and evaluates a ResNet on batches of (images, labels, indices) or (images, labels) of any loader.

    Args:
        net: The name of a network (`resnet20`); a mapping of ResNetConfig's fields, alone or on top of a name
            (`{name: resnet20, shortcut: B}`); or a ResNetConfig. The network of `init_from` if None.
        optim: The optimizer.
        schedule: The learning rate over the run.
        ema: Decay per step of the exponential moving average of the weights, for example 0.999; no average if null. With an average,
            validation and test evaluate it; the checkpoint keeps the raw weights too.
        label_smoothing: Fraction of the target that is spread evenly over the classes, from 0 to below 1.
        loss: cross_entropy, or bce: binary cross-entropy of each class on its own. If null, bce for several labels of each image, which
            have no other, and cross_entropy for one.
        init_from: Initial weights, which get a new classifier: a name of `reslight weights`, a folder, OWNER/NAME[@REVISION] on the
            Hub, or timm/NAME.
        teacher: A trained network whose predictions this one learns to give (distillation), named as in init_from; none if null.
        teacher_weight: Fraction of the training loss that is the difference from the teacher's predictions.
        teacher_temperature: Divisor of both networks' logits for that difference; higher ones show more of the unlikely classes.
        freeze: Last part of the network that is not trained, with all parts before it: stem, layer1 and so on, or backbone for
            everything but the classifier; none if null.
        channels_last: Keep images and weights in (N, H, W, C) memory order, in which convolutions are faster on CPUs and tensor cores.
        compile: Compile the network with torch.compile, in place: the names of the weights do not change. true or a mode of torch.compile:
            default (the same as true); reduce-overhead, which replays CUDA graphs; or max-autotune, which also tries kernels.
        num_classes: Classes of the data, which the command line fills in. None: as in `net`.
        in_channels: Channels of the images, which the command line fills in. None: as in `net`.
        multi_label: Whether images have several labels, or none, which the command line fills in: labels are then 0 or 1 for each class,
            and each class is predicted if its probability is above 0.5.

    Raises:
        UsageError: a setting that is not allowed, or a `net` that contradicts `num_classes` or `in_channels`.
    """

    def __init__(
        self,
        net: NetSetting | None = None,
        optim: OptimConfig = OptimConfig(),
        schedule: ScheduleConfig = ScheduleConfig(),
        ema: float | None = None,
        *,
        label_smoothing: float = 0.0,
        loss: Loss | None = None,
        init_from: str | None = None,
        teacher: str | None = None,
        teacher_weight: float = 0.9,
        teacher_temperature: float = 4.0,
        freeze: str | None = None,
        channels_last: bool = True,
        compile: bool | CompileMode = False,
        num_classes: int | None = None,
        in_channels: int | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__(optim, schedule)
        check_settings(label_smoothing, ema, loss, compile)
        if multi_label:
            check_for_several_labels(loss, teacher, self.schedule)
        self.multi_label, loss = multi_label, loss or ("bce" if multi_label else "cross_entropy")
        check_distillation(teacher_weight, teacher_temperature)
        self.net = initial_net(init_from, net, num_classes, in_channels)
        self.net.multi_label = multi_label
        self.config = self.net.config
        freeze = new_value("model.freeze", freeze)
        self.frozen = frozen_parts(self.net, freeze)
        for module in self.frozen:
            module.requires_grad_(False).eval()  # eval mode for the running statistics; Lightning keeps the modes of modules
        self.label_smoothing, self.loss, self.ema, self.compile_net = label_smoothing, loss, ema, compile
        # Plain values: a checkpoint is loaded with weights_only=True, and its settings build exactly this network.
        settings: dict[str, Any] = {"net": self.config.to_dict(), "optim": plain(self.optim), "schedule": plain(self.schedule)}
        settings |= {"label_smoothing": label_smoothing, "loss": loss, "init_from": init_from, "freeze": freeze, "ema": ema}
        settings |= {"channels_last": channels_last, "compile": compile}
        settings |= {"multi_label": True} if multi_label else {}
        settings |= {"teacher": teacher, "teacher_weight": teacher_weight, "teacher_temperature": teacher_temperature}
        self.save_hyperparameters(settings)
        if channels_last:
            layout: dict[str, Any] = {"memory_format": torch.channels_last}  # older versions of torch do not declare this keyword
            self.net.to(**layout)
        self._teacher_source, self._teacher_weight, self._teacher_temperature = teacher, teacher_weight, teacher_temperature
        self._teacher: Teacher | None = None  # loaded for training only
        self._class_weights: Tensor | None = None  # of the data, for training only
        self.training_sums = TrainingSums("subset_acc" if multi_label else "acc1")
        self._steps_seen, self._trained, self._has_reported = 0, False, False
        self._step_losses: list[Tensor] = []  # of the batches of the present step

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(N, num_classes)` of images `(N, C, H, W)`."""
        logits: Tensor = self.net(images)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Switch between training and eval mode; frozen parts stay in eval mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def setup(self, stage: str) -> None:
        """Check that the data fit the network, load the teacher, and compile both.

        Raises:
            UsageError: another number of classes or channels than the network's, or a teacher that does not fit.
        """
        super().setup(stage)
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and self.hparams["channels_last"]:
            raise UsageError("model.channels_last is True: ModelParallelStrategy cannot shard weights in this order. Set it to False.")
        if self.data_info:
            check_kind_of_labels(self.multi_label, self.data_info)
            for warning in check_data_info(self.config, self.data_info, self.net.preprocess):
                log.warning("%s", warning)
        if self._teacher_source and stage == "fit":
            self._teacher = load_teacher(self._teacher_source, self.config, self.data_info)
        if self.compile_net and stage == "fit":
            for net in (self.net, *([self._teacher.net] if self._teacher else [])):
                net.compile(mode="default" if self.compile_net is True else self.compile_net)

    def configure_callbacks(self) -> list[Callback]:
        """Return what training needs: the record of each step and, with `ema`, the average of the weights."""
        if self.trainer.state.fn != "fit":
            return []
        refuse_callbacks(self.trainer, self)
        self._step_recorder = _StepRecorder()
        if self.ema is None:
            return [self._step_recorder]
        return [self._step_recorder, WeightAverage(self.ema, self.trainer.strategy.root_device)]

    def on_train_start(self) -> None:
        """Begin to record steps, and get the weights of the classes from the data."""
        super().on_train_start()
        weights = self.data_info.get("class_weights")  # a word if there are none
        self._class_weights = torch.tensor(weights, device=self.device) if isinstance(weights, list) else None
        self._step_losses = []
        if self.global_step == 0:
            self.training_sums.reset()
        self._steps_seen, self._trained, self._has_reported = self.global_step, False, False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed stochastic depth with a function of (seed, batch, rank), so that it does not depend on what ran before."""
        if self.config.drop_path:
            batches = lightning_private.batches_begun(self.trainer)
            torch.manual_seed(_batch_seed(int(os.environ.get("PL_GLOBAL_SEED", 0)), batches, self.global_rank))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images, labels, _ = self._checked(batch, batch_idx, probabilities=True)
        self._warmup.check(self.global_step, self._sum_over_devices)
        logits = self(images)
        if self.multi_label:
            loss = multi_label_loss(logits, labels, self.label_smoothing, self._class_weights)
        else:
            loss = training_loss(logits, labels, self.loss, self.label_smoothing, self._class_weights)
        if self._teacher:
            soft = distillation_loss(logits, self._teacher.logits(images), self._teacher_temperature)
            loss = (1 - self._teacher_weight) * loss + self._teacher_weight * soft
        correct = is_correct(logits, labels, multi_label=self.multi_label)
        # Reading the loss waits for the device. This costs nothing on the CPU; other devices are read in `record_step` only.
        if loss.device.type == "cpu" and not self._in_trial:  # a LearningRateFinder tries rates that are too high
            check_loss(float(loss.detach()), self.global_step + 1, self._last_lr())
        self.training_sums.update(loss, correct)
        self._warmup.update(correct)
        self._step_losses.append(loss.detach())
        return loss

    def record_step(self) -> None:
        """Record the loss every `log_every_n_steps` steps, as the mean over the step's batches and devices.

        Called after each training batch; does nothing until the step is complete.
        """
        step, every = self.global_step, getattr(self.trainer, "log_every_n_steps", 0)
        if step == self._steps_seen:  # with gradient accumulation, the step is not complete yet
            return
        self._steps_seen, self._trained = step, True
        losses, self._step_losses = self._step_losses, []
        if every and step % every == 0:
            loss = float(self._sum_over_devices(torch.stack(losses).float().mean())) / self.trainer.world_size
            check_loss(loss, step, self._last_lr())
            self.record({"train/loss_step": loss, "lr": self._last_lr()})

    def on_train_epoch_end(self) -> None:
        """Record the epoch's training loss and accuracy."""
        if self._in_trial:
            return
        fractions = self.training_sums.fractions(self._sum_over_devices, self.device)
        check_loss(fractions.get("loss", 0.0), self.global_step, self._last_lr())
        values = {f"train/{name}": value for name, value in fractions.items()}
        # A run that resumes between validation and the end of an epoch ends this epoch again; its schedule may have changed since.
        self.record(values | ({"lr": self._last_lr()} if self._trained else {}))
        self._has_reported = self._has_reported or report_rare_values(self.trainer)
        per_epoch = self.trainer.num_training_batches
        if math.isfinite(per_epoch) and per_epoch:
            # Lightning would count an epoch as complete that was cut short, and skip its rest after a resume.
            epochs, rest = divmod(lightning_private.batches_begun(self.trainer), int(per_epoch))
            lightning_private.set_epochs_done(self.trainer, epochs)
            if rest:
                return
        self.training_sums.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `export` and an exact resume need, as plain values, with sums over all devices.

        Raises:
            FloatingPointError: a weight that is not finite; the earlier checkpoint is worth more than this one.
        """
        super().on_save_checkpoint(checkpoint)
        check_weights(checkpoint["state_dict"], self.global_step, self._last_lr())
        checkpoint["reslight"] = {
            "format": FORMAT,
            "environment": environment(self.trainer),
            "data": self.data_info,
            "precision": str(self.trainer.precision),
            "batches_per_epoch": self.trainer.num_training_batches,
            "sums": self.training_sums.state_dict(self._sum_over_devices, self.device),
            "warmup": self._warmup.state_dict(self._sum_over_devices),
            "plateau": self._plateau.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums, and warn about settings, data, a precision or an environment that differ from the checkpoint's.

        Raises:
            UsageError: the checkpoint of another network or, on a resume, of another optimizer, average or `freeze`.
        """
        trainer = lightning_private.trainer_of(self)
        resume = trainer is not None and trainer.state.fn == "fit"
        if trainer is not None:
            check_resumable(trainer.ckpt_path, checkpoint, self.hparams, resume=resume)
        super().on_load_checkpoint(checkpoint)
        if checkpoint["state_dict"]["net.fc.weight"].dtype == torch.float64:  # Lightning would round the weights to float32
            self.net.double()
        state = checkpoint.get("reslight", {})
        if trainer is None:
            return
        if resume and not checkpoint["global_step"]:  # a tuner's, or another one from before the first step: nothing depends on it
            return
        if resume:
            leave_out_tuners(trainer, self, checkpoint)
            self._update_data_info()
            for line in changed_settings(trainer.ckpt_path, checkpoint, self.hparams):
                log.warning("%s", line)
        for line in compare_data_info(state, self.data_info, str(trainer.precision), resume=resume):
            log.warning("%s", line)
        if state and resume:
            for line in compare_environments(state.get("environment", {}), environment(trainer)):
                log.warning("%s", line)
            if self.global_rank == 0:  # the sums of all devices
                self.training_sums.load_state_dict(state["sums"])
            self._batches_per_epoch, self._resumes = state["batches_per_epoch"], True
            self._warmup.load_state_dict(state["warmup"], counts=self.global_rank == 0)
            if "plateau" in state:  # checkpoints of earlier versions have none
                self._plateau.load_state_dict(state["plateau"])


def _batch_seed(seed: int, batch: int, rank: int) -> int:
    """Return a seed for torch's generator, distinct for each batch and rank."""
    return (seed * 1_000_003 + batch) * 65_537 + rank & 0x7FFF_FFFF_FFFF_FFFF


class _StepRecorder(Callback):
    """Calls `record_step` after each training batch.

    The module's own `on_train_batch_end` would be too late: Lightning calls all callbacks before the module, and checkpoint callbacks
    after the other callbacks. A step must be recorded before its checkpoint is written.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the step, if this batch completed it."""
        if isinstance(pl_module, ImageClassifier):
            pl_module.record_step()
