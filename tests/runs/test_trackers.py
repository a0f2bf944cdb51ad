"""Loggers of the user: all settings, the run's folder, and one tracker run from fit to test; with the real packages."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reslight.runs.folder import Run
from reslight.runs.trackers import flat_settings

TINY = """\
seed_everything: 5
trainer: {max_epochs: 1, log_every_n_steps: 2, precision: 32-true}
model:
  net: {depths: [1, 1], widths: [8, 16], stem: small, stem_width: 8}
  optim: {lr: 0.05}
  schedule: {name: constant}
data: {class_path: Synthetic, init_args: {images: {size: 8, train_size: 96, test_size: 40}, batch_size: 16, val_size: 30}}
"""
EXPECTED = {"model.optim.lr": 0.05, "model.schedule.name": "constant", "data.batch_size": 16, "trainer.max_epochs": 1, "seed_everything": 5}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def run_all(reslight, *logger: object, after=lambda: None) -> None:
    """Train, resume, validate and test, each as a process of its own would."""
    for words in (
        ["fit", "--config", "tiny.yaml", *logger],
        ["fit", "--config", "runs/tiny/1/config.yaml", "--trainer.max_epochs", 2, "--ckpt_path", "last"],
        ["validate", "--config", "runs/tiny/1"],
        ["test", "--config", "runs/tiny/1"],
    ):
        answer = reslight(*words)
        assert answer.code == 0, answer.err
        after()


def test_settings_are_flat_and_typed_and_without_secrets():
    settings = {
        "model": {"optim": {"lr": 0.1}, "net": "resnet8", "ema": None},
        "data": {"class_path": "my.Data", "init_args": {"hub_token": "abc", "url": "https://me:pw@host/x", "batch_size": 4}},
        "trainer": {"callbacks": [{"class_path": "lightning.EarlyStopping", "init_args": {"patience": 3, "api_key": "k"}}]},
        "mean": [0.5] * 3072,
    }
    assert flat_settings(settings) == {
        "model.optim.lr": 0.1,
        "model.net": "resnet8",
        "model.ema": None,
        "data": "my.Data",
        "data.batch_size": 4,
        "trainer.callbacks.EarlyStopping.patience": 3,
    }


def test_csv_and_tensorboard_loggers_write_into_the_run(reslight, config):
    run_all(reslight, "--trainer.logger", "[CSVLogger, {class_path: TensorBoardLogger, init_args: {name: tb}}]")
    run = Path("runs/tiny/1")
    folders = sorted(path.parent.relative_to(run).as_posix() for path in run.rglob("hparams.yaml"))
    assert {"lightning_logs/version_0", "tb/version_0"} <= set(folders)
    assert sorted(Path().iterdir()) == [Path("runs"), Path("tiny.yaml")]
    for folder in ("lightning_logs/version_0", "tb/version_0"):
        assert EXPECTED.items() <= yaml.safe_load((run / folder / "hparams.yaml").read_text()).items()
    with (run / "lightning_logs/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} == {"2", "4"}
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert [one["init_args"]["save_dir"] for one in saved["trainer"]["logger"]] == ["<run>", "<run>"]
    values = scalars(run / "tb/version_0")
    assert [step for step, _ in values["val/acc1"]] == [4, 8, 8]
    assert [step for step, _ in values["test/acc1"]] == [8]
    assert values["hp_metric"][-1] == (8, values["val/acc1"][1][1])


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_folder_that_the_user_chose_is_kept(reslight, config):
    answer = reslight("fit", "--config", config, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "mine")
    assert answer.code == 0, answer.err
    assert Path("mine/lightning_logs/version_0/metrics.csv").is_file()


def test_tensorboard_shows_the_settings_of_a_run_with_its_last_metrics(reslight, config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert reslight("fit", "--config", config).code == 0
    data = EventAccumulator("runs/tiny/1").Reload().summary_metadata["_hparams_/session_start_info"].plugin_data
    found = HParamsPluginData.FromString(data.content).session_start_info.hparams
    assert found["model.optim.lr"].number_value == pytest.approx(0.05)
    assert found["model.schedule.name"].string_value == "constant"
    assert scalars(Path("runs/tiny/1"))["val/acc1"][-1][0] == 4


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    package = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield package
    package.teardown()


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline run: LevelDB's log format, behind a header of 7 bytes."""
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32_768 - position % 32_768) < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_has_one_run_with_all_settings(reslight, config, wandb):
    from wandb.proto import wandb_internal_pb2

    run_all(reslight, "--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true", after=wandb.finish)
    (identity,) = json.loads(Run(Path("runs/tiny/1")).trackers.read_text())["WandbLogger"]
    files = sorted(Path("wandb").rglob("*.wandb"))
    assert {path.stem for path in files} == {f"run-{identity}"}
    history: dict[str, list[int]] = {}
    settings: dict[str, Any] = {}
    for file in files:
        for data in wandb_records(file):
            record = wandb_internal_pb2.Record.FromString(data)
            for item in (*record.run.config.update, *record.config.update):
                settings["".join(item.nested_key) or item.key] = json.loads(item.value_json)
            row = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name in row:
                history.setdefault(name, []).append(row.get("trainer/global_step"))
    assert EXPECTED.items() <= settings.items()
    assert set(history["val/acc1"]) == {4, 8}
    assert set(history["test/acc1"]) == {8}
    assert not list(Path("runs").rglob("*.wandb"))
    assert yaml.safe_load(Path("runs/tiny/1/config.1.yaml").read_text())["trainer"]["logger"]["init_args"]["id"] is None


def test_mlflow_has_one_run_with_all_settings(reslight, config, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = f"file:{Path('mlruns').absolute()}"
    run_all(reslight, "--trainer.logger", "MLFlowLogger", "--trainer.logger.tracking_uri", store)
    client = mlflow.MlflowClient(store)
    (experiment,) = [one for one in client.search_experiments() if one.name == "lightning_logs"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert {name: str(value) for name, value in EXPECTED.items()}.items() <= run.data.params.items()
    assert [one.step for one in client.get_metric_history(run.info.run_id, "test/acc1")] == [8]
    assert [one.step for one in client.get_metric_history(run.info.run_id, "val/acc1")] == [4, 8, 8]
