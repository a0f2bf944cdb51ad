"""Checkpoints are written whole or not at all; best.ckpt is the best by its metric."""

import errno
import math
import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from reslight.data import Digits
from reslight.training import AtomicCheckpointIO, Checkpoints, ImageClassifier

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def test_a_failed_write_keeps_the_earlier_checkpoint(tmp_path: Path, monkeypatch):
    path = tmp_path / "deep" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    class Unsavable:
        def __reduce__(self):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        AtomicCheckpointIO().save_checkpoint({"step": 2, "bad": Unsavable()}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(("before", "kept"), [(True, "The earlier checkpoint is kept"), (False, "There is no earlier checkpoint")])
@pytest.mark.parametrize("fails", ["os.fsync", "torch.save"])
def test_a_full_disk_is_reported_and_keeps_the_earlier_checkpoint(fails, before, kept, monkeypatch):
    path = Path("run/checkpoints/last.ckpt")
    if before:
        AtomicCheckpointIO().save_checkpoint({"global_step": 1}, path)

    def full(*_: object) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            if fails == "torch.save":
                raise RuntimeError("unexpected pos 174080 vs 173976")  # noqa: B904  # as torch.save does
            raise

    monkeypatch.setattr(fails, full)
    with pytest.raises(OSError, match="cannot be written") as stopped:
        AtomicCheckpointIO().save_checkpoint({"global_step": 2}, path)
    assert str(stopped.value) == (
        f"{path} of step 2 cannot be written: No space left on device. {kept}. Make room and resume with --ckpt_path last."
    )
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"] * before
    if before:
        assert torch.load(path, weights_only=True) == {"global_step": 1}


def test_the_temporary_folder_of_the_system_is_not_used(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 1}


@pytest.mark.skipif(os.name == "nt", reason="has no umask")
def test_a_checkpoint_has_the_permissions_of_any_other_file(tmp_path: Path):
    (tmp_path / "any").touch()
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_mode == (tmp_path / "any").stat().st_mode


class Recorded(Checkpoints):
    """Notes what Checkpoints would save."""

    saved: list[tuple[str, int]]

    def _save(self, trainer, name):
        self.saved.append((name, trainer.global_step))


class FakeTrainer:
    sanity_checking = False

    def __init__(self, step: int, score: float | None, fn: str = "fit"):
        self.global_step, self.current_epoch = step, 0
        self.callback_metrics = {} if score is None else {"val/acc1": torch.tensor(score), "val/loss": torch.tensor(score)}
        self.state = type("State", (), {"fn": fn})


@pytest.mark.parametrize(
    ("monitor", "scores", "best_steps"),
    [
        ("val/acc1", [0.5, 0.7, 0.7, 0.6, 0.8], [0, 1, 4]),  # the earlier one wins a tie
        ("val/loss", [0.5, 0.7, 0.4, 0.4, 0.3], [0, 2, 4]),
        ("val/acc1", [math.nan, 0.1, math.nan], [1]),
        ("val/acc1", [None, 0.1], [1]),
    ],
)
def test_best_is_the_best_by_its_monitor(monitor, scores, best_steps):
    callback = Recorded(monitor=monitor)
    callback.saved = []
    for step, score in enumerate(scores):
        callback.on_validation_end(FakeTrainer(step, score), None)
    assert callback.saved == [("best.ckpt", step) for step in best_steps]


def test_the_best_score_survives_a_resume():
    first = Recorded()
    first.saved = []
    first.on_validation_end(FakeTrainer(10, 0.9), None)
    second = Recorded()
    second.saved = []
    second.load_state_dict(first.state_dict())
    second.on_validation_end(FakeTrainer(20, 0.8), None)
    assert second.saved == []
    assert (second.best_score, second.best_step) == (pytest.approx(0.9), 10)


def test_an_evaluation_saves_nothing():
    callback = Recorded()
    callback.saved = []
    callback.on_validation_end(FakeTrainer(1, 0.5, fn="validate"), None)
    assert callback.saved == []


@pytest.mark.parametrize("settings", [{"every_n_train_steps": 0}, {"every_n_epochs": -1}])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=r"checkpoint\.every_n_\w+ is -?\d: it must be at least 1"):
        Checkpoints(**settings)


class PlainModule(LightningModule):
    """A user's own module, which knows nothing of reslight."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.batches_ended: list[int] = []

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.batches_ended.append(batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_hooks_of_a_users_own_module_are_called_once_a_batch(tmp_path: Path):
    saver = Checkpoints(every_n_train_steps=2)
    saver.folder = tmp_path
    module = PlainModule()
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(max_epochs=2, callbacks=saver, **quiet).fit(module, torch.utils.data.DataLoader(torch.randn(22, 2), batch_size=2))
    assert module.batches_ended == [*range(11)] * 2
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 22


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({"logger": False}, "root/checkpoints"),
        ({}, "root/lightning_logs/version_0/checkpoints"),
    ],
)
def test_in_a_trainer_of_ones_own_checkpoints_are_beside_its_log(settings, folder, tmp_path):
    run = Trainer(default_root_dir=tmp_path / "root", callbacks=[Checkpoints()], max_epochs=1, **QUIET | settings)
    run.fit(ImageClassifier("resnet8", num_classes=10, in_channels=1), Digits())
    assert {path.name for path in (tmp_path / folder).iterdir()} == {"last.ckpt", "best.ckpt"}
    again = Trainer(default_root_dir=tmp_path / "root", callbacks=[Checkpoints()], max_epochs=2, **QUIET | settings)
    again.fit(ImageClassifier("resnet8", num_classes=10, in_channels=1), Digits(), ckpt_path=tmp_path / folder / "last.ckpt")
    assert again.current_epoch == 2


def test_the_folder_may_be_a_text(tmp_path):
    checkpoints = Checkpoints()
    checkpoints.folder = str(tmp_path / "mine")
    Trainer(callbacks=[checkpoints], max_epochs=1, **QUIET | {"logger": False}).fit(
        ImageClassifier("resnet8", num_classes=10, in_channels=1), Digits()
    )
    assert (tmp_path / "mine/last.ckpt").is_file()
