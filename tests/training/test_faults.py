"""The cases of benchmarks/faults.py, which end real processes; some run every day."""

import subprocess
import sys
from pathlib import Path

import faults
import pytest
from faults import CASES
from sandbox import Sandbox

DAILY = {"the power fails at each moment of a run, an evaluation, a resume and two exports"}
"""A process; tests/test_interrupts.py has the start."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name if name in DAILY else pytest.param(name, marks=pytest.mark.nightly) for name in CASES])
def test_nothing_is_lost(name: str, sandbox: Sandbox):
    outcome = CASES[name](sandbox)
    assert outcome.good, outcome.happened


@pytest.mark.nightly
@pytest.mark.slow
def test_a_thousand_kills():
    soak = Path(faults.__file__).with_name("soak.py")
    done = subprocess.run([sys.executable, str(soak)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_daily_cases_exist():
    assert CASES.keys() >= DAILY
