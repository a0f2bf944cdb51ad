"""A run with a deeper network: its checkpoint goes on as if the network had always had the added layers."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from reslight.models import VARIANTS, ResNet, ResNetConfig, deepen, deeper_config
from reslight.runs.export import network_of
from reslight.training.checkpoints import AtomicCheckpointIO
from reslight.training.finetune import frozen_parts
from reslight.training.optim import OptimConfig, as_config, build_optimizer
from reslight.training.resume import read_checkpoint


def fork_run(run: Path, output: Path, to: str | ResNetConfig | None = None) -> int:
    """Begin a run where another ended, in a folder of its own; `reslight fit --config OUTPUT/config.yaml --ckpt_path OUTPUT` goes on.

    Args:
        run: The run's folder.
        output: The new run's folder; it must not be there.
        to: The architecture of a deeper network, see `reslight.deepen`; None for the same network.

    Returns:
        The step it goes on from.

    Raises:
        FileNotFoundError: The run has no checkpoint or no configuration.
        FileExistsError: There is something at `output`.
        ValueError: The checkpoint is damaged, or `to` is no deeper version of its network.
    """
    path = run / "checkpoints" / "last.ckpt"
    for file in (path, run / "config.yaml"):
        if not file.is_file():
            raise FileNotFoundError(f"{run} has no {file.relative_to(run)}; give a run of `reslight fit`, such as runs/digits/1")
    if output.exists():
        raise FileExistsError(f"{output} is there already; choose another place for the run, or remove it")
    contents = read_checkpoint(path)
    if to is not None:
        contents = deepened(contents, to)
    # the best score was that of weights that do not lie in the new folder
    contents["callbacks"] = {name: state for name, state in contents.get("callbacks", {}).items() if "Checkpoints" not in name}
    AtomicCheckpointIO().save_checkpoint(contents, output / "checkpoints" / "last.ckpt")
    if (run / "metrics.csv").is_file():
        shutil.copyfile(run / "metrics.csv", output / "metrics.csv")  # a resume cuts what lies beyond the checkpoint
    config = (run / "config.yaml").read_text(encoding="utf-8")  # last, for it makes a folder a run
    if to is not None:
        config = _with_net(config, _shortest(ResNetConfig.from_dict(contents["hyper_parameters"]["net"])))
    (output / "config.yaml").write_text(config, encoding="utf-8")
    return int(contents["global_step"])


def deepened(contents: Mapping[str, Any], to: str | ResNetConfig) -> dict[str, Any]:
    """The contents of a checkpoint, of a deeper network; weights, their average and the optimizer's state are carried over by name.

    What the optimizer keeps of the added parameters begins empty, as at the start of a run. Their weights are drawn from the run's seed.

    Args:
        contents: What `read_checkpoint` read.
        to: The architecture, see `reslight.deepen`.

    Raises:
        ValueError: `to` is no deeper version of the network.
    """
    before = ResNetConfig.from_dict(contents["hyper_parameters"]["net"])
    after = deeper_config(before, to)
    settings = {**contents["hyper_parameters"], "net": after.to_dict()}
    seed = contents.get("reslight", {}).get("data", {}).get("seed") or 0
    result = {**contents, "hyper_parameters": settings}
    for key in ("state_dict", "current_model_state"):  # with model.ema the average, and the raw weights
        if key in contents:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # the same new weights for both
                deeper = deepen(network_of(contents, raw=key == "current_model_state"), after)
            result[key] = {f"net.{name}": value for name, value in deeper.state_dict().items()}
    there, here = (_places(ResNet(config), settings) for config in (before, after))
    result["optimizer_states"] = [_moved(state, there, here) for state in contents.get("optimizer_states", [])]
    return result


def _places(net: ResNet, settings: Mapping[str, Any]) -> list[list[str]]:
    """The parameters' names in the order in which the optimizer has them, group by group."""
    for module in frozen_parts(net, settings.get("freeze")):
        module.requires_grad_(False)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    optimizer = build_optimizer(as_config(OptimConfig, settings["optim"]), net)
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def _moved(state: Mapping[str, Any], there: list[list[str]], here: list[list[str]]) -> dict[str, Any]:
    """An optimizer's state with its parameters in other places: it knows them by their number alone."""
    kept: dict[str, dict[str, Tensor]] = {}
    for group, names in zip(state["param_groups"], there, strict=True):
        kept |= {name: state["state"][number] for number, name in zip(group["params"], names, strict=True) if number in state["state"]}
    numbers = {name: number for number, name in enumerate(name for names in here for name in names)}
    return {
        "state": {numbers[name]: value for name, value in kept.items()},
        "param_groups": [
            {**group, "params": [numbers[name] for name in names]} for group, names in zip(state["param_groups"], here, strict=True)
        ],
    }


def _shortest(config: ResNetConfig) -> str | dict[str, Any]:
    """How a configuration says a network: by its name if that says all but the two ends, which come from the data."""
    said = {key: value for key, value in config.to_dict().items() if key not in ("num_classes", "in_channels")}
    return next((name for name, known in VARIANTS.items() if said.items() <= known.to_dict().items()), said)


def _with_net(text: str, net: str | dict[str, Any]) -> str:
    """A run's configuration with another network."""
    config = yaml.safe_load(text)
    config["model"]["net"] = net
    return yaml.safe_dump(config, sort_keys=False)
