"""The mistakes of a beginner: each one line that names the value, what is allowed and the fix; never a traceback, never a run lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reslight import __version__


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("reslight: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("fti", "there is no command fti; did you mean fit?"),
        ("models nothing*", "no architecture matches 'nothing*'; `reslight models` lists all"),
        ("models a b", "unrecognized arguments: b; `reslight --help` shows how"),
        ("fit", "--data is missing"),
        ("fit --config", "--config needs the name of a file"),
        ("fit --config digit", "no configuration 'digit' here or in the package; the package has digits"),
        ("fit --config digits --model.net resnet21", "there is no network 'resnet21'; did you mean"),
        ("fit --config digits --model.net.name resnet20 --model.net.shortcat B", "no field 'shortcat'; did you mean shortcut?"),
        (
            "fit --config digits --model.net.name resnet20 --model.net.shortcut D",
            "shortcut='D' is not allowed; choose one of A, B, C, none",
        ),
        ("fit --config digits --model.optm.lr 1", "there is no setting model.optm.lr; did you mean model.optim.lr?"),
        ("fit --config digits --trainer.max_epoch 3", "no setting trainer.max_epoch; did you mean trainer.max_epochs?"),
        ("fit --config digits --data.batchsize 5", "no setting data.batchsize; did you mean data.batch_size?"),
        ("fit --config digits --data.batch_size abc", "data.batch_size is abc; it must be a whole number"),
        ("fit --config digits --data.batch_size 0", "data.batch_size is 0, must be at least 1"),
        ("fit --config digits --data.batch_size 33 --trainer.accumulate_grad_batches 2", "batch_size is 33"),
        (
            "fit --config digits --data Cifar",
            "data is 'Cifar', which is no data set; allowed are CIFAR, Digits, Folder, ImageNet, Synthetic",
        ),
        ("fit --config digits --data.val_size 3000", "data.val_size is 3000"),
        ("fit --config digits --model.optim.lr -1", "optim.lr is -1.0; it must be above 0"),
        ("fit --config digits --model.optim.name lion", "model.optim.name is lion; it must be sgd, adamw, lamb or muon"),
        ("fit --config digits --trainer.precision 17", "trainer.precision is 17; it must be 64, 32, 16"),
        ("fit --config digits --model.num_classes 7", "model.num_classes comes from the data and cannot be set; leave it out"),
        ("fit --config digits --model.schedule.warmup 99", "schedule.warmup is 1881 steps and the run has 1140"),
        ("fit --config digits --trainer.accelerator quantum", "quantum"),
        ("fit --config digits --trainer.callbacks Nope", "trainer.callbacks is 'Nope', which is no class; give its import path"),
        ("fit --config digits --model.schedule.name step", "error: model.schedule.name is step; it must be cosine, multistep or constant"),
        ("fit --config digits --model.schedule.milestones 3", "model.schedule.milestones is 3; it must be a list, such as [1, 2]"),
        ("fit --config digits --model.optim sgd", "model.optim is 'sgd'; it holds settings of its own, such as --model.optim.name sgd"),
        ("fit --config digits --model resnet20", "model is 'resnet20'; it holds settings of its own, such as --model.net resnet20"),
        ("fit --config digits --seed_everything=-1", "seed_everything is -1; it must be a whole number from 0 to 4294967295"),
        ("fit --config digits --seed_everything abc", "error: seed_everything is abc; it must be"),
        ("fit --config digits --checkpoint.monitor val/accuracy", "checkpoint.monitor is val/accuracy; it must be val/acc1 or val/loss"),
        ("fit --config digits --data.augment.flip sideways", "data.augment.flip is sideways; it must be none, random or alternating"),
        ("fit --config digits --trainer.max_epochs=-5", "You passed in -5"),
        ("fit -config digits", "-config is no option; did you mean --config?"),
        ("fit --config digits --trainer.limit_train_batches 0", "an epoch has no training batches"),
        ("fit --config digits --trainer.callbacks EarlyStopping", "trainer.callbacks lacks its monitor"),
        ("fit digits", "there is no setting digits; did you mean --config digits?"),
        ("--config digits", "--config stands where the command belongs; it comes first, as in `reslight fit --config digits`"),
        ("fit --config digits --trainer.default_root_dir /proc/nowhere", "choose another place with --trainer.default_root_dir"),
        ("fit --config digits --ckpt_path last", "no run in runs/digits has a checkpoint last.ckpt"),
        ("test --config digits", "no run in runs/digits has a checkpoint last.ckpt; train one with `reslight fit`"),
        ("test --config digits --ckpt_path not/there.ckpt", "no checkpoint not/there.ckpt"),
        ("test --config digits --ckpt_path broken.ckpt", "broken.ckpt is no checkpoint, or one that was cut short"),
        ("validate --config digits --ckpt_path best", "has a checkpoint best.ckpt"),
    ],
)
def test_a_mistake_is_one_line(reslight, words: str, says: str):
    Path("broken.ckpt").write_bytes(b"PK\x03\x04 cut")
    answer = reslight(*words.split())
    assert answer.code == 2
    assert says in one_line(answer.err)
    assert not Path("runs").exists(), "a mistake left a run behind"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modle: {net: resnet8}\ndata: Digits", "there is no setting modle.net (in mine.yaml); did you mean model.net?"),
        ("model: {net: resnet8, optim: {lrr: 1}}\ndata: Digits", "no setting model.optim.lrr (in mine.yaml); did you mean model.optim.lr?"),
        (
            "model: {net: resnet8}\ndata: {class_path: Digits, init_args: {batchsize: 3}}",
            "no setting data.batchsize (in mine.yaml); did you mean data.batch_size?",
        ),
        ("model: {net: resnet8}\ndata: Digits\ntrainer: {max_epochs: many}", "trainer.max_epochs is many (in mine.yaml)"),
        ("trainer: {max_epochs: [3\nmodel: {net: resnet8}", "mine.yaml, line 2: this is not YAML"),
        ("just words", "mine.yaml holds no settings"),
        ("model: {net: resnet8, optim: {lr: 0,1}}\ndata: Digits", "mine.yaml has 1 where the name of a setting belongs; a decimal number"),
        ("model: {net: resnet8}\ndata: {class_path: Digits, batch_size: 3}", "mine.yaml has batch_size beside data.class_path"),
        (
            "model: {net: resnet8}\ndata: {class_path: Digits, init_args: {augment: {flips: random}}}",
            "no setting data.augment.flips (in mine.yaml); did you mean data.augment.flip?",
        ),
        ("", "mine.yaml holds no settings"),
        ("model: {net: resnet8}", "--data is missing"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(reslight, text: str, says: str):
    Path("mine.yaml").write_text(text)
    answer = reslight("fit", "--config", "mine.yaml")
    assert answer.code == 2
    assert says in one_line(answer.err)


def test_a_binary_config_is_no_traceback(reslight):
    Path("mine.yaml").write_bytes(bytes(range(128, 256)))
    assert "is not a text file in YAML" in one_line(reslight("fit", "--config", "mine.yaml").err)


def test_a_loss_that_is_not_a_number_stops_with_advice(reslight):
    answer = reslight("fit", "--config", "digits", "--model.optim.lr", "1e9", "--model.schedule.warmup", 0)
    assert answer.code == 1
    assert "the training loss is nan at step" in one_line(answer.err)
    assert "lower model.optim.lr" in answer.err


def test_another_network_than_the_checkpoints(reslight):
    short = ["--config", "digits", "--trainer.max_epochs", 1, "--model.schedule.warmup", 0]
    assert reslight("fit", *short).code == 0
    answer = reslight("test", *short, "--model.net", "resnet20")
    assert answer.code == 2
    assert "last.ckpt holds another network: depths [1, 1, 1] there, [3, 3, 3] here" in one_line(answer.err)
    answer = reslight("fit", *short, "--ckpt_path", "last", "--model.optim.name", "adamw")
    assert "optim.name sgd and the configuration says adamw" in one_line(answer.err)


def test_help_lists_every_command_and_version_is_the_packages(reslight):
    out = reslight("--help").out
    assert all(f"    {name} " in out for name in ("fit", "validate", "test", "predict", "models", "plot"))
    assert reslight("--version").out == f"reslight {__version__}\n"
    assert reslight().code == 2


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "models", "plot"])
def test_every_command_answers_help(reslight, command: str):
    answer = reslight(command, "--help")
    assert answer.code == 0
    assert "usage: " in answer.out


def test_fit_help_explains_our_settings(reslight):
    out = " ".join(reslight("fit", "--help").out.split())
    for text in ("Peak learning rate", "Half a cosine down", "The name of a variant", "exponential moving average", "Keep best.ckpt"):
        assert text in out


def test_debug_tells_the_whole_story(reslight):
    answer = reslight("fit", "--config", "digits", "--model.net", "resnet21", "--debug")
    assert answer.code == 2
    assert "Traceback" in answer.err


def test_models_prints_a_table(reslight):
    lines = reslight("models", "resnet2*").out.splitlines()
    assert lines[0].split() == ["name", "parameters", "MACs", "(M)", "at", "source"]
    assert lines[1].split()[:4] == ["resnet20", "269,722", "40.6", "32"]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("--trainer.log_every_n_steps=0", "done   57 steps"),
        ("--trainer.check_val_every_n_epoch=2", "done   57 steps"),
        ("--trainer.enable_checkpointing=false", "done   57 steps"),
        ("--trainer.enable_progress_bar=false", "done   57 steps"),
        ("--trainer.callbacks+=LearningRateMonitor", "done   57 steps"),
        ("--trainer.callbacks+=RichProgressBar", "done   57 steps"),
        ("--trainer.logger=CSVLogger", "done   57 steps"),
        ("--trainer.logger=false", "done   57 steps"),
        ("--trainer.fast_dev_run=true", "train"),
        ("--trainer.overfit_batches=2", "done   6 steps"),
        ("--trainer.barebones=true", ""),
    ],
)
def test_lightnings_own_settings_work(reslight, setting: str, said: str):
    loggers = ["--trainer.logger.save_dir", "csv"] if setting.endswith("CSVLogger") else []
    answer = reslight("fit", "--config", "digits", "--trainer.max_epochs", 3, setting, *loggers)
    assert answer.code == 0, answer.err
    assert said in answer.out
    if "CSVLogger" in setting:
        assert list(Path("csv").rglob("*metrics.csv")), "the person's logger was dropped"


@pytest.mark.slow
def test_ctrl_c_is_130_and_the_run_goes_on():
    command = [sys.executable, "-m", "reslight", "fit", "--config", "digits", "--trainer.max_epochs"]
    process = subprocess.Popen([*command, "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = Path("runs/digits/1/checkpoints/last.ckpt")
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert one_line(err) == "reslight: interrupted"
    assert "last.ckpt; resume with --ckpt_path last" in out
    resumed = subprocess.run([*command, "3", "--ckpt_path", "last"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "checkpoint runs/digits/1/checkpoints/last.ckpt" in resumed.stdout
