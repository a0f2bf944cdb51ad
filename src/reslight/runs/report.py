"""What a run says of itself: before it starts, when it has ended, and when it was measured."""

import hashlib
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from reslight.metrics import ConfusionAndCalibration, EvalCounts
from reslight.training.checkpoints import Checkpoints
from reslight.training.classifier import ImageClassifier
from reslight.weights.folder import model_bytes


def banner(trainer: Trainer, model: ImageClassifier, folder: Path | None) -> list[str]:
    """Lines: what is going to be trained, on what, how and where."""
    data = model.described
    sizes = ", ".join(f"{split['size']:,} {name}" for name, split in data.get("splits", {}).items() if split["size"])
    parameters = sum(p.numel() for p in model.net.parameters())
    devices = f"{trainer.world_size} x {model.device.type}" if trainer.world_size > 1 else str(model.device)
    epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
    length = (
        f"{trainer.max_steps:,} steps"
        if trainer.max_steps > 0
        else f"{epochs} epoch{'s' if epochs > 1 else ''}"
        if epochs
        else "no end set"
    )
    plan = getattr(getattr(trainer, "datamodule", None), "batch_plan", None)  # a user's own data module has none
    lines = [
        f"net    {parameters:,} parameters, {model.config.num_classes} classes",
        f"data   {data.get('name', 'your own loaders')}: {sizes} images" if sizes else "data   your own loaders",
        f"train  {length}, {model.optim.name} with lr {model.optim.lr:g} ({model.schedule.name}), {trainer.precision} on {devices}, "
        f"seed {os.environ.get('PL_GLOBAL_SEED', 'not set')}",
    ]
    if plan:
        lines.insert(2, f"batch  {str(plan).removeprefix('batch ')}")
    return lines + ([f"run    {folder}"] if folder else [])


def summary(trainer: Trainer, model: ImageClassifier, seconds: float) -> dict[str, Any]:
    """What summary.json keeps of a run that has ended."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, Checkpoints)), None)
    names = ("reslight", "torch", "lightning", "torchvision")
    return {
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "seconds": round(seconds, 1),
        "metrics": {name: value for name, value in model.recorded.items() if not name.endswith("_step")},
        "best": {"monitor": best.monitor, "score": best.best_score, "step": best.best_step} if best else None,
        "seed": int(seed) if seed else None,
        "data": model.described,
        "settings": dict(model.hparams),
        "machine": {
            "device": str(model.device),
            "processes": trainer.world_size,
            "cpu_threads": torch.get_num_threads(),
            "system": platform.platform(),
        },
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
    }


def ending(trainer: Trainer, folder: Path, config: Path) -> list[str]:
    """Lines: what a run came to, where things are and what to type next."""
    kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoints)]
    best = next((callback for callback in kept if callback.best_score is not None), None)
    score = f"; best {best.monitor} {best.best_score:.4f} at step {best.best_step}" if best else ""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name)
    return [
        f"done   {trainer.global_step} steps{score}",
        f"files  {folder}: {', '.join(files)}",
        f"next   {_next(trainer, folder, config)}",
    ]


def _next(trainer: Trainer, folder: Path, config: Path) -> str:
    """What can be done with a run, and its images."""
    if getattr(getattr(trainer, "datamodule", None), "has_test", True):
        return f"reslight test --config {config}"
    return f"reslight classify {folder / 'weights'} PICTURE" if (folder / "weights").is_dir() else f"reslight validate --config {config}"


def scores(split: str, counts: EvalCounts, details: ConfusionAndCalibration) -> list[str]:
    """Lines: each metric of a split, with the counts behind it."""
    hits = {"acc1": counts.correct1, "acc5": counts.correct5}
    behind = {name: f" ({hit} of {counts.total})" for name, hit in hits.items()}
    return [f"{split}/{name} {value:.4f}{behind.get(name, '')}" for name, value in _fractions(counts, details).items()]


def measurement(split: str, counts: EvalCounts, details: ConfusionAndCalibration, model: ImageClassifier) -> dict[str, Any]:
    """What test.json and validate.json keep, beside the checkpoint that was measured."""
    names = model.described.get("labels") or range(model.config.num_classes)
    totals, correct = details.confusion.sum(dim=1).tolist(), details.confusion.diagonal().tolist()
    classes = zip(names, totals, correct, details.per_class, strict=True)
    bins = [(int(images), right, probability) for images, right, probability in details.bins.tolist()]
    return {
        "metrics": {f"{split}/{name}": value for name, value in _fractions(counts, details).items()},
        "counts": asdict(counts),
        "per_class": [{"label": name, "total": total, "correct": hits, "accuracy": share} for name, total, hits, share in classes],
        "confusion": details.confusion.tolist(),
        "calibration": {
            "ece": details.ece,
            "bins": [
                {"images": images, "accuracy": right / images if images else None, "probability": probability / images if images else None}
                for images, right, probability in bins
            ],
        },
        "data": model.described,
        "precision": str(model.trainer.precision),
        "batch_size": getattr(getattr(model.trainer, "datamodule", None), "eval_batch_size", None),
        "sha256": hashlib.sha256(model_bytes(model.net)).hexdigest(),  # of what `export` writes of these weights
    }


def to_json(report: dict[str, Any]) -> str:
    """A report as text for people: a line for each row of a matrix, a class or a bin, not for each of their numbers."""
    rows = {"confusion": report["confusion"], "per_class": report["per_class"], "bins": report["calibration"]["bins"]}
    text = json.dumps(
        report | {"confusion": "confusion", "per_class": "per_class", "calibration": report["calibration"] | {"bins": "bins"}}, indent=2
    )
    for name, values in rows.items():
        indent = " " * (6 if name == "bins" else 4)
        lines = ",\n".join(f"{indent}{json.dumps(value)}" for value in values)
        text = text.replace(f'"{name}": "{name}"', f'"{name}": [\n{lines}\n{indent[2:]}]', 1)
    return text + "\n"


def _fractions(counts: EvalCounts, details: ConfusionAndCalibration) -> dict[str, float]:
    return counts.fractions() | {"ece": details.ece}
