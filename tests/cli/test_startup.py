"""What costs nothing must take no time: whole processes, the best of several, over a bare interpreter."""

import subprocess
import sys
import time

import pytest


def best_seconds(*words: str, runs: int = 7) -> float:
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)


def test_import_is_under_a_tenth_of_a_second():
    assert best_seconds("-c", "import reslight") - best_seconds("-c", "pass") < 0.1


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_under_a_fifth_of_a_second(option: str):
    assert best_seconds("-m", "reslight", option) < 0.2


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import reslight", "torch"),
        ("from reslight.cli.main import main; main(['--help'])", "torch"),
        ("from reslight.cli.main import main; main(['configs'])", "torch lightning numpy"),
        ("from reslight.cli.main import main; main(['models', 'resnet20'])", "lightning torchvision torchmetrics"),
        ("import reslight; reslight.create_model", "lightning torchvision"),
    ],
)
def test_nothing_heavy_is_imported(code: str, absent: str):
    check = f"\nimport sys; assert not set(sys.modules) & set({absent.split()!r})"
    subprocess.run([sys.executable, "-c", code + check], check=True, capture_output=True)
