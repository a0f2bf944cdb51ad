"""`open_file`: an exported file as a `Backend`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reslight.cores import available_cores
from reslight.deploy.formats import FORMATS, Format, Session, format_of
from reslight.deploy.formats.about import About
from reslight.deploy.torch_threads import torch_threads
from reslight.messages import UsageError, counted, visible
from reslight.preprocess import Preprocess
from reslight.regular_file import regular_size

_LARGEST_BATCH = 2**24
"""Pixels that are handed to a runtime at once; as float32, which resizing needs, they take 200 MB with three channels."""


@dataclass(frozen=True)
class FileBackend:
    """An exported file that was opened by its format's own runtime."""

    path: Path
    about: About
    session: Session
    threads: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each class; its number where classes have no names."""
        return self.about.labels

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing in the file."""
        return self.about.record.preprocess

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.about.record.multi_label

    @property
    def description(self) -> str:
        """Runtime, precision and threads, in words."""
        return f"{self.session.runtime}, {self.about.precision}, {counted(self.threads, 'thread')}"

    def probabilities(self, images: Sequence[Tensor]) -> Tensor:
        """Classify decoded images: uint8, with 16 bits also uint16, `(C, H, W)` -> float32 `(N, classes)`.

        Raises:
            UsageError: images with other channels, or probabilities that are not numbers.
        """
        with torch_threads(1):  # a thread of torch that waits for work would take a core from the runtime's threads
            return self._probabilities(images)

    def _probabilities(self, images: Sequence[Tensor]) -> Tensor:
        out = torch.empty(len(images), len(self.labels))
        by_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for number, image in enumerate(images):
            self.preprocess.check_tensor(image)
            by_shape[image.shape].append(number)
        for shape, numbers in by_shape.items():
            step = max(1, _LARGEST_BATCH // max(1, shape[1] * shape[2]))
            for start in range(0, len(numbers), step):
                part = numbers[start : start + step]
                out[part] = self._run(torch.stack([self._deep(images[number]) for number in part]).permute(0, 2, 3, 1).contiguous())
        return out

    def _deep(self, image: Tensor) -> Tensor:
        is_scaled = self.preprocess.bits == 16 and image.dtype == torch.uint8
        return image.to(torch.int32).mul_(257).to(torch.uint16) if is_scaled else image

    def _run(self, pixels: Tensor) -> Tensor:
        found = self.session.run(pixels)
        if found.shape != (len(pixels), len(self.labels)) or not np.isfinite(found.numpy()).all():
            raise UsageError(
                f"the file's result for {counted(len(pixels), 'image')} is {tuple(found.shape)}: it must be finite numbers "
                f"({len(pixels)}, {len(self.labels)}). Export it again."
            )
        return found


def open_file(path: Path, threads: int | None = None, workers: int = 1, format: Format | None = None) -> FileBackend:
    """Open an exported file with its format's own runtime.

    Args:
        path: The file.
        threads: Threads for a batch; the cores that this process may use if None.
        workers: Threads that may call `probabilities` at once.
        format: Its format; by the suffix if None.

    Raises:
        OSError: a missing file.
        MissingPackageError: the runtime is not installed.
        UsageError: a file that is damaged, or that reslight did not export.
    """
    name = visible(path, 1000)
    found = format or format_of(path)
    if found is None:
        known = ", ".join(f"{one.suffix} ({one.name})" for one in FORMATS.values())
        raise UsageError(f"{name} is no exported file: their names end with {known}. Give such a file.")
    regular_size(path)
    threads = threads or available_cores()
    try:
        session = found.module().open_session(path, threads, workers)
    except (UsageError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # runtimes raise errors of many types for a damaged file
        reason = visible(str(error).strip().partition("\n")[0] or type(error).__name__, 300)
        raise UsageError(f"{name} cannot be opened as {found.name}: {reason}. Export it again.") from error
    return FileBackend(path, About.from_json(session.about, name), session, threads)
