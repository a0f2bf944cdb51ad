"""Networks of checkpoints, with what is known of the data that they were trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.preprocess import Preprocess
from reslight.runs.folder import Run, find_run_or_weights
from reslight.training.checkpoint_file import check_fit, read_checkpoint
from reslight.weights.catalog import CATALOG
from reslight.weights.folder import read_description
from reslight.weights.loading import load
from reslight.weights.locate import locate


def trained_net(contents: Mapping[str, Any], checkpoint: Path, *, raw: bool = False) -> tuple[ResNet, bool]:
    """Return the network that `reslight test` evaluates, with its preprocess and labels, and whether its weights are an average.

    Args:
        contents: What `read_checkpoint` read from `checkpoint`.
        checkpoint: The file, for messages.
        raw: Take the weights of the last step, not their average.

    Raises:
        UsageError: a checkpoint without information about its data, or without an average where `raw` is true.
    """
    data = contents.get("reslight", {}).get("data") or {}
    if "preprocess" not in data:
        raise UsageError(
            f"{checkpoint} does not say how images were preprocessed: it was not trained with a data module of reslight. "
            "Use reslight.save to write its weights."
        )
    has_average = "current_model_state" in contents
    if raw and not has_average:
        raise UsageError(f"{checkpoint} has no average of weights (model.ema): its weights are the raw ones. Leave out --raw.")
    net = network_of(contents, checkpoint, raw=raw)
    net.preprocess, net.labels = Preprocess.from_dict(data["preprocess"]), data["labels"]
    net.multi_label = bool(contents["hyper_parameters"].get("multi_label"))
    return net, has_average and not raw


def network_of(contents: Mapping[str, Any], checkpoint: object = "the checkpoint", *, raw: bool = False) -> ResNet:
    """Return the network of a checkpoint in eval mode, its weights in their own dtype.

    Args:
        contents: What `read_checkpoint` read from `checkpoint`.
        checkpoint: The file, for messages.
        raw: Take the weights of the last step, where the checkpoint has an average, too.

    Raises:
        UsageError: other weights than those of the network in the settings.
    """
    try:
        net = ResNet(ResNetConfig.from_dict(contents["hyper_parameters"]["net"]))
    except UsageError as error:
        raise UsageError(f"{checkpoint} is damaged: {error} Choose another checkpoint.") from None
    state = contents["current_model_state" if raw else "state_dict"]
    weights = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
    check_fit(checkpoint, weights, net.state_dict())
    net.to(weights["fc.weight"].dtype)
    net.load_state_dict({name: value.contiguous() for name, value in weights.items()})
    return net.eval()


def load_with_data_info(source: str) -> tuple[ResNet, Mapping[str, Any], str]:
    """Load a network from a run or from weights.

    Args:
        source: A run, which means its last.ckpt, or what `reslight.load` takes.

    Returns:
        The network, what is known of its training data (name, kind, val_size and so on), and a name to print.

    Raises:
        OSError: no such run or weights, or a run without a checkpoint.
        UsageError: damaged weights, or weights without information about their data.
    """
    if run := find_run_or_weights(source):
        return *net_of_run(run), run.name
    net, record = load(source), read_description(locate(source)).record
    if "name" not in record.data:
        raise UsageError(f"{source} does not name the dataset it was trained on, so there are no images to run it on. Give other weights.")
    return net, record.data, source if source in CATALOG else record.name


def load_net(source: str) -> ResNet:
    """Load a network from a run, which means its last.ckpt, or from what `reslight.load` takes.

    Raises:
        OSError: no such run or weights, or a run without a checkpoint.
        UsageError: damaged weights.
    """
    run = find_run_or_weights(source)
    return net_of_run(run)[0] if run else load(source)


def net_of_run(run: Run) -> tuple[ResNet, Mapping[str, Any]]:
    """Return the network of a run's last.ckpt, and what is known of its training data.

    Raises:
        FileNotFoundError: a run without a checkpoint.
        UsageError: a damaged checkpoint.
    """
    path = run.checkpoint()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run has no checkpoint. Give another run.")
    contents = read_checkpoint(path)
    return trained_net(contents, path)[0], contents["reslight"]["data"]
