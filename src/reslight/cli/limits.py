"""Values of the Trainer's settings that Lightning accepts silently, or refuses late or without the name of the setting."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy, Strategy, StrategyRegistry

from reslight import lightning_private
from reslight.messages import UsageError, shortened, suggestion

LAUNCHERS = (
    "TORCHELASTIC_RUN_ID",
    "SLURM_NTASKS",
    "LSB_JOBID",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MASTER_ADDR",
    "NODE_RANK",
    "GROUP_RANK",
)
"""Variables that a launcher, or the user by hand, sets for the processes of a run on several machines."""
PROFILERS = ("simple", "advanced", "pytorch", "xla")


def _at_least(least: int) -> Callable[[Any], bool]:
    return lambda value: value >= least


def _is_limit(value: Any) -> bool:
    return value >= 0 if isinstance(value, int) else 0 <= value <= 1


def _is_time(value: Any) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value) is not None


_LIMIT = (_is_limit, "it must be a whole number of batches, or a share from 0.0 to 1.0. Use 1.0 for all.")
_END = (_at_least(-1), "it must be 0 or more. Use -1 for no limit.")
_COUNT = (_at_least(1), "it must be 1 or more.")
RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "max_epochs": _END,
    "max_steps": _END,
    "num_nodes": _COUNT,
    "accumulate_grad_batches": _COUNT,
    "check_val_every_n_epoch": (_at_least(1), "it must be 1 or more. For no validation set trainer.limit_val_batches to 0."),
    "log_every_n_steps": (_at_least(0), "it must be 0 or more. Use 0 to log epochs only."),
    "gradient_clip_val": (_at_least(0), "it must be 0 or more. Use null for no clipping."),
    "gradient_clip_algorithm": (lambda value: value in ("norm", "value"), "it must be norm or value."),
    "devices": (lambda value: value not in (0, "0", []), "it must be 1 or more, a list of numbers, or auto."),
    "max_time": (_is_time, "it must be DD:HH:MM:SS, or a mapping such as '{hours: 1}'."),
    **dict.fromkeys((f"limit_{stage}_batches" for stage in ("train", "val", "test", "predict")), _LIMIT),
}
"""For each setting of the Trainer whether a value is allowed, and the rest of the message if it is not. None is always allowed."""


def check_trainer(settings: Mapping[str, Any], command: str) -> None:
    """Check the Trainer's settings before anything is made from them.

    Args:
        settings: The settings below `trainer`.
        command: The command that uses them.

    Raises:
        UsageError: a value that is not allowed, or that this machine or command cannot use.
    """
    for name, (is_allowed, rule) in RULES.items():
        value = settings[name]
        if value is not None and not is_allowed(value):
            raise UsageError(f"trainer.{name} is {value}: {rule}")
    evaluated = {"validate": "limit_val_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}.get(command)
    if evaluated and settings[evaluated] == 0:
        raise UsageError(f"trainer.{evaluated} is 0: `reslight {command}` would have no images. Use 1 or more.")
    for name, choices in (("profiler", PROFILERS), ("strategy", ("auto", *StrategyRegistry.available_strategies()))):
        value = settings[name]
        if isinstance(value, str) and value not in choices:
            fix = suggestion(value, choices, f"Use one of {', '.join(choices[:4])}.")
            raise UsageError(f"trainer.{name} is {value}: there is no such {name}. {fix}")
    if settings["accelerator"] in ("gpu", "cuda", "mps") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise UsageError(f"trainer.accelerator is {settings['accelerator']}: this machine has no GPU. Use cpu or auto.")
    strategy = settings["strategy"]
    name = strategy if isinstance(strategy, str) else str(getattr(strategy, "class_path", "")).rpartition(".")[2]
    uses_cuda = torch.cuda.is_available() and settings["accelerator"] in ("auto", "gpu", "cuda")
    if name.lower().startswith(("fsdp", "deepspeed")) and not uses_cuda:
        raise UsageError(f"trainer.strategy is {name}: it needs GPUs of NVIDIA or AMD, and this run uses none. Use ddp.")
    if settings["num_nodes"] > 1 and not any(name in os.environ for name in LAUNCHERS):
        raise UsageError(
            f"trainer.num_nodes is {settings['num_nodes']}: no launcher started this process, and it would wait for the others for ever. "
            "Start it with torchrun or srun on each machine, see docs/guides/scaling.md."
        )


def environment_warning(names: Iterable[str]) -> str | None:
    """Return a line about settings in environment variables, which Lightning's own command line could read; None without one."""
    found = sorted(name for name in names if re.match(r"PL_(TRAINER|MODEL|DATA|FIT|VALIDATE|TEST|PREDICT|CONFIG|CKPT_PATH)(_|$)", name))
    return (
        f"{shortened(found)} in the environment: reslight reads no settings from there. Use options or a --config file." if found else None
    )


def check_strategy(strategy: Strategy, *, sync_batchnorm: bool) -> None:
    """Check that the command line can train with a strategy, before the first step.

    Raises:
        UsageError: a strategy that copies this process, or that needs a module of the user's, or batch norm over several CPUs.
    """
    if sync_batchnorm and isinstance(strategy, ParallelStrategy) and strategy.root_device.type == "cpu":
        raise UsageError("trainer.sync_batchnorm is true: torch computes batch norm over several processes on GPUs only. Set it to false.")
    name = type(strategy).__name__
    if lightning_private.copies_process(strategy):
        raise UsageError(
            f"trainer.strategy is {name} with processes that are copies of this one: each process of a run must be started as a command, "
            "to keep its folder and its signals. Set trainer.strategy to ddp."
        )
    if isinstance(strategy, ModelParallelStrategy):
        raise UsageError(
            f"trainer.strategy is {name}: it needs a module of your own, whose configure_model shards the weights. Use fsdp or ddp."
        )


def check_checkpointing(callbacks: Iterable[Any], *, enabled: bool) -> None:
    """Check that no callback saves checkpoints where none are wanted.

    Raises:
        UsageError: a ModelCheckpoint with trainer.enable_checkpointing false.
    """
    if not enabled and (found := [type(one).__name__ for one in callbacks if isinstance(one, ModelCheckpoint)]):
        raise UsageError(f"trainer.enable_checkpointing is false: {found[0]} in trainer.callbacks saves checkpoints. Remove one of them.")


def check_monitors(callbacks: Sequence[Callback], *, classes: int, multi_label: bool, validates: bool) -> None:
    """Check that callbacks watch metrics that a training of ImageClassifier has.

    Args:
        callbacks: The callbacks of the run. One of the user's own may log more metrics, so then nothing is checked.
        classes: Number of classes.
        multi_label: Whether images have several labels, or none.
        validates: Whether there are validation images.

    Raises:
        UsageError: a metric that the run will not have.
    """
    if not all(type(one).__module__.startswith(("lightning.", "reslight.")) for one in callbacks):
        return
    of_val = ["loss", "acc1", *(["acc5"] if classes > 5 else [])]
    if multi_label:
        of_val = ["loss", "mAP", "f1_micro", "f1_macro", "subset_acc"]
    names = [f"val/{name}" for name in of_val] if validates else []
    names += ["train/loss", "train/subset_acc" if multi_label else "train/acc1", "lr"]
    for one in callbacks:
        monitor = one.monitor if isinstance(one, EarlyStopping | ModelCheckpoint) else None
        if monitor and monitor not in names and not monitor.startswith("lr-"):  # LearningRateMonitor's
            listed = f"{', '.join(names[:-1])} and {names[-1]}"
            raise UsageError(f"trainer.callbacks.monitor is {monitor}: this run has {listed}. Use one of them.")
