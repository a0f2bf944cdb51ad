"""Muon against a slow reference step, and against torch.optim.Muon on matrices."""

import pytest
import torch
from torch import Tensor, nn

from reslight.models import ResNet, cifar_config, create_model
from reslight.training import OptimConfig
from reslight.training.muon import Muon, orthogonalized
from reslight.training.optim import build_optimizer

CONFIG = OptimConfig("muon", lr=0.03, momentum=0.9, nesterov=True, weight_decay=0.1, sgd_lr=0.2, sgd_weight_decay=0.01)


def slow_direction(matrix: Tensor) -> Tensor:
    """The polynomial 3.4445 s - 4.7750 s^3 + 2.0315 s^5 five times on each singular value: without Newton-Schulz iterations."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ values.diag() @ right


def is_convolution_after_the_stem(name: str, parameter: Tensor) -> bool:
    return name.startswith("layer") and parameter.ndim == 4


@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 64, 16), (1, 8, 8)])
def test_singular_values_are_those_of_the_polynomial(shape: tuple[int, ...]):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    for matrix, direction in zip(matrices, orthogonalized(matrices), strict=True):
        torch.testing.assert_close(direction, slow_direction(matrix).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", ["basic", "bottleneck", "B"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_of_a_network_are_those_of_a_slow_loop(shape: str, nesterov: bool):
    torch.manual_seed(0)
    config = cifar_config(11, block="bottleneck") if shape == "bottleneck" else cifar_config(8, shortcut="B" if shape == "B" else "A")
    net = ResNet(config).double().to(memory_format=torch.channels_last)
    settings = OptimConfig(**{**vars(CONFIG), "nesterov": nesterov})
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    speed = {name: torch.zeros_like(p) for name, p in weights.items()}
    optimizer = build_optimizer(settings, net)
    for _ in range(3):
        images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(10, (4,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        for name, p in net.named_parameters():
            gradient, weight = p.grad.clone(), weights[name]
            if is_convolution_after_the_stem(name, p):
                speed[name] = 0.9 * speed[name] + gradient
                update = gradient + 0.9 * speed[name] if nesterov else speed[name]
                rows, columns = p.shape[0], p[0].numel()
                direction = slow_direction(update.reshape(rows, columns)).view(p.shape)
                weights[name] = weight * (1 - 0.03 * 0.1) - 0.03 * max(1, rows / columns) ** 0.5 * direction
            else:
                gradient = gradient + (0.01 * weight if p.ndim > 1 else 0)
                speed[name] = 0.9 * speed[name] + gradient
                weights[name] = weight - 0.2 * (gradient + 0.9 * speed[name] if nesterov else speed[name])
        optimizer.step()
        for name, p in net.named_parameters():
            torch.testing.assert_close(p, weights[name], rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
            weights[name] = p.detach().clone()  # compare single steps, so that differences do not add up


def test_on_matrices_it_is_torchs_muon():
    torch.manual_seed(0)
    start = torch.randn(24, 16)

    def train(make) -> Tensor:
        torch.manual_seed(1)
        weight = nn.Parameter(start.clone())
        optimizer = make([weight])
        for _ in range(4):
            optimizer.zero_grad()
            (torch.randn(8, 24) @ weight).square().mean().backward()
            optimizer.step()
        return weight.detach()

    ours = train(lambda p: Muon([{"params": p}], lr=0.1, momentum=0.9, weight_decay=0.2))
    theirs = train(lambda p: torch.optim.Muon(p, lr=0.1, momentum=0.9, weight_decay=0.2))
    assert (ours - start).abs().mean() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)  # theirs computes in bfloat16


def test_the_settings_of_each_group():
    net = create_model("resnet20", shortcut="B")
    groups = build_optimizer(CONFIG, net).param_groups
    seen = {id(p): group for group in groups for p in group["params"]}
    assert len(seen) == len(list(net.parameters()))
    for name, p in net.named_parameters():
        group = seen[id(p)]
        expected = (True, 0.03, 0.1) if is_convolution_after_the_stem(name, p) else (False, 0.2, 0.01 if p.ndim > 1 else 0.0)
        assert (group["orthogonalize"], group["lr"], group["weight_decay"]) == expected, name
    assert sum(group["orthogonalize"] for group in groups) == 1


def test_a_zero_gradient_changes_nothing():
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([{"params": [weight]}], lr=1.0).step()
    assert torch.equal(weight, torch.ones(4, 4))


def test_a_restored_state_continues_exactly():
    def train(steps: int, state: dict | None = None, weights: dict | None = None) -> tuple[nn.Module, dict]:
        torch.manual_seed(0)
        net = create_model("resnet20")
        if weights:
            net.load_state_dict(weights)
        optimizer = build_optimizer(CONFIG, net)
        if state:
            optimizer.load_state_dict(state)
        for step in range(steps):
            torch.manual_seed(step + (2 if state else 0))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
            optimizer.step()
        return net, optimizer.state_dict()

    whole, _ = train(4)
    half, state = train(2)
    rest, _ = train(2, state, half.state_dict())
    assert torch.isfinite(whole.fc.weight).all()
    for (name, p), q in zip(whole.named_parameters(), rest.parameters(), strict=True):
        assert torch.equal(p, q), name
