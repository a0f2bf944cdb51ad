"""The mistakes of a beginner: each one line that names the value, what is allowed and the fix; never a traceback, never a run lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from reslight import __version__


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("reslight: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


# What was typed, and parts of the answer: the setting with its value, what is allowed, and the fix.
MISTAKES: dict[str, tuple[str, ...]] = {
    "fti": ("fti: there is no such command", "fit?"),
    "models nothing*": ("nothing*", "`reslight models` lists all"),
    "models a b": ("reslight models has no argument b", "`reslight models --help`"),
    "export runs/digits/1 out --best": ("reslight export has no argument --best", "`reslight export --help`"),
    "data": ("reslight data needs a command", "check"),
    "data chek x": ("chek: there is no such command", "check?"),
    "models nosuch": ("PATTERN is nosuch: ",),
    "classify resnet8.digits nosuch.png": ("nosuch.png is missing",),
    "fit": ("data is missing", "--config digits"),
    "fit --config": ("--config", "digits"),
    "fit --config digit": ("digit", "digits?"),
    "fit --config digits --model.net resnet21": ("model.net is resnet21: ", "Did you mean resnet20 or resnet18 or resnet32?"),
    "fit --config digits --model.net.name resnet20 --model.net.shortcat B": (
        "model.net.shortcat is no setting.",
        "model.net.shortcut?",
    ),
    "fit --config digits --model.net.shortcut D": ("model.net.shortcut is D: ", "A, B, C, none"),
    "fit --config digits --model.net.depths [3,3]": ("model.net.depths is [3, 3] and widths is [16, 32, 64]: ",),
    "fit --config digits --model.net {name:": ("model.net is {name:: it is not YAML",),
    "fit --config digits --model.optm.lr 1": ("model.optm.lr is no setting", "model.optim.lr?"),
    "fit --config digits --trainer.max_epoch 3": ("trainer.max_epoch is no setting", "--trainer.max_epochs N"),
    "fit --config finetune --data.root . --data.preprocess.size null": ("data.preprocess.size is null: it needs a value.",),
    "fit --config finetune --data.root . --data.crop.scale null": ("data.crop.scale is null: it needs a value.",),
    "fit --config imagenet/v1 --data.root . --data.val_size ~": ("data.val_size is null: it needs a value.",),
    "fit --config finetune --data.root . --data.preprocess null": ("data.preprocess is null", "such as --data.preprocess.size VALUE."),
    "fit --config digits --data.batchsize 5": ("data.batchsize is no setting of Digits", "data.batch_size?"),
    "fit --config digits --data.batch_size abc": ("data.batch_size is abc", "a whole number"),
    "fit --config digits --data.batch_size 0": ("data.batch_size is 0", "1 or more"),
    "fit --config digits --data.batch_size 33 --trainer.accumulate_grad_batches 2": ("batch_size is 33", "32 or 34"),
    "fit --config digits --data Cifar": ("data is Cifar", "CIFAR?"),
    "fit --config digits --data.val_size 3000": ("data.val_size is 3000",),
    "fit --config digits --model.optim.lr -1": ("optim.lr is -1.0", "above 0"),
    "fit --config digits --model.optim.name lion": ("model.optim.name is lion", "sgd, adamw, lamb, muon, torch.optim.NAME or timm:NAME"),
    "fit --config digits --trainer.precision 17": ("trainer.precision is 17", "32-true", "bf16-mixed"),
    "fit --config digits --model.num_classes 7": ("model.num_classes is 7", "from the data", "Remove it"),
    "fit --config digits --trainer.accelerator quantum": ("quantum",),
    "fit --config digits --trainer.callbacks Nope": ("trainer.callbacks is Nope", "import path"),
    "fit --config digits --model.schedule.name step": ("model.schedule.name is step", "cosine, multistep, constant or plateau"),
    "fit --config digits --model.schedule.milestones 3": ("model.schedule.milestones is 3", "a list, such as [1, 2]"),
    "fit --config digits --model.optim.betas 0.9": ("model.optim.betas is 0.9", "a list, such as [0.9, 0.999]"),
    "fit --config digits --model.optim sgd": ("model.optim is sgd", "--model.optim.name sgd"),
    "fit --config digits --model.optim Adam": ("such as --model.optim.name torch.optim.Adam.",),
    "fit --config digits --model.optim.options 3": ("model.optim.options is 3: it must be a mapping.",),
    "fit --config digits --model.optim.options {momentum:0.9}": ("needs a space behind each colon. Write '{momentum: 0.9}'.",),
    "fit --config digits --data.class_weights {3:2.0}": (
        "data.class_weights is {3:2.0}: ",
        "needs a space behind each colon. Write '{3: 2.0}'.",
    ),
    "fit --config digits --data.class_weights 3:2.0": ("data.class_weights is ", "such as '{cat: 2, dog: 0.5}'"),
    "fit --config digits --model.optim {momentum:0.9}": ("model.optim is {momentum:0.9}: ", "Write '{momentum: 0.9}'."),
    "fit --config digits --optimizer Adam": ("optimizer is no setting. Use --model.optim.name NAME: sgd,",),
    "fit --config digits --lr_scheduler StepLR": ("lr_scheduler is no setting. Use --model.schedule.name NAME: cosine,",),
    "fit --config digits --model mods.Mine": ("model is mods.Mine: commands train an ImageClassifier.", "docs/guides/extending.md"),
    "fit --config digits --model resnet20": ("model is resnet20", "--model.net resnet20"),
    "fit --config digits --seed_everything=-1": ("seed_everything is -1", "0 to 4294967295"),
    "fit --config digits --seed_everything abc": ("seed_everything is abc", "a whole number"),
    "fit --config digits --checkpoint.monitor val/accuracy": ("checkpoint.monitor is val/accuracy", "val/acc1, val/loss or val/mAP"),
    "fit --config digits --data.augment.flip sideways": ("data.augment.flip is sideways", "none, random or alternating"),
    "fit --config digits --data.augment.padd 3": ("data.augment.padd is no setting of Digits", "data.augment.pad?"),
    "fit --config digits --data CIFAR --data.crop.size 24": ("data.crop.size is no setting of CIFAR", "Folder and ImageNet"),
    "fit --config digits --data.num_workers 4": ("data.num_workers is no setting of Digits", "data.threads"),
    "fit --config digits --trainer.gpus 1": ("trainer.gpus is no setting", "--trainer.accelerator gpu --trainer.devices"),
    "fit --config digits --max_epochs 1": ("max_epochs is no setting", "trainer.max_epochs?"),
    "fit --config digits trainer.max_epochs=1": ("trainer.max_epochs=1 belongs to no option", "--trainer.max_epochs=1?"),
    "fit --config digits --trainer.max_epochs=-5": ("trainer.max_epochs is -5: ", "-1 for no limit"),
    "fit --config digits --trainer.max_epochs": ("--trainer.max_epochs has no value",),
    "fit --config digits --trainer.check_val_every_n_epoch 0": ("trainer.check_val_every_n_epoch is 0: ", "trainer.limit_val_batches to 0"),
    "fit --config digits --trainer.num_nodes 2": ("trainer.num_nodes is 2: ", "torchrun or srun"),
    "fit --config digits --trainer.devices 0": ("trainer.devices is 0: it must be 1 or more",),
    "fit --config digits --trainer.limit_val_batches 1.5": ("trainer.limit_val_batches is 1.5: ", "from 0.0 to 1.0"),
    "fit --config digits --trainer.profiler simpl": ("trainer.profiler is simpl: ", "simple?"),
    "fit --config digits --trainer.strategy dddp": ("trainer.strategy is dddp: ", "ddp?"),
    "fit --config digits --trainer.max_time 5x": ("trainer.max_time is 5x: it must be DD:HH:MM:SS, or a mapping",),
    "fit --config digits --trainer.gradient_clip_algorithm foo": ("trainer.gradient_clip_algorithm is foo: it must be norm or value.",),
    "fit --config digits --trainer.gradient_clip_val=-1": ("trainer.gradient_clip_val is -1: it must be 0 or more",),
    "fit --config digits --trainer.log_every_n_steps=-1": ("trainer.log_every_n_steps is -1: it must be 0 or more",),
    "fit --config digits --trainer.plugins foo": ("trainer.plugins is foo: it must be the import path of a class or a list.",),
    "fit --config digits --trainer.precision fp16": ("trainer.precision is fp16: it must be 32-true, bf16-mixed,",),
    "test --config digits --trainer.limit_test_batches 0": ("trainer.limit_test_batches is 0: ", "no images"),
    "fit --data.help Digit": ("data is Digit: ", "Digits?"),
    "fit --config digits --print_config=skipdefault": ("--print_config is skipdefault: ", "skip_default?"),
    "fit --config digits --trainer.callbacks [EarlyStopping]": ("trainer.callbacks is EarlyStopping: it needs monitor.",),
    "fit --config digits --trainer.callbacks EarlyStopping --trainer.callbacks.monitor val/accc": (
        "trainer.callbacks.monitor is val/accc: this run has val/loss, val/acc1, val/acc5, train/loss, train/acc1 and lr. Use one of them.",
    ),
    "fit --config digits --data.val_size 0 --trainer.callbacks EarlyStopping --trainer.callbacks.monitor val/loss": (
        "trainer.callbacks.monitor is val/loss: this run has train/loss, train/acc1 and lr.",
    ),
    "fit --config digits --model.init_from resnet20.cifar1": ("model.init_from is resnet20.cifar1: ", "resnet20.cifar10 or "),
    "fit -config digits": ("-config is no option", "--config?"),
    "fit --config digits --trainer.limit_train_batches 0": ("trainer.limit_train_batches", "above 0"),
    "fit --config digits --trainer.val_check_interval 100": ("val_check_interval", "100", "training batches (19)"),
    "fit --config digits --trainer.callbacks EarlyStopping": ("EarlyStopping", "needs monitor", "--trainer.callbacks.monitor"),
    "fit --config digits --trainer.callbacks EarlyStopping --trainer.callbacks.monitr x": (
        "trainer.callbacks.monitr is no setting of EarlyStopping",
        "trainer.callbacks.monitor?",
    ),
    "fit --config digits --trainer.callbacks BackboneFinetuning --trainer.callbacks.unfreeze_backbone_at_epoch x": (
        "error: trainer.callbacks.unfreeze_backbone_at_epoch is x: it must be a whole number.",
    ),
    "fit --config digits --trainer.callbacks GradientAccumulationScheduler --trainer.callbacks.scheduling x": (
        "error: trainer.callbacks.scheduling is x: it must be a mapping.",
    ),
    "fit --config digits --trainer.callbacks GradientAccumulationScheduler --trainer.callbacks.scheduling {0:1,1:2}": (
        "error: trainer.callbacks.scheduling is {0:1,1:2}: ",
        "Write '{0: 1,1: 2}'.",
    ),
    "fit --config digits --trainer.callbacks.pacience 3": ("trainer.callbacks.pacience", "names no callback", "--trainer.callbacks NAME"),
    "fit --config digits --trainer.logger CSVLogger --trainer.logger.savedir x": (
        "trainer.logger.savedir is no setting of CSVLogger",
        "trainer.logger.save_dir?",
    ),
    "fit --config digits --trainer.callbacks Timer --trainer.callbacks.interval month": ("trainer.callbacks is Timer: ", "month"),
    "fit --config digits --trainer.callbacks EarlyStopping --trainer.callbacks.monitor x --trainer.callbacks.mode bad": (
        "trainer.callbacks is EarlyStopping: `mode` can be min, max, got bad.",
    ),
    "fit --config digits --trainer.accelerator cpu --trainer.strategy fsdp": ("trainer.strategy is fsdp: it needs GPUs",),
    "fit --config digits --trainer.accelerator cpu --trainer.strategy FSDPStrategy": ("trainer.strategy is FSDPStrategy: it needs GPUs",),
    "fit --config digits --trainer.callbacks ModelCheckpoint --trainer.enable_checkpointing false": (
        "trainer.enable_checkpointing is false: ModelCheckpoint in trainer.callbacks",
    ),
    "fit --config digits --trainer.logger WandbLogger": ("trainer.logger is WandbLogger: it needs wandb>=", "pip install 'wandb>="),
    "fit --config digits --data no_module.Data": ("data is no_module.Data", "no module no_module"),
    "fit --config digits --data reslight.data.Digts": ("data is reslight.data.Digts", "has no Digts", "Digits?"),
    "fit --config digits --data logging.Logger": ("data is logging.Logger", "must be a dataset"),
    "fit digits": ("digits belongs to no option", "--config digits?"),
    "--config digits": ("--config", "comes first", "reslight fit --config digits"),
    "fit --config digits --trainer.default_root_dir /proc/nowhere": ("/proc/nowhere", "--trainer.default_root_dir"),
    "fit --config digits --ckpt_path last": ("runs/digits", "last.ckpt"),
    "test --config digits": ("runs/digits", "last.ckpt", "reslight fit"),
    "test --config digits --ckpt_path not/there.ckpt": ("not/there.ckpt",),
    "test --config digits --ckpt_path broken.ckpt": ("broken.ckpt", "checkpoint"),
    "validate --config digits --ckpt_path best": ("best.ckpt",),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(reslight, words: str):
    Path("broken.ckpt").write_bytes(b"PK\x03\x04 cut")
    answer = reslight(*words.split())
    assert answer.code == 2, answer.err
    line = one_line(answer.err)
    assert all(part in line for part in MISTAKES[words]), line
    assert len(line) < 450
    assert not Path("runs").exists(), "a mistake left a run behind"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("modle: {net: resnet8}\ndata: Digits", ("modle.net is no setting (in mine.yaml)", "model.net?")),
        ("model: {net: resnet8, optim: {lrr: 1}}\ndata: Digits", ("model.optim.lrr is no setting (in mine.yaml)", "model.optim.lr?")),
        (
            "model: {net: resnet8}\ndata: {class_path: Digits, init_args: {batchsize: 3}}",
            ("data.batchsize is no setting of Digits (in mine.yaml)", "data.batch_size?"),
        ),
        ("model: {net: resnet8}\ndata: Digits\ntrainer: {max_epochs: many}", ("trainer.max_epochs is many (in mine.yaml)",)),
        ("trainer: {max_epochs: [3\nmodel: {net: resnet8}", ("mine.yaml, line 2", "not YAML")),
        ("just words", ("mine.yaml has no settings", "a mapping")),
        ("model: {net: resnet8, optim: {lr: 0,1}}\ndata: Digits", ("mine.yaml has the key 1", "with a point")),
        ("model: {net: resnet8}\ndata: {class_path: Digits, batch_size: 3}", ("mine.yaml has batch_size beside data.class_path",)),
        (
            "model: {net: resnet8}\ndata: {class_path: Digits, init_args: {augment: {flips: random}}}",
            ("data.augment.flips is no setting of Digits (in mine.yaml)", "data.augment.flip?"),
        ),
        (
            "model: {net: resnet8}\ndata: Digits\n"
            "trainer: {callbacks: [{class_path: Timer}, {class_path: EarlyStopping, init_args: {mode: min}}]}",
            ("trainer.callbacks is EarlyStopping", "needs monitor"),
        ),
        (
            "model: {net: resnet8}\ndata: Digits\ntrainer: {callbacks: [{class_path: ModelSummary, init_args: {max_dept: 3}}]}",
            ("trainer.callbacks.max_dept is no setting of ModelSummary (in mine.yaml)", "trainer.callbacks.max_depth?"),
        ),
        ("model:\ndata: Digits", ("model is empty (in mine.yaml): it is a group", "such as model.net.")),
        (
            "model: {net: {name: resnet8, shortcutt: B}}\ndata: Digits",
            ("model.net.shortcutt is no setting (in mine.yaml).", "model.net.shortcut?"),
        ),
        ("model: {net: resnet21}\ndata: Digits", ("model.net is resnet21 (in mine.yaml): there is no such network.",)),
        (
            "model: {net: resnet8}\ndata: Digits\n"
            "trainer: {callbacks: [{class_path: GradientAccumulationScheduler, init_args: {scheduling: {0: 2}}}]}",
            ("trainer.callbacks has GradientAccumulationScheduler", "Set trainer.accumulate_grad_batches"),
        ),
        ("model: {net: resnet8, optim: {lr:0.1}}\ndata: Digits", ("mine.yaml has the key lr:0.1 without a value", "Write lr: 0.1.")),
        ("model:\n  net: resnet8\n  optim:\n    lr:0.1\ndata: Digits", ("model.optim is lr:0.1 (in mine.yaml): ", "Write lr: 0.1.")),
        ("model: {class_path: mods.Mine}\ndata: Digits", ("model is mods.Mine (in mine.yaml): ", "docs/guides/extending.md")),
        ("model: {net: resnet8}\n3: 4\ndata: Digits", ("3 is no setting (in mine.yaml)",)),
        ("", ("mine.yaml has no settings",)),
        ("model: {net: resnet8}", ("data is missing",)),
    ],
)
def test_a_mistake_in_a_file_names_the_file(reslight, text: str, parts: tuple[str, ...]):
    Path("mine.yaml").write_text(text)
    answer = reslight("fit", "--config", "mine.yaml")
    assert answer.code == 2
    line = one_line(answer.err)
    assert all(part in line for part in parts), line


def test_a_module_of_ones_own_that_fails(reslight, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("broken_import.py").write_text("import a_package_that_nobody_has\n")
    Path("blobs_module.py").write_text("from reslight.data import Synthetic\n\n\nclass Blobs(Synthetic):\n    pass\n")
    line = one_line(reslight("fit", "--config", "digits", "--data", "broken_import.Data").err)
    assert "data is broken_import.Data" in line
    assert "a_package_that_nobody_has" in line
    line = one_line(reslight("fit", "--config", "digits", "--data", "blobs_module.Blob").err)
    assert "has no Blob. Did you mean Blobs?" in line
    answer = reslight("fit", "--model.net", "resnet8", "--data", "blobs_module.Blobs", "--data.images.size", 8, "--trainer.fast_dev_run", 1)
    assert answer.code == 0, answer.err


def test_a_bug_is_no_mistake_of_the_user(reslight, monkeypatch: pytest.MonkeyPatch):
    """A ValueError that nobody raised on purpose, wherever it comes from."""
    monkeypatch.setattr("reslight.models.cost_of", lambda config: int("x"))
    answer = reslight("models", "resnet20")
    assert answer.code == 1
    line = one_line(answer.err)
    assert "ValueError: invalid literal" in line
    assert "--debug" in line
    assert "bug" in line


def test_errors_of_ones_own_code_name_their_line(reslight, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("own_mistakes.py").write_text(
        "from lightning.pytorch import Callback\nfrom lightning.pytorch.loggers import CSVLogger\n\n\n"
        "class Divides(Callback):\n    def __init__(self):\n        1 / 0\n\n\n"
        "class Offline(CSVLogger):\n    def __init__(self):\n        raise ConnectionError('no route')\n"
    )
    answer = reslight("fit", "--config", "digits", "--trainer.callbacks", "own_mistakes.Divides")
    assert answer.code == 1
    assert "error: Divides.__init__ (own_mistakes.py, line 7) failed: ZeroDivisionError: division by zero." in one_line(answer.err)
    assert "a bug" not in answer.err
    answer = reslight("fit", "--config", "digits", "--trainer.logger", "own_mistakes.Offline")
    assert answer.code == 1
    assert one_line(answer.err) == "reslight: error: trainer.logger is Offline: no route."


def test_a_file_that_is_called_as_a_module(monkeypatch: pytest.MonkeyPatch):
    """`python -m reslight` puts the current folder first: a file there hid a module that reslight needs."""
    Path("yaml.py").touch()
    command = [sys.executable, "-m", "reslight", "configs", "nosuch"]
    assert "PATTERN is nosuch" in subprocess.run(command, capture_output=True, text=True).stderr
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    line = one_line(subprocess.run(command, capture_output=True, text=True, cwd="/").stderr)
    assert "module 'yaml' has no attribute 'SafeLoader'." in line
    assert line.endswith("yaml.py hides the module of that name that Python or a package has: rename it.")
    assert "bug" not in line


def test_control_characters_of_a_message_do_not_reach_the_terminal(reslight, monkeypatch: pytest.MonkeyPatch):
    def fail(config: object) -> None:
        raise OSError("the server says \x1b]0;owned\x07 \u202e")

    monkeypatch.setattr("reslight.models.cost_of", fail)
    assert one_line(reslight("models", "resnet20").err).endswith(r"the server says \x1b]0;owned\x07 \u202e")


def test_a_home_folder_is_expanded(reslight, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    words = ["fit", "--config", "digits", "--trainer.max_epochs", 1, "--model.schedule.warmup", 0, "--trainer.limit_train_batches", 2]
    assert reslight(*words, "--trainer.default_root_dir=~/mine").code == 0
    assert Path("home/mine/digits/1/config.yaml").is_file()
    assert not Path("~").exists()


def test_old_names_of_settings_are_read_and_reported(reslight):
    Path("old.yaml").write_text(
        "model: {net: resnet8, optim: {body_lr: 0.5}}\n"
        "data: {class_path: Digits, init_args: {mix: {mixup: 0.1, share: 0.5}}}\nweights_only: null\n"
    )
    answer = reslight("fit", "--config", "old.yaml", "--model.freeze", "body", "--print_config")
    assert answer.code == 0, answer.err
    settings = yaml.safe_load(answer.out)
    assert settings["model"]["optim"]["backbone_lr"] == 0.5
    assert settings["model"]["freeze"] == "backbone"
    assert settings["data"]["init_args"]["mix"]["prob"] == 0.5
    assert "model.optim.body_lr is now called model.optim.backbone_lr (in old.yaml)" in answer.err
    assert "model.freeze body is now called backbone" in answer.err


def test_a_binary_config_is_no_traceback(reslight):
    Path("mine.yaml").write_bytes(bytes(range(128, 256)))
    assert "mine.yaml is not a text file" in one_line(reslight("fit", "--config", "mine.yaml").err)


def test_a_loss_that_is_not_a_number_stops_with_advice(reslight):
    answer = reslight("fit", "--config", "digits", "--model.optim.lr", "1e9", "--model.schedule.warmup", 0)
    assert answer.code == 1
    assert "the training loss is nan at step" in one_line(answer.err)
    assert "Lower model.optim.lr" in answer.err


def test_another_network_than_the_checkpoints(reslight):
    short = ["--config", "digits", "--trainer.max_epochs", 1, "--model.schedule.warmup", 0, "--trainer.limit_train_batches", 2]
    assert reslight("fit", *short).code == 0
    answer = reslight("test", *short, "--model.net", "resnet20", "--ckpt_path", "runs/digits/1")
    assert answer.code == 2
    line = one_line(answer.err)
    named = ("runs/digits/1/checkpoints/last.ckpt", "depths", "[1, 1, 1]", "[3, 3, 3]", "another ckpt_path")
    assert all(part in line for part in named), line
    answer = reslight("test", "--config", "runs/digits/1", "--model.net", "resnet20")
    assert answer.code == 2
    assert one_line(answer.err) == "reslight: error: model.net is resnet20: the run runs/digits/1 has resnet8. Leave it out."
    answer = reslight("test", "--ckpt_path", "runs/digits/1")
    assert "such as --config runs/digits/1." in one_line(answer.err)
    answer = reslight("classify", "runs/digits/1", "runs")  # a run is as good as weights
    assert one_line(answer.err) == "reslight: error: runs is a folder: an image file is wanted. Give the files in it."
    answer = reslight("fit", *short, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert answer.code == 0, answer.err
    assert "trainer.max_epochs is 2: it was 1 in runs/digits/1/config.yaml, so the learning rate" in answer.err
    answer = reslight("fit", *short, "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert "trainer.max_epochs is 3: it was 2 in runs/digits/1/config.1.yaml" in answer.err
    answer = reslight("fit", *short, "--ckpt_path", "last")
    assert "trainer.max_epochs is 1: runs/digits/1/checkpoints/last.ckpt is of epoch 3." in one_line(answer.err)
    short[3] = 3
    answer = reslight("fit", *short, "--ckpt_path", "last", "--model.optim.name", "adamw")
    assert answer.code == 2
    assert all(part in one_line(answer.err) for part in ("optim.name", "sgd", "adamw"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--trainer.callbacks", "[{class_path: EarlyStopping, init_args: {monitr: x}}]"),
            "trainer.callbacks.monitr is no setting of",
        ),
        (("--model.optim", "{lr: 0.1, momentom: 3}"), "model.optim.momentom is no setting. Did you mean model.optim.momentum?"),
        (("--trainer", "{max_epoch: 3}"), "trainer.max_epoch is no setting."),
        (("--model.optim", "{lr: 0.1"), "model.optim is {lr: 0.1: it is not YAML."),
        (("--data.augment", "{pad: 1, padd: 3}"), "data.augment.padd is no setting of Digits. Did you mean data.augment.pad?"),
        (("--trainer.logger={class_path: CSVLogger, init_args: {savedir: x}}",), "trainer.logger.savedir is no setting of CSVLogger"),
    ],
)
def test_a_typed_mapping_is_checked_as_in_a_file(reslight, words: tuple[str, ...], line: str):
    answer = reslight("fit", "--config", "digits", *words)
    assert answer.code == 2
    assert line in one_line(answer.err)


@pytest.mark.parametrize(
    ("words", "net"),
    [
        ("--config digits --model.net.shortcut B", {"name": "resnet8", "shortcut": "B"}),
        ("--config digits --model.net.name resnet20 --model.net.shortcut B", {"name": "resnet20", "shortcut": "B"}),
        ("--config digits --model.net.shortcut B --model.net.name resnet20", {"name": "resnet20", "shortcut": "B"}),
        ("--config digits --model.net.shortcut=B --model.net=resnet20", {"name": "resnet20", "shortcut": "B"}),
        ("--config digits --model.net resnet20", "resnet20"),
        ("--config mine.yaml --model.net.depths [3,3]", {"depths": [3, 3], "widths": [8, 16], "stem": "small"}),
    ],
)
def test_a_typed_field_changes_the_network_of_the_files(reslight, words: str, net: object):
    Path("mine.yaml").write_text("model: {net: {depths: [1, 1], widths: [8, 16], stem: small}}\ndata: Digits")
    answer = reslight("fit", *words.split(), "--print_config")
    assert answer.code == 0, answer.err
    assert yaml.safe_load(answer.out)["model"]["net"] == net


@pytest.mark.parametrize("word", ["null", "~"])
def test_null_for_a_field_of_a_group(reslight, word: str):
    answer = reslight("fit", "--config", "finetune", "--data.root", ".", "--data.preprocess.resize", word, "--print_config")
    assert answer.code == 0, answer.err
    preprocess = yaml.safe_load(answer.out)["data"]["init_args"]["preprocess"]
    assert (preprocess["resize"], preprocess["size"]) == (None, 224)


def test_null_in_a_file_is_refused_unless_something_replaces_it(reslight):
    Path("mine.yaml").write_text("data: {init_args: {root: ., crop: {scale: null}}}\n")
    words = ("fit", "--config", "finetune", "--config", "mine.yaml", "--print_config")
    assert "data.crop.scale is null (in mine.yaml): it needs a value." in one_line(reslight(*words).err)
    answer = reslight(*words, "--data.crop.scale", "[0.5, 1]")
    assert answer.code == 0, answer.err


def test_a_value_that_is_a_mapping(reslight):
    words = ["fit", "--config", "digits", "--trainer.fast_dev_run", 1, "--trainer.max_time", "{hours: 1}"]
    assert reslight(*words).code == 0
    words = [*words[:-2], "--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.filename", "{epoch}-{step}"]
    assert reslight(*words).code == 0


def test_a_metric_that_a_module_of_ones_own_does_not_log(reslight, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("own_callback.py").write_text("from lightning.pytorch import Callback\n\n\nclass Mine(Callback):\n    pass\n")
    callbacks = "[{class_path: own_callback.Mine}, {class_path: EarlyStopping, init_args: {monitor: val/mine}}]"
    short = ["--trainer.max_epochs", 1, "--model.schedule.warmup", 0, "--trainer.limit_train_batches", 2]
    answer = reslight("fit", "--config", "digits", *short, "--trainer.callbacks", callbacks)
    assert answer.code == 2
    assert "val/mine" in one_line(answer.err)


def test_an_unreachable_hub_is_no_mistake(reslight):
    Path("x.png").touch()
    answer = reslight("classify", "acme/net", "x.png")
    assert answer.code == 1
    assert "HF_HUB_OFFLINE is set" in one_line(answer.err)
    assert "bug" not in answer.err


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
    for text in ("Peak learning rate", "Half a cosine down", "exponential moving average", "every_n_train_steps", "--ckpt_path"):
        assert text in out


@pytest.mark.parametrize("mistake", ["--model.net=resnet21", "--trainer.val_check_interval=100", "--data.batch_size=0"])
def test_debug_adds_the_traceback(reslight, mistake: str):
    plain, debug = reslight("fit", "--config", "digits", mistake), reslight("fit", "--config", "digits", mistake, "--debug")
    assert (plain.code, debug.code) == (2, 2)
    assert "Traceback" in debug.err
    assert debug.err.splitlines()[-1] == one_line(plain.err)


def test_help_of_a_dataset(reslight):
    outputs = [reslight("fit", *words).out for words in (["--data.help", "Digits"], ["--data.help=Digits"])]
    assert "--data.batch_size" in outputs[0]
    assert outputs[0] == outputs[1]


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
        assert list(Path("csv").rglob("*metrics.csv")), "the user's logger was dropped"


@pytest.mark.nightly  # test_interrupts.py and test_signals.py are by day
@pytest.mark.slow
def test_ctrl_c_is_130_and_the_run_goes_on():
    command = [sys.executable, "-m", "reslight", "fit", "--config", "digits", "--trainer.max_epochs"]
    process = subprocess.Popen([*command, "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = Path("runs/digits/1/checkpoints/last.ckpt")
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert one_line(err) == "reslight: interrupted"
    assert "last.ckpt; resume with --ckpt_path last" in out
    resumed = subprocess.run([*command, "3", "--ckpt_path", "last"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "checkpoint runs/digits/1/checkpoints/last.ckpt" in resumed.stdout
