"""A small input and the logits that it must give: whoever loads the weights elsewhere can see whether they compute the same.

The logits are computed in float64, where neither the machine nor the number of threads shows in what float32 keeps of
them: exporting twice writes the same bytes.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.weights.header import Entry, compare, read_header

IMAGES = 2
TOLERANCE = 1e-4
"""Largest difference that float32 arithmetic may make, relative to the largest logit."""
_HEADER = 4096


@dataclass(frozen=True)
class Golden:
    """Pixels, uint8 `(N, C, H, W)`, and their logits, float32 `(N, num_classes)`."""

    pixels: Tensor
    logits: Tensor

    @classmethod
    def of(cls, net: ResNet, preprocess: Preprocess) -> "Golden":
        """Made for a network, on noise that is the same everywhere."""
        shape = (IMAGES, preprocess.channels, preprocess.size, preprocess.size)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return cls(pixels, logits_of(copy.deepcopy(net).cpu().double(), preprocess, pixels, torch.float64).float())

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        return save({"pixels": self.pixels, "logits": self.logits}, metadata={"format": "pt"})

    @classmethod
    def read(cls, path: Path, net: ResNet, preprocess: Preprocess) -> "Golden":
        """From a file that fits a network.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or does not fit.
        """
        size = (preprocess.channels, preprocess.size, preprocess.size)
        expected = {"logits": Entry("F32", (IMAGES, net.config.num_classes)), "pixels": Entry("U8", (IMAGES, *size))}
        compare(read_header(path, _HEADER), expected, f"{path} does not fit the network of its config.json")
        return cls(**load_file(path))

    def difference(self, net: ResNet, preprocess: Preprocess) -> float:
        """Largest |difference| of the network's logits, in its own dtype, from these, relative to the largest of these."""
        ours = logits_of(net, preprocess, self.pixels, net.fc.weight.dtype)
        return float((ours - self.logits).abs().max() / self.logits.abs().max().clamp_min(1e-6))


@torch.inference_mode()
def logits_of(net: ResNet, preprocess: Preprocess, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits of uint8 images `(N, C, H, W)`, the network in eval mode."""
    training = net.training
    try:
        logits: Tensor = net.eval()(preprocess.normalize(pixels, dtype))
    finally:
        net.train(training)
    return logits
