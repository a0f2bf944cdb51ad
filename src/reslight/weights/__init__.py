"""Weights as files: save, check, load, push and pull them. Needs no Lightning.

The public names are imported at their first use (PEP 562): the command line reads the tables of `weights.interop.names`
before it knows whether the command needs torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reslight.models.variants import architecture_of
    from reslight.weights.catalog import list_weights
    from reslight.weights.loading import load, save
    from reslight.weights.record import Record
    from reslight.weights.results import EvalResult, MultiLabelResult

_MODULES = {
    "EvalResult": "reslight.weights.results",
    "MultiLabelResult": "reslight.weights.results",
    "Record": "reslight.weights.record",
    "architecture_of": "reslight.models.variants",
    "list_weights": "reslight.weights.catalog",
    "load": "reslight.weights.loading",
    "save": "reslight.weights.loading",
}

__all__ = ["EvalResult", "MultiLabelResult", "Record", "architecture_of", "list_weights", "load", "save"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module 'reslight.weights' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
