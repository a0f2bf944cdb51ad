"""Every logger gets rising steps (optimizer steps done) and epochs from 1, whoever logs the values."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor
from lightning.pytorch.loggers import Logger

from reslight.data import Synthetic, SyntheticImages
from reslight.training import ImageClassifier

NET = {"depths": [1, 1], "widths": [8, 16], "stem": "small", "stem_width": 8, "num_classes": 10}


class Values(Logger):
    """Keeps what it gets."""

    name, version = "values", "1"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, Any]]] = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


class Own(Callback):
    """A user's callback, which logs in every way that Lightning has."""

    def on_train_batch_start(self, trainer, pl_module, *_):
        trainer.logger.log_metrics({"at_start": 1.0})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("cb/step", float(trainer.global_step))
        pl_module.log("cb/both", float(trainer.global_step), on_step=True, on_epoch=True)
        pl_module.log("cb/epoch", float(trainer.global_step), on_step=False, on_epoch=True)
        trainer.logger.log_metrics({"direct": 1.0}, step=trainer.global_step)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            trainer.logger.log_metrics({"after_val": 1.0}, step=trainer.global_step)

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("cb/end", float(trainer.global_step))
        trainer.logger.log_metrics({"epoch_end": 1.0}, step=trainer.global_step)

    def on_train_end(self, trainer, pl_module):
        trainer.logger.log_metrics({"train_end": 1.0}, step=trainer.global_step)


class Subclass(ImageClassifier):
    """A user's subclass that logs values of its own."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("own/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)
        self.log("own/val", 0.5)


def data() -> Synthetic:
    return Synthetic(SyntheticImages(size=8, train_size=96, test_size=40), batch_size=16, val_size=30)


@pytest.fixture(autouse=True)
def statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """What DeviceStatsMonitor needs psutil for."""
    monkeypatch.setattr("lightning.pytorch.accelerators.cpu.get_cpu_stats", lambda: {"cpu_percent": 1.0})


def fit(values: Values, tmp_path: Path, module: LightningModule | None = None, ckpt_path: str | None = None, **settings: Any) -> Trainer:
    callbacks = [LearningRateMonitor(), DeviceStatsMonitor(cpu_stats=True), Own()]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "accelerator": "cpu"}
    quiet |= {"logger": values, "callbacks": callbacks, "log_every_n_steps": 2, "max_epochs": 2, "default_root_dir": tmp_path}
    quiet |= {"num_sanity_val_steps": 0}
    trainer = Trainer(**quiet | settings)
    trainer.fit(module or Subclass(NET, schedule={"name": "constant"}), datamodule=data(), ckpt_path=ckpt_path)
    return trainer


def check(rows: list[tuple[int | None, dict[str, Any]]], per_epoch: int, steps: int) -> None:
    """Check that steps rise, that each is in its epoch, and that values of one name have different steps."""
    numbers = [step for step, _ in rows]
    assert numbers == sorted(numbers)
    assert numbers[0] >= 1
    assert numbers[-1] == steps
    wrong = [(step, row) for step, row in rows if row["epoch"] != (step - 1) // per_epoch + 1]
    assert not wrong
    names = {name for _, row in rows for name in row} - {"epoch", "lr"}  # lr is recorded by the step and by the epoch
    for name in (name for name in names if not name.startswith(("lr-", "DeviceStats"))):  # both log each batch
        own = [step for step, row in rows if name in row]
        assert len(own) == len(set(own)), (name, own)
    for name, expected in {"cb/step": {2, 4, 6, 8}, "own/loss": {2, 4, 6, 8}, "train/loss_step": {2, 4, 6, 8}}.items():
        assert {step for step, row in rows if name in row} == {step for step in expected if numbers[0] <= step <= steps}, name
    for step, row in rows:  # a value of the moment has the number of its moment
        assert row.get("cb/step", step) == step
        assert row.get("cb/end", step) == step


@pytest.mark.parametrize("accumulate", [1, 2])
def test_values_of_callbacks_and_subclasses_are_numbered_as_the_classifiers_own(tmp_path, accumulate):
    values = Values()
    trainer = fit(values, tmp_path, accumulate_grad_batches=accumulate)
    rows = [row for row in values.rows if not {"direct", "at_start"} & row[1].keys()] if accumulate > 1 else values.rows
    check(rows, 4, 8)
    names = {name for _, row in values.rows for name in row}
    assert {"lr-SGD/pg1", "cb/both_step", "cb/both_epoch", "own/val", "val/acc1"} <= names
    assert any("cpu_percent" in name for name in names)
    assert "log_metrics" not in vars(values), "the logger is as it was"
    trainer.validate(Subclass(NET), datamodule=data(), verbose=False)
    assert values.rows[-1][0] == 8


def test_a_resume_in_mid_epoch_goes_on_in_the_same_numbers(tmp_path):
    whole, first, second = Values(), Values(), Values()
    fit(whole, tmp_path)
    fit(first, tmp_path, max_steps=6, max_epochs=-1).save_checkpoint(path := str(tmp_path / "six.ckpt"))
    fit(second, tmp_path, ckpt_path=path)
    check(second.rows, 4, 8)
    assert second.rows[0][0] == 7
    later = [(step, sorted(row)) for step, row in whole.rows if step > 6]
    assert [(step, sorted(row)) for step, row in second.rows] == later


def test_an_evaluated_checkpoint_is_numbered_by_its_own_step(tmp_path):
    fit(Values(), tmp_path, max_steps=6, max_epochs=-1).save_checkpoint(path := str(tmp_path / "six.ckpt"))
    values = Values()
    trainer = Trainer(logger=values, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    trainer.test(Subclass(NET), datamodule=data(), ckpt_path=path, verbose=False)
    (row,) = [row for row in values.rows if "test/acc1" in row[1]]
    assert (row[0], row[1]["epoch"]) == (6, 2)


def test_metrics_csv_has_one_row_a_step(reslight, tmp_path):
    (tmp_path / "tiny.yaml").write_text(f"""\
