"""The experiments of the paper as data."""

import pytest
import yaml

from reslight.models import cost_of, resolve_config
from reslight.paper.experiments import BUDGETS, EXPERIMENTS, chosen
from reslight.paper.schedule import compute_of, recipe, steps_of
from reslight.runs.config_files import packaged

TABLE_6 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.61, 1202: 7.93}  # of He et al. 2015; 110: the mean of five
ARMS = [(name, arm) for name, experiment in EXPERIMENTS.items() for arm in experiment.arms]
FULL, SHORT, TINY = (BUDGETS[name] for name in ("full", "short", "tiny"))


def paper_recipe(net: str) -> dict:
    return yaml.safe_load((packaged() / "cifar10" / f"paper_{net}.yaml").read_text())


def test_the_papers_numbers():
    found = {arm.net: arm.paper for arm in EXPERIMENTS["depth"].arms}
    assert found == {f"resnet{depth}": error for depth, error in TABLE_6.items()}
    for _, arm in ARMS:
        if arm.paper is not None and arm.net.startswith("resnet"):
            assert arm.paper == TABLE_6[int(arm.net.removeprefix("resnet"))]
            assert f"{arm.paper:.2f}" in arm.said
        elif arm.paper is not None:
            assert arm.said.startswith("~")  # read off a figure, and it says so


@pytest.mark.parametrize(("name", "arm"), ARMS, ids=[f"{name}-{arm.name}" for name, arm in ARMS])
def test_the_full_budget_is_the_papers_recipe_to_the_letter(name: str, arm):
    paper = paper_recipe(arm.net)
    made = recipe(arm, EXPERIMENTS[name], FULL, paper)
    if name == "identity" and arm.name != "resnet20":  # the paper has no such run
        return
    if arm.change:
        assert made["model"].pop("net") == {"name": arm.net, **arm.change}
        paper["model"].pop("net")
    assert made == {**paper, "trainer": {**paper["trainer"], "devices": 1}}


def test_the_short_budget_is_a_twentieth():
    made = recipe(EXPERIMENTS["degradation"].arms[-1], EXPERIMENTS["degradation"], SHORT, paper_recipe("resnet110"))
    assert made["trainer"] == {"max_steps": 3200, "devices": 1, "precision": "bf16-mixed"}
    assert made["model"]["schedule"] == {
        "name": "multistep",
        "milestones": [1600, 2400],
        "warmup_start": 0.1,
        "warmup_until_error": 0.8,
    }
    assert made["data"] == paper_recipe("resnet110")["data"]


def test_arms_with_the_same_name_are_the_same_run():
    """Experiments share their runs."""
    for budget in BUDGETS.values():
        seen: dict[str, dict] = {}
        for name, arm in ARMS:
            made = recipe(arm, EXPERIMENTS[name], budget, paper_recipe(arm.net))
            assert seen.setdefault(arm.name, made) == made


def test_the_thought_experiment_spends_the_same_on_everything():
    experiment = EXPERIMENTS["identity"]
    arms = {arm.name: arm for arm in experiment.arms}
    r20, r56 = (cost_of(resolve_config(net)).macs for net in ("resnet20", "resnet56"))
    assert (r20, r56) == (pytest.approx(40.55e6, rel=1e-3), pytest.approx(125.5e6, rel=1e-3))
    assert steps_of(arms["deepened"], experiment, SHORT) == (3200, 3200)
    assert steps_of(arms["deepened_on"], experiment, SHORT) == (3200, 4000)
    spent = {}
    for name in ("deepened_on", "resnet20_on", "resnet56_anew"):
        begin, end = steps_of(arms[name], experiment, SHORT)
        spent[name] = begin * r20 + (end - begin) * cost_of(resolve_config(arms[name].net)).macs
    assert max(spent.values()) / min(spent.values()) < 1.001
    assert compute_of(arms["deepened_on"], experiment, SHORT) == [(3200, 1.0), (3200, r56 / r20), (4000, r56 / r20)]
    drops = [recipe(arms[name], experiment, SHORT, paper_recipe(arms[name].net))["model"]["schedule"]["milestones"] for name in spent]
    assert drops == [[1600, 3600], [1600, 4438], [917, 1376]]


def test_what_is_chosen_comes_with_what_it_starts_from():
    identity = EXPERIMENTS["identity"]
    assert [arm.name for arm in chosen(identity, SHORT, ("deepened_on",))] == ["resnet20", "deepened", "deepened_on"]
    assert [arm.name for arm in chosen(EXPERIMENTS["degradation"], SHORT, ("resnet56", "plain20"))] == ["plain20", "resnet56"]
    assert "resnet1202" not in [arm.name for arm in chosen(EXPERIMENTS["depth"], TINY)]
    with pytest.raises(ValueError, match="--nets has resnet1202, which this experiment or this budget has not; it has resnet20, resnet32"):
        chosen(EXPERIMENTS["depth"], TINY, ("resnet1202",))
