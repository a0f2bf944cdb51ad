"""Write CIFAR-10 and CIFAR-100 as one dataset of 110 classes, for `reslight fit --data Folder`.

    python benchmarks/both.py both --data ROOT

No class is in both. The images are those of the two datasets, in parquet files as on the Hub.
"""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as arrow
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from reslight.data import CIFAR

SETS: tuple[Literal["cifar10", "cifar100"], ...] = ("cifar10", "cifar100")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write, which must not exist")
    parser.add_argument("--data", default="data", metavar="ROOT", help="folder of both datasets (default: data)")
    options = parser.parse_args(arguments)
    if options.out.exists():
        parser.error(f"{options.out} exists: give a folder that does not")
    tables = {split: table(options.data, split) for split in ("train", "test")}
    options.out.mkdir(parents=True)
    for split, found in tables.items():
        parquet.write_table(found, options.out / f"{split}.parquet")
        print(f"{split}: {len(found):,} images")


def table(root: str, split: str) -> arrow.Table:
    """Return a split of both datasets."""
    images: list[dict[str, bytes | None]] = []
    labels: list[int] = []
    names: list[str] = []
    for name in SETS:
        data = CIFAR(name, root, val_size=0)
        found = data.load_split("train" if split == "train" else "test")
        images += [{"bytes": _png(image.permute(1, 2, 0).numpy()), "path": None} for image in found.images]
        labels += [len(names) + label for label in found.labels.tolist()]
        names += data.labels
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    image_type = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    found = arrow.table({"image": arrow.array(images, image_type), "label": arrow.array(labels, arrow.int64())})
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _png(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
