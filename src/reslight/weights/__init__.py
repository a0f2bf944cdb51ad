"""Weights as files: saved, checked, loaded, published and pulled. Needs no Lightning."""

from reslight.models.variants import architecture_of
from reslight.weights.catalog import list_weights
from reslight.weights.loading import load, save
from reslight.weights.record import EvalResult, Record

__all__ = ["EvalResult", "Record", "architecture_of", "list_weights", "load", "save"]
