"""Look at finished work: error curves, evaluations, layer responses and predictions. Imports no Lightning."""

from reslight.analysis.confusion import draw_evaluation
from reslight.analysis.curves import draw, names_of
from reslight.analysis.figure import save
from reslight.runs.folder import Run, find_run
from reslight.runs.history import Curve, History, read_run

__all__ = ["Curve", "History", "Run", "draw", "draw_evaluation", "find_run", "names_of", "read_run", "save"]
