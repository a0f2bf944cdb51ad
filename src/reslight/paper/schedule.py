"""How long each network of an experiment trains, and with which configuration."""

from collections.abc import Mapping
from typing import Any

from reslight.models import cost_of, resolve_config
from reslight.paper.experiments import PAPER_STEPS, Arm, Budget, Experiment


def steps_of(arm: Arm, experiment: Experiment, budget: Budget) -> tuple[int, int]:
    """The iteration at which an arm's training begins, that of the run that it goes on from, and the one at which it ends."""
    begin = steps_of(_named(experiment, arm.start), experiment, budget)[1] if arm.start else 0
    compute = arm.compute or ({} if arm.start else {arm.net: 1.0})
    return begin, begin + round(budget.steps * sum(share * _cost(net) / _cost(arm.net) for net, share in compute.items()))


def compute_of(arm: Arm, experiment: Experiment, budget: Budget) -> list[tuple[int, float]]:
    """What the iterations of an arm's run cost, in iterations of ResNet-20: up to which iteration, and how much each."""
    before = compute_of(_named(experiment, arm.start), experiment, budget) if arm.start else []
    return [*before, (steps_of(arm, experiment, budget)[1], _cost(arm.net) / _cost("resnet20"))]


def recipe(arm: Arm, experiment: Experiment, budget: Budget, paper: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of an arm: the paper's recipe, as long as the budget says.

    A run that goes on does so at a tenth of the first rate, the second of the paper's three, and at the third from half-way.

    Args:
        arm: The arm.
        experiment: The one it belongs to.
        budget: The budget.
        paper: The content of `cifar10/paper_<net>.yaml`.
    """
    begin, end = steps_of(arm, experiment, budget)
    model = {**paper["model"]}
    if arm.change:
        model["net"] = {"name": arm.net, **arm.change}
    milestones = paper["model"]["schedule"]["milestones"]
    going_on = [_scaled(milestones[0], begin), (begin + end + 1) // 2]
    drops = going_on if arm.start else [_scaled(milestone, end) for milestone in milestones]
    model["schedule"] = {**paper["model"]["schedule"], "milestones": drops}
    trainer: dict[str, Any] = {"max_steps": end, "devices": 1}  # the nets are small; several runs fill a machine better than one
    if budget.precision:
        trainer["precision"] = budget.precision
    data = paper["data"] if budget.data == "cifar10" else {"class_path": "Digits"}
    return {"trainer": trainer, "model": model, "data": data}


def _scaled(milestone: int, end: int) -> int:
    return round(milestone * end / PAPER_STEPS)


def _cost(net: str) -> int:
    """Multiplications of one image of CIFAR."""
    return cost_of(resolve_config(net)).macs


def _named(experiment: Experiment, name: str) -> Arm:
    return next(arm for arm in experiment.arms if arm.name == name)
