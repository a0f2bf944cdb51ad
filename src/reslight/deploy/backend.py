"""`Backend`: what turns decoded images into probabilities, be it a network in torch or an exported file in its own runtime."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from reslight.preprocess import Preprocess


class Backend(Protocol):
    """A trained classifier with its preprocessing."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each class; its number where classes have no names."""

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that `probabilities` does; its `channels` and `bits` are what images must have."""

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes: probabilities are then sigmoids, which need not add up to 1."""

    @property
    def description(self) -> str:
        """How probabilities are computed, in words, such as "onnxruntime 1.30, float32, 2 threads"."""

    def probabilities(self, images: Sequence[Tensor]) -> Tensor:
        """Classify decoded images.

        Args:
            images: uint8, with 16 bits also uint16, `(C, H, W)`; of any sizes.

        Returns:
            float32 `(N, classes)`, with the temperature of the weights.

        Raises:
            UsageError: images with other channels, or probabilities that are not numbers.
        """
