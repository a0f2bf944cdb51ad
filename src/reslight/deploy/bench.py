"""`reslight bench`: a network in torch and exported files side by side in one run: answers, speed, size, time to the first answer."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reslight.analysis.datasets import data_of
from reslight.cores import available_cores
from reslight.data.loading.split import Split
from reslight.deploy.classifier import BATCH, Classifier
from reslight.deploy.formats import FORMATS, Format, format_of, is_exported_file
from reslight.deploy.formats.calibration import calibration_images
from reslight.deploy.formats.export import export_file
from reslight.deploy.formats.opened import open_file
from reslight.deploy.formats.sources import load_to_export
from reslight.deploy.pixels_of import pixels_of
from reslight.messages import MissingPackageError, UsageError, visible
from reslight.models import ResNet
from reslight.multi_label import THRESHOLD
from reslight.preprocess import Preprocess
from reslight.weights.record import Record
from reslight.weights.saving import model_bytes

if TYPE_CHECKING:
    from reslight.data import ImageDataModule
    from reslight.data.loading.loaders import AnySplit

BATCHES = (1, 32)
"""Images that are classified at once."""
_STARTS = 3
"""Fresh processes of each side."""
_SECONDS = 0.15
"""Of one measurement, at least."""
_CALIBRATION = 512
"""Training images for int8."""
_LONGEST_START = 300
"""Seconds after which a fresh process has failed."""
_FIRST_ANSWER = """
import sys, torch
from reslight import Classifier
classifier = Classifier(sys.argv[1], exact=sys.argv[2] == "exact", threads=int(sys.argv[3]))
shape = [int(side) for side in sys.argv[4].split("x")]
classifier.predict(torch.zeros(shape, dtype=torch.uint8))
"""


@dataclass
class Side:
    """One row of the table.

    Attributes:
        name: What it is called.
        source: What a fresh process opens.
        classifier: The network or the file.
        nbytes: Size of the files.
        is_exact: Whether the network computes as it is, the reference of all rows.
        right: Images with the right answer; None without images.
        same: Images with the same answer as the reference; None without images or reference.
        per_second: Images a second by the size of the batch, a value a round.
        starts: Seconds of a fresh process until its first answer, a value a round.
    """

    name: str
    source: str
    classifier: Classifier
    nbytes: int
    is_exact: bool = False
    right: int | None = None
    same: int | None = None
    per_second: dict[int, list[float]] = field(default_factory=lambda: {batch: [] for batch in BATCHES})
    starts: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON types."""
        return {
            "name": self.name,
            "backend": self.classifier.backend,
            "bytes": self.nbytes,
            "right": self.right,
            "same": self.same,
            "images_per_second": {str(batch): values for batch, values in self.per_second.items()},
            "start_seconds": self.starts,
        }


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
        facts = {"images": self.images, "total": self.total, "threads": self.threads, "torch": torch.__version__}
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
    with tempfile.TemporaryDirectory(prefix="reslight-bench-") as folder:
        sides: list[Side] = []
        left_out: list[str] = []
        records: list[Record] = []
        for number, source in enumerate(sources):
            if is_exported_file(source):
                records.append(open_file(Path(source)).about.record)
                sides.append(_file_side(visible(Path(source).name, 40), Path(source), threads))
                continue
            net, record, sha256 = load_to_export(source)
            records.append(record)
            prefix = f"{visible(source, 40)} " if sum(not is_exported_file(one) for one in sources) > 1 else ""
            sides += _network_sides(net, source, prefix, threads)
            images = calibration_images(record, root, labels, _CALIBRATION) if int8 else None
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
                        sides.append(_file_side(name, path, threads))
        data = None if root is None else data_of(records[0], root, labels, ("test", "val"))
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
        _measure_speed(sides, pictures, rounds)
        report("measuring the time to the first answer")
        _measure_starts(sides, min(rounds, _STARTS))
        sizes = {"x".join(map(str, picture.shape)) for picture in pictures}
        shown = f"{len(pictures)} images of {data.name if data else 'noise'}, {sizes.pop() if len(sizes) == 1 else 'of several sizes'}"
        return Bench(sides, left_out, shown, None if split is None else len(split), threads)


def _network_sides(net: ResNet, source: str, prefix: str, threads: int) -> list[Side]:
    """Return the network as it is, and its quickest form."""
    nbytes = len(model_bytes(net))
    return [
        Side(f"{prefix}network, as it is", source, Classifier(net, threads=threads, exact=True), nbytes, is_exact=True),
        Side(f"{prefix}network, quick", source, Classifier(net, threads=threads), nbytes),
    ]


def _file_side(name: str, path: Path, threads: int) -> Side:
    return Side(name, str(path), Classifier(path, threads=threads), _size(path))


def _size(path: Path) -> int:
    """Return the size of an exported file and of those that belong to it."""
    found = format_of(path)
    return sum(one.stat().st_size for one in (found.files(path) if found else [path]))


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
        truth = split.labels[numbers] if isinstance(split, Split) else split.labels_of(numbers)
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


def _measure_speed(sides: Sequence[Side], pictures: Sequence[Tensor], rounds: int) -> None:
    """Classify decoded images: from their pixels to probabilities, preprocessing included."""
    for batch in BATCHES:
        images = list(pictures[:batch])
        times = {id(side): _repetitions(side, images) for side in sides}
        for side in _turns(sides, rounds):
            count, begin = times[id(side)], time.perf_counter()
            for _ in range(count):
                side.classifier.probabilities(images)
            side.per_second[batch].append(count * batch / (time.perf_counter() - begin))


def _repetitions(side: Side, images: Sequence[Tensor]) -> int:
    """Return how often a batch is classified in one measurement, after a warm-up."""
    side.classifier.probabilities(images)
    begin, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - begin) < _SECONDS:
        side.classifier.probabilities(images)
        count += 1
    return max(1, round(count * _SECONDS / seconds))


def _measure_starts(sides: Sequence[Side], rounds: int) -> None:
    """Start a process for each side that opens it and classifies one image.

    Raises:
        UsageError: a process that fails.
    """
    for side in _turns(sides, rounds):
        classifier = side.classifier
        shape = "x".join(map(str, (classifier.preprocess.channels, *classifier.preprocess.shape)))
        words = [side.source, "exact" if side.is_exact else "quick", str(classifier.threads), shape]
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", _FIRST_ANSWER, *words], capture_output=True, timeout=_LONGEST_START, check=False)
        side.starts.append(time.perf_counter() - begin)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise UsageError(
                f"a fresh process could not classify with {side.name}: {visible(said[-1] if said else 'it said nothing', 300)}"
            )


def _turns(sides: Sequence[Side], rounds: int) -> Iterator[Side]:
    """Yield each side once a round; every second round in reverse, so that none always follows the same neighbor."""
    for number in range(rounds):
        yield from sides if number % 2 == 0 else reversed(sides)


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
