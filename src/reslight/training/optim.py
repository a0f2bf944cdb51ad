"""Build optimizers and learning-rate schedules from plain settings.

The learning rate of a step is a closed form of the step's number and never depends on the previous learning rate. A resumed run, a plot
of the schedule and a test therefore call the same function.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from torch import nn
from torch.optim import Optimizer

from reslight.messages import UsageError, check_keys, check_number, check_numbers
from reslight.models import ResNet
from reslight.plain import plain
from reslight.renamed import with_new_names
from reslight.training.optimizer_class import OWN, build, check_name

log = logging.getLogger(__name__)
Config = TypeVar("Config", "OptimConfig", "ScheduleConfig")
ScheduleName = Literal["cosine", "multistep", "constant", "plateau"]
Unit = Literal["step", "epoch"]
Monitor = Literal["val/loss", "val/acc1", "val/acc5", "val/mAP"]


@dataclass(frozen=True)
class OptimConfig:
    """Settings of the optimizer.

    The paper (section 4.2) trains with plain SGD, momentum 0.9 and weight decay 1e-4 on every parameter: `decay_norms: true`. Later
    recipes apply no weight decay to vectors (gamma and beta of the norms, biases), which is the default here.
    """

    name: str = "sgd"
    """sgd; adamw, Adam with decoupled weight decay; lamb, for large batches; muon for the convolutions after the stem, with SGD for the
    rest; or any other optimizer as `torch.optim.NAME`, or with timm installed as `timm:NAME`."""
    lr: float = 0.1
    """Peak learning rate, used as it is: it is never scaled by the batch size or the number of devices."""
    momentum: float = 0.9
    """Momentum of SGD and Muon: v = momentum * v + gradient; w = w - lr * v."""
    nesterov: bool = False
    """Nesterov's form of momentum (SGD, Muon)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments of AdamW and LAMB."""
    weight_decay: float = 1e-4
    """Weight decay: added to the gradient by SGD, decoupled in AdamW, LAMB and Muon."""
    decay_norms: bool = False
    """Apply weight decay to vectors (norms, biases) too, as the paper does."""
    backbone_lr: float = 1.0
    """Learning rate of the backbone (everything before the classifier) as a factor of `lr`: below 1 for a pretrained backbone."""
    sgd_lr: float = 0.1
    """With Muon, peak learning rate of the parameters that SGD trains: the stem, the classifier, norms and biases."""
    sgd_weight_decay: float = 5e-4
    """With Muon, weight decay of the parameters that SGD trains."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer, by name. Of the settings above torch's and timm's take the learning rates and weight decays
    only, and have their own defaults for the rest: `{momentum: 0.9}` for torch.optim.RMSprop."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value that is not allowed.
        """
        object.__setattr__(self, "betas", _numbers("model.optim.betas", self.betas))
        if not isinstance(self.options, Mapping | None):
            raise UsageError(f"model.optim.options is {self.options!r}: it must be a mapping, such as {{'momentum': 0.9}}.")
        object.__setattr__(self, "options", dict(self.options or {}))
        check_name(self.name)
        check_numbers("model.optim", self)
        _within("model.optim.lr", self.lr, 0, None, open_low=True)
        _within("model.optim.momentum", self.momentum, 0, 1)
        _within("model.optim.weight_decay", self.weight_decay, 0, None)
        _within("model.optim.backbone_lr", self.backbone_lr, 0, None, open_low=True)
        _within("model.optim.sgd_lr", self.sgd_lr, 0, None, open_low=True)
        _within("model.optim.sgd_weight_decay", self.sgd_weight_decay, 0, None)
        for beta in self.betas:
            _within("model.optim.betas", beta, 0, 1)
        if self.nesterov and self.momentum == 0:
            raise UsageError("model.optim.nesterov is true with momentum 0: Nesterov momentum must be above 0. Use 0.9, for example.")


