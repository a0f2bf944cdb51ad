"""LAMB: Adam's step, scaled for each tensor to the norm of its weights; for large batches.

Source: You et al. 2019 (arXiv:1904.00962), algorithm 2, in the form of "ResNet strikes back" (arXiv:2110.00476): the gradient of all
weights together is clipped to norm 1, the moments are corrected for their bias, and tensors without weight decay take Adam's step
unscaled.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from reslight.training.base_optimizer import BaseOptimizer

_MAX_GRADIENT_NORM = 1.0


class Lamb(BaseOptimizer):
    """Steps parameters with layer-wise adaptive moments.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Decay factors of the two moments.
        eps: Added to the square root of the second moment.
        weight_decay: Decoupled weight decay; a group with 0 is not scaled to the norm of its weights.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update_parameters(self) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return
        norm = torch.nn.utils.get_total_norm(gradients)
        scale = (norm / _MAX_GRADIENT_NORM).clamp_(min=1.0)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad / scale.to(parameter.grad.device), group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        state["step"] += 1
        beta1, beta2 = group["betas"]
        first, second = state["exp_avg"], state["exp_avg_sq"]
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        update = (first / correction1).div_((second.sqrt() / correction2**0.5).add_(group["eps"]))
        if decay := group["weight_decay"]:
            update.add_(parameter, alpha=decay)
            ratio = parameter.norm() / update.norm()
            # Without a norm of the weights or of the step there is no ratio: Adam's step is taken unscaled.
            update.mul_(torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, torch.ones_like(ratio)))
        parameter.sub_(update, alpha=group["lr"])
