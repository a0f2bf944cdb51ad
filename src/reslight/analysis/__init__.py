"""What can be learned from runs that are there already: their error curves. No Lightning."""

from reslight.analysis.confusion import draw_measurement
from reslight.analysis.curves import draw, names_of
from reslight.analysis.history import Curve, History, find_run, read_run
from reslight.analysis.picture import save

__all__ = ["Curve", "History", "draw", "draw_measurement", "find_run", "names_of", "read_run", "save"]