@dataclass(frozen=True)
class ScheduleConfig:
    """Settings of the learning rate over a run, as factors of `optim.lr`."""

    name: ScheduleName = "cosine"
    """Half a cosine down to `min_lr` at the end of the run; a drop at each milestone; a constant learning rate; or a drop whenever a metric
    of the validation no longer improves, as in torch's ReduceLROnPlateau."""
    unit: Unit = "step"
    """Unit of `warmup` and `milestones`: optimizer steps (the paper's iterations) or epochs."""
    warmup: float = 0.0
    """Length of the linear warm-up; half of the run if it is as long as the run or longer. Milestones and the end of the cosine are
    counted from the start of the run, warm-up included."""
    warmup_start: float = 0.01
    """Factor of the learning rate in the first step of a warm-up."""
    warmup_until_error: float | None = None
    """Instead of a linear warm-up: hold `warmup_start` until the training error (fraction, over 100 steps) is below this. The paper's
    ResNet-110 (section 4.2) holds 0.1 of its learning rate until 0.8."""
    milestones: tuple[float, ...] = ()
    """Steps or epochs at which a multistep schedule drops."""
    gamma: float = 0.1
    """Factor of each drop."""
    min_lr: float = 0.0
    """Learning rate at the end of a cosine; the lowest one of plateau."""
    monitor: Monitor = "val/loss"
    """With plateau, the metric of each validation after the warm-up; val/mAP is for several labels of each image."""
    patience: int = 10
    """With plateau, validations in a row without an improvement that are allowed before a drop."""
    threshold: float = 1e-4
    """With plateau, the least improvement, as a fraction of the best value so far."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value that is not allowed.
        """
        object.__setattr__(self, "milestones", _numbers("model.schedule.milestones", self.milestones))
        check_numbers("model.schedule", self)
        _choice("model.schedule.name", self.name, get_args(ScheduleName))
        _choice("model.schedule.unit", self.unit, get_args(Unit))
        _choice("model.schedule.monitor", self.monitor, get_args(Monitor))
        _within("model.schedule.patience", self.patience, 0, None)
        _within("model.schedule.threshold", self.threshold, 0, 1)
        _within("model.schedule.warmup", self.warmup, 0, None)
        _within("model.schedule.warmup_start", self.warmup_start, 0, 1)
        _within("model.schedule.gamma", self.gamma, 0, 1, open_low=True)
        _within("model.schedule.min_lr", self.min_lr, 0, None)
        if self.warmup_until_error is not None:
            check_number("model.schedule.warmup_until_error", self.warmup_until_error)
            _within("model.schedule.warmup_until_error", self.warmup_until_error, 0, 1, open_low=True)
            if self.warmup:
                raise UsageError(
                    f"model.schedule.warmup is {self.warmup:g} and model.schedule.warmup_until_error is {self.warmup_until_error:g}: "
                    "a run has one warm-up. Remove one of them."
                )
        milestones = list(self.milestones)
        if milestones != sorted({m for m in milestones if m > 0}):
            raise UsageError(f"model.schedule.milestones is {milestones}: milestones must be positive and rising.")
        if self.name == "multistep" and not milestones:
            raise UsageError("model.schedule.name is multistep: it needs milestones. Set model.schedule.milestones, such as [30, 60].")
        if self.name != "multistep" and milestones:
            raise UsageError(
                f"model.schedule.milestones is {milestones} and model.schedule.name is {self.name}: only multistep has milestones. "
                "Remove them, or set model.schedule.name to multistep."
            )


@dataclass(frozen=True)
class LearningRate:
    """Compute the learning rate of any step of one run, in closed form.

    Args:
        schedule: The settings.
        peak: `optim.lr`.
        total_steps: Optimizer steps of the whole run; math.inf for a run without an end.
        steps_per_epoch: Optimizer steps of one epoch, to convert epochs into steps.
    """

    schedule: ScheduleConfig
    peak: float
    total_steps: float
    steps_per_epoch: float

    def __post_init__(self) -> None:
        """Check that the schedule fits into the run.

        Raises:
            UsageError: a cosine without an end, epochs of unknown length, a lowest learning rate above the peak, or a warm-up as long
                as the run.
        """
        if self.schedule.unit == "epoch" and (self.schedule.warmup or self.schedule.milestones) and math.isinf(self.steps_per_epoch):
            raise UsageError(
                "model.schedule.unit is epoch: an epoch of this loader has no known length. Set it to step, "
                "or set trainer.limit_train_batches."
            )
        warmup = self._steps(self.schedule.warmup)
        if self.schedule.name == "cosine" and not math.isfinite(self.total_steps):
            raise UsageError(
                "model.schedule.name is cosine: a cosine needs the length of the run. Set trainer.max_epochs, with a loader "
                "without a length trainer.limit_train_batches too, or trainer.max_steps."
            )
        if self.schedule.name in ("cosine", "plateau") and self.schedule.min_lr > self.peak:
            raise UsageError(f"model.schedule.min_lr is {self.schedule.min_lr}: it must be at most model.optim.lr ({self.peak}).")
        if warmup and warmup >= self.total_steps:
            raise UsageError(
                f"model.schedule.warmup is {warmup:g} steps: the run has {self.total_steps:g}. Shorten the warm-up or lengthen the run."
            )

    def __call__(self, step: int, warm_at: int | None = 0, drops: int = 0) -> float:
        """Return the learning rate of optimizer step `step`, counted from 0.

        Args:
            step: 0 is the first update; `total_steps` is one past the last.
            warm_at: With `warmup_until_error`, the first step with the full learning rate; None while the error is still too high.
            drops: With a plateau, how often the learning rate has dropped.
        """
        config, warmup = self.schedule, self._steps(self.schedule.warmup)
        if not self.is_warm(step, warm_at):
            linear = 0.0 if config.warmup_until_error is not None else (1 - config.warmup_start) * step / warmup
            return self.peak * (config.warmup_start + linear)
        if config.name == "plateau":
            return max(config.min_lr, self.peak * config.gamma**drops)
        if config.name == "multistep":
            return self.peak * config.gamma ** sum(step >= self._steps(m) for m in config.milestones)
        if config.name == "cosine":
            done = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
            return config.min_lr + (self.peak - config.min_lr) * (1 + math.cos(math.pi * done)) / 2
        return self.peak

    def is_warm(self, step: int, warm_at: int | None = 0) -> bool:
        """Return whether the warm-up is over at a step."""
        if self.schedule.warmup_until_error is not None:
            return warm_at is not None and step >= warm_at
        return step >= self._steps(self.schedule.warmup)

    def _steps(self, length: float) -> float:
        return _in_steps(length, self.schedule.unit, self.steps_per_epoch)


