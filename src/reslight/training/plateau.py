"""The drops of a learning rate that falls when a metric no longer improves, as in torch's ReduceLROnPlateau."""

import math
from collections.abc import Mapping

METRICS = {"val/loss": "min", "val/acc1": "max", "val/acc5": "max", "val/mAP": "max"}
"""Metrics of each validation, and whether the lowest or the highest value is the best; mAP is for several labels of each image."""


class Plateau:
    """Counts how often a metric has not improved for more than `patience` validations in a row.

    Args:
        monitor: The metric, one of `METRICS`.
        patience: Validations without an improvement after which nothing happens yet.
        threshold: Least improvement, as a fraction of the best value.

    Attributes:
        drops: Drops of the learning rate so far.
    """

    def __init__(self, monitor: str, patience: int, threshold: float) -> None:
        self.monitor, self._patience, self._threshold = monitor, patience, threshold
        self._is_lower_better = METRICS[monitor] == "min"
        self._best = math.inf if self._is_lower_better else -math.inf
        self._bad = 0
        self.drops = 0

    def update(self, value: float) -> bool:
        """Count a validation; return whether the learning rate drops after it. A value of nan is no improvement."""
        limit = self._best * (1 - self._threshold if self._is_lower_better else 1 + self._threshold)
        if value < limit if self._is_lower_better else value > limit:
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._bad <= self._patience:
            return False
        self.drops, self._bad = self.drops + 1, 0
        return True

    def state_dict(self) -> dict[str, float]:
        """Return plain numbers for a checkpoint."""
        return {"best": self._best, "bad": self._bad, "drops": self.drops}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore `state_dict()`."""
        self._best, self._bad, self.drops = float(state["best"]), int(state["bad"]), int(state["drops"])
