"""The cases of benchmarks/faults.py, which end real processes; some run every day."""

import pytest
from faults import CASES
from sandbox import Sandbox

DAILY = {
    "SIGKILL in a validation",
    "SIGKILL while last.ckpt is written, TMPDIR on another file system",
    "SIGTERM while it starts",
    "SIGTERM to the second of two processes",
    "SIGKILL to the second of two processes",
    "the disk is full",
}
"""17 processes in total."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name if name in DAILY else pytest.param(name, marks=pytest.mark.nightly) for name in CASES])
def test_nothing_is_lost(name: str, sandbox: Sandbox):
    outcome = CASES[name](sandbox)
    assert outcome.good, outcome.happened


def test_the_daily_cases_exist():
    assert CASES.keys() >= DAILY
