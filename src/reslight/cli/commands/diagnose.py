"""`reslight explain`: why a network answers as it does."""

import sys
from collections.abc import Sequence
from pathlib import Path

from reslight.cli.parser import Commands, runs
from reslight.messages import UsageError, shortened, visible

_LINE = 1_000
"""Characters of a line that are printed, with paths in it."""


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    _add_explain(commands)


def _add_explain(commands: Commands) -> None:
    about = "draw where in images a network found its class (Grad-CAM)"
    more = (
        "a row for each image: as the network gets it, under the heat map of a class, and the most probable classes. Needs matplotlib: "
        "pip install 'reslight[plot]'"
    )
    parser = commands.add_parser("explain", help=about, description=f"{about[0].upper()}{about[1:]}: {more}.")
    parser.add_argument("source", metavar="RUN|FOLDER|NAME", help="a run's folder, or a folder or name of weights")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files that Pillow reads")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the sheet to write: .png, .pdf or .svg")
    parser.add_argument("--class", dest="label", metavar="NAME", help="the class of the heat maps (default: the most probable one)")
    runs(parser, explain)


def explain(source: str, images: Sequence[str], output: str, label: str | None = None) -> bool:
    """Draw where in images a network found a class, and print the most probable class of each.

    Args:
        source: A run, or a folder or name of weights.
        images: Image files.
        output: The sheet to write; its suffix selects the format.
        label: The class of the heat maps; the most probable one of each image if None.

    Returns:
        False if a file could not be read; stderr gets a line for each.

    Raises:
        FileNotFoundError: none of the files exists.
        UsageError: an unknown class, too many images, or no image that can be read.
        MissingPackageError: matplotlib is not installed.
    """
    from reslight.analysis.classify import read
    from reslight.analysis.explain import MAX_IMAGES, class_number, draw_explanations
    from reslight.analysis.explain import explain as explained
    from reslight.analysis.figure import format_of, new_figure, save
    from reslight.runs.trained import load_net

    format_of(Path(output))
    new_figure(1, 1)  # a missing matplotlib is reported before the work, not after it
    if len(images) > MAX_IMAGES:
        raise UsageError(f"{len(images):,} images are given: a sheet has at most {MAX_IMAGES} rows. Give fewer at a time.")
    if not any(Path(name).exists() for name in images):
        raise FileNotFoundError(f"{shortened(images)} {'are' if len(images) > 1 else 'is'} missing. Give paths of image files.")
    net, rows, all_read = load_net(source), [], True
    number = None if label is None else class_number(net, label)
    for name in images:
        try:
            rows.append(explained(net, Path(name).name, read(Path(name), net), number))
        except (OSError, ValueError) as error:
            all_read = False
            print(f"reslight: error: {visible(error, _LINE)}", file=sys.stderr)
            continue
        best, probability = rows[-1].best[0]
        print(f"{visible(name, _LINE)}  {visible(best)} {probability:.1%}")
    if not rows:
        raise UsageError(f"no image could be read: {output} is not written. Give other files.")
    save(draw_explanations(rows), Path(output))
    print(f"written {output}")
    return all_read
