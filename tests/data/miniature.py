"""A miniature of ImageNet: real synsets, file names and layouts; images of a few pixels that a network can learn."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as arrow
import scipy.io
from PIL import Image
from pyarrow import parquet

from reslight.data.imagenet.synsets import known_synsets

Layout = Literal["folders", "validation", "official", "tensorflow", "caffe", "kaggle", "shards"]
LAYOUTS: tuple[Layout, ...] = ("folders", "validation", "official", "tensorflow", "caffe", "kaggle")
"""Layouts of image files: class folders in `val` or `validation`; or one folder and the label file of the devkit, TensorFlow, Caffe or
Kaggle."""
TEN = (
    *("n01440764", "n02077923", "n02102040", "n02105855", "n02979186"),
    *("n03000684", "n03028079", "n03394916", "n03417042", "n03888257"),
)
"""Synsets that are easy to tell apart, and those of `ODD`."""
ODD = {"n02105855": ("n02105855_2933.JPEG", "PNG", "RGB"), "n02077923": ("n02077923_14822.JPEG", "JPEG", "CMYK")}
"""The PNG and one of the 22 CMYK images of the real ImageNet, which are named .JPEG. Here they are the first training images of their
synsets."""
SIZES = ((50, 37), (48, 64), (40, 40), (37, 50))
"""Width and height."""
FIRST_VAL = 293
"""Number of the first validation image."""
TENCH = 449
"""The devkit's number of n01440764 here; the other numbers follow in steps of 617, so that this order differs from every other one."""


@dataclass(frozen=True)
class Miniature:
    """The images that were written: the synset of each image by its name, sorted by name."""

    root: Path
    train: Mapping[str, str]
    val: Mapping[str, str]


def write_miniature(root: Path, synsets: int = 10, train: int = 3, val: int = 2, layout: Layout = "folders") -> Miniature:
    """Write a miniature of ImageNet.

    Args:
        root: The folder to write to.
        synsets: Number of classes: first those of TEN, then the others in their order.
        train: Training images per class.
        val: Validation images per class.
        layout: The layout of the files.
    """
    others = (synset for synset in known_synsets() if synset not in TEN)
    names = sorted([*TEN, *others][:synsets])
    images = {_train_name(synset, number): synset for synset in names for number in range(train)}
    # shuffled, so that a confusion of two orders gives wrong labels
    shuffled = np.random.default_rng(5).permutation(np.repeat(names, val)).tolist()
    official = {f"ILSVRC2012_val_{FIRST_VAL + number:08d}.JPEG": synset for number, synset in enumerate(shuffled)}
    made = Miniature(root, dict(sorted(images.items())), official)
    if layout == "shards":
        _write_shards(made)
        return made
    base = root / "ILSVRC/Data/CLS-LOC" if layout == "kaggle" else root
    folder = base / ("validation" if layout == "validation" else "val")
    for name, synset in made.train.items():
        _write(base / "train" / synset / name, image_file(name, synset))
    for name, synset in made.val.items():
        _write(folder / synset / name if layout in ("folders", "validation") else folder / name, image_file(name, synset))
    write_labels(made, layout)
    return made


def write_labels(made: Miniature, layout: Layout) -> None:
    """Write the label file of a layout, and the files that are published with it."""
    synsets = list(made.val.values())
    if layout == "official":
        folder = made.root / "ILSVRC2012_devkit_t12" / "data"
        numbers = {synset: number for number, synset in devkit_numbers().items()}
        _write_lines(folder / "ILSVRC2012_validation_ground_truth.txt", [str(numbers[synset]) for synset in synsets])
        _write_meta(folder / "meta.mat")
    elif layout == "tensorflow":
        _write_lines(made.root / "imagenet_2012_validation_synset_labels.txt", synsets)
    elif layout == "caffe":
        order = list(known_synsets())
        _write_lines(made.root / "val" / "val.txt", [f"{name} {order.index(synset)}" for name, synset in made.val.items()])
    elif layout == "kaggle":
        rows = [(name.removesuffix(".JPEG"), f"{synset} 1 2 30 31 {synset} 4 5 16 17 ") for name, synset in made.val.items()]
        with (made.root / "LOC_val_solution.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("ImageId", "PredictionString"), *reversed(rows)])
        _write_lines(made.root / "LOC_synset_mapping.txt", [f"{synset} {name}, other name" for synset, name in known_synsets().items()])


def devkit_numbers() -> dict[int, str]:
    """Return the synset of each of the devkit's numbers, which have an order of their own, as in the real devkit."""
    return {(TENCH - 1 + 617 * place) % 1000 + 1: synset for place, synset in enumerate(known_synsets())}


def image_file(name: str, synset: str) -> bytes:
    """Return an image file: stripes whose color, width and direction depend on the synset, and whose place and size depend on the name."""
    kind, mode = next(((kind, mode) for odd, kind, mode in ODD.values() if odd == name), ("JPEG", "RGB"))
    of_class, of_image = np.random.default_rng(int(synset[1:])), np.random.default_rng(list(name.encode()))
    width, height = SIZES[of_image.integers(len(SIZES))]
    rows, columns = np.mgrid[:height, :width]
    angle, step, colors = of_class.uniform(0, np.pi), of_class.uniform(0.4, 1.2), of_class.uniform(0, 220, (2, 3))
    waves = np.sin(step * (np.cos(angle) * rows + np.sin(angle) * columns) + of_image.uniform(0, 6)) / 2 + 0.5
    pixels = waves[..., None] * colors[0] + (1 - waves[..., None]) * colors[1] + of_image.uniform(0, 35, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def _train_name(synset: str, number: int) -> str:
    return ODD[synset][0] if synset in ODD and number == 0 else f"{synset}_{10026 + 13 * number}.JPEG"


def _write_meta(path: Path) -> None:
    """Write a table like the devkit's: classes, followed by groups of classes."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    leaves = [(float(number), synset, known_synsets()[synset], "a thing", 0.0) for number, synset in sorted(devkit_numbers().items())]
    table = np.array([*leaves, (1001.0, "n00001740", "entity", "that which is", 2.0)], dtype=fields)
    scipy.io.savemat(path, {"synsets": table.reshape(-1, 1)})


def _write_shards(made: Miniature) -> None:
    """Write shards as on the Hub, where the labels of the test split are -1."""
    names = sorted(set(made.train.values()))
    splits: Mapping[str, Sequence[tuple[str, str, int]]] = {
        "train": [(name, synset, names.index(synset)) for name, synset in made.train.items()],
        "validation": [(name, synset, names.index(synset)) for name, synset in made.val.items()],
        "test": [(f"ILSVRC2012_test_{number:08d}.JPEG", synset, -1) for number, synset in enumerate(names)],
    }
    features = {"image": {"_type": "Image"}, "label": {"names": [known_synsets()[name] for name in names], "_type": "ClassLabel"}}
    for split, images in splits.items():
        cells = [{"bytes": image_file(name, synset), "path": name} for name, synset, _ in images]
        table = arrow.table({"image": cells, "label": [label for _, _, label in images]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path = made.root / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    _write(path, "".join(f"{line}\n" for line in lines).encode())