trainer: {{max_epochs: 2, log_every_n_steps: 2, callbacks: [LearningRateMonitor, {__name__}.Own]}}
model: {{net: {{depths: [1, 1], widths: [8, 16], stem: small, stem_width: 8}}, schedule: {{name: constant}}}}
data: {{class_path: Synthetic, init_args: {{images: {{size: 8, train_size: 96, test_size: 40}}, batch_size: 16, val_size: 30}}}}
""")
    assert reslight("fit", "--config", "tiny.yaml", "--trainer.max_steps", 6).code == 0
    answer = reslight("fit", "--config", "tiny.yaml", "--ckpt_path", "last")
    assert answer.code == 0, answer.err
    with Path("runs/tiny/1/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["epoch"]) for row in rows] == [(str(n), str((n - 1) // 4 + 1)) for n in range(1, 9)]
    assert [row["step"] for row in rows if row["lr-SGD/pg1"]] == ["2", "4", "6", "8"]
    assert torch.tensor([float(row["cb/step"] or row["step"]) == float(row["step"]) for row in rows]).all()


class StepValues(Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        pl_module.log("norm", 1.0)
        pl_module.log("both", 1.0, on_step=True, on_epoch=True)
        pl_module.log("bar", 1.0, logger=False)

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("end", 1.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {},
            ["50: an epoch has 4 steps, and what is logged for single steps (norm) is recorded"],
        ),
        ({"log_every_n_steps": 5, "accumulate_grad_batches": 4}, ["5: an epoch has 4 steps, and"]),
        ({"log_every_n_steps": 4, "accumulate_grad_batches": 4}, []),
        ({"log_every_n_steps": 0}, []),  # epochs only, as the command line's help says
        ({"logger": False}, []),
    ],
)
def test_values_of_steps_that_are_left_out_are_said_once(settings, says, caplog):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "max_epochs": 2}
    run = Trainer(**{"accelerator": "cpu", "logger": Values(), "callbacks": [StepValues()]} | quiet | settings)
    run.fit(ImageClassifier(NET), datamodule=data())
    lines = [record.getMessage() for record in caplog.records if "log_every_n_steps" in record.getMessage()]
    assert len(lines) == len(says)
    assert all(line.startswith(f"trainer.log_every_n_steps is {said}") for line, said in zip(lines, says, strict=True))
