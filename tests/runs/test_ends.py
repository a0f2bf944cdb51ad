"""Checkpoints of ModelCheckpoint belong to the run, and a run that ends early says what stopped it."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from reslight.data import Synthetic, SyntheticImages
from reslight.runs.callback import RunFolder
from reslight.runs.folder import Run, RunDirectory
from reslight.training import ImageClassifier

NET = {"depths": [1, 1], "widths": [8, 16], "stem": "small", "stem_width": 8}
TINY = """\
trainer: {max_epochs: 3, log_every_n_steps: 2}
model: {net: {depths: [1, 1], widths: [8, 16], stem: small, stem_width: 8}, schedule: {name: constant}}
data: {class_path: Synthetic, init_args: {images: {size: 8, train_size: 96, test_size: 40}, batch_size: 16, val_size: 30}}
"""
MODEL_CHECKPOINT = [
    "--trainer.callbacks",
    "ModelCheckpoint",
    "--trainer.callbacks.monitor",
    "val/loss",
    "--trainer.callbacks.save_last",
    "true",
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def files(run: str) -> set[str]:
    return {path.relative_to(run).as_posix() for path in Path(run).rglob("*.ckpt")}


def test_the_next_command_can_be_typed(config: Path, reslight):
    answer = reslight("fit", "--config", config, "--trainer.default_root_dir", "my runs", "--trainer.max_steps", 1)
    assert "next   reslight test --config 'my runs/tiny/1/config.yaml'\n" in answer.out


def test_model_checkpoint_saves_into_the_run(reslight, config):
    for number in (1, 2):
        answer = reslight("fit", "--config", config, *MODEL_CHECKPOINT, "--trainer.max_epochs", number)
        assert answer.code == 0, answer.err
    assert sorted(path.name for path in Path().iterdir()) == ["runs", "tiny.yaml"]
    more = {name for name in files("runs/tiny/2") if "/ModelCheckpoint/" in name}
    assert {"checkpoints/ModelCheckpoint/last.ckpt"} < more
    assert files("runs/tiny/2") - more == {"checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    assert len({name for name in files("runs/tiny/1") if "/ModelCheckpoint/" in name}) == 2

    answer = reslight("fit", "--config", config, *MODEL_CHECKPOINT, "--ckpt_path", "last")
    assert answer.code == 0, answer.err
    assert "checkpoint runs/tiny/2/checkpoints/last.ckpt, step 8" in answer.out
    assert "dirpath has changed" not in answer.err
    own = [name for name in files("runs/tiny/2") if name.startswith("checkpoints/ModelCheckpoint/epoch")]
    assert len(own) == 1, "the best one is remembered over the resume, and an earlier one removed"
    answer = reslight("fit", "--config", config, "--ckpt_path", f"runs/tiny/2/{own[0]}", "--trainer.max_epochs", 4)
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == ["1", "2"]
    assert Run.of_checkpoint(Path("runs/tiny/2") / own[0]) == Run(Path("runs/tiny/2"))


def test_a_folder_that_the_user_chose_stays(reslight, config):
    assert reslight("fit", "--config", config, *MODEL_CHECKPOINT, "--trainer.callbacks.dirpath", "mine").code == 0
    assert Path("mine/last.ckpt").is_file()


def test_model_checkpoint_in_python(tmp_path):
    data = Synthetic(SyntheticImages(size=8, train_size=96, test_size=40), batch_size=16, val_size=30)
    for _ in range(2):
        callbacks = [RunFolder(RunDirectory(tmp_path / "runs", "mine"), lambda path: path.write_text("{}\n")), ModelCheckpoint()]
        trainer = Trainer(accelerator="cpu", logger=False, max_epochs=1, callbacks=callbacks, enable_progress_bar=False)
        trainer.fit(ImageClassifier({**NET, "num_classes": 10}), datamodule=data)
    for number in (1, 2):
        folder = tmp_path / f"runs/mine/{number}/checkpoints/ModelCheckpoint"
        assert [path.suffix for path in folder.iterdir()] == [".ckpt"]


class Own(Callback):
    """A user's callback that stops training."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 6


class Slow(Callback):
    """Uses the time up in the fifth step."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 4:
            timer = next(one for one in trainer.callbacks if type(one).__name__ == "Timer")
            timer._offset += 3600


STOPS = {
    "the time limit of trainer.max_time or a Timer (1:00:00 of training)": (
        ["--trainer.max_time", "00:01:00:00", "--trainer.callbacks", f"{__name__}.Slow"],
        5,
    ),
    "trainer.max_steps (7)": (["--trainer.max_steps", 7], 7),
    "a callback, which set trainer.should_stop": (["--trainer.callbacks", f"{__name__}.Own"], 6),
}


@pytest.mark.parametrize("reason", STOPS)
def test_a_run_that_ends_early_says_what_stopped_it(reslight, config, reason):
    words, step = STOPS[reason]
    answer = reslight("fit", "--config", config, *words)
    assert answer.code == 0, answer.err
    assert f"ended  early, in epoch 2 of 3, by {reason}\n" in answer.out
    summary = json.loads(Path("runs/tiny/1/summary.json").read_text())
    assert (summary["stopped_by"], summary["steps"]) == (reason, step)
    if "max_time" in reason:
        again = reslight("fit", "--config", config, *words, "--ckpt_path", "last")
        assert f"done   nothing: training has reached {reason}\n" in again.out


def test_early_stopping_says_its_reason(reslight, config):
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 100.0}}
    config.write_text(yaml.safe_dump(yaml.safe_load(TINY) | {"trainer": {"max_epochs": 5, "callbacks": [stopping]}}))
    answer = reslight("fit", "--config", config)
    assert answer.code == 0, answer.err
    assert "ended  early, in epoch 2 of 5, by EarlyStopping (val/loss did not improve in 1 check; its best is " in answer.out


def test_other_reasons_of_early_stopping_are_lightnings_own_words():
    from reslight.runs.stopped import stopped_by

    stopping = EarlyStopping("val/loss", stopping_threshold=0.5)
    trainer = Trainer(accelerator="cpu", logger=False, max_epochs=5, callbacks=[stopping], enable_progress_bar=False)
    assert stopped_by(trainer) is None
    _, stopping.stopping_reason_message = stopping._evaluate_stopping_criteria(torch.tensor(0.25))
    assert stopped_by(trainer) == "EarlyStopping (stopping threshold reached: val/loss = 0.25 < 0.5)"


@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_steps": 7}], ids=str)
def test_a_run_of_the_whole_length_was_not_stopped(reslight, config, length):
    config.write_text(yaml.safe_dump(yaml.safe_load(TINY) | {"trainer": length}))
    answer = reslight("fit", "--config", config)
    assert answer.code == 0, answer.err
    assert "ended  early" not in answer.out
    assert json.loads(Path("runs/tiny/1/summary.json").read_text())["stopped_by"] is None
