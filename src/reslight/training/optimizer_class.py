"""The class of an optimizer by its name, with its further arguments checked: reslight's own, torch's and timm's."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer

from reslight.messages import MissingPackageError, UsageError, nearest
from reslight.training.lamb import Lamb
from reslight.training.muon import Muon

OWN: Mapping[str, tuple[type[Optimizer], tuple[str, ...]]] = {
    "sgd": (SGD, ("momentum", "nesterov")),
    "adamw": (AdamW, ("betas",)),
    "lamb": (Lamb, ("betas",)),
    "muon": (Muon, ("momentum", "nesterov")),
}
"""Names without a prefix: the class, and its arguments that are settings of their own beside `lr` and `weight_decay`."""
TORCH, TIMM = "torch.optim.", "timm:"
_TORCHS = [
    name for name, item in vars(torch.optim).items() if inspect.isclass(item) and issubclass(item, Optimizer) and item is not Optimizer
]


def check_name(name: str) -> None:
    """Check that a name has the form of an optimizer's; whether torch or timm has it is known when it is built.

    Raises:
        UsageError: a name of another form.
    """
    if not isinstance(name, str):
        raise UsageError(f"model.optim.name is {name!r}: it must be a name, such as sgd or {TORCH}Adam.")
    if name in OWN or any(name.startswith(prefix) and name != prefix for prefix in (TORCH, TIMM)):
        return
    near = full_name(name)
    hint = f" Did you mean {near}?" if near != name else ""
    raise UsageError(f"model.optim.name is {name}: it must be {', '.join(OWN)}, {TORCH}NAME or {TIMM}NAME.{hint}")


def full_name(name: str) -> str:
    """Return the name of `model.optim.name` nearest to a name, such as `torch.optim.Adam` for Adam; that itself if none is near."""
    names = {one: f"{TORCH}{one}" for one in _TORCHS} | {one: one for one in OWN}
    near = [] if name in OWN or name.startswith((TORCH, TIMM)) else nearest(name, names, count=1)
    return names[near[0]] if near else name


def build(name: str, groups: list[dict[str, Any]], options: Mapping[str, Any], **settings: Any) -> Optimizer:
    """Build an optimizer.

    Args:
        name: One of `OWN`, `torch.optim.NAME` or `timm:NAME`.
        groups: Groups of parameters with their learning rate and weight decay.
        options: Further arguments, as the user gave them.
        settings: The arguments that are settings of their own.

    Raises:
        UsageError: a name that torch or timm does not have, an unknown option, or an optimizer that cannot train an ImageClassifier.
    """
    cls, make = _class_of(name)
    parameters = inspect.signature(cls).parameters
    own = {one: f"model.optim.{one}" for one in ("lr", "weight_decay", *(OWN[name][1] if name in OWN else ()))}
    _check_options(name, options, [one for one in parameters if one not in (*own, "params", "kwargs")], own)
    if "weight_decay" not in parameters and any(group["weight_decay"] for group in groups):
        raise UsageError(f"model.optim.name is {name}: it has no weight decay. Set model.optim.weight_decay to 0.")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return make(groups, **settings, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"model.optim.name is {name}: it cannot be built ({reason}). Change model.optim.options, or choose another."
        ) from error


def _class_of(name: str) -> tuple[type[Optimizer], Callable[..., Optimizer]]:
    """Return the class of an optimizer and what builds it."""
    if name in OWN:
        return OWN[name][0], OWN[name][0]
    start = f"model.optim.name is {name}: "
    if name.startswith(TIMM):
        return _class_of_timm(name.removeprefix(TIMM), start)
    short = name.removeprefix(TORCH)
    if short not in _TORCHS:
        near = nearest(short, _TORCHS, count=1)
        raise UsageError(f"{start}torch.optim has no such optimizer. " + (f"Did you mean {TORCH}{near[0]}?" if near else "Choose another."))
    cls: type[Optimizer] = getattr(torch.optim, short)
    if inspect.signature(cls.step).parameters["closure"].default is inspect.Parameter.empty:
        raise UsageError(f"{start}it computes the loss several times in a step, so a step has no one loss. Choose another.")
    if short == "SparseAdam":
        raise UsageError(f"{start}it takes sparse gradients only, and those of a ResNet are dense. Use adamw.")
    return cls, cls


def _class_of_timm(name: str, start: str) -> tuple[type[Optimizer], Callable[..., Optimizer]]:
    try:
        timm = importlib.import_module("timm.optim")
        known: list[str] = timm.list_optimizers()
    except (ImportError, AttributeError):
        raise MissingPackageError(f"{start}the package timm is not installed, or too old. Install it: pip install -U timm") from None
    inner = name.removeprefix("lookahead_")  # timm's prefix for its wrapper
    if inner not in known:
        near = nearest(inner, known, count=1)
        raise UsageError(f"{start}timm has no such optimizer. " + (f"Did you mean {TIMM}{near[0]}?" if near else "Choose another."))
    if timm.get_optimizer_info(inner).second_order:
        raise UsageError(f"{start}it needs second derivatives, which are not computed. Choose another.")
    try:
        cls: type[Optimizer] = timm.get_optimizer_class(inner, bind_defaults=False)
    except (AssertionError, ImportError) as error:
        raise UsageError(f"{start}it cannot be used here ({error}). Choose another.") from error
    return cls, partial(timm.create_optimizer_v2, opt=name)


def _check_options(name: str, options: Mapping[str, Any], allowed: list[str], own: Mapping[str, str]) -> None:
    for option in options:
        if option in own:
            raise UsageError(f"model.optim.options.{option} is a setting of its own: set {own[option]}.")
        if option not in allowed:
            near = nearest(option, allowed, count=1)
            hint = f"Did you mean model.optim.options.{near[0]}?" if near else f"It has {', '.join(allowed) or 'none'}."
            raise UsageError(f"model.optim.options.{option} is no argument of {name}. {hint}")
