"""Optimizers and learning-rate schedules: plain settings in, torch objects out.

The learning rate of every step is a closed form of that step, never of the rate before it. So a resumed run, a plot of the schedule and
a test all ask the same function, and a rate that was set by hand cannot survive a milestone by accident.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.training.lamb import Lamb
from reslight.training.muon import Muon

Config = TypeVar("Config", "OptimConfig", "ScheduleConfig")


@dataclass(frozen=True)
class OptimConfig:
    """Which optimizer, and what it decays.

    The paper (section 4.2) trains with plain SGD, momentum 0.9 and weight decay 1e-4 on every parameter: `decay_norms: true`. Later
    recipes spare the parameters that are vectors (gamma and beta of the norms, biases), which is the default here.
    """

    name: Literal["sgd", "adamw", "lamb", "muon"] = "sgd"
    """Stochastic gradient descent; Adam with decoupled weight decay; LAMB, for large batches; or Muon for the convolutions behind the
    stem, with SGD for the rest."""
    lr: float = 0.1
    """Peak learning rate, for the global batch size; nothing scales it."""
    momentum: float = 0.9
    """Momentum of SGD and Muon: v = momentum * v + gradient; w = w - lr * v."""
    nesterov: bool = False
    """Nesterov's form of momentum (SGD, Muon)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments of AdamW and LAMB."""
    weight_decay: float = 1e-4
    """Weight decay: added to the gradient by SGD, decoupled in AdamW, LAMB and Muon."""
    decay_norms: bool = False
    """Decay vectors (norms, biases) too, as the paper does."""
    body_lr: float = 1.0
    """Learning rate of everything before the classifier, as a factor of `lr`: below 1 where it is trained already."""
    sgd_lr: float = 0.1
    """With Muon, peak learning rate of what SGD trains: the stem, the classifier, norms and biases."""
    sgd_weight_decay: float = 5e-4
    """With Muon, weight decay of what SGD trains."""

    def __post_init__(self) -> None:
        """Check the values; ValueError names the bad one."""
        object.__setattr__(self, "betas", tuple(self.betas))
        _choice("optim.name", self.name, ("sgd", "adamw", "lamb", "muon"))
        _within("optim.lr", self.lr, 0, None, open_low=True)
        _within("optim.momentum", self.momentum, 0, 1)
        _within("optim.weight_decay", self.weight_decay, 0, None)
        _within("optim.body_lr", self.body_lr, 0, None, open_low=True)
        _within("optim.sgd_lr", self.sgd_lr, 0, None, open_low=True)
        _within("optim.sgd_weight_decay", self.sgd_weight_decay, 0, None)
        for beta in self.betas:
            _within("optim.betas", beta, 0, 1)
        if self.nesterov and self.momentum == 0:
            raise UsageError("optim.nesterov is true with optim.momentum 0; Nesterov needs momentum above 0, for example 0.9")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over a run, as a factor of `optim.lr`."""

    name: Literal["cosine", "multistep", "constant"] = "cosine"
    """Half a cosine down to `min_lr` at the end of the run; a drop at each milestone; or no change."""
    unit: Literal["step", "epoch"] = "step"
    """What `warmup` and `milestones` count: optimizer steps (the paper's iterations) or epochs."""
    warmup: float = 0.0
    """Length of the linear warm-up; the milestones and the cosine's end count from the start of the run, warm-up included."""
    warmup_start: float = 0.01
    """Factor of the learning rate in the first step of a warm-up."""
    warmup_until_error: float | None = None
    """Instead of a linear warm-up: hold `warmup_start` until the training error (fraction, over 100 steps) is below this. The paper's
    ResNet-110 (section 4.2) holds 0.1 of its rate until 0.8."""
    milestones: tuple[float, ...] = ()
    """Where a multistep schedule drops."""
    gamma: float = 0.1
    """Factor of each drop."""
    min_lr: float = 0.0
    """Learning rate at the end of a cosine."""

    def __post_init__(self) -> None:
        """Check the values; ValueError names the bad one."""
        object.__setattr__(self, "milestones", tuple(self.milestones))
        _choice("schedule.name", self.name, ("cosine", "multistep", "constant"))
        _choice("schedule.unit", self.unit, ("step", "epoch"))
        _within("schedule.warmup", self.warmup, 0, None)
        _within("schedule.warmup_start", self.warmup_start, 0, 1)
        _within("schedule.gamma", self.gamma, 0, 1, open_low=True)
        _within("schedule.min_lr", self.min_lr, 0, None)
        if self.warmup_until_error is not None:
            _within("schedule.warmup_until_error", self.warmup_until_error, 0, 1, open_low=True)
            if self.warmup:
                raise UsageError("schedule.warmup and schedule.warmup_until_error are two warm-ups; keep one of them")
        if list(self.milestones) != sorted({m for m in self.milestones if m > 0}):
            raise UsageError(f"schedule.milestones is {list(self.milestones)}; they must be positive and rising")
        if (self.name == "multistep") != bool(self.milestones):
            raise UsageError(
                f"schedule.name is {self.name!r} with milestones {list(self.milestones)}; "
                "a multistep schedule needs milestones and no other takes them"
            )


@dataclass(frozen=True)
class LearningRate:
    """A schedule bound to the lengths of one run: `lr(step)` in closed form.

    Args:
        schedule: The settings.
        peak: `optim.lr`.
        total_steps: Optimizer steps of the whole run; math.inf where the run has no end.
        steps_per_epoch: Optimizer steps of one epoch; turns epochs into steps.
    """

    schedule: ScheduleConfig
    peak: float
    total_steps: float
    steps_per_epoch: float

    def __post_init__(self) -> None:
        """ValueError when the schedule does not fit into the run."""
        warmup = self._steps(self.schedule.warmup)
        if self.schedule.name == "cosine":
            if not math.isfinite(self.total_steps):
                raise UsageError("a cosine schedule needs the run's length; set trainer.max_epochs or trainer.max_steps")
            if self.schedule.min_lr > self.peak:
                raise UsageError(f"schedule.min_lr {self.schedule.min_lr} is above optim.lr {self.peak}; lower it")
        if warmup and warmup >= self.total_steps:
            raise UsageError(
                f"model.schedule.warmup is {warmup:g} steps and the run has {self.total_steps:g}; shorten the warm-up or lengthen the run"
            )

    def __call__(self, step: int, warm_at: int | None = 0) -> float:
        """Learning rate of optimizer step `step`, counted from 0.

        Args:
            step: 0 is the first update; `total_steps` is one past the last.
            warm_at: With `warmup_until_error`, the first step with the full rate; None as long as the error is not below it.
        """
        config = self.schedule
        if config.warmup_until_error is not None and (warm_at is None or step < warm_at):
            return self.peak * config.warmup_start
        warmup = self._steps(config.warmup)
        if step < warmup:
            return self.peak * (config.warmup_start + (1 - config.warmup_start) * step / warmup)
        if config.name == "multistep":
            return self.peak * config.gamma ** sum(step >= self._steps(m) for m in config.milestones)
        if config.name == "cosine":
            done = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
            return config.min_lr + (self.peak - config.min_lr) * (1 + math.cos(math.pi * done)) / 2
        return self.peak

    def _steps(self, length: float) -> float:
        """A length in steps, rounded to a whole one."""
        return length if self.schedule.unit == "step" else round(length * self.steps_per_epoch)


def build_optimizer(config: OptimConfig, net: ResNet) -> Optimizer:
    """Make the optimizer, with the parameters in groups that share their settings; those that need no gradient are left out.

    Vectors are told from weights by their number of dimensions, not by their names: names miss the norm of a projection shortcut.
    """
    head = {id(p) for p in net.fc.parameters()}
    convolutions = {id(m.weight) for name, m in net.named_modules() if name.startswith("layer") and isinstance(m, nn.Conv2d)}
    groups: dict[tuple[bool, ...], dict[str, Any]] = {}
    for parameter in (p for p in net.parameters() if p.requires_grad):
        is_body = config.body_lr != 1 and id(parameter) not in head
        is_decayed = config.decay_norms or parameter.ndim > 1
        is_muons = config.name == "muon" and id(parameter) in convolutions
        by_sgd_of_muon = config.name == "muon" and not is_muons
        lr, decay = (config.sgd_lr, config.sgd_weight_decay) if by_sgd_of_muon else (config.lr, config.weight_decay)
        settings = {"params": [], "lr": lr * (config.body_lr if is_body else 1), "weight_decay": decay if is_decayed else 0.0}
        if config.name == "muon":
            settings["orthogonalize"] = is_muons
        groups.setdefault((is_body, is_decayed, is_muons), settings)["params"].append(parameter)
    made = list(groups.values())
    if config.name in ("sgd", "muon"):
        return (SGD if config.name == "sgd" else Muon)(made, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    return (AdamW if config.name == "adamw" else Lamb)(made, lr=config.lr, betas=config.betas)


def as_config(cls: type[Config], value: Config | Mapping[str, Any]) -> Config:
    """A settings object from itself or from the plain mapping that a checkpoint keeps of it.

    Raises:
        ValueError: A key that the settings do not have.
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"{cls.__name__} cannot be made from {value!r}; give {cls.__name__}(...) or a mapping of its fields")
    names = [field.name for field in fields(cls)]
    if unknown := sorted(set(value) - set(names)):
        raise UsageError(f"{cls.__name__} has no {', '.join(unknown)}; its fields are {', '.join(names)}")
    return cls(**value)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}; allowed are {', '.join(allowed)}")


def _within(name: str, value: float, low: float, high: float | None, *, open_low: bool = False) -> None:
    too_low = value <= low if open_low else value < low
    if too_low or (high is not None and value > high) or math.isnan(value):
        bound = f"{'above' if open_low else 'at least'} {low}" + ("" if high is None else f" and at most {high}")
        raise UsageError(f"{name} is {value}; it must be {bound}")
