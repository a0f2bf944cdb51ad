"""A run is resumed with a deeper network."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reslight.models import ResNet, ResNetConfig
from reslight.runs.folder import Run
from reslight.runs.fork import deepened, fork_run
from reslight.training.checkpoint_file import read_checkpoint

NET = {"depths": [1, 1, 1], "widths": [8, 16, 16], "stem": "small", "stem_width": 8}
IMAGES = {"size": 8, "train_size": 96, "test_size": 40}
DEEPER = NET | {"depths": [2, 1, 3]}


def last(run: str) -> dict[str, Any]:
    return read_checkpoint(Run(Path(run)).checkpoint())


def settings(**model: Any) -> dict[str, Any]:
    return {
        "trainer": {"max_epochs": 2},
        "model": {"net": NET, "optim": {"lr": 0.05}, "schedule": {"name": "constant"}} | model,
        "data": {"class_path": "Synthetic", "init_args": {"images": IMAGES, "batch_size": 16, "val_size": 32}},
    }


@pytest.fixture
def fit(reslight: Callable[..., Any]) -> Callable[..., Any]:
    def run(name: str, content: dict[str, Any], *words: str) -> Any:
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
        answer = reslight("fit", "--config", f"{name}.yaml", *words)
        assert answer.code == 0, answer.err
        return answer

    return run


def by_name(contents: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """An optimizer's state by the names of the parameters: weights come first, then vectors, then what Muon steps."""
    net = ResNet(ResNetConfig.from_dict(contents["hyper_parameters"]["net"]))
    by_muon = contents["hyper_parameters"]["optim"]["name"] == "muon"
    kinds = [
        [name for name, p in net.named_parameters() if p.ndim > 1 and not (by_muon and name.startswith("layer"))],
        [name for name, p in net.named_parameters() if p.ndim == 1],
        [name for name, p in net.named_parameters() if p.ndim > 1 and by_muon and name.startswith("layer")],
    ]
    names, (state,) = [name for kind in kinds for name in kind], contents["optimizer_states"]
    assert [len(group["params"]) for group in state["param_groups"]] == [len(kind) for kind in kinds if kind]
    assert [number for group in state["param_groups"] for number in group["params"]] == list(range(len(names)))
    return {names[number]: value for number, value in state["state"].items()}


@pytest.mark.parametrize(
    "optim",
    [{"name": "sgd", "lr": 0.05}, {"name": "adamw", "lr": 1e-3}, {"name": "lamb", "lr": 1e-3}, {"name": "muon", "lr": 0.02}],
    ids=lambda optim: optim["name"],
)
def test_weights_and_the_optimizers_state_are_carried_over(fit: Callable[..., Any], optim: dict[str, Any]):
    fit("small", settings(optim=optim))
    before = last("runs/small/1")
    after = deepened(before, ResNetConfig.from_dict(before["hyper_parameters"]["net"] | {"depths": [2, 1, 3]}))
    assert {name: v for name, v in after["state_dict"].items() if name in before["state_dict"]}.keys() == before["state_dict"].keys()
    there, here = by_name(before), by_name(after)
    assert there.keys() == here.keys()
    for name, state in there.items():
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(here[name][key]), torch.as_tensor(value)), (name, key)
    fork_run(Run(Path("runs/small/1")), Path("deeper/1"), to=_config(DEEPER))
    fit("deeper", settings(optim=optim, net=DEEPER), "--ckpt_path", "deeper/1", "--trainer.max_epochs", "3")
    assert by_name(last("deeper/1")).keys() > here.keys()  # the added ones have a state by now


