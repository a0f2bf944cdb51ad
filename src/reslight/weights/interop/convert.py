"""State dicts of other libraries' ResNets in reslight's names, and back, as pure functions over the tables of `formats`."""

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.weights.interop.infer import infer_config
from reslight.weights.interop.names import FORMATS, Family, Format, family_of, format_of

__all__ = ["FORMATS", "Format", "from_reslight", "to_reslight"]

_CONTAINERS = ("state_dict", "model", "net")
_PARALLEL = "module."  # what nn.DataParallel puts before every name
_STEPS = "num_batches_tracked"  # of every batch norm since torch 0.4.1; older files lack it
_SHOWN = 3


def to_reslight(state: Mapping[str, Any], source: str, config: Mapping[str, Any] | None = None) -> tuple[ResNetConfig, dict[str, Tensor]]:
    """The network and the weights in another library's state dict.

    The network is inferred from names and shapes. They do not tell whether a bottleneck strides on its 3x3 (assumed) or on
    its first 1x1, and whether a net without projections has shortcut A (assumed) or none: `config` can. Nor do they tell
    timm's anti-aliasing and activations; where timm's name of the architecture is known, ask `timm_models.timm_config` first.

    Args:
        state: a state dict, or what holds one under "state_dict", "model" or "net"; its names may all begin with "module.".
        source: a key of `FORMATS`.
        config: fields of `ResNetConfig` that are known. They are taken at their word, also where the library's own
            networks differ.

    Returns:
        The network, and a state dict that `ResNet(config).load_state_dict` takes: all floating-point tensors as float32,
        which share memory with the given ones where nothing had to change.

    Raises:
        ValueError: it is no ResNet of this library, is incomplete, or is one that reslight cannot build.
    """
    families, known, found = format_of(source).families, config or {}, _unwrap(state)
    family = max(families, key=lambda one: sum(one.ours(name) is not None for name in found))
    if unknown := [name for name in found if family.ours(name) is None]:
        raise UsageError(f"no ResNet of {source} has {_several(unknown)}; take the format of these weights: {', '.join(FORMATS)}")
    tensors = {family.ours(name) or name: tensor for name, tensor in found.items()}
    if family.conv_head:
        tensors |= {name: tensor.flatten(1) for name, tensor in tensors.items() if name == "fc.weight" and tensor.shape[2:] == (1, 1)}
    try:
        net = infer_config({name: tuple(tensor.shape) for name, tensor in tensors.items()}, known)
    except KeyError as error:
        name, dimensions = error.args
        raise UsageError(f"these weights lack {family.theirs(name)} of {dimensions} dimensions; get the complete file") from None
    if differences := family.differences(net, besides=known):
        raise UsageError(
            f"reslight and {source} share no such ResNet: {'; '.join(differences)}; take the format of these weights: {', '.join(FORMATS)}"
        )
    expected = _expected(net)
    for name in expected:
        if name.endswith(_STEPS):
            tensors.setdefault(name, torch.zeros((), dtype=torch.int64))
    _compare(tensors, expected, family)
    return net, {name: _cast(tensors[name]) for name in expected}


def from_reslight(net_config: ResNetConfig, state: Mapping[str, Tensor], target: str) -> dict[str, Tensor]:
    """A network's weights under another library's names.

    Args:
        net_config: the network.
        state: its state dict, complete.
        target: a key of `FORMATS`.

    Returns:
        The same tensors, for the `load_state_dict` of that library's network. They share memory with the given ones.

    Raises:
        ValueError: the library cannot build this network, or the state dict is not this network's.
    """
    family = family_of(net_config, target)
    _compare(state, _expected(net_config))
    renamed = {family.theirs(name) or name: tensor.detach() for name, tensor in state.items()}
    if family.conv_head:
        head = family.theirs("fc.weight") or ""
        renamed[head] = renamed[head][:, :, None, None]
    return renamed


def _unwrap(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, without what a training script puts around them."""
    inside = [state[key] for key in _CONTAINERS if isinstance(state.get(key), Mapping)] if isinstance(state, Mapping) else []
    found = inside[0] if inside else state
    if not isinstance(found, Mapping) or not found:
        raise UsageError(
            f"there are no weights in {reprlib.repr(found)}; give a state dict, or a dict with one as {', '.join(_CONTAINERS)}"
        )
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(f"a state dict has names and tensors only, and {reprlib.repr(name)} is a {type(tensor).__name__}")
    parallel = all(name.startswith(_PARALLEL) for name in found)
    return {name.removeprefix(_PARALLEL) if parallel else name: tensor for name, tensor in found.items()}


def _expected(config: ResNetConfig) -> dict[str, Tensor]:
    """Names and shapes of a network's tensors."""
    with torch.device("meta"):
        return ResNet(config).state_dict()


def _compare(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], family: Family | None = None) -> None:
    """Complains, under the family's names if one is given, of tensors that are missing, too many or of another kind."""

    def several(names: Iterable[str]) -> str:
        return _several([family.theirs(name) or name if family else name for name in names])

    wrong = {name: tensor for name, tensor in tensors.items() if name in expected and not _fits(tensor, expected[name])}
    kinds = {
        "lack": [name for name in expected if name not in tensors],
        "have besides": [name for name in tensors if name not in expected],
        "have in another shape or type": wrong,
    }
    if said := [f"{verb} {several(names)}" for verb, names in kinds.items() if names]:
        first = next(iter(wrong), None)
        shapes = f" ({_shape(wrong[first])} in place of {_shape(expected[first])})" if first else ""
        raise UsageError(f"these weights {'; '.join(said)}{shapes}; get the complete file, with its config.json")


def _fits(tensor: Tensor, expected: Tensor) -> bool:
    """Whether a tensor has the right shape, and floating-point or whole numbers as it should."""
    return tensor.shape == expected.shape and tensor.is_floating_point() == expected.is_floating_point() and not tensor.is_complex()


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")


def _several(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:100])[1:-1] for name in names[:_SHOWN]) + more


def _cast(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32 if tensor.is_floating_point() else torch.int64).contiguous()
