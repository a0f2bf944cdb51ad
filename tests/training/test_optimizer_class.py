"""Optimizers of torch and timm by name: with reslight's groups, with options that are checked, and with an exact resume."""

import math
import sys
from typing import Any

import pytest
import torch
from tests.training.test_optimization import Groups, tiny_data, tiny_model, trainer, weights_of
from torch.optim import Optimizer

from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.training import OptimConfig, ScheduleConfig
from reslight.training.optim import build_optimizer
from reslight.training.optimizer_class import OWN

NET = ResNet(ResNetConfig(depths=(1,), widths=(4,), stem="small", stem_width=4))
REFUSED_OF_TORCH = {"LBFGS", "SparseAdam", "Muon"}


def torch_names() -> list[str]:
    named = ((name, getattr(torch.optim, name)) for name in dir(torch.optim))
    return [name for name, item in named if isinstance(item, type) and issubclass(item, Optimizer) and item is not Optimizer]


def step(config: OptimConfig) -> Optimizer:
    """Build an optimizer, and let it change the weights; some only collect moments in their first step."""
    net = ResNet(NET.config)
    optimizer = build_optimizer(config, net)
    before = [p.detach().clone() for p in net.parameters()]
    for _ in range(2):
        net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in net.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    return optimizer


@pytest.mark.parametrize("name", [f"torch.optim.{name}" for name in torch_names()] + list(OWN))
def test_every_optimizer_of_torch_trains_or_is_refused(name):
    short = name.removeprefix("torch.optim.")
    decay = 0.0 if short == "Rprop" else 0.3
    config = OptimConfig(name, lr=0.01, weight_decay=decay, sgd_weight_decay=decay, backbone_lr=0.5)
    if short in REFUSED_OF_TORCH:
        with pytest.raises(UsageError, match=f"model.optim.name is {name}: it "):
            build_optimizer(config, NET)
        return
    groups = step(config).param_groups
    assert {group["weight_decay"] for group in groups} == {decay, 0.0}
    assert min(group["lr"] for group in groups) == pytest.approx(0.005)


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.nightly)])  # which takes 20 seconds
def test_every_optimizer_of_timm_trains_or_is_refused(is_compiled: bool):
    timm = pytest.importorskip("timm.optim")
    refused: dict[str, str] = {}
    names = [name for name in timm.list_optimizers() if name.startswith("kron") == is_compiled]
    assert names
    for name in names:
        try:
            optimizer = step(OptimConfig(f"timm:{name}", lr=0.01, weight_decay=0.3))
        except UsageError as error:
            refused[name] = str(error)
        else:
            assert {0.0, 0.3} == {group["weight_decay"] for group in optimizer.param_groups}
    assert all(says.startswith(f"model.optim.name is timm:{name}: ") and "\n" not in says for name, says in refused.items())
    # Those of apex and bitsandbytes need their packages.
    assert {name for name in refused if not name.startswith(("bnb", "fused"))} == ({"adahessian"} & {*names})


