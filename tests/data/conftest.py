"""CIFAR sets of a few random images, written in every form in which the real ones are found."""

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as arrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from reslight.data import CIFAR
from reslight.data.cifar.metadata import METADATA, CifarMetadata
from reslight.messages import UsageError


class Global(NamedTuple):
    """What a pickle imports, by the name that it has there."""

    module: str
    name: str

    def __call__(self) -> None:
        """Never called; `save_reduce` wants something that could be."""


@dataclass
class Call:
    """What a pickle calls as it is loaded."""

    function: Global
    arguments: tuple[Any, ...]


class Python2Pickler(pickle._Pickler):
    """Writes what cPickle of Python 2 wrote of Python 2's strings (bytes, here) and of NumPy 1's arrays."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)

    def save_string(self, text: bytes) -> None:
        short = len(text) < 256
        self.write((pickle.SHORT_BINSTRING if short else pickle.BINSTRING) + struct.pack("B" if short else "<i", len(text)) + text)
        self.memoize(text)

    def save_import(self, what: Global) -> None:
        self.write(pickle.GLOBAL + f"{what.module}\n{what.name}\n".encode())
        self.memoize(what)

    dispatch |= {bytes: save_string, Global: save_import}

    def reducer_override(self, what: object) -> Any:
        if isinstance(what, Call):
            return what.function, what.arguments
        if isinstance(what, np.ndarray):
            in_columns = what.flags.f_contiguous and not what.flags.c_contiguous
            state = (1, what.shape, what.dtype, in_columns, what.tobytes("F" if in_columns else "C"))
            return Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), b"b"), state
        if isinstance(what, np.dtype):
            state = (3, b"|" if what.itemsize == 1 else b"<", None, None, None, -1, -1, 0)
            return Global("numpy", "dtype"), (what.str[1:].encode(), 0, 1), state
        return NotImplemented


@dataclass
class SmallSet:
    """One of the CIFAR sets, with random images: three of each class to train with, one of each to test with."""

    name: str
    pixels: dict[str, np.ndarray] = field(init=False)
    """uint8 `(N, H, W, C)`, shuffled."""
    labels: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        numbers = np.random.default_rng(1)
        classes = len(METADATA[self.name].labels)
        self.pixels = {part: numbers.integers(0, 256, (size, 32, 32, 3), np.uint8) for part, size in self.sizes(classes).items()}
        self.labels = {part: numbers.permutation(np.arange(size) % classes).tolist() for part, size in self.sizes(classes).items()}
        labels = self.labels["train"]  # the same image under two labels, the higher one first: their order is by label
        one, other = next((i, j) for j in range(len(labels)) for i in range(j) if labels[i] > labels[j])
        self.pixels["train"][other] = self.pixels["train"][one]

    @staticmethod
    def sizes(classes: int) -> dict[str, int]:
        return {"train": 3 * classes, "test": classes}

    @property
    def metadata(self) -> CifarMetadata:
        return METADATA[self.name]

    def small_metadata(self) -> CifarMetadata:
        """As if these few images were the real set."""
        fingerprints = {}
        for part in self.pixels:
            rows = self.sorted_rows(part)
            said = b"".join(digest for digest, _, _ in rows) + b"".join(struct.pack("<q", label) for _, label, _ in rows)
            fingerprints[part] = hashlib.sha256(said).hexdigest()
        return replace(METADATA[self.name], per_class={"train": 3, "test": 1}, fingerprints=fingerprints)

    def sorted_rows(self, part: str) -> list[tuple[bytes, int, bytes]]:
        """Digest, label and bytes of each image, in canonical order."""
        rows = zip(self.pixels[part], self.labels[part], strict=True)
        return sorted((hashlib.sha256(image.tobytes()).digest(), label, image.tobytes()) for image, label in rows)

    def tensors(self, part: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels as a split must have them."""
        rows = self.sorted_rows(part)
        images = np.stack([np.frombuffer(image, np.uint8).reshape(32, 32, 3) for _, _, image in rows])
        return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.tensor([label for _, label, _ in rows])

    def data(self, root: Path, **settings: Any) -> CIFAR:
        return CIFAR(self.name, root=str(root), **({"val_size": 0} | settings))

    def refusal(self, root: Path, part: str = "train", **settings: Any) -> str:
        """The error of training with what is in `root`."""
        with pytest.raises(UsageError, match=r".") as raised:
            self.data(root, **settings).load_split(part)
        text = str(raised.value)
        assert "\n" not in text
        return text

    def is_refused(self, root: Path) -> bool:
        """Whether the training images are refused, and that properly; else they must be what they should be."""
        shutil.rmtree(os.environ["RESLIGHT_CACHE"], ignore_errors=True)  # files written in the same instant have the same time
        try:
            assert self.data(root).load_split("train").fingerprint == self.metadata.fingerprints["train"]
        except ValueError:
            return bool(self.refusal(root))
        return False

    # the official python archive

    @staticmethod
    def pickled(content: object) -> bytes:
        """As Python 2 did it."""
        file = io.BytesIO()
        Python2Pickler(file).dump(content)
        return file.getvalue()

    @staticmethod
    def calling(module: str, name: str, *arguments: object) -> Call:
        """What, pickled, calls a function as it is loaded."""
        return Call(Global(module, name), arguments)

    def batches(self) -> dict[str, dict[bytes, Any]]:
        """Contents of the official files by their names."""
        contents = {}
        for part, names in self.metadata.batches.items():
            for number, (name, rows) in enumerate(zip(names, np.array_split(np.arange(len(self.labels[part])), len(names)), strict=True)):
                labels = [self.labels[part][row] for row in rows]
                contents[name] = {
                    b"batch_label": b"batch %d" % number,
                    self.metadata.batch_labels.encode(): labels,
                    b"data": self.pixels[part][rows].transpose(0, 3, 1, 2).reshape(len(rows), 3072),
                    b"filenames": [b"image_s_%06d.png" % row for row in rows],
                }
                if self.name == "cifar100":
                    contents[name][b"coarse_labels"] = [label // 5 for label in labels]
        return contents

    def write_batches(self, root: Path, changed: Mapping[str, bytes | None] | None = None) -> Path:
        """Write the unpacked archive; `changed` has other contents for some files, None for files that shall be absent."""
        folder = root / self.metadata.archive
        folder.mkdir(parents=True)
        files = {name: self.pickled(batch) for name, batch in self.batches().items()}
        meta = {b"label_names" if self.name == "cifar10" else b"fine_label_names": [label.encode() for label in self.metadata.labels]}
        files["batches.meta" if self.name == "cifar10" else "meta"] = self.pickled(meta)
        for name, content in (files | dict(changed or {})).items():
            if content is not None:
                (folder / name).write_bytes(content)
        return folder

    def write_archive(self, root: Path, changed: Mapping[str, bytes | None] | None = None) -> Path:
        folder = self.write_batches(root, changed)
        path = root / {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}[self.name]
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, folder.name)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        return path

    # as on the Hub

    @staticmethod
    def picture(pixels: np.ndarray, form: str = "PNG") -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
        return file.getvalue()

    @staticmethod
    def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]], names: Sequence[str] | None = None) -> None:
        table = arrow.table({name: list(cells) for name, cells in columns.items()})
        if names is not None:
            features = {name: {"names": list(names), "_type": "ClassLabel"} if "label" in name else {"_type": "Image"} for name in columns}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)

    def write_shards(
        self,
        root: Path,
        *,
        shards: int = 1,
        form: str = "PNG",
        names: Sequence[str] | None = None,
        columns: tuple[str, str] = ("img", "label"),
    ) -> list[Path]:
        """Write parquet files; `names` are the classes in the order that the schema has them in."""
        paths = []
        for part, pixels in self.pixels.items():
            numbers = self.labels[part]
            if names is not None:
                numbers = [names.index(self.metadata.labels[label]) for label in numbers]
            for shard, rows in enumerate(np.array_split(np.arange(len(pixels)), shards)):
                paths.append(root / f"{part}-{shard:05d}-of-{shards:05d}.parquet")
                cells = [{"bytes": self.picture(pixels[row], form), "path": f"{row}.png"} for row in rows]
                self.write_parquet(paths[-1], dict(zip(columns, (cells, [numbers[row] for row in rows]), strict=True)), names)
        return paths

    # class folders

    def write_class_folders(self, root: Path, *, between: Callable[[int], str] = lambda _: "") -> Path:
        """Write an image file each; `between` gives the superclass of a class."""
        for part, pixels in self.pixels.items():
            for row, (image, label) in enumerate(zip(pixels, self.labels[part], strict=True)):
                folder = root / part / between(label) / self.metadata.labels[label]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{row:04d}.png").write_bytes(self.picture(image))
        return root


@pytest.fixture
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SmallSet:
    """A small CIFAR-10, or what an indirect parameter names, that counts as the real one."""
    made = SmallSet(getattr(request, "param", "cifar10"))
    monkeypatch.setitem(METADATA, made.name, made.small_metadata())
    return made
