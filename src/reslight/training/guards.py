"""Stop a run or an evaluation whose numbers would be wrong."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def check_loss(loss: float, step: int, lr: float) -> None:
    """Stop at a loss that is not finite.

    Raises:
        FloatingPointError: a loss that is nan or infinite.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the training loss is {loss} at step {step} with learning rate {lr:g}: it must be finite. "
            "Lower model.optim.lr, lengthen model.schedule.warmup, or set trainer.gradient_clip_val."
        )


def check_weights(state: Mapping[str, Tensor], step: int, lr: float) -> None:
    """Check weights before they are written over an earlier checkpoint.

    Raises:
        FloatingPointError: a weight that is nan or infinite.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise FloatingPointError(
                f"{name} is not finite at step {step} with learning rate {lr:g}: this checkpoint is not written, earlier ones are kept. "
                "Lower model.optim.lr or set trainer.gradient_clip_val, and resume with --ckpt_path last."
            )


def check_total(split: str, total: int, split_info: Mapping[str, object] | None, skipped: int) -> None:
    """Check that each image of a split was counted exactly once.

    Args:
        split: The split that was evaluated.
        total: Images counted, over all devices.
        split_info: What the data module says of the split; None if unknown, then nothing is checked.
        skipped: Unreadable images that were skipped, over all devices.

    Raises:
        RuntimeError: images that were counted twice or not at all.
    """
    size = (split_info or {}).get("size")
    if isinstance(size, int) and total != size - skipped:
        raise RuntimeError(f"{total} images of {split} were counted: the split has {size}, and each must be counted exactly once.")
