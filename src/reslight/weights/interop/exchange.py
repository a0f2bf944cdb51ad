"""Convert weight files of other libraries to folders of weights, and back."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.regular_file import is_regular
from reslight.weights.folder import sha256_of
from reslight.weights.interop import timm_config
from reslight.weights.interop.convert import from_reslight, to_reslight
from reslight.weights.interop.labels import read_labels
from reslight.weights.interop.transformers_config import from_transformers_config
from reslight.weights.interop.weight_file import Weights, read_weights
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
_CIFAR100 = {"size": 32, "mean": (0.5070, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2761)}
"""In chenyaofo's scripts; the other repositories have scripts for CIFAR-10 only."""
_PICKLES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Imported:
    """What was converted from a file of another library."""

    net: ResNet
    """The network with its weights."""
    preprocess: Preprocess
    """Its preprocessing."""
    weights: Weights
    """What was read from the file."""


def import_file(
    path: Path, folder: Path, library: str, *, preprocess: Mapping[str, Any] | None = None, labels: Path | None = None
) -> Imported:
    """Convert a weight file of another library to a folder of weights.

    Args:
        path: A safetensors file, or a file that torch.save wrote.
        folder: The folder to write.
        library: The library that wrote it, a key of `names.FORMATS`.
        preprocess: Fields of `Preprocess` that differ from that library's own scripts.
        labels: A text file with the name of each class on a line; None if the names are not known.

    Returns:
        What was converted.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a file that holds no ResNet of that library, a mean or std that is not 0 to 1, or other labels.
    """
    _check_statistics(preprocess or {})
    weights = read_weights(path)
    config, state = to_reslight(weights.tensors, library, read_config_beside(path, library))
    net = ResNet(config)
    net.load_state_dict(state)
    usual = _CIFAR100 if library == "chenyaofo" and config.num_classes == 100 else _PREPROCESS[library]
    applied = Preprocess(**{**usual, **(preprocess or {})})
    if applied.channels != config.in_channels:
        raise UsageError(
            f"the network of {path} has {config.in_channels} input channels: mean and std have {applied.channels} numbers. "
            f"Give --mean and --std with {config.in_channels}."
        )
    names = read_labels(labels, config.num_classes) if labels else None
    source = {"library": library, "file": path.name, "sha256": sha256_of(path)} | ({"key": weights.key} if weights.key else {})
    kind = "average" if weights.is_average else "other"
    save(net, folder, preprocess=applied, labels=names, weights=kind, run={"converted from": source})
    return Imported(net, applied, weights)


def _check_statistics(preprocess: Mapping[str, Any]) -> None:
    """Check that mean and std are on the scale of images from 0 to 1.

    Raises:
        UsageError: a number outside of 0 to 1.
    """
    for name in ("mean", "std"):
        values = preprocess.get(name, ())
        if not all(0 <= value <= 1 for value in values):
            fix = "Divide them by 255." if all(0 <= value <= 255 for value in values) else "Give the statistics of such images."
            raise UsageError(f"--{name} is {' '.join(f'{value:g}' for value in values)}: the values of images are 0 to 1. {fix}")


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
