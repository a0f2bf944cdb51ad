"""Recall and false pairs of the search for near copies, on CIFAR-10: `python benchmarks/near_copies.py --root data`.

Copies of images are resized, compressed again, cropped, or all three, and searched for among all 60,000 images. Near copies that CIFAR-10
has itself are drawn on sheets, the least similar ones first, since only a look at them tells which are false.
"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslight.analysis.figure import save
from reslight.analysis.sheet import draw_pairs
from reslight.data import CIFAR
from reslight.data.check.near_copies import near_copies, thumbnail

KINDS = ("resized", "compressed", "cropped", "all three")


def altered(pixels: np.ndarray, kind: str, rng: np.random.Generator) -> torch.Tensor:
    """Return an altered copy, uint8 `(3, H, W)`."""
    image = Image.fromarray(pixels)
    width, height = image.size
    if kind in ("cropped", "all three"):  # up to a tenth of each side, anywhere
        kept = [round(side * rng.uniform(0.9, 0.97)) for side in (width, height)]
        left, top = (int(rng.integers(0, side - part + 1)) for side, part in zip((width, height), kept, strict=True))
        image = image.crop((left, top, left + kept[0], top + kept[1]))
    if kind in ("resized", "all three"):
        scale = rng.choice([0.5, 0.625, 0.75, 1.25, 1.5, 2.0])
        filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
        size = (round(image.width * scale), round(image.height * scale * rng.uniform(0.95, 1.05)))
        image = image.resize(size, filters[rng.integers(3)])
    if kind in ("compressed", "all three"):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(50, 95)))
        image = Image.open(file)
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of CIFAR-10")
    parser.add_argument("--copies", type=int, default=4000, help="altered copies")
    parser.add_argument("--sheets", help="folder for sheets of CIFAR-10's own near copies")
    options = parser.parse_args()
    data = CIFAR("cifar10", options.root, val_size=0)
    data.setup()
    images = torch.cat([data.splits["train"].images, data.splits["test"].images])
    rng = np.random.default_rng(0)
    sources = rng.choice(len(images), options.copies, replace=False)
    copies = [altered(images[source].permute(1, 2, 0).numpy(), KINDS[number % 4], rng) for number, source in enumerate(sources)]
    thumbnails = np.stack([thumbnail(image) for image in [*images, *copies]])
    count = len(images)

    started = time.perf_counter()
    found = near_copies(thumbnails, np.repeat([0, 1], [count, len(copies)]))
    hits = {one.second - count for one in found if sources[one.second - count] == one.first}
    print(f"{time.perf_counter() - started:.1f} s for {len(thumbnails):,} images")
    for place, kind in enumerate(KINDS):
        of_kind = range(place, len(copies), 4)
        print(f"{kind:<11} recall {sum(number in hits for number in of_kind) / len(of_kind):.4f} of {len(of_kind):,}")

    for name, groups in (("train and test", np.repeat([0, 1], [50_000, 10_000])), ("any two images", np.arange(count))):
        started = time.perf_counter()
        own = near_copies(thumbnails[:count], groups)
        print(f"CIFAR-10's own, {name}: {len(own):,} pairs, {time.perf_counter() - started:.1f} s")
    for number, start in enumerate(range(0, min(len(own), 480), 48) if options.sheets else ()):
        shown = own[::-1][start : start + 48]
        pairs = [(images[one.first], images[one.second], f"{one.correlation:.3f}") for one in shown]
        save(draw_pairs(pairs, f"pairs {start} on, the least similar first"), Path(options.sheets) / f"pairs-{number}.png")


if __name__ == "__main__":
    main()
