"""Files of other libraries: opened without executing anything in them, and written."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.weights.convert import from_reslight, to_reslight
from reslight.weights.header import read_header
from reslight.weights.loading import load, save
from reslight.weights.write import write_file

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


def import_file(
    path: Path, folder: Path, source: str, *, config: Mapping[str, Any] | None = None, fed: Mapping[str, Any] | None = None
) -> tuple[ResNet, Preprocess]:
    """Make a folder of weights of another library's file.

    Args:
        path: A safetensors file, or one that torch.save wrote.
        folder: Where to.
        source: Whose names its tensors have, a key of `formats.FORMATS`.
        config: Fields of the network that names and shapes cannot tell.
        fed: Fields of `Preprocess` that are other than in that library's own scripts.

    Returns:
        The network, and what it is said to be fed with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else than a ResNet of that library.
    """
    network, state = to_reslight(read_file(path), source, config)
    net = ResNet(network)
    net.load_state_dict(state)
    feed = Preprocess(**{**_FED[source], **(fed or {})})
    save(net, folder, preprocess=feed)
    return net, feed


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
        raise ValueError(f"{path} must end in .safetensors, or in {', '.join(_PICKLES)} for torch.load")
    write_file(path, content)
    return net


def read_file(path: Path) -> Mapping[str, Any]:
    """What a file of weights holds; a pickle may build tensors and plain containers, and nothing else.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read so.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        read_header(path, _HEADER)
        return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read with weights_only=True: it is no file of weights, is damaged, or would run code"
        ) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a state dict; save model.state_dict()")
    return found
