"""A run's files, its number and its state, which summary.json holds for a finished run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reslight.runs.config_files import run_name
from reslight.runs.folder import Run, RunDirectory, find_run, find_run_or_weights

OLD_RUN = Path(__file__).parents[1] / "fixtures" / "format-1"
TINY = {
    "seed_everything": 5,
    "trainer": {"max_epochs": 1},
    "model": {"net": {"depths": [1, 1], "widths": [8, 16], "stem": "small", "stem_width": 8}, "schedule": {"name": "constant"}},
    "data": {
        "class_path": "Synthetic",
        "init_args": {"images": {"size": 8, "train_size": 32, "test_size": 8}, "batch_size": 16, "val_size": 0},
    },
}


def test_a_finished_run_needs_no_checkpoint_for_its_state(tmp_path: Path):
    run = Run(tmp_path / "1")
    run.folder.mkdir()
    run.summary.write_text(json.dumps({"steps": 8, "seed": 3, "settings": {"ema": None}}))
    assert (run.step, run.seed, run.settings) == (8, 3, {"ema": None})


@pytest.mark.parametrize("summary", [None, "", '{"steps": 7, "se', '{"steps": 7}'])
def test_without_a_whole_summary_the_checkpoint_is_read(tmp_path: Path, summary: str | None):
    run = Run(Path(shutil.copytree(OLD_RUN, tmp_path / "1")))
    if summary is not None:
        run.summary.write_text(summary)
    assert (run.step, run.seed) == (12, 5)
    assert run.settings["net"]["num_classes"] == 10


def test_the_summary_of_a_run_is_its_state_and_a_resumed_run_has_none_until_it_ends(reslight: Callable[..., Any]):
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    assert reslight("fit", "--config", "tiny.yaml").code == 0
    run = Run(Path("runs/tiny/1"))
    summary = json.loads(run.summary.read_text())
    assert (run.step, run.seed) == (summary["steps"], summary["seed"]) == (2, 5)
    resume = ("fit", "--config", "tiny.yaml", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert reslight(*resume, "--model.optim.lr", 1e30).code == 1
    assert not run.summary.exists()
    assert run.step == 2
    assert reslight(*resume).code == 0
    assert json.loads(run.summary.read_text())["steps"] == run.step == 4


def test_a_run_keeps_the_name_that_the_user_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD_RUN, "best run (lr 0.1)")
    run = find_run("best run (lr 0.1)")
    assert (run.folder, run.number, run.step) == (Path("best run (lr 0.1)"), None, 12)
    assert find_run_or_weights("best run (lr 0.1)") == Run.of_checkpoint(run.checkpoint()) == run
    assert run_name(run.config) == "best run (lr 0.1)"
    runs = RunDirectory.for_config(run.config, run_name(run.config))
    assert runs.checkpoint(None, resume=False) == runs.checkpoint("last", resume=True) == run.checkpoint()
    assert runs.next_folder() == Path("runs/best run (lr 0.1)/1")  # a new run does not change it
    assert RunDirectory.for_config(run.config, "best run (lr 0.1)-resnet56").only is None
    assert RunDirectory(Path(), "nothing").checkpoint("best run (lr 0.1)", resume=True) == run.checkpoint()


def test_numbers_count_up_beside_other_folders(tmp_path: Path):
    for name in ("2", "007", "notes", "10.old"):
        (tmp_path / "x" / name).mkdir(parents=True)
    runs = RunDirectory(tmp_path, "x")
    assert [run.folder.name for run in runs.runs()] == ["2", "007"]
    assert runs.create().number == 8


def test_weights_are_no_run(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert find_run_or_weights(str(tmp_path)) is None
    assert find_run_or_weights("resnet20.cifar10") is None
