"""Callbacks and strategies of Lightning by the command line: they work, or are refused before the first step."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from reslight.cli.class_names import complete_classes
from reslight.cli.command_line import Setting
from reslight.cli.limits import environment_warning
from reslight.messages import UsageError
from reslight.training import ImageClassifier

TINY = """\
trainer: {max_epochs: 1, log_every_n_steps: 2}
model: {net: {depths: [1, 1], widths: [8, 16], stem: small, stem_width: 8}, schedule: {name: constant}}
data: {class_path: Synthetic, init_args: {images: {size: 8, train_size: 96, test_size: 40}, batch_size: 16, val_size: 30}}
"""


class Thing:
    """An object that YAML cannot hold."""


class Own(Callback):
    """A user's callback with an object as a default."""

    def __init__(self, thing=Thing(), number: int = 3) -> None:  # noqa: B008
        self.thing, self.number = thing, number


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_callbacks_with_enumerations_and_objects_are_saved_and_read_again(reslight, config):
    words = [f"--trainer.callbacks={__name__}.Own", "--trainer.callbacks.number=4", "--trainer.callbacks+=Timer"]
    answer = reslight("fit", "--config", config, *words)
    assert answer.code == 0, answer.err
    assert "serialize" not in answer.err
    own, timer = yaml.safe_load(Path("runs/tiny/1/config.yaml").read_text())["trainer"]["callbacks"]
    assert own["init_args"] == {"number": 4}
    assert timer["init_args"]["interval"] == "step"
    answer = reslight("fit", "--config", "runs/tiny/1/config.yaml", "--trainer.fast_dev_run", "true")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ddp_spawn"], "trainer.strategy is DDPStrategy with processes that are copies of this one"),
        (["ddp_fork"], "trainer.strategy is DDPStrategy with processes that are copies of this one"),
        (["DDPStrategy", "--trainer.strategy.start_method", "fork"], "trainer.strategy is DDPStrategy with processes that are copies"),
        (["ModelParallelStrategy"], "trainer.strategy is ModelParallelStrategy: it needs a module of your own"),
        (["DDPStrateg"], "trainer.strategy is DDPStrateg: there is no strategy of that name. Did you mean DDPStrategy?"),
    ],
)
def test_strategies_that_cannot_work_are_refused(reslight, config, words, message):
    answer = reslight("fit", "--config", config, "--trainer.devices", 2, "--trainer.accelerator", "cpu", "--trainer.strategy", *words)
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert message in answer.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("where", ["typed", "file"])
def test_a_strategy_by_its_class_is_that_class(reslight, config, monkeypatch, where):
    made: list[Trainer] = []
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, *args, **kwargs: (made.append(self), fit(self, *args, **kwargs)))
    words = ["--trainer.strategy", "SingleDeviceStrategy", "--trainer.strategy.device", "cpu"]
    if where == "file":
        settings = yaml.safe_load(TINY)
        settings["trainer"]["strategy"] = {"class_path": "SingleDeviceStrategy", "init_args": {"device": "cpu"}}
        config.write_text(yaml.safe_dump(settings))
        words = []
    answer = reslight("fit", "--config", config, *words, "--trainer.fast_dev_run", "true")
    assert answer.code == 0, answer.err
    assert type(made[0].strategy).__name__ == "SingleDeviceStrategy"


def test_names_of_classes_are_completed_wherever_they_are_written():
    words = ["--config", '{"trainer": {"strategy": "DDPStrategy"}}', "--trainer.strategy=DDPStrategy", "--trainer.strategy", "ddp"]
    strategy = '{"class_path": "DDPStrategy"}'
    completed = ["--config", f'{{"trainer": {{"strategy": {strategy}}}}}', f"--trainer.strategy={strategy}", "--trainer.strategy", "ddp"]
    assert complete_classes(words, []) == (completed, [])
    logger = '{"class_path": "CSVLogger", "init_args": {"save_dir": "<run>"}}'
    settings = [Setting("trainer.logger", "CSVLogger")]
    assert complete_classes(["--trainer.logger+", "CSVLogger"], settings) == (
        ["--trainer.logger+", logger],
        [*settings, Setting("trainer.logger.save_dir", "<run>")],
    )


def test_without_checkpoints_no_command_is_offered_that_needs_one(reslight, config):
    answer = reslight("fit", "--config", config, "--trainer.enable_checkpointing", "false")
    assert answer.code == 0, answer.err
    assert "next   nothing to evaluate: trainer.enable_checkpointing is false" in answer.out
    assert "reslight test" not in answer.out
    answer = reslight("fit", "--config", config, "--trainer.enable_checkpointing", "false", "--export", "true")
    assert (answer.code, answer.out) == (2, "")
    assert "trainer.enable_checkpointing is false: --export needs the run's checkpoint." in answer.err


def test_settings_in_environment_variables_are_reported(reslight, config, monkeypatch):
    monkeypatch.setenv("PL_TRAINER__MAX_EPOCHS", "7")
    monkeypatch.setenv("PL_FIT__TRAINER__DEVICES", "2")
    answer = reslight("fit", "--config", config, "--trainer.fast_dev_run", "true")
    line = "warning: PL_FIT__TRAINER__DEVICES, PL_TRAINER__MAX_EPOCHS in the environment: reslight reads no settings from there."
    assert answer.err.count(line) == 1
    assert environment_warning(["PL_GLOBAL_SEED", "PL_TRAINERS", "PATH"]) is None


@pytest.mark.slow
def test_a_module_in_the_current_folder_is_found_by_the_script_too(config, tmp_path):
    (tmp_path / "mycallback.py").write_text("from lightning.pytorch import Callback\n\nclass Mine(Callback):\n    pass\n")
    (tmp_path / "yaml.py").write_text("raise ImportError('a module here replaced an installed one')\n")
    # What an installed script does: its own folder, not the current one, is first on the path.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/script.py").write_text("import sys\nfrom reslight.cli import main\nsys.exit(main())\n")
    words = ["fit", "--config", config, "--trainer.callbacks", "mycallback.Mine", "--print_config"]
    answer = subprocess.run([sys.executable, "bin/script.py", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "class_path: mycallback.Mine" in answer.stdout


def test_sharding_refuses_channels_last_before_the_first_step():
    module = ImageClassifier("resnet8", num_classes=10)
    module.trainer = Trainer(accelerator="cpu", devices=1, strategy=ModelParallelStrategy(), logger=False)
    with pytest.raises(UsageError, match=r"model.channels_last is True: ModelParallelStrategy cannot shard"):
        module.setup("fit")
