"""Images per second from JPEG files to the step: random resized crop, flip, normalise, in float32 on the CPU.

reslight's threads against the worker processes of torchvision (Pillow, and transforms v2 on tensors), timm and, where it is installed,
NVIDIA DALI on the CPU; beside the speed of decoding alone. Without --folder the pictures are made (and kept for the next time). Each side
is timed over whole epochs, workers started before. Memory is what a thread or worker adds to the machine's.
"""

import argparse
import gc
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from harness import alternate, introduce, keep, parser, show, use_threads
from pictures import write_pictures
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.io import decode_image
from torchvision.transforms import v2

from reslight.data import Folder
from reslight.data.image_folder.folder import IMAGENET
from reslight.data.loading.decode import decode

SIZE = 224


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    folder = options.folder or Path(tempfile.gettempdir()) / f"reslight-pictures-{options.images}"
    nbytes = 0 if options.folder else write_pictures(folder, options.images)
    data = Folder(str(folder), batch_size=options.batch_size, val_size=0)
    data.setup("fit")
    files = len(data.splits["train"])
    about = f", {nbytes / files / 1e3:.0f} kB each" if nbytes else ""
    introduce(f"Folders: {files:,} images{about}, batch {options.batch_size}, {options.workers} workers")
    images = min(options.per_round, files // options.batch_size * options.batch_size)
    # before anything else was decoded here: what this process has once had, it does not grow by again
    memory = {name: [_memory(road, options.workers)] for name, road in _roads(folder, options).items()}
    roads = _roads(folder, options)
    sides = {name: _timed(road, images, options.batch_size) for name, road in roads.items()}
    sides |= {f"decoding alone, {n} thread{'s' if n > 1 else ''}": _decoding(folder, n, images) for n in (1, options.workers)}
    values = alternate(sides, options.rounds)
    show("Folders", "images/s", values, base="torchvision PIL")
    show("Memory", f"MB that each of {options.workers} threads or workers adds", memory, base="torchvision PIL")
    keep(options, {"images per second": values, "MB per worker": memory})


def _roads(folder: Path, options: argparse.Namespace) -> dict[str, Iterator[Any]]:
    """Batches without end, one after the other, of each side."""
    train, workers, size = folder / "train", options.workers, options.batch_size
    peers = {
        "torchvision PIL": _torchvision(train, workers, size),
        "torchvision v2": _torchvision_v2(train, workers, size),
        "timm": _timm(train, workers, size),
        "DALI": _dali(train, workers, size),
    }
    ours = {
        f"reslight, {workers} threads": reslight_road(folder, workers, size),
        "reslight, uint8 for a GPU": reslight_road(folder, workers, size, to_the_step=False),
    }
    return ours | {name: road for name, road in peers.items() if road is not None}


def reslight_road(folder: Path, threads: int, batch_size: int, *, to_the_step: bool = True) -> Iterator[Any]:
    """Epoch after epoch what ImageDataModule hands to a step."""
    data = Folder(str(folder), batch_size=batch_size, val_size=0, threads=threads)
    data.setup("fit")
    loader, normalize = data.train_dataloader(), data.preprocess.normalizer()
    for epoch in itertools.count():
        for images, _labels, indices in loader:
            if to_the_step:
                yield normalize(data.augment(images, indices, seed=data.seed, epoch=epoch), torch.channels_last)
            else:
                yield images


def _torchvision(train: Path, workers: int, batch_size: int) -> Iterator[Any]:
    """As the references of torchvision load training images with their backend PIL."""
    chain = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    data = datasets.ImageFolder(str(train), transforms.Compose([*chain, transforms.Normalize(IMAGENET.mean, IMAGENET.std)]))
    return _endless(_loader(data, workers, batch_size))


def _torchvision_v2(train: Path, workers: int, batch_size: int) -> Iterator[Any]:
    chain = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([*chain, v2.Normalize(IMAGENET.mean, IMAGENET.std)])
    data = datasets.ImageFolder(str(train), transform, loader=lambda path: decode_image(path, mode="RGB"))
    return _endless(_loader(data, workers, batch_size))


def _timm(train: Path, workers: int, batch_size: int) -> Iterator[Any] | None:
    try:
        from timm.data import create_dataset, create_loader
    except ImportError:
        return None
    loader = create_loader(
        create_dataset("", str(train)),
        (3, SIZE, SIZE),
        batch_size,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        mean=IMAGENET.mean,
        std=IMAGENET.std,
        num_workers=workers,
        persistent_workers=True,
        device=torch.device("cpu"),
        pin_memory=False,
    )
    return _endless(loader)


def _dali(train: Path, workers: int, batch_size: int) -> Iterator[Any] | None:
    try:
        from nvidia.dali import fn, pipeline_def, types
        from nvidia.dali.plugin.pytorch import DALIGenericIterator
    except ImportError:
        return None

    @pipeline_def(batch_size=batch_size, num_threads=workers, device_id=None)
    def pipeline() -> Any:
        files, labels = fn.readers.file(file_root=str(train), random_shuffle=True, name="reader")
        images = fn.decoders.image_random_crop(files, device="cpu", output_type=types.RGB)
        images = fn.resize(images, size=[SIZE, SIZE])
        mean, std = ([255 * value for value in values] for values in (IMAGENET.mean, IMAGENET.std))
        images = fn.crop_mirror_normalize(images, mean=mean, std=std, mirror=fn.random.coin_flip(), dtype=types.FLOAT)
        return images, labels

    return iter(DALIGenericIterator([pipeline()], ["images", "labels"]))


def _loader(data: Any, workers: int, batch_size: int) -> DataLoader[Any]:
    return DataLoader(data, batch_size, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True)


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _timed(road: Iterator[Any], images: int, batch_size: int) -> Callable[[], float]:
    def measure() -> float:
        next(road)  # starts the workers, or the threads of an epoch
        start = time.perf_counter()
        batches = sum(1 for _ in itertools.islice(road, images // batch_size))
        return batches * batch_size / (time.perf_counter() - start)

    return measure


def _decoding(folder: Path, threads: int, images: int) -> Callable[[], float]:
    """Decoding and nothing else, files in memory."""
    paths = list(itertools.islice(itertools.cycle(sorted((folder / "train").rglob("*.jpg"))), images))
    files = [bytearray(path.read_bytes()) for path in paths]

    def measure() -> float:
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            for _ in pool.map(lambda data: decode(data, "picture"), files):
                pass
            return len(files) / (time.perf_counter() - start)

    return measure


def _memory(road: Iterator[Any], workers: int) -> float:
    """MB: what worker processes have for themselves, or what this process grows by, over the workers."""
    gc.collect()
    before, others = _private("self"), multiprocessing.active_children()
    for _ in itertools.islice(road, 6):
        pass
    children = [str(child.pid) for child in multiprocessing.active_children() if child not in others]
    own = sum(map(_private, children)) if children else max(0.0, _private("self") - before)
    del road
    gc.collect()
    return own / workers


def _private(process: str) -> float:
    """Memory that goes when a process goes, in MB (Linux)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1e3


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.add_argument("--folder", type=Path, help="pictures of your own, as train/CLASS/IMAGE.jpg")
    made.add_argument("--images", type=int, default=1000, help="pictures to make (default: 1000)")
    made.add_argument("--batch-size", type=int, default=64, help="images per batch (default: 64)")
    made.add_argument("--workers", type=int, default=2, help="threads, or worker processes (default: 2)")
    made.add_argument("--per-round", type=int, default=960, help="images per round and side (default: 960)")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
