"""`reslight data pack`: write a dataset of any form into shards that every later run reads."""

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from reslight.cli.commands.label_file import add_label_file, label_columns
from reslight.cli.parser import runs
from reslight.messages import UsageError, counted, data_root_called, visible

if TYPE_CHECKING:
    from reslight.data.image_folder.splits import ImageSet
    from reslight.data.loading.encoded import Images
    from reslight.data.pack.recode import Recipe

_CHUNKS = "litdata"
_EVERY = 0.2
"""Seconds between two lines of progress."""


def add_pack(add_parser: Callable[..., ArgumentParser]) -> None:
    """Add the command.

    Args:
        add_parser: Adds a parser of a command of `reslight data`.
    """
    about = "write a dataset into parquet shards, with smaller images"
    more = (
        "ROOT is any dataset that Folder reads. The shards are files such as train-00000-of-00004.parquet: later runs read them with "
        "--data.root OUT, and Python programs with datasets.load_dataset. Labels, groups and splits are kept. To resume a pack that was "
        "stopped, repeat the command."
    )
    parser = add_parser("pack", help=about, description=f"{about.capitalize()}. {more}")
    parser.add_argument("root", metavar="ROOT", help="folder of the images, as data.root, or OWNER/DATASET[@REVISION] on the Hub")
    parser.add_argument("out", metavar="OUT", help="folder of the shards: a new or an empty one, or one with a part of the same pack")
    parser.add_argument("--size", type=int, metavar="N", help="short side in pixels that larger images get (default: images as they are)")
    formats = "jpeg, webp, png or webp-lossless"
    about = f"format of all images: {formats} (default: jpeg where an image becomes smaller, else the file as it is); or litdata, to write "
    about += "chunks for --data Stream instead of shards, with images in the default format"
    parser.add_argument("--format", metavar="NAME", help=about)
    parser.add_argument("--quality", type=int, default=95, metavar="N", help="quality of jpeg and webp, 1 to 100 (default: 95)")
    add_label_file(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads that encode images (default: all cores)")
    runs(parser, pack_data)


def pack_data(
    root: str,
    out: str,
    size: int | None = None,
    format: str | None = None,
    quality: int = 95,
    labels: str | None = None,
    columns: Sequence[str] = (),
    threads: int | None = None,
) -> None:
    """Write a dataset into shards, or go on with a pack that was stopped.

    Args:
        root: The folder of the images, or a dataset on the Hub.
        out: The folder of the shards.
        size: Short side in pixels of images that are larger; None to keep the size.
        format: The format of all images; None for JPEG where an image becomes smaller.
        quality: Quality of JPEG and WebP.
        labels: The label file; None for the one that is found in the folder, if there is one.
        columns: Columns of the label file, each as `KIND=NAME`.
        threads: Threads that encode; all cores if None.

    Raises:
        OSError: a missing dataset, or a folder that cannot be written.
        UsageError: an argument that is not allowed, or a dataset that cannot be used.
    """
    from reslight.cores import available_cores
    from reslight.data.image_folder.image_set import find_image_set
    from reslight.data.pack.pack import begin
    from reslight.data.pack.recode import Format, Recipe

    if format not in (None, _CHUNKS, *get_args(Format)):
        allowed = ", ".join((*get_args(Format), _CHUNKS))
        raise UsageError(f"--format is {visible(format)}: it must be one of {allowed}. Use jpeg, or leave it out.")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}: it must be at least 1. Leave it out to use all cores.")
    if not out.strip():
        raise UsageError("OUT is empty: it must be the folder of the shards. Set it.")
    coding: Any = None if format == _CHUNKS else format
    folder, recipe = Path(out).expanduser(), Recipe(size, coding, quality)
    if folder.resolve().is_relative_to(Path(root).expanduser().resolve()):
        raise UsageError(f"OUT is {out}: it is in the folder of the images. Give a folder elsewhere.")
    with data_root_called("ROOT"):
        found = find_image_set(root, labels, label_columns(columns))
    for warning in found.warnings:
        print(f"warning: {warning}")
    if found.unlabelled is not None:
        print(f"left out: {counted(len(found.unlabelled.images), 'test image')} without labels; keep the folder to predict them")
    if empty := [split for split, images in found.splits.items() if not len(images.labels)]:
        raise UsageError(f"ROOT is {root}: its split {empty[0]} has no images. Add some, or remove its folder.")
    if format == _CHUNKS:
        _write_chunks(found, folder, recipe, threads or available_cores())
        return
    pack = begin(found, folder, recipe, threads or available_cores())
    splits = ", ".join(f"{len(one.images):,} {name}" for name, one in found.splits.items())
    left = pack.left()
    images = sum(len(shard.rows) for shard in left)
    classes = counted(len(found.classes), "class", "classes")
    print(f"{counted(len(pack), 'image')} ({splits}) of {classes} to {folder}: about {_size(pack.size)}", flush=True)
    if 0 < len(left) < len(pack.shards()):
        print(f"{len(pack.shards()) - len(left)} of {counted(len(pack.shards()), 'shard')} are there already")
    progress = _Progress(images)
    for shard in pack.write(progress.show):
        progress.clear()
        print(f"written {shard.name}: {counted(len(shard.rows), 'image')}, {_size(pack.finished[shard.name]['size'])}", flush=True)
    progress.clear()
    for problem in pack.bad:
        print(f"kept as it is: {problem}")
    total = sum(pack.finished[shard.name]["size"] for shard in pack.shards())
    print(f"{folder} has all {counted(len(pack), 'image')}, {_size(total)}. Use it with --data.root {folder}")


def _write_chunks(found: "ImageSet", folder: Path, recipe: "Recipe", threads: int) -> None:
    """Write a dataset into litdata's chunks."""
    from reslight.data.pack.recode import encode_all
    from reslight.data.stream.write import write_chunks

    problems: list[str] = []

    def encode(images: "Images", numbers: Sequence[int]) -> Iterator[bytes]:
        for one in encode_all(images, numbers, recipe, threads):
            if one.problem:
                problems.append(one.problem)
            yield one.data

    images = sum(len(one.images) for one in found.splits.values())
    progress = _Progress(images)
    write_chunks(found.classes, found.splits, folder, encode=encode if recipe.size else None, report=progress.show)
    progress.clear()
    for problem in problems:
        print(f"kept as it is: {problem}")
    size = sum(path.stat().st_size for path in folder.rglob("*.bin"))
    print(f"{folder} has all {counted(images, 'image')}, {_size(size)}. Use it or a copy on S3 with --data Stream --data.root {folder}")


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


class _Progress:
    """A line with the images so far and the time left, on a terminal."""

    def __init__(self, images: int) -> None:
        self._images, self._started, self._shown = images, time.monotonic(), 0.0
        self._stream: Any = sys.stderr if sys.stderr.isatty() else None

    def show(self, count: int) -> None:
        """Show the progress, unless it was shown just before."""
        now = time.monotonic()
        if self._stream is None or now - self._shown < _EVERY:
            return
        self._shown = now
        seconds = (now - self._started) / count * (self._images - count)
        left = f", {seconds / 60:,.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
        print(f"\r\x1b[K{count:,} of {self._images:,} images{left}", end="", file=self._stream, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._stream is not None:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
