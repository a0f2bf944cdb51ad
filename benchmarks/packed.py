"""Training images from photos of 12 megapixels: as files, with `data.scaled_decode` and without, and from `reslight data pack --size 256`.

A side is the loader with one thread: reading, decoding, random resized crop to 224 pixels, uint8. The JPEG files are made, and kept for the
next time; the pack and the cache of its images are made anew.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from harness import add_cpu_time, alternate, introduce, keep, parser, show, use_threads
from pictures import write_pictures

from reslight.data import Folder
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.pack.pack import begin
from reslight.data.pack.recode import Recipe

FILES, PACKED = "files, all pixels", "packed"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    folder = options.folder / f"reslight-{options.width}x{options.height}-{options.photos}"
    size = write_pictures(folder, options.photos, options.width, options.height)
    introduce(f"Packed: {options.photos} photos, {options.width} x {options.height}, {size / options.photos / 1e6:.2f} MB each, one thread")
    with tempfile.TemporaryDirectory() as place:
        os.environ["RESLIGHT_CACHE"] = f"{place}/cache"
        clock = time.process_time if options.cpu_time else time.perf_counter
        start = clock()
        pack = begin(find_image_set(str(folder)), Path(place, "packed"), Recipe(options.size), threads=1)
        packed = sum(pack.finished[shard.name]["size"] for shard in pack.write(lambda count: None))
        seconds = (clock() - start) / options.photos
        print(f"  packing: {seconds * 1e3:.0f} ms a photo, to {packed / options.photos / 1e3:.0f} kB each")
        sides = {
            FILES: _side(str(folder), options, is_scaled=False),
            "files, scaled decode": _side(str(folder), options, is_scaled=True),
            PACKED: _side(f"{place}/packed", options, is_scaled=True),
        }
        values = alternate(sides, options.rounds)
    show(f"Photos, packed with --size {options.size}", f"images/{'CPU second' if options.cpu_time else 's'}", values, base=FILES, digits=1)
    keep(options, {"images per second": values, "seconds to pack a photo": seconds})


def _side(root: str, options: argparse.Namespace, *, is_scaled: bool) -> Callable[[], float]:
    """Return a function that loads all training images of an epoch, and returns how many a second."""
    data = Folder(root, batch_size=options.photos, val_size=0, threads=1, scaled_decode=is_scaled)
    data.setup("fit")
    split, numbers, epochs = data.splits["train"], torch.arange(options.photos), iter(range(1_000_000))
    clock = time.process_time if options.cpu_time else time.perf_counter

    def side() -> float:
        epoch, start = next(epochs), clock()
        for _ in split.batches(numbers.split(16), epoch):
            pass
        return float(options.photos / (clock() - start))

    return side


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    add_cpu_time(made)
    made.add_argument("--photos", type=int, default=20, help="photos (default: 20)")
    made.add_argument("--width", type=int, default=4000)
    made.add_argument("--height", type=int, default=3000)
    made.add_argument("--size", type=int, default=256, help="short side of the packed images (default: 256)")
    made.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the photos are kept")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
