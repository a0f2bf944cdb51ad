"""Progress: the images per second of anyone's data, by a clock that ticks once for each batch."""

import itertools
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from tests.training.test_classifier import tiny_data, tiny_model, trainer
from torch.utils.data import DataLoader, TensorDataset

from reslight.training import Progress, progress
from reslight.training.batches import images_in

IMAGES, LABELS = torch.zeros(50, 3, 8, 8), torch.arange(50) % 10


class Own(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16)


class OwnModule(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch["image"]).mean()

    def train_dataloader(self):
        return DataLoader([{"name": "a", "image": torch.zeros(8)}] * 21, batch_size=3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("module", "data", "settings", "speed"),
    [
        (tiny_model, Own, {}, "12 images/s"),  # 50 images in 4 batches
        (tiny_model, tiny_data, {"limit_val_batches": 0}, "16 images/s"),  # 64 images in 4 batches
        (tiny_model, tiny_data, {"limit_val_batches": 0, "accumulate_grad_batches": 2}, "8 images/s"),
        (OwnModule, lambda: None, {}, "3 images/s"),
    ],
)
def test_images_per_second(monkeypatch, capsys, module, data, settings, speed):
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    bar = {"enable_progress_bar": True, "callbacks": [Progress()]}
    trainer(**settings | bar).fit(module(), datamodule=data())
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r"\S+ images/s", line)[0] for line in lines if "images/s" in line] == [speed]


class Logged(OwnModule):
    def training_step(self, batch, batch_idx):
        self.log("loss[raw]", batch_idx / 4, prog_bar=True)
        self.log("seen", 1234.5, prog_bar=True, on_step=True, on_epoch=True)
        self.log("hidden", 1.0)
        return super().training_step(batch, batch_idx)


class LogsForBar(Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        pl_module.log("mine", 1e-7, prog_bar=True)


def test_values_for_the_bar_are_on_the_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    trainer(enable_progress_bar=True, callbacks=[Progress()]).fit(Logged())
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("epoch 1/1   batch 3/7   loss[raw] 0.5   seen_step 1234.5   ")
    assert lines[-1].startswith("epoch 1/1   loss[raw] 1.5   seen_step 1234.5   seen_epoch 1234.5   ")
    trainer(enable_progress_bar=True, callbacks=[LogsForBar(), Progress()], limit_val_batches=0).fit(tiny_model(), datamodule=tiny_data())
    assert re.search(r"train loss \S+ acc1 \S+   mine 1e-07   \S+ images/s", capsys.readouterr().out.splitlines()[-1])


def lines_of(capsys) -> list[str]:
    return [line.partition("images/s")[2] for line in capsys.readouterr().out.splitlines() if "images/s" in line]


class Clock(Callback):
    """A clock that advances by 90 seconds in each training batch and by 600 in each validation."""

    now = 0.0

    def on_train_batch_start(self, *_):
        self.now += 90

    def on_validation_start(self, trainer, _):
        self.now += 0 if trainer.sanity_checking else 600


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"max_epochs": 3}, ["32 min", "16 min", ""]),  # 4 batches and a validation an epoch: 6 and 10 minutes
        ({"max_epochs": 3, "limit_val_batches": 0}, ["12 min", "6 min", ""]),
        ({"max_epochs": 41, "limit_val_batches": 0, "max_steps": 8}, ["6 min", ""]),
        ({"max_epochs": 3, "max_time": "00:00:20:00"}, ["20 min", "16 min", ""]),  # of Lightning's own clock
        ({"max_epochs": -1, "limit_val_batches": 0, "max_steps": 8, "accumulate_grad_batches": 2}, ["12 min", ""]),  # 8 batches an epoch
    ],
)
def test_the_time_that_the_whole_run_still_takes(monkeypatch, capsys, settings, left):
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(progress, "LINE_SECONDS", 1e9)
    run = trainer(**settings | {"enable_progress_bar": True, "callbacks": [clock, Progress()]})
    run.fit(tiny_model(), datamodule=tiny_data())
    found = [re.search(r"(?:(\S+ min|\S+ h \S+ min) left)?$", line)[1] or "" for line in lines_of(capsys)]
    assert found == left


def test_a_resumed_run_counts_its_own_batches(monkeypatch, capsys, tmp_path):
    first = trainer(max_epochs=2, limit_val_batches=0)
    first.fit(tiny_model(), datamodule=tiny_data())
    first.save_checkpoint(tmp_path / "x.ckpt")
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(progress, "LINE_SECONDS", 1e9)
    run = trainer(max_epochs=14, limit_val_batches=0, enable_progress_bar=True, callbacks=[clock, Progress()])
    run.fit(tiny_model(), datamodule=tiny_data(), ckpt_path=tmp_path / "x.ckpt")
    assert lines_of(capsys)[0].endswith("   1 h 06 min left")  # 11 epochs of 6 minutes


def test_images_of_batches_of_any_form():
    assert images_in((IMAGES, LABELS)) == images_in({"path": ["a"], "image": IMAGES}) == images_in([[IMAGES], None]) == 50
    assert images_in(torch.tensor(1.0)) == 1
    assert images_in(["a"]) == images_in(None) == images_in({}) == 0


@pytest.mark.parametrize(
    ("is_terminal", "environment", "bars"),
    [(True, {}, True), (True, {"JPY_PARENT_PID": "7"}, False), (False, {"FORCE_COLOR": "1"}, False), (False, {}, False)],
    ids=["terminal", "command of a notebook", "pipe with FORCE_COLOR", "pipe"],
)
def test_a_bar_is_drawn_on_terminals_only(monkeypatch, capsys, is_terminal, environment, bars):
    for name in ("FORCE_COLOR", "JPY_PARENT_PID", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    bar = {"enable_progress_bar": True, "callbacks": [Progress()]}
    trainer(**bar).fit(OwnModule())
    out = capsys.readouterr().out
    assert ("\x1b[" in out) == bars
    assert "images/s" in out
