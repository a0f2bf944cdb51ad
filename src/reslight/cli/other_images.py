"""Evaluate a checkpoint on other images than those of its run: its classes are then found by their names."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reslight.cli.resume import data_settings_of
from reslight.data import Folder, ImageNet
from reslight.data.image_folder.hub_dataset import is_remote
from reslight.data.image_folder.other_images import EvaluationFolder, Pictures
from reslight.data.image_folder.splits import SPLIT_FOLDERS
from reslight.data.imagenet.imagenet import layout_in
from reslight.data.imagenet.other_images import ImageNetEvaluation

log = logging.getLogger(__name__)

_DATASETS = {f"{one.__module__}.{one.__name__}" for one in (Folder, ImageNet)} | {"reslight.data.Folder", "reslight.data.ImageNet"}
_SHARDS = ("*.parquet", "*/*.parquet")


def use_other_images(settings: Any, command: str, checkpoint: Path, contents: Mapping[str, Any], *, has_typed_labels: bool) -> None:
    """Replace the dataset of a configuration if its images are not those of the run: by one with the classes of the checkpoint.

    Args:
        settings: The configuration, which is changed.
        command: `validate`, `test` or `predict`.
        checkpoint: The checkpoint.
        contents: What is in it.
        has_typed_labels: Whether `data.labels` was typed for these images, rather than taken from the run.
    """
    trained, data = contents.get("reslight", {}).get("data") or {}, settings.data
    own, now = data_settings_of(checkpoint), data.get("init_args") or {}
    if data.class_path not in _DATASETS or not trained.get("labels"):
        return
    has_own_root = _same(own.get("root"), now["root"])
    if has_own_root and _same(own.get("labels"), now["labels"]):
        return
    root = Path(now["root"]).expanduser()
    is_imagenet = data.class_path.endswith("ImageNet")
    if is_imagenet and root.is_dir() and layout_in(root):
        return
    labels = now["labels"]
    if labels and not (has_typed_labels or has_own_root) and labels == own.get("labels") and not (root / labels).is_file():
        log.info("data.labels is %s, the file of the training images: it is not used for those in %s", labels, now["root"])
        labels = None
    arguments = {**vars(now), "labels": labels, "classes": list(trained["labels"])}
    if command == "predict" and not (labels or is_remote(now["root"]) or any(next(root.glob(one), None) for one in _SHARDS)):
        arguments["paths"] = [next((str(path) for name in SPLIT_FOLDERS["test"] if (path := root / name).is_dir()), arguments.pop("root"))]
        arguments["multi_label"] = bool(trained.get("multi_label"))
        kind: type = Pictures
    else:
        content = trained.get("splits", {}).get("train", {}).get("content")
        arguments["trained_on"] = content
        kind = ImageNetEvaluation if is_imagenet else EvaluationFolder
    data["class_path"], data["init_args"] = f"{kind.__module__}.{kind.__name__}", type(data)(**arguments)


def _same(one: object, other: object) -> bool:
    """Return whether two settings are the same, or paths of the same file or folder."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return one == other
    return one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
