"""docs/tour.py runs to its end, and its numbers agree with each other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.nightly
def test_the_tour_runs():
    done = subprocess.run([sys.executable, ROOT / "docs/tour.py"], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (right,) = re.findall(r"test/acc1 [\d.]+ \((\d+) of 360\)", done.stdout)
    assert f"test: {right} of 360 correct" in done.stdout
    assert done.stdout.count("DIFFERS") == 0
    assert f"{right} of 360 test images of digits right" in done.stdout, "the report"
    rows = re.findall(r"^(network, \w+[\w ]*|digits[\w.-]+) +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    assert len(rows) >= 5
    assert all(int(same) >= 359 for name, _, same in rows if "int8" not in name)
    assert '"label"' in done.stdout or '"classes"' in done.stdout, "the server's answer"
