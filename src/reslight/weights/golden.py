"""golden.safetensors: a few images and the logits that the network must give for them.

Whoever loads the weights in another library or on another machine can check that they compute the same.

The logits are computed in float64. Rounding on the machine and the number of threads then do not change the float32
values that are saved, so exporting the same network twice writes the same bytes.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.weights.header import Entry, compare, read_header
from reslight.weights.logits import LogitComparison, compare_logits

IMAGES = 2
TOLERANCE = 1e-4
"""Largest difference that float32 arithmetic may cause, relative to the largest logit."""
_MAX_HEADER = 4096
"""Bytes."""


@dataclass(frozen=True)
class Golden:
    """Images and the logits of one network for them.

    Attributes:
        pixels: uint8 `(N, C, H, W)`.
        logits: float32 `(N, num_classes)`.
    """

    pixels: Tensor
    logits: Tensor

    @classmethod
    def of(cls, net: ResNet, preprocess: Preprocess) -> "Golden":
        """Compute the golden logits of a network on the CPU; the network is not changed."""
        pixels = golden_pixels(preprocess)
        return cls(pixels, logits_of(copy.deepcopy(net).cpu().double(), preprocess, pixels, torch.float64).float())

    def to_bytes(self) -> bytes:
        """Return the content of golden.safetensors."""
        return save({"pixels": self.pixels, "logits": self.logits}, metadata={"format": "pt"})

    @staticmethod
    def largest_file(preprocess: Preprocess, num_classes: int) -> int:
        """Return the size of the largest golden.safetensors of a network, in bytes."""
        return 8 + _MAX_HEADER + IMAGES * (preprocess.channels * math.prod(preprocess.shape) + 4 * num_classes)

    @classmethod
    def read(cls, path: Path, net: ResNet, preprocess: Preprocess) -> "Golden":
        """Read a file and check that its shapes are those of a network.

        Raises:
            FileNotFoundError: a missing file.
            UsageError: a damaged file, or other shapes.
        """
        size = (preprocess.channels, *preprocess.shape)
        expected = {"logits": Entry("F32", (IMAGES, net.config.num_classes)), "pixels": Entry("U8", (IMAGES, *size))}
        compare(read_header(path, _MAX_HEADER), expected, f"{path} does not fit the network of its config.json")
        return cls(**load_file(path))

    def compare(self, net: ResNet, preprocess: Preprocess) -> LogitComparison:
        """Compare the logits that a network gives, in its own dtype, with the golden ones."""
        return compare_logits(logits_of(net, preprocess, self.pixels, net.fc.weight.dtype), self.logits)


def golden_pixels(preprocess: Preprocess) -> Tensor:
    """Return the golden images, uint8 `(N, C, H, W)`: noise that is the same on every machine."""
    shape = (IMAGES, preprocess.channels, *preprocess.shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def logits_of(net: ResNet, preprocess: Preprocess, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the logits of a network in eval mode.

    Args:
        net: Returns to the mode that it was in.
        preprocess: Normalizes the images.
        pixels: uint8 `(N, C, H, W)`.
        dtype: Of the images that the network gets: the network's own.

    Returns:
        `(N, num_classes)`, of `dtype`.
    """
    training = net.training
    try:
        logits: Tensor = net.eval()(preprocess.normalize(pixels, dtype))
    finally:
        net.train(training)
    return logits
