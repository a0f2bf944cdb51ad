"""What a run logs before it starts and when it has ended, and its summary.json."""

import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from lightning.pytorch import Trainer

from reslight.lightning_private import callbacks_of
from reslight.messages import counted
from reslight.runs.folder import Run
from reslight.runs.stopped import stopped_by
from reslight.training.checkpoints import Checkpoints
from reslight.training.classifier import ImageClassifier
from reslight.training.numbering import epoch_of
from reslight.training.threads import Threads

PACKAGES = ("reslight", "torch", "lightning", "torchvision")


def start_lines(trainer: Trainer, model: ImageClassifier, run: Run | None) -> list[str]:
    """Return lines that say what is trained, on which data, how long, on which device and where it is saved."""
    data = model.data_info
    sizes = ", ".join(f"{split['size']:,} {name}" for name, split in _in_order(data.get("splits", {})) if split["size"])
    plan = getattr(getattr(trainer, "datamodule", None), "batch_plan", None)  # a user's own data module has none
    devices = f"{trainer.world_size} x {model.device.type}" if trainer.world_size > 1 else str(model.device)
    optim = f"{model.optim.name} with lr {model.optim.lr:g} ({model.schedule.name})"
    parameters = sum(p.numel() for p in model.net.parameters())
    lines = [
        f"net    {parameters:,} parameters, {model.config.num_classes} classes",
        f"data   {data.get('name', 'your own loaders')}: {sizes} images" if sizes else "data   your own loaders",
        *([f"batch  {str(plan).removeprefix('batch ')}{_images_of_epoch(trainer)}"] if plan else []),
        f"train  {_length(trainer)}, {optim}, {trainer.precision} on {devices}, seed {os.environ.get('PL_GLOBAL_SEED', 'not set')}",
        *_threads(trainer, model),
    ]
    return [*lines, f"run    {run.folder}"] if run else lines


def _in_order(splits: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the splits with the training images first."""
    return sorted(splits.items(), key=lambda item: item[0] != "train")


def _images_of_epoch(trainer: Trainer) -> str:
    """Return how many images are left out of an epoch because they do not fill a batch, or that classes are equally often.

    Empty where a limit shortens epochs.
    """
    loader: Any = trainer.train_dataloader
    count, is_balanced = getattr(loader, "left_out", 0), getattr(loader, "sampling", "") == "balanced"  # a user's own loader does not say
    if not (count or is_balanced) or trainer.num_training_batches < len(loader):
        return ""
    if is_balanced:
        return "; all classes equally often"
    return f"; each epoch leaves out {counted(count, 'image')}{' in turn' if loader.rotates else ''}"


def _threads(trainer: Trainer, model: ImageClassifier) -> list[str]:
    """Return the line with the number of threads of a run on the CPU; none where torch's own number was left."""
    chosen = next((callback.chosen for callback in callbacks_of(trainer) if isinstance(callback, Threads)), None)
    return [f"threads {chosen}"] if chosen and model.device.type == "cpu" else []


def _length(trainer: Trainer) -> str:
    """Return how long training takes, in steps or in epochs."""
    epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else math.inf
    if 0 < trainer.max_steps <= epochs * trainer.num_training_batches / trainer.accumulate_grad_batches:
        return counted(trainer.max_steps, "step")
    return "without end" if epochs == math.inf else counted(int(epochs), "epoch")


def summary(trainer: Trainer, model: ImageClassifier, seconds: float) -> dict[str, Any]:
    """Return the content of summary.json of a run that has ended."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, Checkpoints)), None)
    return {
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "seconds": round(seconds, 1),
        "stopped_by": stopped_by(trainer),
        "metrics": {name: value for name, value in model.recorded.items() if not name.endswith("_step")},
        "best": {"monitor": best.monitor, "score": best.best_score, "step": best.best_step} if best else None,
        "seed": int(seed) if seed else None,
        "data": model.data_info,
        "settings": dict(model.hparams),
        "machine": {
            "device": str(model.device),
            "processes": trainer.world_size,
            "cpu_threads": torch.get_num_threads(),
            "system": platform.platform(),
        },
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def end_lines(trainer: Trainer, run: Run, config: Path) -> list[str]:
    """Return lines that say how a run ended, which files it saved and which command comes next.

    Args:
        trainer: The trainer of the run.
        run: The run.
        config: The configuration that was saved in it.
    """
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoints)]
    best = next((callback for callback in callbacks if callback.best_score is not None), None)
    score = f"; best {best.monitor} {best.best_score:.4f} at step {best.best_step}" if best else ""
    files = [path for path in run.folder.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return [
        f"done   {counted(trainer.global_step, 'step')}{score}",
        *([f"ended  early, in epoch {epoch_of(trainer)}{_of_epochs(trainer)}, by {reason}"] if (reason := stopped_by(trainer)) else []),
        f"files  {run.folder}: {', '.join(sorted(path.relative_to(run.folder).as_posix() for path in files))}",
        f"next   {_next_command(trainer, run, config)}",
    ]


def _of_epochs(trainer: Trainer) -> str:
    return f" of {trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""


def _next_command(trainer: Trainer, run: Run, config: Path) -> str:
    """Return the command that evaluates a run, or that uses its weights if there are no test images."""
    if not run.checkpoint().is_file():
        return "nothing to evaluate: trainer.enable_checkpointing is false, and no weights were saved"
    if getattr(getattr(trainer, "datamodule", None), "has_test", True):
        return f"reslight test --config {quote(str(config))}"
    if run.weights.is_dir():
        return f"reslight classify {quote(str(run.weights))} IMAGE"
    return f"reslight validate --config {quote(str(config))}"