def test_options_are_passed_on():
    optimizer = build_optimizer(OptimConfig("torch.optim.RMSprop", options={"momentum": 0.7, "centered": True}), NET)
    assert (optimizer.defaults["momentum"], optimizer.defaults["centered"]) == (0.7, True)
    assert build_optimizer(OptimConfig("torch.optim.Adam", options={"betas": [0.5, 0.6]}), NET).defaults["betas"] == (0.5, 0.6)
    sgd = build_optimizer(OptimConfig(momentum=0.8, options={"maximize": True}), NET).defaults
    assert (sgd["momentum"], sgd["maximize"]) == (0.8, True)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("torch.optim.Adamw", {}, "torch.optim has no such optimizer. Did you mean torch.optim.AdamW?"),
        ("torch.optim.Optimizer", {}, "torch.optim has no such optimizer."),
        ("torch.optim.LBFGS", {}, "it computes the loss several times in a step"),
        ("torch.optim.SparseAdam", {}, "it takes sparse gradients only"),
        ("torch.optim.Rprop", {}, "it has no weight decay. Set model.optim.weight_decay to 0."),
        (
            "torch.optim.Adam",
            {"amsgrd": True},
            "options.amsgrd is no argument of torch.optim.Adam. Did you mean model.optim.options.amsgrad?",
        ),
        ("torch.optim.Adam", {"lr": 3}, "model.optim.options.lr is a setting of its own: set model.optim.lr."),
        ("torch.optim.Adam", {"params": 3}, "model.optim.options.params is no argument of torch.optim.Adam."),
        ("torch.optim.Adam", {"eps": -1}, "it cannot be built (Invalid epsilon value: -1)"),
        ("sgd", {"momentum": 0.5}, "model.optim.options.momentum is a setting of its own: set model.optim.momentum."),
        ("muon", {"beta": 0.5}, "model.optim.options.beta is no argument of muon."),
        ("timm:loin", {}, "timm has no such optimizer. Did you mean timm:lion?"),
        ("timm:lion", {"beta": 1}, "model.optim.options.beta is no argument of timm:lion. Did you mean model.optim.options.betas?"),
        ("timm:adahessian", {}, "it needs second derivatives"),
    ],
)
def test_mistakes_are_found_before_the_first_step(name, options, says):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(UsageError) as caught:
        build_optimizer(OptimConfig(name, options=options), NET)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "near"), [("adam", "torch.optim.Adam"), ("rmsprop", "torch.optim.RMSprop"), ("sdg", "sgd")])
def test_a_name_without_a_prefix_is_corrected(name, near):
    with pytest.raises(UsageError, match=f"torch.optim.NAME or timm:NAME. Did you mean {near}?"):
        OptimConfig(name)


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    config = OptimConfig("timm:lion")  # a checkpoint of such a run is evaluated without timm
    with pytest.raises(UsageError, match="the package timm is not installed"):
        build_optimizer(config, NET)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torch.optim.NAdam", {}),
        ("torch.optim.ASGD", {}),
        ("timm:lookahead_adamw", {}),
        ("timm:lion", {"caution": True}),
    ],
)
def test_they_resume_exactly_with_the_schedule(name, options, tmp_path):
    if name.startswith("timm:"):
        pytest.importorskip("timm")

    def fit(steps: int, **resume: Any) -> tuple[Any, list[Any]]:
        optim = OptimConfig(name, lr=0.01, backbone_lr=0.5, options=options)
        model = tiny_model(optim=optim, schedule=ScheduleConfig("multistep", milestones=(3, 6), warmup=2))
        run = trainer(groups := Groups(), max_steps=steps, max_epochs=-1)
        run.fit(model, datamodule=tiny_data(), **resume)
        run.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return model, [max(row)[0] for row in groups.seen]

    torch.manual_seed(1)
    whole, rates = fit(8)
    assert rates == pytest.approx([1e-4, 0.00505, 0.01, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4])
    fit(4)
    resumed, rest = fit(8, ckpt_path=tmp_path / "4.ckpt", weights_only=True)
    assert rest == rates[4:]
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(resumed), strict=True))
    assert math.isfinite(resumed.recorded["train/loss"])


def test_the_command_line_takes_a_name_and_options(fit):
    words = ["--model.optim.name", "torch.optim.Adam", "--model.optim.options.amsgrad", "true", "--model.optim.options.eps=1e-6"]
    answer = fit("runs", *words, "--trainer.max_epochs", "1")
    assert answer.code == 0, answer.err
    contents = torch.load("runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    assert contents["hyper_parameters"]["optim"]["options"] == {"amsgrad": True, "eps": 1e-6}
    (state,) = contents["optimizer_states"]
    assert all(group["amsgrad"] and group["eps"] == 1e-6 for group in state["param_groups"])
    again = fit("runs", *words[:4], "--trainer.max_epochs", "2", "--ckpt_path", "last")
    assert again.code == 2
    assert "model.optim.options.eps is None" in again.err
    other = fit("runs", "--trainer.max_epochs", "2", "--ckpt_path", "last")
    assert other.code == 2
    assert "model.optim.name is sgd" in other.err
    wrong = fit("other", *words[:2], "--model.optim.options", "{amsgrd: true}")
    assert wrong.code == 2
    assert "Did you mean model.optim.options.amsgrad?" in wrong.err
