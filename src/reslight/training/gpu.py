"""Settings of torch that make a run on a GPU faster. Nothing is changed on other devices."""

from typing import Literal

import torch

MatmulPrecision = Literal["highest", "high", "medium"]
"""A precision of torch.set_float32_matmul_precision."""


def set_up_gpu(device: torch.device, precision: MatmulPrecision, *, has_fixed_sizes: bool) -> None:
    """Set the precision of matrix products in float32, and let cuDNN measure which convolutions are fastest.

    Args:
        device: The device of the run.
        precision: The precision of matrix products. Convolutions compute in TF32 either way, which is torch's default.
        has_fixed_sizes: Whether all batches have one size and nothing must be deterministic. cuDNN measures again for each new size, and
            can choose differently in each run.
    """
    if device.type != "cuda":  # on a CPU, other precisions than the highest would compute in bfloat16
        return
    torch.set_float32_matmul_precision(precision)
    if has_fixed_sizes:
        torch.backends.cudnn.benchmark = True
