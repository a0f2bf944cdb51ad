"""Every benchmark runs, in its smallest form: what it measures is not looked at."""

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
FEW = ("--images", "64", "--batch-size", "16")
RUNS = {
    "checkpoints": ("--net", "resnet8"),
    "input": (*FEW, "--batches", "2", "--peer-batches", "2"),
    "train": (*FEW, "--depth", "8", "--steps", "1", "--warm", "1", "--workers", "0"),
    "train --memory": (*FEW, "--memory", "--depth", "8", "--steps", "1", "--warm", "1"),
    "folders": (*FEW, "--workers", "1", "--per-round", "32"),
    "overhead": (*FEW, "--steps", "5"),
    "optimizers": ("--net", "resnet8", "--steps", "2", "--batch-size", "8"),
    "threads": (*FEW, "--steps", "5", "--warm", "2", "--conditions", "quota"),
    "speedups": (*FEW, "--only", "fused", "--depth", "8", "--steps", "4", "--infer", "resnet8", "--size", "32"),
}
NIGHTLY = {"folders", "speedups", "threads", "train --memory"}  # the longest
SHARED = ("harness", "images", "loops", "pictures", "train")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs a file of benchmarks/ as `python benchmarks/NAME.py` would, in this process."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in SHARED:  # whatever they import each other as is forgotten afterwards
        monkeypatch.delitem(sys.modules, name, raising=False)

    def run(name: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")

    yield run
    for name in SHARED:
        sys.modules.pop(name, None)


def test_every_benchmark_is_run_here():
    texts = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    written = {name for name, text in texts.items() if "from harness import" in text and "from harness import machine\n" not in text}
    assert written == {name.split()[0] for name in RUNS}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name for name in RUNS])
def test_a_benchmark_runs(name: str, benchmark: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    benchmark(name.split()[0], "--rounds", "1", "--threads", "1", *RUNS[name], "--json", str(tmp_path / "out.json"))
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["machine"]["threads"] == 1
    assert record["results"]
    assert "n = 1 alternating rounds" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["checkpoints", "folders", "input", "train", "optimizers", "overhead", "speedups", "threads"])
def test_help_says_what_is_measured(name: str, benchmark: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        benchmark(name, "--help")
    assert stop.value.code == 0
    assert "--rounds" in capsys.readouterr().out
