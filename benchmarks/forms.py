"""One set of images in ten forms: the fingerprint of each, and the weights after an epoch of training.

Nine forms must give the same weights to the bit. A stream (litdata) has the fingerprint of the images that were packed, but an order of its
own. Needs the packages datasets and litdata.
"""

import argparse
import csv
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as arrow
import torch
from lightning.pytorch import Trainer
from pictures import picture
from pyarrow import parquet

from reslight.data import Folder, ImageDataModule, Stream
from reslight.data.image_folder.folder import IMAGENET
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.pack.pack import begin
from reslight.data.pack.recode import Recipe
from reslight.data.stream.write import write_chunks
from reslight.runs.eval_results import weights_sha256
from reslight.training import ImageClassifier, OptimConfig

CLASSES = ("cat", "dog", "frog")
STREAMED = "litdata"
PREPROCESS = replace(IMAGENET, size=32, resize=40)


class Row(NamedTuple):
    """What a form gives."""

    form: str
    fingerprint: str
    weights: str
    """The sha256 of the weights after an epoch."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    warnings.simplefilter("ignore")  # of Lightning: no validation images
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("reslight").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder), options.images)
    print(f"{options.images} images of {len(CLASSES)} classes, in ten forms, after an epoch of resnet8\n")
    print(f"{'form':24}{'fingerprint':16}weights")
    for row in rows:
        print(f"{row.form:24}{row.fingerprint[:12]:16}{row.weights[:12]}")
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n", encoding="utf-8")


def compare(folder: Path, images: int) -> list[Row]:
    """Make a set of images in every form, and train on each for an epoch."""
    folders = folder / "class folders"
    for number in range(images):
        path = folders / CLASSES[number % len(CLASSES)] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, 60, 45).save(path, quality=90)
    return [_row(name, make(folders, folder / name)) for name, make in FORMS.items()]


def _row(name: str, data: ImageDataModule) -> Row:
    torch.manual_seed(0)
    model = ImageClassifier("resnet8", OptimConfig(lr=0.05), num_classes=len(CLASSES))
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(model, data)
    return Row(name, data.splits["train"].fingerprint, weights_sha256(model.net))


def _folder(root: Any, **settings: Any) -> Folder:
    return Folder(root, PREPROCESS, val_size=0, batch_size=16, threads=1, **settings)


def _files(folders: Path) -> list[Path]:
    """Return the images in an order that has nothing to do with their classes."""
    return sorted(folders.glob("*/*"), key=lambda path: path.name)


def _flat(folders: Path, out: Path) -> list[tuple[str, str]]:
    """Copy all images into one folder; return the name and the class of each."""
    out.mkdir()
    for path in _files(folders):
        shutil.copy(path, out)
    return [(path.name, path.parent.name) for path in _files(folders)]


def _split_folders(folders: Path, out: Path) -> Folder:
    shutil.copytree(folders, out / "train")
    return _folder(str(out))


def _table(folders: Path, out: Path, name: str) -> None:
    with (out / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "label"), *_flat(folders, out / "images")])


def _csv(folders: Path, out: Path) -> Folder:
    out.mkdir()
    _table(folders, out, "labels.csv")
    return _folder(str(out / "images"), labels=str(out / "labels.csv"))


def _metadata(folders: Path, out: Path) -> Folder:
    rows = _flat(folders, out)
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file_name", "label"), *rows])
    return _folder(str(out))


def _json_lines(folders: Path, out: Path) -> Folder:
    rows = [{"path": name, "species": label} for name, label in _flat(folders, out)]
    (out / "labels.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return _folder(str(out), labels="labels.jsonl")


def _parquet(folders: Path, out: Path, *, with_bytes: bool) -> Folder:
    rows = _flat(folders, out)
    cells = [{"bytes": (out / name).read_bytes() if with_bytes else None, "path": name} for name, _ in rows]
    struct = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    table = arrow.table({"image": arrow.array(cells, struct), "label": [CLASSES.index(label) for _, label in rows]})
    features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, out / "train.parquet")
    for name, _ in rows if with_bytes else ():
        (out / name).unlink()
    return _folder(str(out))


def _saved(folders: Path, out: Path) -> Folder:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    rows = {"image": [str(path) for path in _files(folders)], "label": [path.parent.name for path in _files(folders)]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(out))
    return _folder(str(out))


def _packed(folders: Path, out: Path) -> Folder:
    for _ in begin(find_image_set(str(folders)), out, Recipe(), threads=1).write(lambda count: None):
        pass
    return _folder(str(out))


def _streamed(folders: Path, out: Path) -> Stream:
    found = find_image_set(str(folders))
    write_chunks(found.classes, found.splits, out)
    return Stream(str(out), preprocess=PREPROCESS, batch_size=16, threads=1)


FORMS: dict[str, Callable[[Path, Path], ImageDataModule]] = {
    "class folders": lambda folders, out: _folder(str(folders)),
    "split folders": _split_folders,
    "CSV": _csv,
    "JSON lines": _json_lines,
    "metadata.csv": _metadata,
    "parquet with bytes": lambda folders, out: _parquet(folders, out, with_bytes=True),
    "parquet with paths": lambda folders, out: _parquet(folders, out, with_bytes=False),
    "save_to_disk": _saved,
    "packed shards": _packed,
    STREAMED: _streamed,
}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--images", type=int, default=120, help="images of the set (default: 120)")
    made.add_argument("--json", type=Path, help="write the rows to this file, too")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
