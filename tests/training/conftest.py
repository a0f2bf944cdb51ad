"""A tiny run through the command line; benchmarks/sandbox.py says when two runs are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sandbox import SETTINGS, contents, rows

TINY = SETTINGS | {"checkpoint": {"every_n_train_steps": 1}}


@pytest.fixture
def fit(reslight: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fit(root, *words)`, which trains a tiny network in the folder `root/tiny/1`."""
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    return lambda root, *words: reslight("fit", "--config", "tiny.yaml", "--trainer.default_root_dir", root, *words)


@pytest.fixture
def assert_same_run() -> Callable[[], None]:
    """Return a function that compares metrics.csv and last.ckpt of the first runs in `part` and `whole`."""

    def compare() -> None:
        part, whole = Path("part/tiny/1"), Path("whole/tiny/1")
        assert rows(part) == rows(whole)
        assert contents(part) == contents(whole)

    return compare
