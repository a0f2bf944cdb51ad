"""How long each condition of an experiment is trained, and with which configuration."""

from collections.abc import Mapping
from typing import Any

from reslight.models import cost_of, resolve_config
from reslight.paper.experiments import PAPER_STEPS, Budget, Condition, Experiment


def steps_of(condition: Condition, experiment: Experiment, budget: Budget) -> tuple[int, int]:
    """Return the iterations at which the training of a condition begins and ends; it begins where the run that it resumes ends."""
    begin = steps_of(experiment.condition(condition.starts_from), experiment, budget)[1] if condition.starts_from else 0
    compute = condition.compute or ({} if condition.starts_from else {condition.net: 1.0})
    return begin, begin + round(budget.steps * sum(share * _macs(net) / _macs(condition.net) for net, share in compute.items()))


def compute_of(condition: Condition, experiment: Experiment, budget: Budget) -> list[tuple[int, float]]:
    """Return the compute of a run in iterations of ResNet-20: pairs of the iteration up to which, and the compute of each iteration."""
    before = compute_of(experiment.condition(condition.starts_from), experiment, budget) if condition.starts_from else []
    return [*before, (steps_of(condition, experiment, budget)[1], _macs(condition.net) / _macs("resnet20"))]


def recipe(condition: Condition, experiment: Experiment, budget: Budget, paper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a condition: the paper's recipe, scaled to the budget.

    A run that is resumed is trained at a tenth of the first learning rate, the second of the paper's three, and at the third from the
    middle of the added iterations.

    Args:
        condition: The condition.
        experiment: Its experiment.
        budget: The budget.
        paper: The paper's recipe for the network, as a configuration.
    """
    begin, end = steps_of(condition, experiment, budget)
    model = {**paper["model"]}
    if condition.changes:
        model["net"] = {"name": condition.net, **condition.changes}
    milestones = paper["model"]["schedule"]["milestones"]
    if condition.starts_from:
        drops = [_scaled(milestones[0], begin), (begin + end + 1) // 2]
    else:
        drops = [_scaled(milestone, end) for milestone in milestones]
    model["schedule"] = {**paper["model"]["schedule"], "milestones": drops}
    trainer: dict[str, Any] = {"max_steps": end, "devices": 1}  # several runs use a machine better than one small network on all devices
    if budget.precision:
        trainer["precision"] = budget.precision
    data = paper["data"] if budget.data == "cifar10" else {"class_path": "Digits"}
    return {"trainer": trainer, "model": model, "data": data}


def _scaled(milestone: int, end: int) -> int:
    return round(milestone * end / PAPER_STEPS)


def _macs(net: str) -> int:
    """Return the multiplications for one image of CIFAR."""
    return cost_of(resolve_config(net)).macs
