"""Read the weight files of other libraries, and take the weights out of the containers that training scripts put around them."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from reslight.messages import UsageError, shortened, visible
from reslight.weights.header import read_header
from reslight.weights.torch_file import TorchFileError, read_torch_file

AVERAGES = ("state_dict_ema", "model_ema")
"""Keys of a moving average of the weights, in checkpoints of timm and torchvision."""
CONTAINERS = (*AVERAGES, "state_dict", "model_state_dict", "model", "net")
"""Keys of state dicts in the checkpoints of training scripts; the first one that is there is taken."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers (DataParallel, torch.compile) and modules that have a network put before the network's names."""
_COUNTER_OF_AVERAGE = "n_averaged"
"""Buffer of torch's AveragedModel, beside the weights."""
_MAX_HEADER = 2**24
"""Bytes."""
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Weights:
    """The weights in a file."""

    tensors: dict[str, Tensor]
    """The tensors by name, without the prefixes of wrappers."""
    key: str = ""
    """The key of `CONTAINERS` that they were taken from; empty if the file has no other contents."""
    left_out: tuple[str, ...] = ()
    """Names beside the network's, in the state dict of a module that has more than the network."""

    @property
    def is_average(self) -> bool:
        """Whether they are a moving average."""
        return self.key in AVERAGES


def read_weights(path: Path) -> Weights:
    """Return the weights in a file; a pickle can create tensors and plain containers, and nothing else.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a file without weights, or with tensors that are not weights.
    """
    contents = _read(path)
    if not isinstance(contents, Mapping):
        raise UsageError(f"{path} holds a {type(contents).__name__}: it must hold a state dict. Save model.state_dict().")
    weights = unwrap(contents)
    _check_tensors(path, weights.tensors)
    return weights


def unwrap(state: Mapping[str, Any]) -> Weights:
    """Take a state dict out of the containers and prefixes of training scripts.

    Raises:
        UsageError: no state dict.
    """
    inside = [key for key in CONTAINERS if isinstance(state.get(key), Mapping)] if isinstance(state, Mapping) else []
    found = state[inside[0]] if inside else state
    if not isinstance(found, Mapping) or not found:
        raise UsageError(f"weights are {reprlib.repr(found)}: they must be a state dict, or a dict with one as {', '.join(CONTAINERS)}.")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(
                f"{reprlib.repr(name)} is a {type(tensor).__name__}: a state dict holds names and tensors. "
                f"Leave it out, or save the state dict as one of {', '.join(CONTAINERS)}."
            )
    tensors, left_out = {name: tensor for name, tensor in found.items() if name != _COUNTER_OF_AVERAGE}, []
    while prefix := next((one for one in PREFIXES if sum(name.startswith(one) for name in tensors) > len(tensors) / 2), ""):
        left_out += [name for name in tensors if not name.startswith(prefix)]
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return Weights(tensors, inside[0] if inside else "", tuple(left_out))


def _read(path: Path) -> Any:
    if path.is_dir():
        raise UsageError(f"{path} is a folder: a weight file is needed. Give the file in it, such as {path / 'model.safetensors'}.")
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "is missing"
        raise FileNotFoundError(f"{path} {what}. Give a weight file.")
    if path.suffix == ".safetensors":
        read_header(path, _MAX_HEADER)
        return load_file(path)
    try:
        return read_torch_file(path)
    except TorchFileError as error:
        raise UsageError(f"{path} {error.problem}. {_fix(path, error.forbidden)}") from None


def _fix(path: Path, forbidden: str) -> str:
    """Return what to do about a file that cannot be read; only a class is offered for allowing, since a function would be called."""
    if not forbidden:
        return "Get the file again, or save model.state_dict() with torch.save."
    fix = "Get a file of model.state_dict() alone"
    module, _, name = forbidden.rpartition(".")
    if not (module and name[:1].isupper()):
        return f"{fix}."
    return (
        f"{fix}; or, if you trust {forbidden}, write one: with torch.serialization.safe_globals([{forbidden}]): "
        f"torch.save(torch.load({str(path)!r}, weights_only=True)['state_dict'], 'weights.pth'), with the key of the weights."
    )


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors are dense numbers, and that the file has a byte for each of theirs: expanded ones could need any memory.

    Raises:
        UsageError: a tensor that cannot be a weight.
    """
    for name, tensor in tensors.items():
        if tensor.is_nested or tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            raise UsageError(
                f"{visible(name)} in {path} is a sparse, nested, quantized or meta tensor: weights are dense. Save dense tensors."
            )
        if tensor.dtype not in _DTYPES:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise UsageError(f"{visible(name)} in {path} is {dtype}: float64, float32, float16 and bfloat16 are read. Save it as float32.")
    size, sizes = path.stat().st_size, {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    if (total := sum(sizes.values())) > size:
        largest = shortened([visible(name) for name in sorted(sizes, key=lambda one: -sizes[one])], 1)
        raise UsageError(
            f"the tensors of {path} have {total:,} bytes ({largest}): the file has {size:,}, so some are expanded. Save .clone() of each."
        )
