"""`reslight bench`: a network in torch and exported files side by side in one run: answers, speed, size, time to the first answer."""

import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reslight.analysis.datasets import data_of
from reslight.cores import available_cores
from reslight.deploy.bench.side import BATCHES, Side, file_side, network_sides
from reslight.deploy.bench.speed import measure_speed, measure_starts
from reslight.deploy.classifier import BATCH, Classifier
from reslight.deploy.formats import FORMATS, Format, is_exported_file
from reslight.deploy.formats.calibration import calibration_images
from reslight.deploy.formats.export import export_file
from reslight.deploy.formats.opened import open_file
from reslight.deploy.formats.sources import load_to_export
from reslight.deploy.pixels_of import labels_of, pixels_of
from reslight.messages import MissingPackageError, UsageError, visible
from reslight.multi_label import THRESHOLD
from reslight.preprocess import Preprocess
from reslight.version import __version__

if TYPE_CHECKING:
    from reslight.data import ImageDataModule
    from reslight.data.loading.loaders import AnySplit

_STARTS = 3
"""Fresh processes of each side."""
_CALIBRATION = 512
"""Training images for int8."""


@dataclass(frozen=True)
class Bench:
    """The result.

    Attributes:
        sides: The rows.
        left_out: Why a format has no row, a line for each.
        images: What was classified for the speed, in words.
        total: Number of the images with labels; None without.
        threads: Of each side.
    """

    sides: Sequence[Side]
    left_out: Sequence[str]
    images: str
    total: int | None
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain JSON types."""
        machine = {"system": platform.platform(), "instructions": torch.backends.cpu.get_cpu_capability(), "cores": available_cores()}
        versions = {"python": platform.python_version(), "torch": torch.__version__, "reslight": __version__}
        facts = {"images": self.images, "total": self.total, "threads": self.threads, "machine": machine, "versions": versions}
        return facts | {"left_out": list(self.left_out), "rows": [side.to_dict() for side in self.sides]}


def bench(
    sources: Sequence[str],
    formats: Sequence[Format],
    *,
    int8: bool = False,
    root: str | None = None,
    labels: str | None = None,
    threads: int | None = None,
    rounds: int,
    report: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Measure weights, their exports and exported files, taking turns.

    Args:
        sources: Runs, folders or names of weights, and exported files.
        formats: What weights are exported to.
        int8: Export with layers of int8, too, calibrated with training images.
        root: The folder of the images with labels; None for noise, of which only the speed is measured.
        labels: Their label file; None for class folders.
        threads: Threads of each side; the cores that this process may use if None.
        rounds: Times that each side is measured; sides take turns, so that all meet the same noise of the machine.
        report: Gets a line before each long step.

    Raises:
        OSError: missing weights, files or images.
        UsageError: int8 without images, or images that do not fit.
    """
    if int8 and root is None:
        raise UsageError("--int8 is given without --data: int8 needs training images to find the range of each layer. Add --data ROOT.")
    threads = threads or min(torch.get_num_threads(), available_cores())
    files = {source: open_file(Path(source)).about.record for source in sources if is_exported_file(source)}
    networks = {source: load_to_export(source) for source in sources if source not in files}
    records = [files[source] if source in files else networks[source][1] for source in sources]
    if root is not None and any(record.labels != records[0].labels for record in records):
        raise UsageError(f"--data is {root}: {sources[0]} and the others have different classes. Measure them one by one.")
    data = None if root is None else data_of(records[0], root, labels, ("test", "val"))  # before the exports, which take minutes
    with tempfile.TemporaryDirectory(prefix="reslight-bench-") as folder:
        sides: list[Side] = []
        left_out: list[str] = []
        for number, source in enumerate(sources):
            if source in files:
                sides.append(file_side(visible(Path(source).name, 40), Path(source), threads))
                continue
            net, record, sha256 = networks[source]
            prefix = f"{visible(source, 40)} " if len(networks) > 1 else ""
            sides += network_sides(net, source, prefix, threads)
            images = calibration_images(record, root, labels, _CALIBRATION, "--data") if int8 else None
            for format in formats:
                for calibration in (None, images) if images else (None,):
                    name = prefix + format.name + (" int8" if calibration else "")
                    report(f"exporting {name}")
                    path = Path(folder, f"{number}{'int8' if calibration else ''}{format.suffix}")
                    try:
                        export_file(net, record, sha256, path, format, calibration)
                    except (MissingPackageError, UsageError) as error:
                        left_out.append(f"{name}: {error}")
                    else:
                        sides.append(file_side(name, path, threads))
        split = None if data is None else _evaluated_split(data)
        preprocess = sides[0].classifier.preprocess
        if split is None:
            pictures = _noise(preprocess)
        else:
            numbers = [number * len(split) // max(BATCHES) for number in range(max(BATCHES))]
            pictures = list(pixels_of(split, numbers, preprocess))
        if split is not None:
            report(f"evaluating {len(split):,} images {len(sides)} times")
            _evaluate(sides, split)
        report("measuring the speed")
        measure_speed(sides, pictures, rounds)
        report("measuring the time to the first answer")
        measure_starts(sides, min(rounds, _STARTS))
        sizes = {"x".join(map(str, picture.shape)) for picture in pictures}
        shown = f"{len(pictures)} images of {data.name if data else 'noise'}, {sizes.pop() if len(sizes) == 1 else 'of several sizes'}"
        return Bench(sides, left_out, shown, None if split is None else len(split), threads)


def _evaluated_split(data: "ImageDataModule") -> "AnySplit":
    return data.splits["test"] if "test" in data.splits else data.splits["val"]


def _noise(preprocess: Preprocess) -> list[Tensor]:
    """Return images of the network's size."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(BATCHES), preprocess.channels, *preprocess.shape)
    return list(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))


def _evaluate(sides: Sequence[Side], split: "AnySplit") -> None:
    """Count the right answers of each side, and those that are the reference's."""
    reference = next((side for side in sides if side.is_exact), None)
    for side in sides:
        side.right, side.same = 0, 0 if reference else None
    pictures = pixels_of(split, range(len(split)), sides[0].classifier.preprocess)
    for start in range(0, len(split), BATCH):
        numbers, batch = torch.arange(start, min(start + BATCH, len(split))), list(islice(pictures, BATCH))
        answers = {id(side): _answers(side.classifier, batch) for side in sides}
        truth = labels_of(split, numbers)
        for side in sides:
            own = answers[id(side)]
            side.right = (side.right or 0) + _agreeing(own, truth)
            if reference:
                side.same = (side.same or 0) + _agreeing(own, answers[id(reference)])


def _answers(classifier: Classifier, pictures: Sequence[Tensor]) -> Tensor:
    """Return the class of each image, int64 `(N,)`, or 0 and 1 for each class, uint8 `(N, classes)`."""
    probabilities = classifier.probabilities(pictures)
    return (probabilities > THRESHOLD).to(torch.uint8) if classifier.multi_label else probabilities.argmax(dim=1)


def _agreeing(one: Tensor, other: Tensor) -> int:
    """Return for how many images two sides have the same answer."""
    same = one == other
    return int((same if same.ndim == 1 else same.all(dim=1)).sum())


def rows(found: Bench) -> tuple[list[str], list[list[str]]]:
    """Return the table for the terminal: its head and its rows."""
    has_same = any(side.same is not None for side in found.sides)
    head = ["", *([] if found.total is None else ["right"]), *(["as float32"] if has_same else [])]
    head += [*(f"images/s, batch {batch}" for batch in BATCHES), "MB", "first answer"]
    made = []
    for side in found.sides:
        speeds = [f"{statistics.median(side.per_second[batch]):,.0f}" for batch in BATCHES]
        counts = ([] if side.right is None else [f"{side.right:,}"]) + ([f"{side.same:,}"] if has_same else [])
        made.append([side.name, *counts, *speeds, f"{side.nbytes / 1e6:.2f}", f"{statistics.median(side.starts):.2f} s"])
    return head, made


def chosen_formats(names: str | None) -> list[Format]:
    """Return the formats of a list such as `onnx,torch`; all if it is None.

    Raises:
        UsageError: an unknown name.
    """
    if names is None:
        return list(FORMATS.values())
    known: Mapping[str, Format] = FORMATS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"--formats is {visible(names)}: {visible(unknown[0])} is none of {', '.join(known)}. Leave it out for all.")
    return [known[name] for name in dict.fromkeys(wanted)]
