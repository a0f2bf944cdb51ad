"""Weights as files: saved, checked, loaded, published and pulled. Needs no Lightning."""

from reslight.weights.catalog import list_weights
from reslight.weights.loading import load, save
from reslight.weights.record import Measured, Record

__all__ = ["Measured", "Record", "list_weights", "load", "save"]
