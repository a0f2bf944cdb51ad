"""The warm-up of the paper's ResNet-110: hold a low rate until the training error has come down (section 4.2)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

WINDOW = 100
"""Steps over which the training error is measured."""


class ErrorWarmup:
    """Watches the training error and remembers the step at which it first came below the threshold.

    Attributes:
        warm_at: The first step with the full rate, the one after that; None before it is known, 0 where there is nothing to wait for.
    """

    def __init__(self, threshold: float | None) -> None:
        self._threshold = 1.0 if threshold is None else threshold
        self.warm_at: int | None = 0 if threshold is None else None
        self._correct: Tensor | int = 0
        self._total = 0
        self._checked = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a training batch: logits `(N, num_classes)`, labels `(N,)`."""
        if self.warm_at is None:
            self._correct = self._correct + (logits.detach().argmax(dim=1) == labels).sum()
            self._total += len(labels)

    def check(self, step: int, reduce: Callable[[Tensor], Tensor]) -> None:
        """Decide, every `WINDOW` steps and for all devices alike, whether the warm-up is over.

        Asked before the first batch of a step, so that a checkpoint between two steps has the same answer still to come.

        Args:
            step: Optimizer steps done.
            reduce: Sums a tensor over the devices of a run.
        """
        if self.warm_at is not None or step % WINDOW or step == self._checked or not step:
            return
        self._checked = step
        correct, total = self._counts(reduce)
        if 1 - correct / max(1, total) < self._threshold:
            self.warm_at = step + 1  # the rate of this one is set already
        self._correct, self._total = 0, 0

    def state_dict(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, int | None]:
        """Plain numbers of all devices for a checkpoint."""
        correct, total = self._counts(reduce)
        return {"warm_at": self.warm_at, "correct": correct, "total": total}

    def load_state_dict(self, state: Mapping[str, int | None], *, counts: bool) -> None:
        """Go on from `state_dict()`; one device alone takes the counts, which are those of all."""
        self.warm_at = state["warm_at"]
        self._correct, self._total = (state["correct"] or 0, state["total"] or 0) if counts else (0, 0)

    def _counts(self, reduce: Callable[[Tensor], Tensor]) -> tuple[int, int]:
        if self.warm_at is not None:
            return 0, 0
        device = self._correct.device if isinstance(self._correct, Tensor) else None
        correct, total = reduce(torch.tensor([int(self._correct), self._total], device=device)).tolist()
        return correct, total
