"""Pack a dataset into shards: plan, write what is missing, and check that a folder holds this pack and no other.

The plan is in `pack.json` from the start, with the shards that are finished. A shard gets its name when it is whole, so that a pack that
was stopped goes on with the next shard, and no reader sees half of one.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from reslight.atomic import make_folder, unfinished_files, write_files
from reslight.data.image_folder.splits import ImageSet, LabelledImages, SplitName
from reslight.data.pack.recode import Encoded, Recipe, encode_all
from reslight.data.pack.shard_writer import paths_of, write_shard
from reslight.file_lock import lock_alone
from reslight.messages import UsageError
from reslight.regular_file import read_regular

PLAN = "pack.json"
"""The file with the plan and the finished shards."""
FOLDER = "data"
"""The folder of the shards."""
_NAMES: Mapping[SplitName, str] = MappingProxyType({"train": "train", "val": "validation", "test": "test"})
"""The Hub's names of the splits."""
_SHARD = 400_000_000
"""Bytes of a shard, about."""
_SAMPLE = 64
"""Images that are encoded to estimate the size."""
_SPARE = 1.05
"""Share of the estimated size that must be free on the disk."""
_LARGEST = 2**26
"""Bytes of a plan that are read at most."""


@dataclass(frozen=True)
class Shard:
    """A shard of a pack."""

    name: str
    split: SplitName
    rows: range


@dataclass
class Pack:
    """A pack that is made, see `begin`."""

    out: Path
    images: ImageSet
    recipe: Recipe
    threads: int
    size: int
    """Estimated size in bytes."""
    rows: dict[SplitName, int]
    """Images in each shard of a split."""
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Size and sha256 of each finished shard."""
    bad: list[str] = field(default_factory=list)
    """Images that cannot be read, and are kept as they are."""

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(len(one.images) for one in self.images.splits.values())

    def shards(self) -> list[Shard]:
        """Return all shards, in the order in which they are written."""
        found = []
        for split, images in self.images.splits.items():
            starts = range(0, len(images.images), self.rows[split])
            for place, start in enumerate(starts):
                name = f"{_NAMES[split]}-{place:05d}-of-{len(starts):05d}.parquet"
                found.append(Shard(name, split, range(start, min(start + self.rows[split], len(images.images)))))
        return found

    def left(self) -> list[Shard]:
        """Return the shards that are not finished."""
        return [shard for shard in self.shards() if not self._is_finished(shard)]

    def write(self, progress: Callable[[int], object]) -> Iterator[Shard]:
        """Write the shards that are missing; yield each one when it is whole.

        Args:
            progress: Called for each image, with the number of images written so far by this call.

        Raises:
            OSError: an image that cannot be opened, or a shard that cannot be written.
        """
        paths: dict[SplitName, list[str | None]] = {}
        count = 0

        def counted(encoded: Iterator[Encoded]) -> Iterator[bytes]:
            nonlocal count
            for one in encoded:
                if one.problem:
                    self.bad.append(one.problem)
                count += 1
                progress(count)
                yield one.data

        with _alone(self.out):
            for leftover in unfinished_files(self.out / FOLDER):
                leftover.unlink(missing_ok=True)
            write_files({self.out / PLAN: self._plan()})
            for shard in self.left():
                images = self.images.splits[shard.split]
                if shard.split not in paths:
                    paths = {shard.split: paths_of(images)}

                encoded = counted(encode_all(images.images, shard.rows, self.recipe, self.threads))
                write_files({self.out / FOLDER / shard.name: partial(self._write, shard, encoded, paths[shard.split])})
                write_files({self.out / PLAN: self._plan()})
                yield shard

    def _write(self, shard: Shard, encoded: Iterator[bytes], paths: Sequence[str | None], sink: BinaryIO) -> None:
        digest, size = write_shard(sink, self.images.splits[shard.split], self.images.classes, shard.rows, encoded, paths)
        self.finished[shard.name] = {"size": size, "sha256": digest}

    def _is_finished(self, shard: Shard) -> bool:
        path = self.out / FOLDER / shard.name
        return shard.name in self.finished and path.is_file() and path.stat().st_size == self.finished[shard.name].get("size")

    def _plan(self) -> bytes:
        plan = {**_described(self.images, self.recipe), "rows": self.rows, "size": self.size, "shards": self.finished}
        return json.dumps(plan, indent=2).encode()


def begin(images: ImageSet, out: Path, recipe: Recipe, threads: int) -> Pack:
    """Plan a pack, or find the plan of the one that was begun in the folder.

    Args:
        images: The dataset.
        out: The folder of the pack: new, empty, or with the same pack.
        recipe: How the images are encoded.
        threads: Threads that encode.

    Raises:
        OSError: a folder that cannot be read, or a disk without enough room.
        UsageError: a folder with anything else.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"OUT is {out}: it is a file. Give a new folder.")
    plan = _read_plan(out)
    if plan is None and out.exists() and any(out.iterdir()):
        raise UsageError(f"OUT is {out}: it has other files. Give a new or an empty folder.")
    for one in images.splits.values():
        paths_of(one)
    if plan is not None:
        described = _described(images, recipe)
        if differing := [key for key, value in described.items() if plan.get(key) != value]:
            what = "other images" if "fingerprints" in differing or "classes" in differing else "other settings"
            raise UsageError(f"OUT is {out}: it has a pack of {what}. Use the same, or give another folder.")
        pack = Pack(out, images, recipe, threads, plan["size"], plan["rows"], plan["shards"])
    else:
        means = {split: _mean_size(one, recipe, threads) for split, one in images.splits.items()}
        size = round(sum(means[split] * len(one.images) for split, one in images.splits.items()))
        pack = Pack(out, images, recipe, threads, size, {split: max(1, int(_SHARD / max(1, mean))) for split, mean in means.items()})
    _check_room(pack)
    return pack


