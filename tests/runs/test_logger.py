"""metrics.csv has each step once, whatever a crash or a resume did to it."""

import csv
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import LightningModule

from reslight.runs.callback import RunFolder
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.logger import RunLogger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def logger(folder: Path, resumed_at: int | None = None) -> RunLogger:
    log = RunLogger(tensorboard=False)
    log.open(Run(folder), resumed_at)
    return log


def test_values_of_one_step_share_a_row(tmp_path):
    log = logger(tmp_path)
    log.log_metrics({"epoch": 1, "val/acc1": 0.5}, step=20)
    log.log_metrics({"epoch": 1, "train/loss": 1.25}, step=20)
    log.log_metrics({"epoch": 2, "val/acc1": 0.75}, step=40)
    log.flush()
    assert rows(tmp_path) == [
        {"epoch": "1", "step": "20", "val/acc1": "0.5", "train/loss": "1.25"},
        {"epoch": "2", "step": "40", "val/acc1": "0.75", "train/loss": ""},
    ]


def test_steps_rise_whatever_a_callback_passes(tmp_path):
    log = logger(tmp_path)
    log.log_metrics({"lr": 1.0}, step=20)
    log.log_metrics({"own": 2.0}, step=3)
    log.flush()
    assert rows(tmp_path) == [{"epoch": "", "step": "20", "lr": "1", "own": "2"}]


def test_a_row_is_in_the_file_once_a_later_step_begins_or_at_a_flush(tmp_path):
    log = logger(tmp_path)
    for step in range(1, 4):
        log.log_metrics({"lr": step / 10}, step=step)
        written = rows(tmp_path) if step > 1 else []
        assert [row["step"] for row in written] == [str(number) for number in range(1, step)]
    log.flush()
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3"]


def test_no_checkpoint_is_ahead_of_metrics_csv(tmp_path):
    log = logger(tmp_path)
    log.log_metrics({"lr": 1.0}, step=1)
    trainer: Any = SimpleNamespace(loggers=[log])
    RunFolder(RunDirectory(tmp_path, "tiny"), lambda _: None).on_save_checkpoint(trainer, LightningModule(), {})
    assert [row["step"] for row in rows(tmp_path)] == ["1"]


@pytest.mark.parametrize("status", ["success", "failed"])
def test_the_end_of_a_failed_run_keeps_the_first_error(tmp_path, status):
    log = logger(tmp_path)
    log.log_metrics({"lr": 1.0}, step=1)
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(OSError, match=r"metrics\.csv cannot be written: ") if status == "success" else nullcontext():
        log.finalize(status)


def test_numbers_read_back_as_they_were(tmp_path):
    values = {"a": 0.1 + 0.2, "b": 1e-30, "c": 3.0, "d": float("nan")}
    log = logger(tmp_path)
    log.log_metrics(values, step=1)
    log.flush()
    (row,) = rows(tmp_path)
    assert [float(row[name]) for name in "abc"] == [values[name] for name in "abc"]
    assert row["d"] == "nan"


def test_a_new_name_widens_the_table(tmp_path):
    log = logger(tmp_path)
    log.log_metrics({"lr": 1.0}, step=1)
    log.log_metrics({"grad": 2.0}, step=2)
    log.log_metrics({"late": 3.0}, step=2)
    log.flush()
    assert [(r["lr"], r["grad"], r["late"]) for r in rows(tmp_path)] == [("1", "", ""), ("", "2", "3")]


@pytest.mark.parametrize("crash", ["", "3,60,0.", "3,60", "2,4", "\0\0\0", "\0\0\0\n", "2,40,0.9\r\n"])
def test_a_resume_removes_later_rows_and_an_incomplete_one(tmp_path, crash):
    log = logger(tmp_path)
    for step in (20, 40, 50):
        log.log_metrics({"epoch": step // 20, "val/acc1": step / 100}, step=step)
    log.flush()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(crash)
    again = logger(tmp_path, resumed_at=40)
    again.log_metrics({"epoch": 2, "lr": 0.5}, step=40)  # joins the row of the checkpoint's own step
    again.log_metrics({"epoch": 3, "val/acc1": 0.9}, step=60)
    again.flush()
    assert [(r["step"], r["val/acc1"], r["lr"]) for r in rows(tmp_path)] == [
        ("20", "0.2", ""),
        ("40", "0.4", "0.5"),
        ("60", "0.9", ""),
    ]


def test_a_resume_before_the_first_row_and_without_a_file(tmp_path):
    for resumed_at, value in ((7, 1.0), (0, 2.0)):
        log = logger(tmp_path, resumed_at=resumed_at)
        log.log_metrics({"lr": value}, step=resumed_at + 1)
        log.flush()
    assert [(r["step"], r["lr"]) for r in rows(tmp_path)] == [("1", "2")]


def test_tensorboard_gets_the_same_values(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLogger()
    log.log_metrics({"lost": 1.0}, step=1)  # before there is a run
    log.open(Run(tmp_path))
    log.log_metrics({"val/acc1": 0.5}, step=20)
    log.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/acc1")] == [(20, 0.5)]


@pytest.mark.parametrize("row", [{"epoch": "2", "step": "40", "lr": "0.1", "on": "True"}, {}])
def test_the_row_of_a_run_that_was_stopped_within_an_epoch_is_replaced(tmp_path, row):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLogger()
    log.open(Run(tmp_path))
    log.log_metrics({"epoch": 1, "val/acc1": 0.25}, step=20)
    log.log_metrics({"epoch": 2, "lr": 0.1, "on": True}, step=40)
    assert (log.row_of(40), log.row_of(20)) == ({"epoch": "2", "step": "40", "lr": "0.1", "on": "True"}, {})
    log.log_metrics({"epoch": 2, "val/acc1": 0.5}, step=40)
    log.finalize("success")
    again = RunLogger()
    again.open(Run(tmp_path), 40, row)
    again.log_metrics({"epoch": 2, "val/acc1": 0.75}, step=60)
    again.finalize("success")
    found = [{name: value for name, value in row.items() if value} for row in rows(tmp_path)]
    first, last = {"epoch": "1", "step": "20", "val/acc1": "0.25"}, {"epoch": "2", "step": "60", "val/acc1": "0.75"}
    assert found == ([first, row, last] if row else [first, last])
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/acc1")] == [(20, 0.25), (60, 0.75)]
    assert [event.step for event in events.Scalars("lr")] == ([40] if row else [])
