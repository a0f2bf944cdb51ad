"""Near copies of images in different splits: what was learned by heart is not a test."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

import torch
from torch import Tensor

from reslight.analysis.gradcam import rgb
from reslight.analysis.report.outcome import BATCH, label_text
from reslight.analysis.report.page import cards, pair, paragraph, text
from reslight.data.check.near_copies import near_copies, thumbnail
from reslight.data.loading.loaders import AnySplit, EvalLoader
from reslight.data.loading.split import Split

MOST_IN_MEMORY, MOST_ENCODED = 100_000, 10_000
"""Images of all splits up to which near copies are looked for: in memory, or in files that would all be decoded."""


def copies_section(splits: Mapping[str, AnySplit], labels: list[str], most: int) -> str:
    """Return pairs of near copies in different splits.

    Args:
        splits: The splits, by name.
        labels: Name of each class.
        most: The most pairs that are shown.
    """
    total, in_memory = sum(map(len, splits.values())), all(isinstance(split, Split) for split in splits.values())
    if len(splits) < 2:
        return paragraph("There is only one split.")
    if total > (MOST_IN_MEMORY if in_memory else MOST_ENCODED):
        return paragraph(f"Not looked for among {total:,} images: <code>reslight data check</code> does, and draws them.")
    thumbnails = torch.stack([torch.from_numpy(thumbnail(_bytes(image))) for split in splits.values() for image in _images(split)])
    splits = {name: split.readable() for name, split in splits.items()}
    sizes = [len(split) for split in splits.values()]
    groups = torch.arange(len(splits)).repeat_interleave(torch.tensor(sizes))
    found = near_copies(thumbnails.numpy(), groups.numpy())
    starts = [*accumulate(sizes, initial=0)]
    names, shown = list(splits), []
    for first, second, correlation in found[:most]:
        pictures, places = [], []
        for number in (first, second):
            group = int(groups[number])
            name, row = names[group], number - starts[group]
            image, label = _one(splits[name], row)
            pictures.append((rgb(image), f"image {row} of {name}, labelled {label_text(label, labels)}"))
            places.append(f"{name} {row}: {label_text(label, labels)}")
        shown.append(pair(pictures, f'{text(places[0])}<br>{text(places[1])}<br><span class="dim">correlation {correlation:.3f}</span>'))
    about = (
        f"{len(found):,} pairs of images in different splits ({', '.join(map(text, names))}) look alike. A prediction for a copy of a "
        "training image says little; frames of a video and burst shots are near copies, too."
    )
    return paragraph(about) + (cards(shown) if shown else "")


def _images(split: AnySplit) -> Iterator[Tensor]:
    for batch in EvalLoader(split, batch_size=BATCH, rank=0, devices=1):
        yield from batch.images


def _one(split: AnySplit, row: int) -> tuple[Tensor, Tensor]:
    batch = next(iter(split.batches([torch.tensor([row])], 0)))
    return _bytes(batch.images[0]), batch.labels[0]


def _bytes(image: Tensor) -> Tensor:
    """Return an image of 8 bits."""
    return image if image.dtype == torch.uint8 else (image.int() // 257).to(torch.uint8)
