"""What can be learned from runs that are there already: their error curves. No Lightning."""

from reslight.analysis.confusion import draw_measurement
from reslight.analysis.curves import draw, names_of
from reslight.analysis.figure import save
from reslight.runs.folder import find_run
from reslight.runs.history import Curve, History, read_run

__all__ = ["Curve", "History", "draw", "draw_measurement", "find_run", "names_of", "read_run", "save"]
