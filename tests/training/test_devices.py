"""The number of processes changes neither what is seen, nor what is computed, nor what is counted."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FAULTS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "faults.py"))
LONG = (
    "--trainer.precision 64-true --trainer.callbacks+=faults.Frozen --model.net.drop_path 0 --model.ema null "
    "--data.batch_size 12 --trainer.max_epochs 40 --trainer.limit_val_batches 0"
)
"""200 steps of 12 images. Batch norm is in eval mode, for in training its statistics are those of a process's share; and the
arithmetic is in float64, for training is chaotic: the last bit of float32 decides where it goes."""
DDP = "--trainer.strategy ddp --trainer.devices"
SPLITS = {
    "accumulation of 2": "--trainer.accumulate_grad_batches 2",
    "accumulation of 3": "--trainer.accumulate_grad_batches 3",
    "2 processes": f"{DDP} 2",
    "3 processes": f"{DDP} 3",
    "2 processes, accumulation of 2": f"{DDP} 2 --trainer.accumulate_grad_batches 2",
}
ONE_STEP = "--trainer.max_steps 1 --trainer.max_epochs -1 --model.schedule.warmup 0"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return FAULTS["Lab"](tmp_path_factory.mktemp("devices"))


def weights(run: Path) -> torch.Tensor:
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return torch.cat([value.double().flatten() for value in state.values()])


def distance(one: Path, other: Path) -> float:
    return float((weights(one) - weights(other)).norm() / weights(one).norm())


@pytest.mark.slow
@pytest.mark.parametrize("words", SPLITS.values(), ids=SPLITS)
def test_each_split_of_a_batch_sees_the_same_pixels_and_computes_the_same(lab, words):
    whole = lab.whole(LONG.split(), pixels=True)
    part = lab.fresh()
    ended = lab.run("part", f"{LONG} {words}".split(), pixels=True)
    assert ended.code == 0, ended.err
    seen = FAULTS["seen"](part.parents[1])
    assert len(seen) == 200 * 12
    assert seen == FAULTS["seen"](whole.parents[1])
    assert distance(part, whole) < 1e-9
    start = lab.run(lab.fresh("start").parents[1].name, f"{LONG} {ONE_STEP}".split())
    assert start.code == 0
    assert distance(lab.folder / "start/tiny/1", whole) > 0.01, "the run has gone somewhere"


@pytest.mark.slow
def test_in_float32_the_first_step_is_the_same(lab):
    words = f"{LONG} {ONE_STEP} --trainer.precision 32-true"
    whole, part = lab.whole(words.split()), lab.fresh()
    assert lab.run("part", f"{words} {SPLITS['2 processes']}".split()).code == 0
    assert distance(part, whole) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("test_size", [40, 2])
def test_each_image_is_counted_once_on_any_number_of_processes(lab, test_size):
    """Sizes that do not divide, batches that do not divide, and more processes than images."""
    whole = lab.whole(())
    answers = []
    for processes in (1, 2, 3):
        for file in ("test.json", "predictions.csv"):
            (whole / file).unlink(missing_ok=True)
        words = f"--config tiny.yaml --data.images.test_size {test_size} --data.eval_batch_size 7 --trainer.accelerator cpu".split()
        words += ["--ckpt_path", str(whole), *(f"{DDP} {processes}".split() if processes > 1 else [])]
        for command in ("test", "predict"):
            done = subprocess.run(
                [sys.executable, "-m", "reslight", command, *words],
                cwd=lab.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
                timeout=200,
            )
            assert done.returncode == 0, done.stderr
        answers.append((json.loads((whole / "test.json").read_text()), (whole / "predictions.csv").read_text()))
    one, predictions = answers[0]
    assert one["counts"]["total"] == test_size
    assert len(predictions.splitlines()) == test_size + 1
    for other, others in answers[1:]:
        assert others == predictions
        assert other["counts"] | {"nll": 0} == one["counts"] | {"nll": 0}
        assert (other["confusion"], other["per_class"]) == (one["confusion"], one["per_class"])
        assert [row["images"] for row in other["calibration"]["bins"]] == [row["images"] for row in one["calibration"]["bins"]]
        for name in ("test/loss", "test/ece"):
            assert other["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-6)
