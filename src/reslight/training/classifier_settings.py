"""Check the settings of `ImageClassifier`."""

from typing import Literal, get_args

from reslight.messages import UsageError, check_number
from reslight.training.loss import Loss
from reslight.training.optim import ScheduleConfig

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
"""A mode of torch.compile."""


def check_for_several_labels(loss: Loss | None, teacher: str | None, schedule: ScheduleConfig) -> None:
    """Check the settings that are for one label of each image.

    Raises:
        UsageError: such a setting.
    """
    why = "the images have several labels, or none"
    if loss == "cross_entropy":
        raise UsageError(f"model.loss is cross_entropy: it is for one label of each image, and {why}. Use bce, the default for them.")
    if teacher is not None:
        raise UsageError(f"model.teacher is {teacher}: distillation is for one label of each image, and {why}. Use null.")
    if schedule.warmup_until_error is not None:
        raise UsageError(
            f"model.schedule.warmup_until_error is {schedule.warmup_until_error:g}: the error is for one label of each image, and {why}. "
            "Use model.schedule.warmup."
        )


def check_settings(label_smoothing: float, ema: float | None, loss: str | None, compile: bool | str) -> None:
    """Check settings of the classifier that are not checked elsewhere.

    Raises:
        UsageError: a value that is not allowed.
    """
    if not isinstance(compile, bool) and compile not in get_args(CompileMode):
        raise UsageError(f"model.compile is {compile}: it must be true, false, {', '.join(get_args(CompileMode))}.")
    check_number("model.label_smoothing", label_smoothing)
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"model.label_smoothing is {label_smoothing}: it must be at least 0 and below 1.")
    if ema is not None:
        check_number("model.ema", ema)
    if ema is not None and not 0 < ema < 1:
        raise UsageError(f"model.ema is {ema}: it must be between 0 and 1, for example 0.999, or null.")
    if loss not in (None, *get_args(Loss)):
        raise UsageError(f"model.loss is {loss}: it must be {' or '.join(get_args(Loss))}.")
