"""The number of processes changes neither the samples, nor the weights, nor the evaluation."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import killed_at_random
from sandbox import Sandbox, seen_samples

from reslight import Preprocess, create_model, save

LONG = (
    "--trainer.precision 64-true --trainer.callbacks+=sandbox.Frozen --model.net.drop_path 0 --model.ema null "
    "--data.batch_size 12 --trainer.max_epochs 16 --trainer.limit_val_batches 0"
)
"""80 steps of 12 images. Batch norm is in eval mode, since in training mode each process has statistics of its own. The arithmetic is
in float64, since training is chaotic and amplifies differences in the last bit of float32."""
DDP = "--config overlays/ddp --trainer.devices"
SPLITS = {
    "accumulation of 2": "--trainer.accumulate_grad_batches 2",
    "accumulation of 3": "--trainer.accumulate_grad_batches 3",
    "2 processes": f"{DDP} 2",
    "3 processes": f"{DDP} 3",
    "2 processes, accumulation of 2": f"{DDP} 2 --trainer.accumulate_grad_batches 2",
}
ONE_STEP = "--trainer.max_steps 1 --trainer.max_epochs -1 --model.schedule.warmup 0"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Sandbox(tmp_path_factory.mktemp("devices"))


def state(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def weights(run: Path) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in state(run).values()])


def distance(one: Path, other: Path) -> float:
    return float((weights(one) - weights(other)).norm() / weights(one).norm())


@pytest.mark.nightly  # by day tests/data/test_trainer.py has two processes
@pytest.mark.slow
@pytest.mark.parametrize("words", SPLITS.values(), ids=SPLITS)
def test_each_split_of_a_batch_has_the_same_pixels_and_weights(sandbox, words):
    whole = sandbox.uninterrupted(LONG.split(), pixels=True)
    part = sandbox.next_run()
    ended = sandbox.run("part", f"{LONG} {words}".split(), pixels=True)
    assert ended.code == 0, ended.err
    seen = seen_samples(part.parents[1])
    assert len(seen) == 80 * 12
    assert seen == seen_samples(whole.parents[1])
    assert distance(part, whole) < 1e-9
    assert state(part).keys() == state(sandbox.uninterrupted(())).keys(), "the names do not depend on DDP or an average"
    assert distance(sandbox.uninterrupted(f"{LONG} {ONE_STEP}".split()), whole) > 0.01, "training changed the weights"


@pytest.mark.nightly
@pytest.mark.slow
def test_in_float32_the_first_step_is_the_same(sandbox):
    words = f"{LONG} {ONE_STEP} --trainer.precision 32-true"
    whole, part = sandbox.uninterrupted(words.split()), sandbox.next_run()
    assert sandbox.run("part", f"{words} {SPLITS['2 processes']}".split()).code == 0
    assert distance(part, whole) < 1e-6


@pytest.mark.nightly
@pytest.mark.slow
def test_with_a_teacher_the_first_step_is_the_same(sandbox, tmp_path):
    torch.manual_seed(1)
    net = create_model("resnet8")
    save(net, tmp_path / "teacher", preprocess=Preprocess(size=8, mean=(0.1, 0.2, 0.3), std=(0.3, 0.4, 0.5)))
    words = f"{LONG} {ONE_STEP} --model.teacher {tmp_path / 'teacher'}"
    whole, part = sandbox.uninterrupted(words.split()), sandbox.next_run()
    ended = sandbox.run("part", f"{words} {SPLITS['2 processes']}".split())
    assert ended.code == 0, ended.err
    assert ended.out.count("million multiply-adds an image") == 1, "said once"
    assert distance(part, whole) < 1e-9
    assert distance(sandbox.uninterrupted(f"{LONG} {ONE_STEP}".split()), whole) > 1e-5, "the teacher made a difference"


EVALUATE = """
import sys
from reslight.cli.main import main
sys.exit(max(main([command, *sys.argv[2:]]) for command in sys.argv[1].split(",")))
"""
"""One process runs all commands, since starting takes most of the time."""


def evaluate(sandbox: Any, processes: int, test_size: int, commands: dict[str, str]) -> dict[str, str]:
    """Return the text of each file that the commands write about the uninterrupted run."""
    run = sandbox.uninterrupted(())
    words = f"--config tiny.yaml --data.images.test_size {test_size} --data.eval_batch_size 7 --ckpt_path {run}"
    words += f" {DDP} {processes}" if processes > 1 else ""
    for file in commands.values():
        (run / file).unlink(missing_ok=True)
    script = sandbox.folder / "evaluate.py"
    script.write_text(EVALUATE)
    line = [sys.executable, str(script), ",".join(commands), *words.split()]
    done = subprocess.run(line, cwd=sandbox.folder, env=sandbox.environment(), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return {file: (run / file).read_text() for file in commands.values()}


@pytest.mark.nightly
@pytest.mark.slow
def test_each_image_is_counted_once_on_three_processes(sandbox):
    """40 images of test and 30 of validation in batches of 7: nothing divides."""
    commands = {"validate": "validate.json", "test": "test.json", "predict": "predictions.csv"}
    one, other = [evaluate(sandbox, processes, 40, commands) for processes in (1, 3)]
    assert len(one["predictions.csv"].splitlines()) == 40 + 1
    assert other["predictions.csv"] == one["predictions.csv"]
    for split, total in (("validate", 30), ("test", 40)):
        expected, report = json.loads(one[f"{split}.json"]), json.loads(other[f"{split}.json"])
        assert report["counts"]["total"] == total
        assert report["counts"] | {"nll": 0} == expected["counts"] | {"nll": 0}
        assert (report["confusion"], report["per_class"]) == (expected["confusion"], expected["per_class"])
        assert [row["images"] for row in report["calibration"]["bins"]] == [row["images"] for row in expected["calibration"]["bins"]]
        assert report["metrics"] == pytest.approx(expected["metrics"], rel=1e-6)


@pytest.mark.nightly
@pytest.mark.slow
def test_each_image_is_counted_once_where_processes_outnumber_images(sandbox):
    one, three = [evaluate(sandbox, processes, 2, {"test": "test.json", "predict": "predictions.csv"}) for processes in (1, 3)]
    assert one["predictions.csv"] == three["predictions.csv"]
    expected, counts = [json.loads(files["test.json"])["counts"] for files in (one, three)]
    assert counts["total"] == 2
    assert counts == pytest.approx(expected)


CUDA = (
    "--trainer.accelerator gpu --trainer.devices 1 --trainer.deterministic true --trainer.benchmark false "
    "--checkpoint.every_n_train_steps 1"
)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_on_a_gpu_a_killed_run_resumes_exactly(sandbox, monkeypatch, precision):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    words = f"{CUDA} --trainer.precision {precision}".split()
    outcome = killed_at_random(sandbox, words, 2, seed=1)
    assert outcome.good, outcome.happened


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: torch has SyncBN on them alone")
def test_synchronized_batch_norm_is_that_of_the_whole_batch(sandbox):
    words = f"{ONE_STEP} --trainer.precision 64-true --trainer.accelerator gpu --model.net.drop_path 0 --model.ema null"
    whole, part = sandbox.uninterrupted([*words.split(), "--trainer.devices", "1"]), sandbox.next_run()
    assert sandbox.run("part", f"{words} {SPLITS['2 processes']} --trainer.sync_batchnorm true".split()).code == 0
    assert distance(part, whole) < 1e-9
