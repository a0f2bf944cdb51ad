"""Fork a run: resume its checkpoint in a folder of its own, with the same network or a deeper one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig, deepen, deeper_config
from reslight.models.variants import net_setting
from reslight.runs.folder import Run
from reslight.runs.trained import network_of
from reslight.runs.yaml_file import read
from reslight.training.checkpoint_file import read_checkpoint
from reslight.training.checkpoints import AtomicCheckpointIO
from reslight.training.finetune import frozen_parts
from reslight.training.optim import OptimConfig, as_config, parameter_groups


def fork_run(run: Run, output: Path, to: str | ResNetConfig | None = None) -> int:
    """Copy a run's last checkpoint to a new run, which `reslight fit --config OUTPUT/config.yaml --ckpt_path OUTPUT` resumes.

    Args:
        run: The run to start from; it is not changed.
        output: The folder of the new run, which must not exist.
        to: The architecture of a deeper network, see `reslight.deepen`; None for the same network.

    Returns:
        The step that the new run resumes from.

    Raises:
        FileNotFoundError: a run without a checkpoint or a configuration.
        FileExistsError: a file or folder at `output`.
        UsageError: a damaged checkpoint or configuration, or a `to` that is not a deeper version of the network.
    """
    for file in (run.checkpoint(), run.config):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing. Give a run of `reslight fit`, such as runs/digits/1.")
    if output.exists():
        raise FileExistsError(f"{output} exists. Choose another folder for the run, or remove it.")
    settings = read(run.config)
    if not isinstance(settings.get("model"), dict):
        raise UsageError(f"{run.config} is damaged: it has no settings of a model. Give another run.")
    contents = read_checkpoint(run.checkpoint())
    if to is not None:
        contents = deepened(contents, to)
    # the best score belongs to a checkpoint that is not in the new folder
    contents["callbacks"] = {name: state for name, state in contents.get("callbacks", {}).items() if "Checkpoints" not in name}
    forked = Run(output)
    if run.metrics.is_file():
        write_files({forked.metrics: run.metrics.read_bytes()})  # a resume removes the rows after the checkpoint
    AtomicCheckpointIO().save_checkpoint(contents, forked.checkpoint())
    config = run.config.read_bytes()
    if to is not None:
        settings["model"]["net"] = net_setting(ResNetConfig.from_dict(contents["hyper_parameters"]["net"]))
        config = yaml.safe_dump(settings, sort_keys=False).encode()
    write_files({forked.config: config})  # last: the configuration makes the folder a run
    return int(contents["global_step"])


def deepened(contents: Mapping[str, Any], to: str | ResNetConfig) -> dict[str, Any]:
    """Return the contents of a checkpoint with a deeper network. Weights, their average and the optimizer's state keep their values.

    The optimizer has no state for the added parameters, as at the start of a run. Their weights are drawn with the run's seed.

    Args:
        contents: What `read_checkpoint` read.
        to: The architecture, see `reslight.deepen`.

    Raises:
        UsageError: a `to` that is not a deeper version of the network.
    """
    before = ResNetConfig.from_dict(contents["hyper_parameters"]["net"])
    after = deeper_config(before, to)
    settings = {**contents["hyper_parameters"], "net": after.to_dict()}
    seed = contents.get("reslight", {}).get("data", {}).get("seed") or 0
    result = {**contents, "hyper_parameters": settings}
    for key in ("state_dict", "current_model_state"):  # with model.ema the average and the raw weights, otherwise only the first
        if key in contents:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)  # the same new weights in both
                deeper = deepen(network_of(contents, raw=key == "current_model_state"), after)
            result[key] = {f"net.{name}": value for name, value in deeper.state_dict().items()}
    old_names, new_names = (_names_by_group(ResNet(config), settings) for config in (before, after))
    result["optimizer_states"] = [_renumbered(state, old_names, new_names) for state in contents.get("optimizer_states", [])]
    return result


def _names_by_group(net: ResNet, settings: Mapping[str, Any]) -> list[list[str]]:
    """Return the names of the parameters in the optimizer's order, for each of its groups."""
    for module in frozen_parts(net, settings.get("freeze")):
        module.requires_grad_(False)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = parameter_groups(as_config(OptimConfig, settings["optim"]), net)
    return [[names[id(parameter)] for parameter in group["params"]] for group in groups]


def _renumbered(state: Mapping[str, Any], old_names: list[list[str]], new_names: list[list[str]]) -> dict[str, Any]:
    """Return an optimizer's state for another order of parameters, which a state knows only by their number."""
    kept: dict[str, dict[str, Tensor]] = {}
    for group, names in zip(state["param_groups"], old_names, strict=True):
        kept |= {name: state["state"][number] for number, name in zip(group["params"], names, strict=True) if number in state["state"]}
    numbers = {name: number for number, name in enumerate(name for names in new_names for name in names)}
    return {
        "state": {numbers[name]: value for name, value in kept.items()},
        "param_groups": [
            {**group, "params": [numbers[name] for name in names]} for group, names in zip(state["param_groups"], new_names, strict=True)
        ],
    }
