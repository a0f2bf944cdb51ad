"""What a network says of images: their most probable classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """What a network says of an image.

    Attributes:
        classes: The most probable classes with their probabilities, the highest first; a class without a name is called by its number.
    """

    classes: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0][0]

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return self.classes[0][1]


def predictions(probabilities: Tensor, labels: Sequence[str], top: int | None) -> list[Prediction]:
    """Return the best classes of images with these probabilities `(N, classes)`."""
    best = probabilities.sort(dim=1, descending=True, stable=True)
    rows = zip(best.indices[:, :top].tolist(), best.values[:, :top].tolist(), strict=True)
    return [Prediction(tuple((labels[one], value) for one, value in zip(*row, strict=True))) for row in rows]
