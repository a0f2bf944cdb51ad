"""Read and write weight files of other libraries. Nothing in a file is executed."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from reslight.atomic import write_files
from reslight.messages import UsageError, visible
from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.regular_file import is_regular
from reslight.weights.header import read_header
from reslight.weights.interop import timm_config
from reslight.weights.interop.convert import from_reslight, to_reslight
from reslight.weights.interop.transformers_config import from_transformers_config
from reslight.weights.loading import load, save
from reslight.weights.strict_json import read_json

_IMAGENET = {"size": 224, "resize": 256, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CIFAR10 = {"size": 32, "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_PREPROCESS: Mapping[str, Mapping[str, Any]] = {
    "torchvision": _IMAGENET,
    "timm": _IMAGENET | {"interpolation": "bicubic"},
    "transformers": _IMAGENET | {"interpolation": "bicubic"},
    "akamaster": _IMAGENET | {"size": 32, "resize": None},
    "chenyaofo": _CIFAR10,
    "kuangliu": _CIFAR10,
}
"""The preprocessing in the libraries' own training scripts; their weight files do not hold it."""
_MAX_HEADER = 2**24
"""Bytes."""
_PICKLES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")


def import_file(path: Path, folder: Path, library: str, *, preprocess: Mapping[str, Any] | None = None) -> tuple[ResNet, Preprocess]:
    """Convert a weight file of another library to a folder of weights.

    Args:
        path: A safetensors file, or a file that torch.save wrote.
        folder: The folder to write.
        library: The library that wrote it, a key of `names.FORMATS`.
        preprocess: Fields of `Preprocess` that differ from that library's own scripts.

    Returns:
        The network and its preprocessing.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a file that holds no ResNet of that library.
    """
    config, state = to_reslight(read_file(path), library, read_config_beside(path, library))
    net = ResNet(config)
    net.load_state_dict(state)
    applied = Preprocess(**{**_PREPROCESS[library], **(preprocess or {})})
    if applied.channels != config.in_channels:
        raise UsageError(
            f"the network of {path} has {config.in_channels} input channels: mean and std have {applied.channels} numbers. "
            f"Give --mean and --std with {config.in_channels}."
        )
    save(net, folder, preprocess=applied)
    return net, applied


def read_config_beside(path: Path, library: str) -> dict[str, Any] | None:
    """Return the fields of `ResNetConfig` from the config.json beside a file of transformers or timm; None without one.

    Raises:
        UsageError: a network that reslight cannot build, or a config.json that is not a regular file.
    """
    beside = path.parent / "config.json"
    if library not in ("transformers", "timm") or not is_regular(beside):
        return None
    config = read_json(beside)
    return (from_transformers_config(config) if library == "transformers" else timm_config.record_of(config).net).to_dict()


def export_file(source: str, path: Path, library: str) -> ResNet:
    """Write weights under another library's names.

    Args:
        source: A folder of weights, the name of a published weight, or a repository of the Hub.
        path: The file to write; its suffix selects safetensors or torch.save.
        library: A key of `names.FORMATS`.

    Returns:
        The network.

    Raises:
        OSError: missing weights, or a file that cannot be written.
        UsageError: a network that the library cannot build, or another suffix.
    """
    net = load(source)
    state = {name: tensor.contiguous() for name, tensor in from_reslight(net.config, net.state_dict(), library).items()}
    if path.suffix == ".safetensors":
        content = to_safetensors(state, metadata={"format": "pt"})
    elif path.suffix in _PICKLES:
        torch.save(state, buffer := io.BytesIO())
        content = buffer.getvalue()
    else:
        raise UsageError(f"the output file is {path}: its name must end with .safetensors, or with {', '.join(_PICKLES)} for torch.load.")
    write_files({path: content})
    return net


def read_file(path: Path) -> Mapping[str, Any]:
    """Return the content of a weight file; a pickle can create tensors and plain containers, and nothing else.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a file that holds anything else.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: a weight file is needed. Give the file in it, such as {path / 'model.safetensors'}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Give a weight file.")
    if path.suffix == ".safetensors":
        read_header(path, _MAX_HEADER)
        return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(
            f"{path} cannot be read with weights_only=True: it is damaged, is no weight file, or would execute code. Get another file."
        ) from error
    if not isinstance(found, Mapping):
        raise UsageError(f"{path} holds a {type(found).__name__}: it must hold a state dict. Save model.state_dict().")
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if odd := [name for name, tensor in tensors.items() if tensor.is_meta or tensor.layout != torch.strided]:
        raise UsageError(f"{visible(odd[0])} in {path} is a sparse or meta tensor: weights are dense. Save dense tensors.")
    return found
