"""What stops a run or a measurement rather than let its numbers be wrong."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def check_loss(loss: float, step: int, rate: float) -> None:
    """Stop at a loss that is no number.

    Raises:
        FloatingPointError: It is none.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the training loss is {loss} at step {step}; lower model.optim.lr (the rate was {rate:g}), "
            "lengthen model.schedule.warmup, or set trainer.gradient_clip_val"
        )


def check_weights(state: Mapping[str, Tensor], step: int, rate: float) -> None:
    """Keep a checkpoint from being overwritten with weights that are no numbers.

    Raises:
        FloatingPointError: Some are none: the checkpoint before, which this one would replace, is worth more.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise FloatingPointError(
                f"{name} is no longer finite at step {step}, whose checkpoint is not written: those before it are as they were; "
                f"lower model.optim.lr (the rate was {rate:g}) or set trainer.gradient_clip_val, and go on with --ckpt_path last"
            )


def check_total(split: str, total: int, described: Mapping[str, object] | None, skipped: int) -> None:
    """Every image exactly once, or the number is not worth having.

    Args:
        split: What was measured.
        total: Images counted, over all devices.
        described: What the data say of the split; None where they say nothing, and nothing is compared.
        skipped: Images that cannot be read and were left out, which was asked for and is said.

    Raises:
        RuntimeError: Some were counted twice, or not at all.
    """
    expected = (described or {}).get("size")
    if isinstance(expected, int) and total != expected - skipped:
        raise RuntimeError(f"{split} measured {total} images and the set has {expected}; each must be counted exactly once")
