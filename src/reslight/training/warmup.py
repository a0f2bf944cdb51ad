"""The warm-up of the paper's ResNet-110: a low learning rate until the training error is below a threshold (section 4.2)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

WINDOW = 100
"""Steps over which the training error is averaged."""


class ErrorWarmup:
    """Finds the step at which the training error is first below a threshold.

    Args:
        threshold: Training error as a fraction; None for no warm-up.

    Attributes:
        warm_at: The first step with the full learning rate; None while the error is too high, 0 without a warm-up.
    """

    def __init__(self, threshold: float | None) -> None:
        self._threshold = 1.0 if threshold is None else threshold
        self.warm_at: int | None = 0 if threshold is None else None
        self._correct: Tensor | int = 0
        self._total = 0
        self._checked = 0

    def update(self, is_correct: Tensor) -> None:
        """Count a training batch.

        Args:
            is_correct: `(N,)`: whether the prediction of each image is correct.
        """
        if self.warm_at is None:
            self._correct = self._correct + is_correct.sum()
            self._total += len(is_correct)

    def check(self, step: int, reduce: Callable[[Tensor], Tensor]) -> None:
        """Decide every `WINDOW` steps whether the warm-up is over, with the same result on all devices.

        Called before the first batch of a step: a run that resumes from a checkpoint between two steps decides again, with the same counts.

        Args:
            step: Optimizer steps done.
            reduce: Sums a tensor over the devices of a run.
        """
        if self.warm_at is not None or step % WINDOW or step == self._checked or not step:
            return
        self._checked = step
        correct, total = self._counts(reduce)
        if 1 - correct / max(1, total) < self._threshold:
            self.warm_at = step + 1  # the learning rate of the present step is already set
        self._correct, self._total = 0, 0

    def state_dict(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, int | None]:
        """Return plain numbers for a checkpoint, summed over all devices."""
        correct, total = self._counts(reduce)
        return {"warm_at": self.warm_at, "correct": correct, "total": total}

    def load_state_dict(self, state: Mapping[str, int | None], *, counts: bool) -> None:
        """Restore `state_dict()`; the counts are those of all devices, so only one device restores them (`counts`)."""
        self.warm_at = state["warm_at"]
        self._correct, self._total = (state["correct"] or 0, state["total"] or 0) if counts else (0, 0)

    def _counts(self, reduce: Callable[[Tensor], Tensor]) -> tuple[int, int]:
        if self.warm_at is not None:
            return 0, 0
        device = self._correct.device if isinstance(self._correct, Tensor) else None
        correct, total = reduce(torch.tensor([int(self._correct), self._total], device=device)).tolist()
        return correct, total
