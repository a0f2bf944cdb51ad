"""Convert state dicts of other libraries' ResNets to reslight's names and back, by the tables of `names`."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from reslight.messages import UsageError, shortened, visible
from reslight.models import ResNet, ResNetConfig
from reslight.weights.interop.infer import infer_config
from reslight.weights.interop.names import FORMATS, Family, family_of, format_of
from reslight.weights.interop.weight_file import unwrap

_BATCH_COUNTER = "num_batches_tracked"
"""Buffer of every batch norm since torch 0.4.1; older files do not have it."""
_COMPLETE_FILE = "Get the complete file, with its config.json."


def to_reslight(state: Mapping[str, Any], library: str, config: Mapping[str, Any] | None = None) -> tuple[ResNetConfig, dict[str, Tensor]]:
    """Convert another library's state dict, and infer its network from names and shapes.

    Names and shapes do not show everything. A bottleneck is assumed to have its stride on the 3x3 convolution, not on the
    first 1x1; a network without projections is assumed to have shortcut A, not none. `config` overrides both. timm's
    anti-aliasing and activations do not show either: if timm's name of the architecture is known, call
    `timm_models.timm_config` first.

    Args:
        state: A state dict, with or without the containers and prefixes that `weight_file.unwrap` removes.
        library: A key of `FORMATS`.
        config: Known fields of `ResNetConfig`. They are not checked against the networks that the library can build.

    Returns:
        The network, and a state dict that `ResNet(config).load_state_dict` takes: floating-point tensors as float32. Tensors
        that did not have to be converted share memory with the given ones.

    Raises:
        UsageError: a state dict that is not a complete ResNet of this library, or a network that reslight cannot build.
    """
    found = unwrap(state).tensors
    try:
        return _to_reslight(found, library, config or {})
    except _OtherLibraryError as error:
        if fitting := [other for other in FORMATS if other != library and _is_of(found, other)]:
            raise UsageError(f"{error} They fit {' and '.join(fitting)}: use --from {fitting[0]}.") from None
        raise UsageError(f"{error} They fit no other library that reslight knows{_nearest(found, library)}.") from None


class _OtherLibraryError(UsageError):
    """Weights that no network of the library has; those of another library may."""


def _nearest(found: Mapping[str, Tensor], library: str) -> str:
    """Return the library that knows most of the names and why the weights are not of it; empty if it is the given one."""
    known = {name: _known(found, _family(found, name)) for name in (library, *FORMATS)}
    if (best := max(known, key=lambda name: known[name])) == library:
        return ""
    try:
        _to_reslight(found, best, {})
    except UsageError as error:
        return f"; the nearest is {best}: {str(error).removesuffix('.')}"
    return ""


def _is_of(state: Mapping[str, Tensor], library: str) -> bool:
    """Return whether a state dict is a network of a library."""
    try:
        _to_reslight(state, library, {})
    except UsageError:
        return False
    return True


def _to_reslight(found: Mapping[str, Tensor], library: str, known: Mapping[str, Any]) -> tuple[ResNetConfig, dict[str, Tensor]]:
    family = _family(found, library)
    if unknown := [name for name in found if family.reslight_name(name) is None]:
        raise _OtherLibraryError(f"these weights have {_several(unknown)}, which no ResNet of {library} has.")
    tensors = {family.reslight_name(name) or name: tensor for name, tensor in found.items()}
    if family.conv_head:
        tensors |= {name: tensor.flatten(1) for name, tensor in tensors.items() if name == "fc.weight" and tensor.shape[2:] == (1, 1)}
    try:
        net = infer_config({name: tuple(tensor.shape) for name, tensor in tensors.items()}, known)
    except KeyError as error:
        name, dimensions = error.args
        raise UsageError(f"these weights lack {family.library_name(name)} of {dimensions} dimensions. {_COMPLETE_FILE}") from None
    if differences := family.differences(net, ignored=known):
        raise _OtherLibraryError(f"these weights are of another network than {library}'s: {'; '.join(differences)}.")
    expected = _expected(net)
    for name in expected:
        if name.endswith(_BATCH_COUNTER):
            tensors.setdefault(name, torch.zeros((), dtype=torch.int64))
    _check_tensors(tensors, expected, family)
    return net, {name: _cast(tensors[name]) for name in expected}


def _family(found: Iterable[str], library: str) -> Family:
    """Return the family of a library's networks that knows most of the names."""
    return max(format_of(library).families, key=lambda family: _known(found, family))


def _known(found: Iterable[str], family: Family) -> int:
    """Return how many of the names a family has."""
    return sum(family.reslight_name(name) is not None for name in found)


def from_reslight(config: ResNetConfig, state: Mapping[str, Tensor], library: str) -> dict[str, Tensor]:
    """Convert a network's state dict to another library's names.

    Args:
        config: The network.
        state: Its complete state dict.
        library: A key of `FORMATS`.

    Returns:
        The tensors for the `load_state_dict` of that library's network. They share memory with the given ones.

    Raises:
        UsageError: a network that the library cannot build, or the state dict of another network.
    """
    family = family_of(config, library)
    _check_tensors(state, _expected(config))
    renamed = {family.library_name(name) or name: tensor.detach() for name, tensor in state.items()}
    if family.conv_head:
        head = family.library_name("fc.weight") or ""
        renamed[head] = renamed[head][:, :, None, None]
    return renamed


def _expected(config: ResNetConfig) -> dict[str, Tensor]:
    """Return the state dict of a network on the meta device: names, shapes and dtypes, without memory."""
    with torch.device("meta"):
        return ResNet(config).state_dict()


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], family: Family | None = None) -> None:
    """Check names, shapes and types; messages give the names of `family`, or reslight's without one.

    Raises:
        UsageError: missing tensors, unknown tensors, or tensors of another shape or type.
    """

    def several(names: Iterable[str]) -> str:
        return _several([family.library_name(name) or name if family else name for name in names])

    wrong = {name: tensor for name, tensor in tensors.items() if name in expected and not _fits(tensor, expected[name])}
    problems = {
        "lack": [name for name in expected if name not in tensors],
        "have the unknown": [name for name in tensors if name not in expected],
        "have another shape or type of": wrong,
    }
    if found := [f"{verb} {several(names)}" for verb, names in problems.items() if names]:
        first = next(iter(wrong), None)
        shapes = f" ({_shape(wrong[first])} instead of {_shape(expected[first])})" if first else ""
        raise UsageError(f"these weights {'; '.join(found)}{shapes}. {_COMPLETE_FILE}")


def _fits(tensor: Tensor, expected: Tensor) -> bool:
    """Return whether the shapes are equal, and both tensors hold floating-point numbers or both integers."""
    return tensor.shape == expected.shape and tensor.is_floating_point() == expected.is_floating_point() and not tensor.is_complex()


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")


def _several(names: list[str]) -> str:
    """Return the first few names, which a file may have made of anything."""
    return shortened([visible(name) for name in names])


def _cast(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32 if tensor.is_floating_point() else torch.int64).contiguous()
