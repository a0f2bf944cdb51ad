"""Lightning's features and how each is used and checked; benchmarks/features.py runs them."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What the commands of a feature left behind.

    Args:
        text: Everything that was printed.
        folder: The folder that the commands ran in.
        baseline: The rows of metrics.csv of a run without any feature.
    """

    text: str
    folder: Path
    baseline: list[dict[str, str]]

    def run(self) -> Path:
        """Return the folder of the newest run."""
        return max((path.parent for path in self.folder.glob("**/tiny/*/metrics.csv")), key=lambda path: path.stat().st_mtime)

    def rows(self) -> list[dict[str, str]]:
        """Return metrics.csv without the speed, which differs from run to run."""
        with (self.run() / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [{key: value for key, value in row.items() if key != "images_per_second"} for row in csv.DictReader(file)]

    def json(self, name: str) -> Any:
        """Return the content of a JSON file of the run."""
        return json.loads((self.run() / name).read_text())


Check = Callable[[Outcome], bool]


@dataclass(frozen=True)
class Feature:
    """One feature.

    Args:
        name: What a user sets.
        commands: Arguments of `reslight`, commands separated by `;`. If they begin with `python`, the rest is code that runs between
            the making of a Trainer and its `fit`.
        effect: The effect that is checked, in words.
        check: The check of the effect.
        alone: Run in a process of its own, since Lightning starts other processes from it.
    """

    name: str
    commands: str
    effect: str
    check: Check
    alone: bool = False


def steps(least: int, most: int | None = None) -> Check:
    """Return a check of the number of steps."""
    return lambda outcome: least <= outcome.json("summary.json")["steps"] <= (most or least)


def unchanged(outcome: Outcome) -> bool:
    """Check that the numbers are those of a run without the feature."""
    return outcome.rows() == outcome.baseline


def changed(outcome: Outcome) -> bool:
    """Check that the numbers are others, after as many steps."""
    return outcome.rows() != outcome.baseline and steps(12)(outcome)


def says(*texts: str) -> Check:
    """Return a check of what is printed."""
    return lambda outcome: all(text in outcome.text for text in texts)


def filled(column: str, number: int | None = None) -> Check:
    """Return a check of the number of values in the columns whose names begin so; at least one value if the number is None."""

    def check(outcome: Outcome) -> bool:
        count = sum(any(value and key.startswith(column) for key, value in row.items()) for row in outcome.rows())
        return count == number if number is not None else count > 0

    return check


def has(pattern: str) -> Check:
    """Return a check that a file exists."""
    return lambda outcome: any(outcome.folder.glob(pattern))


def no_run(outcome: Outcome) -> bool:
    """Check that no run was made."""
    return not any(outcome.folder.glob("runs/**/*"))


def every(*checks: Check) -> Check:
    """Return the check of all."""
    return lambda outcome: all(check(outcome) for check in checks)


def processes(number: int) -> Check:
    """Return a check of the number of processes."""
    return lambda outcome: outcome.json("summary.json")["machine"]["processes"] == number


TWO = "--trainer.devices 2"
AGAIN = "as without it"
OTHERS = "other numbers after 12 steps"
STOPS = (
    "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor val/loss --trainer.callbacks.patience 1 --trainer.callbacks.min_delta 9"
)
SMALL = "--data.eval_batch_size 8"
CALLED = "python\nfrom lightning.pytorch.callbacks import {0}\ntrainer.callbacks.append({0}({1}))"
FIND_LR = """python
found = Tuner(trainer).lr_find(model, data, num_training=30, min_lr=1e-5, update_attr=True)
assert abs(found.results["lr"][0] - 1e-5) < 1e-6, found.results["lr"][0]
assert model.lr == found.suggestion()
"""
FIND_SIZE = """python
Tuner(trainer).scale_batch_size(model, data, max_trials=2, init_val=8)
assert data.batch_size > 8
"""


def trainer(name: str, value: str, effect: str, check: Check, more: str = "", *, alone: bool = False) -> Feature:
    """Return a feature that is an argument of the Trainer."""
    return Feature(name, f"fit --trainer.{name} {value} {more}", effect, check, alone)


def callback(name: str, arguments: str, effect: str, check: Check, more: str = "") -> Feature:
    """Return a feature that is a callback."""
    words = "".join(f" --trainer.callbacks.{argument}" for argument in arguments.split(";") if argument)
    return Feature(name, f"fit {more} --trainer.callbacks {name}{words}", effect, check)


def part(kind: str, name: str, arguments: str, effect: str, check: Check) -> Feature:
    """Return a feature that is a logger, a strategy or a plugin."""
    words = "".join(f" --trainer.{kind}.{argument}" for argument in arguments.split(";") if argument)
    return Feature(name, f"fit --trainer.{kind} {name}{words}", effect, check)


def strategy(name: str) -> Feature:
    """Return a feature that is a strategy of two processes."""
    return Feature(name, f"fit --trainer.strategy {name} {TWO}", "2 processes", processes(2), alone=True)


FEATURES: dict[str, list[Feature]] = {
    "Arguments of the Trainer": [
        trainer("accelerator", "cpu", AGAIN, unchanged),
        trainer("strategy", "ddp", "2 processes", processes(2), TWO, alone=True),
        trainer("devices", "2", "2 processes", processes(2), alone=True),
        trainer("num_nodes", "2", "2 processes", processes(2), alone=True),
        trainer("precision", "bf16-mixed", OTHERS, changed),
        trainer("logger", "true", f"{AGAIN}: a run has its own", unchanged),
        Feature(
            *("callbacks", "fit --trainer.callbacks+=LearningRateMonitor --trainer.callbacks+=RichModelSummary", "both"),
            every(filled("lr-"), says("Params")),
        ),
        trainer("fast_dev_run", "true", "no folder", no_run),
        trainer("max_epochs", "2", "8 steps", steps(8)),
        trainer("min_epochs", "4", "16 steps, though stopped earlier", steps(16), f"--trainer.max_epochs 6 {STOPS}"),
        trainer("max_steps", "5", "5 steps", steps(5)),
        trainer("min_steps", "14", "14 to 16 steps, though stopped earlier", steps(14, 16), f"--trainer.max_epochs 6 {STOPS}"),
        trainer(
            *("max_time", "00:00:00:01", "ends early, and says why", every(says("max_time"), steps(1, 3999))),
            "--trainer.max_epochs 1000 --model.schedule.name constant",
        ),
        trainer("limit_train_batches", "2", "6 steps", steps(6)),
        trainer("limit_val_batches", "0", "no validation", filled("val/acc1", 0)),
        Feature(
            *("limit_test_batches", f"fit; test --trainer.limit_test_batches 1 {SMALL}", "8 images"),
            lambda outcome: outcome.json("test.json")["counts"]["total"] == 8,
        ),
        Feature(
            *("limit_predict_batches", f"fit; predict --trainer.limit_predict_batches 1 {SMALL}", "8 predictions"),
            lambda outcome: len((outcome.run() / "predictions.csv").read_text().splitlines()) == 1 + 8,
        ),
        trainer("overfit_batches", "2", "6 steps", steps(6)),
        trainer("val_check_interval", "2", "6 validations", filled("val/acc1", 6)),
        trainer("check_val_every_n_epoch", "2", "1 validation", filled("val/acc1", 1)),
        trainer("num_sanity_val_steps", "2", AGAIN, unchanged),
        trainer("log_every_n_steps", "2", "6 losses", filled("train/loss_step", 6)),
        trainer(
            *("enable_checkpointing", "false", "no checkpoint, and no advice that needs one"),
            lambda outcome: not has("**/*.ckpt")(outcome) and "reslight test" not in outcome.text,
        ),
        trainer("enable_progress_bar", "true", "a line for each epoch", says("epoch 1/3", "epoch 3/3")),
        trainer("enable_model_summary", "true", "Lightning's table", says("Params")),
        trainer("accumulate_grad_batches", "2", "12 steps of as many images", steps(12)),
        trainer("gradient_clip_val", "0.01", OTHERS, changed),
        trainer("gradient_clip_algorithm", "value", OTHERS, changed, "--trainer.gradient_clip_val 0.01"),
        trainer("deterministic", "true", AGAIN, unchanged),
        trainer("benchmark", "true", AGAIN, unchanged),
        trainer("inference_mode", "false", AGAIN, unchanged),
        trainer("use_distributed_sampler", "false", f"{AGAIN}: our loaders share the images out", unchanged),
        trainer("profiler", "simple", "its report", says("Profiler Report")),
        trainer("detect_anomaly", "true", AGAIN, unchanged),
        trainer("barebones", "true", "no folder", no_run, "--trainer.log_every_n_steps null"),
        trainer("plugins", "DoublePrecision", OTHERS, changed),
        trainer("sync_batchnorm", "true", OTHERS, changed, TWO, alone=True),
        trainer("reload_dataloaders_every_n_epochs", "1", AGAIN, unchanged),
        trainer("default_root_dir", "elsewhere", "the run is there", has("elsewhere/tiny/1/metrics.csv")),
        trainer("enable_autolog_hparams", "false", AGAIN, unchanged),
    ],
    "Callbacks": [
        callback("BackboneFinetuning", "", OTHERS, changed),
        callback("BatchSizeFinder", "max_trials 2", "a learning rate above 0", lambda outcome: float(outcome.rows()[0]["lr"]) > 0),
        callback("DeviceStatsMonitor", "cpu_stats true", "its columns", filled("DeviceStatsMonitor")),
        callback(
            *("EarlyStopping", "monitor val/loss;patience 1;min_delta 9", "fewer steps, and says why"),
            *(every(steps(8), says("EarlyStopping")), "--trainer.max_epochs 6"),
        ),
        callback("EMAWeightAveraging", "", "12 steps", steps(12)),
        callback("GradientAccumulationScheduler", "scheduling '{1: 2}'", "fewer steps", steps(8, 11)),
        Feature("LambdaCallback", CALLED.format("LambdaCallback", "on_train_end=lambda *_: print('called')"), "called", says("called")),
        callback(
            *("LearningRateFinder", "num_training_steps 30", "prints a learning rate and trains with it"),
            *(every(says("model.optim.lr is"), steps(40)), "--trainer.max_epochs 10"),
        ),
        callback("LearningRateMonitor", "", "a column", filled("lr-")),
        callback("ModelCheckpoint", "", "its file in the run's folder", has("runs/tiny/1/checkpoints/ModelCheckpoint/epoch*.ckpt")),
        callback("ModelPruning", "pruning_fn l1_unstructured;amount 0.5", OTHERS, changed),
        Feature(
            *("ModelPruning, model.channels_last false",),
            "fit --model.channels_last false --trainer.callbacks ModelPruning --trainer.callbacks.pruning_fn l1_unstructured "
            "--trainer.callbacks.amount 0.5",
            *(OTHERS, changed),
        ),
        callback("ModelSummary", "", "its table", says("Params")),
        callback("OnExceptionCheckpoint", "dirpath kept", AGAIN, unchanged),
        callback("RichModelSummary", "", "its table", says("Params")),
        callback("RichProgressBar", "", "12 steps", steps(12), "--trainer.enable_progress_bar true"),
        callback("SpikeDetection", "", AGAIN, unchanged),
        callback("StochasticWeightAveraging", "swa_lrs 0.01", OTHERS, changed),
        callback("ThroughputMonitor", "batch_size_fn builtins.len;window_size 2", "its columns", filled("train/device")),
        callback("Timer", "duration 00:01:00:00", AGAIN, unchanged),
        callback("TQDMProgressBar", "", "12 steps", steps(12), "--trainer.enable_progress_bar true"),
        Feature("WeightAveraging", CALLED.format("WeightAveraging", ""), "60 steps", says("steps 60")),
    ],
    "Tuner, in Python": [
        Feature("lr_find", FIND_LR, "begins at min_lr; trains with its suggestion", says("steps 60")),
        Feature("scale_batch_size", FIND_SIZE, "trains with the size found, at the configured rate", says("lr 0.1")),
    ],
    "Loggers": [
        part("logger", "CSVLogger", "save_dir logs", "values and settings", every(has("logs/**/metrics.csv"), has("logs/**/hparams.yaml"))),
        part("logger", "TensorBoardLogger", "save_dir logs", "values", has("logs/**/events.out.tfevents.*")),
        part("logger", "WandbLogger", "offline true;save_dir .", "values", has("wandb/offline-run-*")),
        part("logger", "MLFlowLogger", "tracking_uri sqlite:///mlflow.db", "values", has("mlflow.db")),
    ],
    "Strategies": [
        *(strategy(name) for name in ("ddp_find_unused_parameters_true", "ddp_spawn", "ddp_fork", "ddp_notebook")),
        *(strategy(name) for name in ("DDPStrategy", "fsdp", "FSDPStrategy", "ModelParallelStrategy", "deepspeed")),
        part("strategy", "SingleDeviceStrategy", "device cpu", AGAIN, unchanged),
    ],
    "Profilers": [
        *(Feature(name, f"fit --trainer.profiler {name}", "its report", says("Profiler Report")) for name in ("advanced", "pytorch")),
        part("profiler", "PassThroughProfiler", "", AGAIN, unchanged),
    ],
    "Plugins": [
        part("plugins", "AsyncCheckpointIO", "", AGAIN, unchanged),
        part("plugins", "MixedPrecision", "precision bf16-mixed;device cpu", OTHERS, changed),
        part("plugins", "HalfPrecision", "precision bf16-true", OTHERS, changed),
    ],
}
NOT_RUN = {
    "a GPU": ["BitsandbytesPrecision", "TransformerEnginePrecision", "DeepSpeedStrategy", "DeepSpeedPrecision", "FSDPPrecision"],
    "a TPU": ["XLAProfiler", "XLAPrecision", "XLACheckpointIO"],
    "a service on the internet": ["CometLogger", "LitLogger", "model_registry"],
}
"""Features by what they need."""
