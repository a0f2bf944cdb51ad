"""Compare the logits of two networks: the one place where reslight does it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LogitComparison:
    """How far logits are from reference logits of the same images.

    Attributes:
        max_difference: Largest absolute difference of two logits; NaN if either tensor holds a NaN.
        max_reference: Largest absolute reference logit.
        same_class: Fraction of the images whose most probable class is the same in both, 0 to 1.
        images: Number of images compared.
    """

    max_difference: float
    max_reference: float
    same_class: float
    images: int

    @property
    def relative_difference(self) -> float:
        """The largest difference, as a fraction of the largest reference logit."""
        return self.max_difference / max(self.max_reference, 1e-6)


def compare_logits(logits: Tensor, reference: Tensor) -> LogitComparison:
    """Compare logits with reference logits of the same images.

    Args:
        logits: `(N, num_classes)`, any floating dtype.
        reference: The same shape.
    """
    return LogitComparison(
        max_difference=float((logits - reference).abs().max()),
        max_reference=float(reference.abs().max()),
        same_class=float((logits.argmax(dim=1) == reference.argmax(dim=1)).double().mean()),
        images=len(reference),
    )
