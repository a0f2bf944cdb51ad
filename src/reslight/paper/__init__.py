"""The experiments of He et al. 2015: their table, schedule, runner and results."""