def test_a_deepened_run_measures_the_same_and_goes_on(fit: Callable[..., Any], reslight: Callable[..., Any]):
    fit("small", settings())
    assert reslight("test", "--config", "small.yaml").code == 0
    assert reslight("deepen", "runs/small/1", "deeper", "--to", "resnet20").code == 2  # of other widths
    assert not Path("deeper").exists()
    assert fork_run(Run(Path("runs/small/1")), Path("deeper/1"), to=_config(DEEPER)) == 8
    assert yaml.safe_load(Path("deeper/1/config.yaml").read_text())["model"]["net"]["depths"] == [2, 1, 3]
    assert reslight("test", "--config", "deeper/1").code == 0
    counts = [json.loads((Path(run) / "test.json").read_text())["counts"] for run in ("runs/small/1", "deeper/1")]
    assert counts[0] == counts[1]
    answer = reslight("fit", "--config", "deeper/1", "--ckpt_path", "deeper/1", "--trainer.max_epochs", "4")
    assert answer.code == 0, answer.err
    assert "warning" not in answer.err
    assert Path("deeper/1/checkpoints/best.ckpt").is_file()  # the best score of the first run does not count
    with Path("deeper/1/metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/acc1"]]
    assert steps == [4, 8, 12, 16]
    new = {name: value for name, value in last("deeper/1")["state_dict"].items() if name.startswith("net.layer1.1.")}
    assert new["net.layer1.1.bn2.weight"].abs().max() > 0  # it was zero, and learned
    assert last("runs/small/1")["global_step"] == 8  # the first run is left as it was
    with pytest.raises(FileExistsError, match="deeper/1 exists"):
        fork_run(Run(Path("runs/small/1")), Path("deeper/1"))


def test_with_an_average_both_sets_of_weights_get_the_same_new_ones(fit: Callable[..., Any]):
    fit("small", settings(ema=0.9))
    contents = last("runs/small/1")
    after = deepened(contents, _config(DEEPER))
    for name in after["state_dict"].keys() - contents["state_dict"].keys():
        assert torch.equal(after["state_dict"][name], after["current_model_state"][name]), name
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(after[key][name], value) for name, value in contents[key].items())
    fork_run(Run(Path("runs/small/1")), Path("deeper/1"), to=_config(DEEPER))
    fit("deeper", settings(ema=0.9, net=DEEPER), "--ckpt_path", "deeper/1", "--trainer.max_epochs", "3")
    assert last("deeper/1")["averaging_state"]["n_averaged"] > contents["averaging_state"]["n_averaged"]
    again = deepened(contents, _config(DEEPER))
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in after["state_dict"].items())


def test_frozen_parts_and_two_rates_keep_their_places(fit: Callable[..., Any], reslight: Callable[..., Any]):
    fit("small", settings(freeze="layer1", optim={"lr": 0.05, "backbone_lr": 0.1}))
    fork_run(Run(Path("runs/small/1")), Path("deeper/1"), to=_config(DEEPER))
    answer = reslight("fit", "--config", "deeper/1", "--ckpt_path", "deeper/1", "--trainer.max_epochs", "3")
    assert answer.code == 0, answer.err
    before, after = last("runs/small/1")["state_dict"], last("deeper/1")["state_dict"]
    assert torch.equal(before["net.layer1.0.conv1.weight"], after["net.layer1.0.conv1.weight"])
    assert not torch.equal(before["net.layer3.0.conv1.weight"], after["net.layer3.0.conv1.weight"])


def test_what_is_no_run(reslight: Callable[..., Any]):
    Path("empty/checkpoints").mkdir(parents=True)
    answer = reslight("deepen", "empty", "out", "--to", "resnet56")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("reslight: error: empty is not a run. Give the folder of one")
    Path("empty/config.yaml").write_text("{}")
    answer = reslight("deepen", "empty", "out", "--to", "resnet56")
    assert answer.err.startswith("reslight: error: empty/checkpoints/last.ckpt is missing. Give a run")


def test_the_command_on_weights(reslight: Callable[..., Any]):
    answer = reslight("deepen", "resnet8.digits", "out", "--to", "resnet20")
    assert answer.out.splitlines() == [
        "written out: resnet20, 269,434 parameters instead of 75,002",
        "checked on the golden images: equal to the bit",
    ]
    answer = reslight("verify", "out")
    assert answer.code == 0
    assert "no evaluation results" in answer.out
    assert json.loads(Path("out/config.json").read_text())["reslight"]["recipe"]["deepened_from"] == "resnet8.digits"
    reslight("deepen", "resnet8.digits", "again", "--to", "resnet20")
    assert Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("mine")
    answer = reslight("deepen", "resnet8.digits", "mine", "--to", "resnet20")
    assert answer.code == 2
    assert Path("mine/thesis.txt").read_text() == "mine"
    assert "did you mean resnet8.digits" in reslight("deepen", "resnet8.digit", "x", "--to", "resnet20").err


def _config(net: dict[str, Any]) -> ResNetConfig:
    return ResNetConfig(**net, num_classes=10, in_channels=3)
