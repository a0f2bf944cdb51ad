"""`reslight bench`: a network in torch and in each format, side by side."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table
from reslight.messages import UsageError, counted

_ROUNDS = 7
"""Rounds unless others are asked for."""


def add_parsers(commands: Commands) -> None:
    """Add the command of this file."""
    about = "compare a network in torch and in each format: right answers, speed, size, time to the first answer"
    more = (
        "Weights are exported to a temporary folder. All sides classify the same images in alternating rounds, from decoded pixels to "
        "probabilities; the table has medians"
    )
    parser = commands.add_parser("bench", help=about, description=f"{about[0].upper()}{about[1:]}. {more}.")
    parser.add_argument("sources", nargs="+", metavar="WEIGHTS|FILE", help="a folder or name of weights, or a file of `reslight export`")
    parser.add_argument(
        "--formats", metavar="LIST", help="formats to export weights to, such as onnx,openvino (default: all; none if files are given)"
    )
    parser.add_argument("--int8", action="store_true", help="export with layers of int8, too, calibrated with training images of --data")
    parser.add_argument("--data", dest="root", metavar="ROOT", help="folder of images with labels, to count right and equal answers")
    parser.add_argument("--labels", metavar="FILE", help="label file of the images, as data.labels")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each side (default: the cores that the process may use)")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"times that each side is measured (default: {_ROUNDS})")
    parser.add_argument("-o", "--output", metavar="FILE", help="write every measured value as JSON, too")
    runs(parser, bench)


def bench(
    sources: Sequence[str],
    formats: str | None = None,
    root: str | None = None,
    labels: str | None = None,
    threads: int | None = None,
    rounds: int | None = None,
    output: str | None = None,
    *,
    int8: bool = False,
) -> None:
    """Print a table of weights and their exports.

    Args:
        sources: Folders or names of weights, or exported files.
        formats: Names of formats with commas between them. If it is None, all of them, or none where sources has files.
        root: The folder of images with labels.
        labels: The label file of the images; None for class folders.
        threads: Threads of each side.
        rounds: Times that each side is measured.
        output: A JSON file to write.
        int8: Whether int8 is measured, too.

    Raises:
        OSError: missing weights, files or images, or a file that cannot be written.
        UsageError: an option that is out of range, or images that do not fit.
    """
    from reslight.atomic import write_files

    rounds = _ROUNDS if rounds is None else rounds
    for name, value in (("threads", threads), ("rounds", rounds)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}: it must be at least 1. Leave it out for the default.")
    path = None if output is None else Path(output)
    if path is not None and (path.suffix != ".json" or path.is_dir()):
        raise UsageError(f"--output is {output}: all values are written as JSON. Use a name that ends in .json.")
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"--output is {output}: the folder {path.parent} is missing. Make it, or choose another.")
    from reslight.deploy.bench.bench import bench as measured
    from reslight.deploy.bench.bench import chosen_formats, rows
    from reslight.deploy.formats import is_exported_file

    def report(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)

    chosen = [] if formats is None and any(map(is_exported_file, sources)) else chosen_formats(formats)
    found = measured(sources, chosen, int8=int8, root=root, labels=labels, threads=threads, rounds=rounds, report=report)
    print(table(*rows(found)))
    print()
    for side in found.sides:
        print(f"{side.name}: {side.classifier.backend}")
    for line in found.left_out:
        print(f"left out  {line}")
    counts = "" if found.total is None else f"; right and as float32: of {found.total:,} images"
    print(f"speed: {found.images}; {counted(rounds, 'round')}{counts}")
    if path is not None:
        write_files({path: (json.dumps(found.to_dict(), indent=2) + "\n").encode()})
        print(f"written {output}")
