"""Muon: orthogonalized momentum for the convolutions, SGD for everything else.

Source: Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. A convolution is the matrix (out, in * kh * kw), as in
cifar10-airbench and timm; torch.optim.Muon takes matrices only.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from reslight.training.base_optimizer import BaseOptimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_EPSILON = 1e-7


class Muon(BaseOptimizer):
    """Step groups with `orthogonalize: True` along their orthogonalized momentum, and the other groups with SGD.

    With gradient g, momentum mu and weights w of shape (m, n) = (out, in * kh * kw), an orthogonalized step is
    v = mu * v + g; u = g + mu * v (Nesterov) or v; w = w * (1 - lr * weight_decay) - lr * sqrt(max(1, m / n)) * orthogonal(u).
    A grouped convolution is one matrix of all its groups.

    Args:
        params: Groups of parameters, each with `orthogonalize`. All parameters of a group with True have at least two dimensions.
        lr: Learning rate.
        momentum: Momentum, of both kinds of step.
        nesterov: Nesterov's form of momentum, of both kinds of step.
        weight_decay: Weight decay: decoupled where the step is orthogonalized, added to the gradient by SGD.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "orthogonalize": True}
        super().__init__(params, defaults)

    def _update_parameters(self) -> None:
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if pairs:
                (self._orthogonal_step if group["orthogonalize"] else self._sgd_step)(pairs, group)

    def _sgd_step(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        parameters, gradients = ([*column] for column in zip(*pairs, strict=True))
        buffers = [self.state[p].get("momentum_buffer") for p in parameters]
        settings = {key: group[key] for key in ("weight_decay", "momentum", "lr", "nesterov")}
        sgd(parameters, gradients, buffers, **settings, dampening=0, maximize=False)
        if group["momentum"]:
            for parameter, buffer in zip(parameters, buffers, strict=True):
                self.state[parameter]["momentum_buffer"] = buffer

    def _orthogonal_step(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        # torch._foreach_* is one call for all parameters: on a GPU, starting one operation for each takes longer than computing it.
        parameters, gradients = ([*column] for column in zip(*pairs, strict=True))
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        updates = torch._foreach_add(gradients, buffers, alpha=group["momentum"]) if group["nesterov"] else buffers
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        # Matrices of one shape are stacked: many small products are slower than a few large ones.
        stacks: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, update in zip(parameters, updates, strict=True):
            matrix = update.flatten(1)
            stacks[matrix.shape[0], matrix.shape[1]].append((parameter, matrix))
        for (rows, columns), members in stacks.items():
            directions = orthogonalized(torch.stack([matrix for _, matrix in members]))
            steps = [direction.view(parameter.shape) for (parameter, _), direction in zip(members, directions, strict=True)]
            torch._foreach_add_([parameter for parameter, _ in members], steps, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices close to 1 by five Newton-Schulz iterations, which use matrix products only.

    With these coefficients singular values end between 0.7 and 1.2, in fewer iterations than exact convergence to 1 takes.

    Args:
        matrices: `(B, m, n)`, floating point.

    Returns:
        `(B, m, n)`, in the dtype of `matrices`.
    """
    # bfloat16 is enough, and fast on GPUs; many CPUs only emulate it.
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + _EPSILON)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)
