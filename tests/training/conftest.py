"""A tiny run through the command line; benchmarks/faults.py says what makes two runs the same."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

FAULTS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "faults.py"))
SETTINGS = FAULTS["SETTINGS"] | {"checkpoint": {"every_n_train_steps": 1}}
rows, contents = FAULTS["rows"], FAULTS["contents"]


@pytest.fixture
def fit(reslight: Callable[..., Any]) -> Callable[..., Any]:
    """`fit(place, *words)` trains a tiny network in the folder `place/tiny/1`."""
    Path("tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    return lambda place, *words: reslight("fit", "--config", "tiny.yaml", "--trainer.default_root_dir", place, *words)


@pytest.fixture
def assert_same_run() -> Callable[[], None]:
    """Compares metrics.csv and last.ckpt of the first runs in `part` and `whole`."""

    def compare() -> None:
        part, whole = Path("part/tiny/1"), Path("whole/tiny/1")
        assert rows(part) == rows(whole)
        assert contents(part) == contents(whole)

    return compare