def _read_plan(out: Path) -> dict[str, Any] | None:
    """Return the plan in a folder; None if there is none.

    Raises:
        UsageError: a damaged plan.
    """
    try:
        plan = json.loads(bytes(read_regular(out / PLAN, _LARGEST)))
        if not isinstance(plan["rows"], dict) or not isinstance(plan["shards"], dict) or type(plan["size"]) is not int:
            raise ValueError("it is no plan")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"OUT is {out}: its {PLAN} is damaged, or of something else. Give another folder.") from error
    return dict(plan)


def _described(images: ImageSet, recipe: Recipe) -> dict[str, Any]:
    """Return what must be the same for a pack to go on."""
    return {
        "format": 1,
        "recipe": asdict(recipe),
        "classes": list(images.classes),
        "fingerprints": {split: [len(one.images), one.fingerprint, one.content] for split, one in images.splits.items()},
    }


def _mean_size(images: LabelledImages, recipe: Recipe, threads: int) -> float:
    """Return the mean size of a sample of encoded images, in bytes."""
    count = min(_SAMPLE, len(images.images))
    numbers = [place * len(images.images) // count for place in range(count)]
    return sum(len(one.data) for one in encode_all(images.images, numbers, recipe, threads)) / count


def _check_room(pack: Pack) -> None:
    """Check that the disk has room for the shards that are missing.

    Raises:
        OSError: it does not.
    """
    made = sum(one["size"] for one in pack.finished.values())
    needed = max(0, round(pack.size * _SPARE) - made)
    folder = next(one for one in (pack.out.absolute(), *pack.out.absolute().parents) if one.exists())
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(
            f"{pack.out} needs about {needed / 1e9:.2f} GB: the disk has {free / 1e9:.2f} GB. Make room, or use a smaller --size."
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock a folder for this process.

    Raises:
        UsageError: another process writes to it.
    """
    make_folder(out)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        if lock_alone(descriptor) is False:
            raise UsageError(f"OUT is {out}: another process writes to it. Wait for it, or give another folder.")
        yield
    finally:
        os.close(descriptor)
