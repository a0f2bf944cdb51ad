"""The cases of benchmarks/faults.py, which end real processes; some run every day."""

import runpy
from pathlib import Path
from typing import Any

import pytest

FAULTS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "faults.py"))
DAILY = {
    "SIGKILL at four random steps",
    "SIGKILL while last.ckpt is written, TMPDIR on another file system",
    "SIGTERM while it starts",
    "SIGTERM to the second of two processes",
    "SIGKILL to the second of two processes",
    "the disk is full",
}
"""21 processes in total."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return FAULTS["Lab"](tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name if name in DAILY else pytest.param(name, marks=pytest.mark.nightly) for name in FAULTS["CASES"]])
def test_nothing_is_lost(name: str, lab: Any):
    outcome = FAULTS["CASES"][name](lab)
    assert outcome.good, outcome.happened


def test_the_daily_cases_exist():
    assert FAULTS["CASES"].keys() >= DAILY
