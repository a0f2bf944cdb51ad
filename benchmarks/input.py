"""Images per second of the input alone: CIFAR-shaped images, pad 4, random crop, flip, normalise.

reslight's road on one process against torchvision's transforms in a DataLoader. Each side is timed from one batch to
another in the middle of an epoch, so that starting workers costs it nothing; reslight's includes drawing the order of
an epoch.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice, repeat

import torch
from harness import alternate, introduce, keep, parser, show, use_threads
from images import PilImages, RandomImages, TensorImages, loader

WARM_BATCHES = 8
BASE = "torchvision PIL, 2 workers"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    introduce(f"Input: {options.images:,} images of 3 x 32 x 32, batch {options.batch_size}, pad 4 + random crop + flip + normalise")
    data = RandomImages(options.images, 32, options.batch_size)
    data.setup("fit")
    split, threads = data.splits["train"], torch.get_num_threads()
    pil, tensors = PilImages(split), TensorImages(split)

    def road(threads: int, layout: torch.memory_format) -> Callable[[], float]:
        return lambda: _rate(reslight_road(data, layout), options.batches, options.batch_size, threads)

    def peer(dataset: PilImages | TensorImages, workers: int) -> Callable[[], float]:
        return lambda: _rate(
            chain.from_iterable(repeat(loader(dataset, options.batch_size, workers))), options.peer_batches, options.batch_size, threads
        )

    sides = {
        f"reslight, {threads} threads, channels_last": road(threads, torch.channels_last),
        f"reslight, {threads} threads": road(threads, torch.contiguous_format),
        "reslight, 1 thread, channels_last": road(1, torch.channels_last),
        "reslight, 1 thread": road(1, torch.contiguous_format),
        BASE: peer(pil, 2),
        "torchvision PIL, 0 workers": peer(pil, 0),
        "torchvision v2 on tensors, 2 workers": peer(tensors, 2),
    }
    values = alternate(sides, options.rounds)
    show("Input", "images/s", values, base=BASE)
    keep(options, values)


def reslight_road(data: RandomImages, layout: torch.memory_format) -> Iterator[torch.Tensor]:
    """Epoch after epoch what ImageDataModule hands to a step, in float32 on the CPU; its loader, one epoch, begins at any."""
    batches = data.train_dataloader()
    normalize = data.preprocess.normalizer()
    for epoch in count():
        for images, _labels, indices in batches:
            yield normalize(data.augment(images, indices, seed=data.seed, epoch=epoch), layout)


def _rate(batches: Iterator[object], number: int, batch_size: int, threads: int) -> float:
    """Images per second of `number` batches."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for _ in islice(batches, WARM_BATCHES):
        pass
    start = time.perf_counter()
    seen = sum(1 for _ in islice(batches, number))
    seconds = time.perf_counter() - start
    torch.set_num_threads(before)
    return seen * batch_size / seconds


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    made.add_argument("--images", type=int, default=50_000, help="images in the set (default: 50000)")
    made.add_argument("--batch-size", type=int, default=128, help="images per batch (default: 128)")
    made.add_argument("--batches", type=int, default=390, help="batches per round of reslight, an epoch by default (default: 390)")
    made.add_argument("--peer-batches", type=int, default=60, help="batches per round of torchvision (default: 60)")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
