"""What the optimizers of this package share: a step that may call a closure first."""

from collections.abc import Callable

import torch
from torch.optim import Optimizer


class BaseOptimizer(Optimizer):
    """An optimizer whose subclass defines `_update_parameters`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch declares two overloads
        """Take a step; return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update_parameters()
        return loss

    def _update_parameters(self) -> None:
        """Update the parameters from their gradients."""
        raise NotImplementedError  # torch's Optimizer is no abstract class, so @abstractmethod would not be enforced
