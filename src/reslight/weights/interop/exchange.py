"""Files of other libraries: opened without executing anything in them, and written."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.weights.header import read_header
from reslight.weights.interop import timm_config
from reslight.weights.interop.convert import from_reslight, to_reslight
from reslight.weights.interop.transformers_config import from_transformers_config
from reslight.weights.loading import load, save
from reslight.weights.strict_json import read_json

_IMAGENET = {"size": 224, "resize": 256, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CIFAR10 = {"size": 32, "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_FED: Mapping[str, Mapping[str, Any]] = {
    "torchvision": _IMAGENET,
    "timm": _IMAGENET | {"interpolation": "bicubic"},
    "transformers": _IMAGENET | {"interpolation": "bicubic"},
    "akamaster": _IMAGENET | {"size": 32, "resize": None},
    "chenyaofo": _CIFAR10,
    "kuangliu": _CIFAR10,
}
"""How the libraries' own scripts feed their networks; a file of weights does not say it."""
_HEADER = 2**24
_PICKLES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")


def import_file(path: Path, folder: Path, source: str, *, fed: Mapping[str, Any] | None = None) -> tuple[ResNet, Preprocess]:
    """Make a folder of weights of another library's file.

    Args:
        path: A safetensors file, or one that torch.save wrote.
        folder: Where to.
        source: Whose names its tensors have, a key of `formats.FORMATS`.
        fed: Fields of `Preprocess` that are other than in that library's own scripts.

    Returns:
        The network, and what it is said to be fed with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else than a ResNet of that library.
    """
    network, state = to_reslight(read_file(path), source, described_beside(path, source))
    net = ResNet(network)
    net.load_state_dict(state)
    feed = Preprocess(**{**_FED[source], **(fed or {})})
    if feed.channels != network.in_channels:
        raise UsageError(f"{path} takes images of {network.in_channels} channels; give --mean and --std with as many numbers")
    save(net, folder, preprocess=feed)
    return net, feed


def described_beside(path: Path, source: str) -> dict[str, Any] | None:
    """The network that a config.json beside a file of transformers or timm describes; None where there is none.

    Raises:
        ValueError: It describes no network that reslight can build.
    """
    beside = path.parent / "config.json"
    if source not in ("transformers", "timm") or not beside.is_file():
        return None
    config = read_json(beside)
    return (from_transformers_config(config) if source == "transformers" else timm_config.record_of(config).net).to_dict()


def export_file(folder: str, path: Path, target: str) -> ResNet:
    """Write weights under another library's names: a safetensors file, or one of torch.save by its ending.

    Raises:
        OSError: The folder is not there, or the file cannot be written.
        ValueError: The library cannot build this network, or the ending is of neither kind.
    """
    net = load(folder)
    state = {name: tensor.contiguous() for name, tensor in from_reslight(net.config, net.state_dict(), target).items()}
    if path.suffix == ".safetensors":
        content = to_safetensors(state, metadata={"format": "pt"})
    elif path.suffix in _PICKLES:
        torch.save(state, buffer := io.BytesIO())
        content = buffer.getvalue()
    else:
        raise UsageError(f"{path} must end in .safetensors, or in {', '.join(_PICKLES)} for torch.load")
    write_files({path: content})
    return net


def read_file(path: Path) -> Mapping[str, Any]:
    """What a file of weights holds; a pickle may build tensors and plain containers, and nothing else.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read so.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the file in it, such as {path / 'model.safetensors'}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        read_header(path, _HEADER)
        return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(
            f"{path} cannot be read with weights_only=True: it is no file of weights, is damaged, or would run code"
        ) from error
    if not isinstance(found, Mapping):
        raise UsageError(f"{path} holds a {type(found).__name__}, not a state dict; save model.state_dict()")
    if odd := [name for name, value in found.items() if isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided)]:
        raise UsageError(f"{path} holds {str(odd[0])[:100]} as a tensor without plain values (sparse or meta); save ordinary ones")
    return found
