"""Export a network as one file with its preprocessing inside, and compare the file with the network before it is written."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from reslight.atomic import write_files
from reslight.deploy.formats import Format
from reslight.deploy.formats.about import About, Precision
from reslight.deploy.formats.opened import FileBackend, open_file
from reslight.deploy.formats.pixels import PixelsToProbabilities, sample_pixels
from reslight.messages import UsageError, counted
from reslight.models import ResNet
from reslight.version import __version__
from reslight.weights.record import Record

TOLERANCE = 1e-4
"""Largest difference of a probability for images of the network's size."""
RESIZED = 1e-2
"""The same for other sizes: where a resized value lies between two whole numbers, runtimes may round it differently."""
_LEAST_SAME = 0.9
"""Share of the calibration images that must have the same class with int8."""


def export_file(
    net: ResNet, record: Record, sha256: str, path: Path, format: Format, calibration: Sequence[Tensor] | None = None
) -> list[str]:
    """Write a network as one file that turns pixels into probabilities.

    Args:
        net: A network that `load` returned; it is not changed.
        record: The description of its weights.
        sha256: sha256 of its model.safetensors.
        path: The file to write, with the suffix of the format.
        format: The format.
        calibration: For int8, batches of training images, uint8 or uint16 `(N, H, W, C)`; None for float32.

    Returns:
        Lines for the user: what was written, and how far the file's probabilities are from the network's.

    Raises:
        MissingPackageError: a package of the format is not installed.
        UsageError: a path with another suffix, or a file with other probabilities than the network's.
        OSError: a file that cannot be written.
    """
    check_target(path, format)
    precision: Precision = "float32" if calibration is None else "int8"
    about = About.of(record, sha256, precision, __version__)
    files = format.module().build(PixelsToProbabilities(net), about.to_json(), calibration)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        for suffix, content in files.items():
            trial.with_suffix(suffix).write_bytes(content)
        found = compare(open_file(trial, threads=1, format=format), PixelsToProbabilities(net), calibration)
    write_files({path.with_suffix(suffix): content for suffix, content in files.items()})
    size = sum(map(len, files.values()))
    return [f"written {path}: {size / 1e6:.2f} MB, {format.name}, {precision}, preprocessing inside", found]


def check_target(path: Path, format: Format) -> None:
    """Check the name of the file to write, before anything is loaded.

    Raises:
        UsageError: another suffix than the format's, or a file in the way.
        FileNotFoundError: a missing folder.
    """
    if path.suffix != format.suffix or path.is_dir():
        raise UsageError(
            f"the output file is {path}: the name of a file in the format {format.name} ends with {format.suffix}. "
            f"Use {path.with_suffix(format.suffix)}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} is missing. Create {path.parent}.")
    for other in format.files(path)[:-1]:
        if other.exists() and not path.exists():  # an earlier export has both
            raise UsageError(f"{other} is another program's file: the export of {path} would replace it. Choose another name.")


@torch.inference_mode()
def compare(file: FileBackend, network: PixelsToProbabilities, calibration: Sequence[Tensor] | None) -> str:
    """Compare a file's probabilities with the network's; return what was found, in words.

    float32: on noise of the network's size, and of smaller and larger sizes. int8: the classes of the calibration images.

    Raises:
        UsageError: probabilities that differ too much.
    """
    runtime, preprocess = file.session.runtime, file.preprocess
    if calibration is not None:
        same = sum(int((file.session.run(batch).argmax(1) == network(batch).argmax(1)).sum()) for batch in calibration)
        total = sum(map(len, calibration))
        if same < _LEAST_SAME * total:
            raise UsageError(
                f"with int8, {same} of {counted(total, 'calibration image')} have the class that float32 gives: at least "
                f"{_LEAST_SAME:.0%} must. Nothing was written; give the images of the training as --calibrate."
            )
        return f"checked with {runtime}: {same} of {counted(total, 'calibration image')} have the class that float32 gives"
    height, width = preprocess.shape
    sizes = {(height, width): TOLERANCE, (2 * height + 7, 3 * width + 1): RESIZED, (1, max(1, width // 2)): RESIZED}
    differences: Mapping[tuple[int, int], float] = {
        size: max(
            float((file.session.run(pixels) - network(pixels)).abs().max())
            for pixels in (sample_pixels(preprocess, 1, *size), sample_pixels(preprocess, 3, *size))
        )
        for size in sizes
    }
    for (tall, wide), allowed in sizes.items():
        if not (difference := differences[tall, wide]) <= allowed:  # not `>`: NaN must be refused, too
            raise UsageError(
                f"the difference of {runtime}'s probabilities from the network's is {difference:.1e} for images of {wide} x {tall} pixels: "
                f"{allowed:.0e} is allowed. Nothing was written; try other versions of torch and {runtime.partition(' ')[0]}."
            )
    exact, resized = differences[height, width], max(differences.values())
    return f"checked with {runtime}: largest difference of a probability {exact:.1e}, {resized:.1e} where images are resized"
