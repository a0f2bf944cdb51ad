"""Training images from photos of 12 megapixels, with `data.scaled_decode` and without, and from images of 500 x 375 pixels.

A side is the loader with one thread: reading, decoding, random resized crop to 224 pixels, uint8. What the smaller image changes is
compared over the same crops: the difference of a pixel of the result. The JPEG files are made, and kept for the next time.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from harness import add_cpu_time, alternate, introduce, keep, parser, show, use_threads
from pictures import write_pictures

from reslight.data import Folder

SHAPES = {"photos": (4000, 3000), "small images": (500, 375)}
"""Width and height of each kind."""
NAMES = {True: "scaled decode", False: "all pixels"}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    counts = {"photos": options.photos, "small images": options.images}
    introduce("Photos: JPEG files of quality 90, 4:2:0, to 224 x 224 pixels, one thread")
    results = {}
    for kind, (width, height) in SHAPES.items():
        folder = options.folder / f"reslight-{width}x{height}-{counts[kind]}"
        size = write_pictures(folder, counts[kind], width, height) / counts[kind]
        loads = {NAMES[is_scaled]: _load(folder, counts[kind], is_scaled) for is_scaled in (True, False)}
        sides = {name: _timed(load, counts[kind], options.cpu_time) for name, load in loads.items()}
        results[kind] = alternate(sides, options.rounds)
        unit = f"images/{'CPU second' if options.cpu_time else 's'}"
        show(f"{counts[kind]} {kind}, {width} x {height}, {size / 1e6:.2f} MB each", unit, results[kind], base=NAMES[False], digits=1)
        one, other = (load(0).float() for load in loads.values())
        difference = (one - other).abs()
        mean, most, largest = difference.mean(), _quantile(difference, 0.99), difference.max()
        print(f"  difference of a pixel: mean {mean:.2f}, 99 % below {most:.0f}, largest {largest:.0f}")
    keep(options, results)


def _load(folder: Path, count: int, is_scaled: bool) -> Callable[[int], torch.Tensor]:
    """Return a function that loads the training images of an epoch."""
    data = Folder(str(folder), batch_size=count, val_size=0, threads=1, scaled_decode=is_scaled)
    data.setup("fit")
    split, numbers = data.splits["train"], torch.arange(count)
    return lambda epoch: torch.cat([batch.images for batch in split.batches(numbers.split(16), epoch)])


def _timed(load: Callable[[int], torch.Tensor], count: int, is_cpu_time: bool) -> Callable[[], float]:
    clock, epochs = time.process_time if is_cpu_time else time.perf_counter, iter(range(1_000_000))

    def side() -> float:
        start = clock()
        load(next(epochs))  # the same crops on both sides
        return count / (clock() - start)

    return side


def _quantile(values: torch.Tensor, share: float) -> float:
    return float(values.flatten().sort().values[int(share * (values.numel() - 1))])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    add_cpu_time(made)
    made.add_argument("--photos", type=int, default=20, help="photos (default: 20)")
    made.add_argument("--images", type=int, default=200, help="small images (default: 200)")
    made.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files are kept")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
