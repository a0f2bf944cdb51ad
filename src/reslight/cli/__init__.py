"""The command line: `reslight fit`, `reslight models` and all others."""

from reslight.cli.main import main

__all__ = ["main"]
