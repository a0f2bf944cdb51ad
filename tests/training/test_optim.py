"""Learning rates at every boundary, against torch's own schedulers; parameter groups by a hand count."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, ReduceLROnPlateau, SequentialLR

from reslight.training import LearningRate, OptimConfig, ScheduleConfig
from reslight.training.lamb import Lamb
from reslight.training.muon import Muon
from reslight.training.optim import as_config, build_optimizer, with_shorter_warmup
from reslight.training.plateau import Plateau

PAPER = LearningRate(ScheduleConfig("multistep", milestones=(32_000, 48_000)), peak=0.1, total_steps=64_000, steps_per_epoch=391)


def torch_rates(scheduler_of, peak: float, steps: int) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)])
def test_paper_drops_at_its_iterations(step: int, rate: float):
    assert PAPER(step) == pytest.approx(rate, rel=1e-12)


def test_resnet110_holds_a_tenth_until_the_training_error_is_down():
    schedule = ScheduleConfig("multistep", milestones=(32_000, 48_000), warmup_until_error=0.8, warmup_start=0.1)
    rate = LearningRate(schedule, 0.1, 64_000, 391)
    assert [rate(step, warm_at=None) for step in (0, 400, 40_000)] == pytest.approx([0.01] * 3)
    assert [rate(step, warm_at=400) for step in (399, 400, 31_999, 32_000, 48_000)] == pytest.approx([0.01, 0.1, 0.1, 0.01, 0.001])


def test_multistep_is_torchs():
    rate = LearningRate(ScheduleConfig("multistep", milestones=(30, 60, 80), gamma=0.2), 0.3, 90, 10)
    assert [rate(s) for s in range(90)] == pytest.approx(torch_rates(lambda o: MultiStepLR(o, [30, 60, 80], 0.2), 0.3, 90))


def test_cosine_is_torchs():
    rate = LearningRate(ScheduleConfig(min_lr=1e-3), 0.5, 70, 10)
    assert [rate(s) for s in range(71)] == pytest.approx(torch_rates(lambda o: CosineAnnealingLR(o, 70, 1e-3), 0.5, 71))


def test_warmup_and_cosine_are_torchs_in_sequence():
    def scheduler(optimizer):
        parts = [LinearLR(optimizer, start_factor=0.01, total_iters=20), CosineAnnealingLR(optimizer, 80)]
        return SequentialLR(optimizer, parts, milestones=[20])

    rate = LearningRate(ScheduleConfig(warmup=20, warmup_start=0.01), 0.4, 100, 10)
    assert [rate(s) for s in range(100)] == pytest.approx(torch_rates(scheduler, 0.4, 100))


@pytest.mark.parametrize(("step", "rate"), [(0, 0.004), (20, 0.4), (60, 0.2), (100, 0.0)])
def test_warmup_and_cosine_at_the_boundaries(step: int, rate: float):
    assert LearningRate(ScheduleConfig(warmup=20), 0.4, 100, 10)(step) == pytest.approx(rate, abs=1e-12)


def test_epochs_are_steps_per_epoch_each():
    in_epochs = LearningRate(ScheduleConfig("multistep", unit="epoch", milestones=(81.8, 122.8), warmup=2), 0.1, 64_000, 391)
    in_steps = LearningRate(ScheduleConfig("multistep", milestones=(round(81.8 * 391), round(122.8 * 391)), warmup=782), 0.1, 64_000, 391)
    assert all(in_epochs(s) == in_steps(s) for s in range(0, 64_000, 17))


@pytest.mark.parametrize(
    ("schedule", "total", "warmup"),
    [
        (ScheduleConfig(warmup=10), 11, 10),
        (ScheduleConfig(warmup=10), 10, 5),
        (ScheduleConfig(warmup=10), 5, 2),
        (ScheduleConfig(warmup=10), 1, 0),
        (ScheduleConfig(warmup=10), math.inf, 10),
        (ScheduleConfig(warmup=0), 1, 0),
        (ScheduleConfig(unit="epoch", warmup=2), 19, 9),
        (ScheduleConfig(unit="epoch", warmup=2), 39, 38),
    ],
)
def test_a_warm_up_as_long_as_the_run_is_half_of_it(schedule: ScheduleConfig, total: float, warmup: int):
    fitted = with_shorter_warmup(schedule, total, 19)
    assert fitted == schedule or replace(fitted, warmup=schedule.warmup) == schedule
    rate = LearningRate(fitted, 0.1, min(total, 100), 19)
    assert rate(warmup) == 0.1
    assert warmup == 0 or rate(warmup - 1) < 0.1


@pytest.mark.parametrize("monitor", ["val/loss", "val/acc1"])
@pytest.mark.parametrize(("patience", "threshold", "min_lr"), [(0, 1e-4, 0.0), (2, 0.05, 0.0), (1, 0.0, 0.004)])
def test_plateau_is_torchs(monitor: str, patience: int, threshold: float, min_lr: float):
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    mode = "min" if monitor == "val/loss" else "max"
    theirs = ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=patience, threshold=threshold, min_lr=min_lr)
    plateau = Plateau(monitor, patience, threshold)
    rate = LearningRate(ScheduleConfig("plateau", gamma=0.5, min_lr=min_lr), 0.3, math.inf, 10)
    noise = torch.rand(40, generator=torch.Generator().manual_seed(1)).tolist()
    values = [2 / (1 + epoch) + 0.2 * one for epoch, one in enumerate(noise)]
    values[7], values[12], values[13] = math.nan, math.inf, values[11]
    for epoch, value in enumerate(values if mode == "min" else [-value for value in values]):
        theirs.step(value)
        plateau.update(value)
        assert rate(epoch, drops=plateau.drops) == pytest.approx(optimizer.param_groups[0]["lr"])
        resumed = Plateau(monitor, patience, threshold)
        resumed.load_state_dict(plateau.state_dict())
        plateau = resumed
    assert plateau.drops > 1


def test_constant_stays():
    assert {LearningRate(ScheduleConfig("constant"), 0.3, math.inf, 10)(s) for s in (0, 5, 10**9)} == {0.3}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))  # a norm without "bn" in its name
        self.fc = nn.Linear(4, 2)


def test_vectors_have_no_weight_decay_and_the_paper_decays_all():
    net = Small()
    decayed, spared = build_optimizer(OptimConfig(weight_decay=0.3), net).param_groups
    assert {id(p) for p in decayed["params"]} == {id(net.conv.weight), id(net.downsample[0].weight), id(net.fc.weight)}
    assert {id(p) for p in spared["params"]} == {
        id(net.downsample[1].weight),
        id(net.downsample[1].bias),
        id(net.fc.bias),
    }
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0)
    (all_of_them,) = build_optimizer(OptimConfig(decay_norms=True), net).param_groups
    assert len(all_of_them["params"]) == 6


def test_frozen_parameters_are_left_out():
    net = Small()
    net.conv.weight.requires_grad_(False)
    groups = build_optimizer(OptimConfig(), net).param_groups
    assert sum(len(group["params"]) for group in groups) == 5


def test_one_step_of_sgd_by_hand():
    net = nn.Module()
    net.fc = nn.Linear(1, 1, bias=False)
    weight = net.fc.weight
    nn.init.constant_(weight, 2.0)
    optimizer = build_optimizer(OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.5), net)
    values = []
    for _ in range(2):
        weight.grad = torch.tensor([[1.0]])
        optimizer.step()
        values.append(weight.item())
    # v1 = 1 + .5*2 = 2, w1 = 2 - .1*2 = 1.8; v2 = .9*2 + 1 + .5*1.8 = 3.7, w2 = 1.8 - .37
    assert values == pytest.approx([1.8, 1.43])


def test_the_head_has_its_own_learning_rate():
    net = Small()
    groups = build_optimizer(OptimConfig(lr=0.5, backbone_lr=0.1, weight_decay=0.3), net).param_groups
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(rates) == len(list(net.parameters()))
    for name, parameter in net.named_parameters():
        rate = 0.5 if name.startswith("fc.") else pytest.approx(0.05)
        assert rates[id(parameter)] == (rate, 0.3 if parameter.ndim > 1 else 0.0), name


def test_lamb_steps_as_timms():
    timm_lamb = pytest.importorskip("timm.optim").Lamb
    torch.manual_seed(0)
    start, data = [torch.randn(8, 5), torch.randn(5), torch.zeros(3, 2)], [torch.randn(20, 8) * s for s in (0.1, 1, 40, 3)]

    def train(make) -> list[torch.Tensor]:
        weights = [nn.Parameter(value.clone()) for value in start]
        groups = [{"params": [weights[0], weights[2]], "weight_decay": 0.02}, {"params": [weights[1]], "weight_decay": 0.0}]
        optimizer = make(groups)
        for x in data:  # with gradients above and below the length at which they are clipped
            optimizer.zero_grad()
            ((x @ weights[0] + weights[1]).square().mean() + (weights[2] * x[0, :2]).sum()).backward()
            optimizer.step()
        return [weight.detach() for weight in weights]

    ours, theirs = train(lambda groups: Lamb(groups, lr=0.05)), train(lambda groups: timm_lamb(groups, lr=0.05))
    for mine, other, before in zip(ours, theirs, start, strict=True):
        assert not torch.equal(mine, before)
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "cls"),
    [(OptimConfig(), SGD), (OptimConfig("adamw", lr=1e-3), AdamW), (OptimConfig("lamb"), Lamb), (OptimConfig("muon"), Muon)],
)
def test_names_make_their_optimizers(config: OptimConfig, cls: type):
    assert type(build_optimizer(config, Small())) is cls


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: OptimConfig(lr=0), "model.optim.lr is 0: it must be above 0"),
        (lambda: OptimConfig(lr=float("nan")), "model.optim.lr is nan"),
        (lambda: OptimConfig("lion"), "model.optim.name is lion: it must be sgd, adamw, lamb, muon, torch.optim.NAME or timm:NAME"),
        (lambda: OptimConfig(backbone_lr=0), "model.optim.backbone_lr is 0: it must be above 0"),
        (lambda: OptimConfig(momentum=1.5), "model.optim.momentum is 1.5: it must be at least 0 and at most 1"),
        (lambda: OptimConfig(momentum=0, nesterov=True), "Nesterov momentum must be above 0"),
        (lambda: OptimConfig(weight_decay=-1), "model.optim.weight_decay is -1"),
        (lambda: ScheduleConfig("multistep"), "it needs milestones"),
        (
            lambda: ScheduleConfig("plateau", monitor="val/acc2"),
            "model.schedule.monitor is val/acc2: it must be val/loss, val/acc1, val/acc5 or val/mAP",
        ),
        (lambda: ScheduleConfig("plateau", patience=-1), "model.schedule.patience is -1: it must be at least 0"),
        (lambda: ScheduleConfig("plateau", threshold=1.5), "model.schedule.threshold is 1.5"),
        (lambda: LearningRate(ScheduleConfig("plateau", min_lr=1), 0.1, 10, 10), "must be at most model.optim.lr"),
        (lambda: ScheduleConfig("cosine", milestones=(3,)), "only multistep has milestones"),
        (lambda: ScheduleConfig("multistep", milestones=(5, 3)), "positive and rising"),
        (lambda: ScheduleConfig(warmup=-1), "model.schedule.warmup is -1"),
        (lambda: ScheduleConfig(warmup=5, warmup_until_error=0.8), "a run has one warm-up"),
        (lambda: LearningRate(ScheduleConfig(), 0.1, math.inf, 10), "needs the length of the run"),
        (lambda: LearningRate(ScheduleConfig(warmup=10), 0.1, 10, 10), "Shorten the warm-up"),
        (lambda: LearningRate(ScheduleConfig(min_lr=1), 0.1, 10, 10), "must be at most model.optim.lr"),
        (lambda: as_config(OptimConfig, {"lrr": 1}), "OptimConfig has the unknown key 'lrr'"),
        (lambda: as_config(OptimConfig, 3), "OptimConfig is 3: it must be"),
    ],
)
def test_bad_settings_say_what_is_allowed(make, says: str):
    with pytest.raises(ValueError, match=says.replace(".", r"\.")) as caught:
        make()
    assert "\n" not in str(caught.value)
