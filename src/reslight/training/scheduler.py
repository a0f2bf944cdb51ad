"""`StepScheduler`: gives an optimizer's groups the learning rate of each step."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

OF_CONFIGURATION = ("lr", "initial_lr", "weight_decay", "momentum", "nesterov", "betas", "orthogonalize")
"""Settings of a group that the configuration decides on a resume. Others may be counters of the optimizer, such as those of timm's
lookahead, and options, which cannot change on a resume."""


class StepScheduler(LRScheduler):
    """Multiplies the peak learning rate of each group with a function of the step.

    A group's peak is its `initial_lr`. Unlike LambdaLR it takes groups that are added to the optimizer later, and its state is the step
    alone: the function and the peaks belong to the configuration.

    Args:
        optimizer: The optimizer, whose groups have their peak as `lr`.
        factor: From a step, counted from 0, to a factor.

    Attributes:
        has_other_peaks: Whether a learning rate was set from outside.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        self._factor = factor
        self._settings: list[dict[str, Any]] | None = None
        self.has_other_peaks = False
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the present step."""
        factor = self._factor(self.last_epoch)
        return [group.setdefault("initial_lr", group["lr"]) * factor for group in self.optimizer.param_groups]

    def keep_settings(self) -> None:
        """Keep the settings of the groups as they are now, for `restore_settings`; a second call does nothing.

        A learning rate that differs from the present step's was set from outside, such as by a subclass of ImageClassifier: it is the
        group's peak.
        """
        if self._settings is not None:
            return
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if group["lr"] != lr:
                group["initial_lr"] = group["lr"]
                self.has_other_peaks = True
        self._settings = [{key: group[key] for key in OF_CONFIGURATION if key in group} for group in self.optimizer.param_groups]

    def restore_settings(self) -> None:
        """Give the groups their settings of `keep_settings`, in place of those that came with the state of a checkpoint."""
        for group, settings in zip(self.optimizer.param_groups, self._settings or (), strict=False):
            group |= settings

    def scale(self, ratio: float) -> None:
        """Multiply the peaks that `restore_settings` restores."""
        for settings in self._settings or ():
            settings |= {key: settings[key] * ratio for key in ("lr", "initial_lr")}

    def scale_as_peaks(self, peak: float) -> None:
        """Multiply the learning rates, which are all the same, with the groups' peaks relative to `peak`."""
        for group, settings in zip(self.optimizer.param_groups, self._settings or (), strict=False):
            group["lr"] *= settings["initial_lr"] / peak

    def go_to(self, step: int) -> None:
        """Set the learning rates of a step."""
        self.last_epoch = step
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the step, under the names of every scheduler of torch."""
        return {key: getattr(self, key) for key in ("last_epoch", "_step_count", "_last_lr")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore `state_dict()`, or the state of a LambdaLR of an earlier version."""
        for key in ("last_epoch", "_step_count", "_last_lr"):
            setattr(self, key, state_dict[key])
