"""What a shell completes: commands and options, and names of configurations, networks, weights and files.

A shell calls reslight at each press of the tab key, so nothing here imports torch or Lightning.
"""

import argparse
import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reslight.cli.parser import TRAINER_COMMANDS
from reslight.data import DATASETS
from reslight.runs import config_files
from reslight.weights.catalog import CATALOG

Completer = Callable[..., Sequence[str]]
"""From what is typed of a word, the keyword `prefix`, to the words that it may become."""


def networks() -> list[str]:
    """Return the names of the networks, out of the source of their table: to import it takes a second."""
    table = Path(__file__).parents[1] / "models" / "variants.py"
    return re.findall(r'^ +"([a-z]\w*)": ', table.read_text(encoding="utf-8"), re.MULTILINE)


def _files(prefix: str) -> list[str]:
    found = glob.glob(glob.escape(os.path.expanduser(prefix)) + "*")  # noqa: PTH111, PTH207  # Path would drop a final slash
    return [f"{path}/" if Path(path).is_dir() else path for path in sorted(found)]


def _words(names: Callable[[], Sequence[str]], *, files: bool = True) -> Completer:
    def complete(prefix: str, **_: object) -> list[str]:
        return [*(name for name in names() if name.startswith(prefix)), *(_files(prefix) if files else ())]

    return complete


def _choice(*words: str, files: bool = False) -> Completer:
    return _words(lambda: words, files=files)


NETWORKS, WEIGHTS, CONFIGS = _words(networks, files=False), _words(lambda: tuple(CATALOG)), _words(config_files.names)
FILES, NUMBER, FLAG = _choice(files=True), _choice(), _choice("true", "false")
SETTINGS: Mapping[str, Completer] = {
    "config": CONFIGS,
    "ckpt_path": _choice("last", "best", files=True),
    "print_config": NUMBER,
    "export": FLAG,
    "seed_everything": NUMBER,
    "threads": NUMBER,
    "model.net": NETWORKS,
    "model.init_from": WEIGHTS,
    "model.teacher": WEIGHTS,
    "model.freeze": _choice("backbone"),
    "model.ema": NUMBER,
    "model.label_smoothing": NUMBER,
    "model.loss": _choice("cross_entropy", "bce"),
    "model.optim.name": _choice("sgd", "adamw", "lamb", "muon", "torch.optim.", "timm:"),
    "model.optim.lr": NUMBER,
    "model.optim.momentum": NUMBER,
    "model.optim.weight_decay": NUMBER,
    "model.optim.backbone_lr": NUMBER,
    "model.schedule.name": _choice("cosine", "multistep", "constant", "plateau"),
    "model.schedule.unit": _choice("step", "epoch"),
    "model.schedule.warmup": NUMBER,
    "model.schedule.milestones": NUMBER,
    "data": _choice(*DATASETS),
    "data.root": FILES,
    "data.labels": FILES,
    "data.name": _choice("cifar10", "cifar100"),
    "data.batch_size": NUMBER,
    "data.eval_batch_size": NUMBER,
    "data.val_size": NUMBER,
    "trainer.max_epochs": NUMBER,
    "trainer.max_steps": NUMBER,
    "trainer.max_time": NUMBER,
    "trainer.accelerator": _choice("auto", "cpu", "gpu", "mps"),
    "trainer.devices": NUMBER,
    "trainer.num_nodes": NUMBER,
    "trainer.strategy": _choice("auto", "ddp", "fsdp"),
    "trainer.precision": _choice("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    "trainer.accumulate_grad_batches": NUMBER,
    "trainer.gradient_clip_val": NUMBER,
    "trainer.limit_train_batches": NUMBER,
    "trainer.fast_dev_run": FLAG,
    "trainer.deterministic": FLAG,
    "trainer.callbacks": _choice("EarlyStopping", "LearningRateFinder", "ModelCheckpoint", "Timer"),
    "trainer.logger": _choice("CSVLogger", "TensorBoardLogger", "WandbLogger", "MLFlowLogger", "CometLogger"),
    "trainer.profiler": _choice("simple", "advanced", "pytorch"),
    "trainer.default_root_dir": FILES,
    "checkpoint.monitor": _choice("val/acc1", "val/loss", "val/mAP"),
    "checkpoint.every_n_train_steps": NUMBER,
}
"""The settings of fit, validate, test and predict that are used most, and what completes their values."""
ARGUMENTS: Mapping[tuple[str, str], Completer] = {
    ("configs", "pattern"): _words(config_files.names, files=False),
    ("models", "pattern"): NETWORKS,
    ("weights", "pattern"): _words(lambda: tuple(CATALOG), files=False),
    ("paper", "nets"): NETWORKS,
    ("deepen", "to"): NETWORKS,
    **{(command, "source"): WEIGHTS for command in ("export", "deepen", "verify", "predict", "serve", "demo", "classify", "convert")},
    ("responses", "sources"): WEIGHTS,
}
"""Arguments of other commands whose values are names; argcomplete itself completes files and choices."""


def add_completers(parser: argparse.ArgumentParser) -> None:
    """Give the arguments of all commands what completes them, and the Trainer's commands their settings."""
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        if name in TRAINER_COMMANDS:
            for setting in SETTINGS:
                command.add_argument(f"--{setting}", action="append")  # append: argcomplete offers other options once
        for action in command._actions:
            if completer := ARGUMENTS.get((name, action.dest)) or (SETTINGS.get(action.dest) if name in TRAINER_COMMANDS else None):
                action.completer = completer  # where argcomplete looks for it


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, and end the process."""
    import argcomplete  # an optional package, which is only called by a script that it has printed

    add_completers(parser)
    argcomplete.autocomplete(parser)
