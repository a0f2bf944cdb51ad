"""Trained networks where they are used: predict, export, serve."""