def _in_steps(length: float, unit: Unit, steps_per_epoch: float) -> float:
    """Convert a length to steps; a number of epochs is rounded to whole steps."""
    return length if unit == "step" or not length else round(length * steps_per_epoch)


def with_shorter_warmup(schedule: ScheduleConfig, total_steps: float, steps_per_epoch: float) -> ScheduleConfig:
    """Return a schedule whose warm-up ends within the run: after half of it, if the warm-up is at least as long as the run."""
    has_known_length = schedule.unit == "step" or math.isfinite(steps_per_epoch)
    if not has_known_length or _in_steps(schedule.warmup, schedule.unit, steps_per_epoch) < max(1, total_steps):
        return schedule
    steps = total_steps // 2
    return replace(schedule, warmup=steps if schedule.unit == "step" else steps / steps_per_epoch)


def build_optimizer(config: OptimConfig, net: ResNet) -> Optimizer:
    """Build the optimizer of a network's trainable parameters, in the groups of `parameter_groups`.

    Raises:
        UsageError: an optimizer that does not exist or cannot be used, or an option that it does not have.
    """
    settings = {name: getattr(config, name) for name in (OWN[config.name][1] if config.name in OWN else ())}
    if config.name not in OWN:
        unused = {
            name: value for name in ("momentum", "nesterov", "betas") if (value := getattr(config, name)) != getattr(OptimConfig, name)
        }
        if unused:
            names, (name, value) = " and ".join(f"model.optim.{name}" for name in unused), next(iter(unused.items()))
            log.warning(
                "%s %s not passed on to %s. Set model.optim.options, such as {%s: %s}.",
                *(names, "are" if len(unused) > 1 else "is", config.name, name, plain(value)),
            )
    return build(config.name, parameter_groups(config, net), config.options, lr=config.lr, **settings)


def parameter_groups(config: OptimConfig, net: ResNet) -> list[dict[str, Any]]:
    """Group a network's trainable parameters by their learning rate and weight decay, and with Muon by their kind of step.

    Vectors are recognized by their number of dimensions and not by their names: the norm of a projection shortcut has no "bn" in its name.
    """
    head = {id(p) for p in net.fc.parameters()}
    convolutions = {id(m.weight) for name, m in net.named_modules() if name.startswith("layer") and isinstance(m, nn.Conv2d)}
    groups: dict[tuple[bool, ...], dict[str, Any]] = {}
    for parameter in (p for p in net.parameters() if p.requires_grad):
        in_backbone = config.backbone_lr != 1 and id(parameter) not in head
        is_decayed = config.decay_norms or parameter.ndim > 1
        by_muon = config.name == "muon" and id(parameter) in convolutions
        lr, decay = config.lr, config.weight_decay
        if config.name == "muon" and not by_muon:
            lr, decay = config.sgd_lr, config.sgd_weight_decay
        settings = {
            "params": [],
            "lr": lr * (config.backbone_lr if in_backbone else 1),
            "weight_decay": decay if is_decayed else 0.0,
        }
        if config.name == "muon":
            settings["orthogonalize"] = by_muon
        groups.setdefault((in_backbone, is_decayed, by_muon), settings)["params"].append(parameter)
    return list(groups.values())


def as_config(cls: type[Config], value: Config | Mapping[str, Any]) -> Config:
    """Return a settings object from itself or from plain settings, such as those of a checkpoint, under their names of any time.

    Raises:
        UsageError: a value of another type, an unknown key, or a value that is not allowed.
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"{cls.__name__} is {value!r}: it must be {cls.__name__}(...) or a mapping of its fields.")
    settings = with_new_names(value, "model.optim" if cls is OptimConfig else "model.schedule")
    check_keys(settings, [one.name for one in fields(cls)], (), cls.__name__)
    return cls(**settings)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is {value}: it must be {', '.join(allowed[:-1])} or {allowed[-1]}.")


def _numbers(name: str, values: Any) -> tuple[Any, ...]:
    """Return the numbers of a list."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is {values!r}: it must be a list of numbers.")
    for value in (numbers := tuple(values)):
        check_number(name, value)
    return numbers


def _within(name: str, value: float, low: float, high: float | None, *, open_low: bool = False) -> None:
    too_low = value <= low if open_low else value < low
    if too_low or (high is not None and value > high) or math.isnan(value):
        bound = f"{'above' if open_low else 'at least'} {low}" + ("" if high is None else f" and at most {high}")
        raise UsageError(f"{name} is {value}: it must be {bound}.")
