"""The experiments of the paper as data."""

import pytest

from reslight.models import cost_of, resolve_config
from reslight.paper.experiments import BUDGETS, EXPERIMENTS, select_conditions
from reslight.paper.schedule import compute_of, recipe, steps_of
from reslight.runs.config_files import recipe_settings

TABLE_6 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.61, 1202: 7.93}  # of He et al. 2015; 110: the mean of five
CONDITIONS = [(name, condition) for name, experiment in EXPERIMENTS.items() for condition in experiment.conditions]
FULL, SHORT, TINY = (BUDGETS[name] for name in ("full", "short", "tiny"))


def paper_recipe(net: str) -> dict:
    return recipe_settings("cifar10/paper", net)


def test_the_papers_numbers():
    found = {condition.net: condition.paper_error for condition in EXPERIMENTS["depth"].conditions}
    assert found == {f"resnet{depth}": error for depth, error in TABLE_6.items()}
    for _, condition in CONDITIONS:
        if condition.paper_error is not None and condition.net.startswith("resnet"):
            assert condition.paper_error == TABLE_6[int(condition.net.removeprefix("resnet"))]
            assert f"{condition.paper_error:.2f}" in condition.paper_text
        elif condition.paper_error is not None:
            assert condition.paper_text.startswith("~")  # read off a figure, and it says so


@pytest.mark.parametrize(("name", "condition"), CONDITIONS, ids=[f"{name}-{condition.name}" for name, condition in CONDITIONS])
def test_the_full_budget_is_the_papers_recipe_to_the_letter(name: str, condition):
    paper = paper_recipe(condition.net)
    made = recipe(condition, EXPERIMENTS[name], FULL, paper)
    if name == "identity" and condition.name != "resnet20":  # the paper has no such run
        return
    if condition.changes:
        assert made["model"].pop("net") == {"name": condition.net, **condition.changes}
        paper["model"].pop("net")
    assert made == {**paper, "trainer": {**paper["trainer"], "devices": 1}}


def test_the_short_budget_is_a_twentieth():
    made = recipe(EXPERIMENTS["degradation"].conditions[-1], EXPERIMENTS["degradation"], SHORT, paper_recipe("resnet110"))
    assert made["trainer"] == {"max_steps": 3200, "devices": 1, "precision": "bf16-mixed"}
    assert made["model"]["schedule"] == {
        "name": "multistep",
        "milestones": [1600, 2400],
        "warmup_start": 0.1,
        "warmup_until_error": 0.8,
    }
    assert made["data"] == paper_recipe("resnet110")["data"]


def test_conditions_with_the_same_name_are_the_same_run():
    """Experiments share their runs."""
    for budget in BUDGETS.values():
        seen: dict[str, dict] = {}
        for name, condition in CONDITIONS:
            made = recipe(condition, EXPERIMENTS[name], budget, paper_recipe(condition.net))
            assert seen.setdefault(condition.name, made) == made


def test_the_thought_experiment_spends_the_same_on_everything():
    experiment = EXPERIMENTS["identity"]
    conditions = {condition.name: condition for condition in experiment.conditions}
    r20, r56 = (cost_of(resolve_config(net)).macs for net in ("resnet20", "resnet56"))
    assert (r20, r56) == (pytest.approx(40.55e6, rel=1e-3), pytest.approx(125.5e6, rel=1e-3))
    assert steps_of(conditions["deepened"], experiment, SHORT) == (3200, 3200)
    assert steps_of(conditions["deepened_on"], experiment, SHORT) == (3200, 4000)
    spent = {}
    for name in ("deepened_on", "resnet20_on", "resnet56_anew"):
        begin, end = steps_of(conditions[name], experiment, SHORT)
        spent[name] = begin * r20 + (end - begin) * cost_of(resolve_config(conditions[name].net)).macs
    assert max(spent.values()) / min(spent.values()) < 1.001
    assert compute_of(conditions["deepened_on"], experiment, SHORT) == [(3200, 1.0), (3200, r56 / r20), (4000, r56 / r20)]
    drops = [
        recipe(conditions[name], experiment, SHORT, paper_recipe(conditions[name].net))["model"]["schedule"]["milestones"] for name in spent
    ]
    assert drops == [[1600, 3600], [1600, 4438], [917, 1376]]


def test_what_is_chosen_comes_with_what_it_starts_from():
    identity = EXPERIMENTS["identity"]
    assert [condition.name for condition in select_conditions(identity, SHORT, ("deepened_on",))] == ["resnet20", "deepened", "deepened_on"]
    assert [condition.name for condition in select_conditions(EXPERIMENTS["degradation"], SHORT, ("resnet56", "plain20"))] == [
        "plain20",
        "resnet56",
    ]
    assert "resnet1202" not in [condition.name for condition in select_conditions(EXPERIMENTS["depth"], TINY)]
    with pytest.raises(ValueError, match=r"--nets is resnet1202: .* Choose from resnet20, resnet32"):
        select_conditions(EXPERIMENTS["depth"], TINY, ("resnet1202",))
