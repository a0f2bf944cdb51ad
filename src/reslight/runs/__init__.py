"""One run on disk: its folder, configuration, metrics.csv, reports, export, fork."""
