"""`reslight explain`, `report` and `calibrate`: where a network found a class, what it gets wrong, and how sure it should be."""

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
    _add_report(commands)
    _add_calibrate(commands)


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


def _add_report(commands: Commands) -> None:
    about = "write a page about what a network gets wrong, and why"
    more = (
        "one HTML file with curves, confusion, each class, calibration, the most confident mistakes with heat maps, likely wrong labels "
        "and near copies. The images are the test images, or the validation images if there are no others; of several runs of a "
        "cross-validation, the validation images of each"
    )
    parser = commands.add_parser("report", help=about, description=f"{about[0].upper()}{about[1:]}: {more}.")
    parser.add_argument("sources", nargs="+", metavar="RUN|FOLDER|NAME", help="a run's folder, or a folder or name of weights")
    parser.add_argument("--data", dest="root", default="data", metavar="ROOT", help="folder of the images (default: data)")
    parser.add_argument("--labels", metavar="FILE", help="label file of the images, as data.labels")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the page to write, such as report.html")
    runs(parser, report)


def _add_calibrate(commands: Commands) -> None:
    about = "fit a temperature to the validation images, so that probabilities are as high as predictions are often right"
    more = "The temperature is stored with the weights; predictions stay the same. It is never fitted to test images"
    parser = commands.add_parser("calibrate", help=about, description=f"{about[0].upper()}{about[1:]}. {more}.")
    parser.add_argument("folder", metavar="FOLDER", help="a folder of weights, as `reslight export` writes it; it is changed")
    parser.add_argument("--data", dest="root", default="data", metavar="ROOT", help="folder of the images (default: data)")
    parser.add_argument("--labels", metavar="FILE", help="label file of the images, as data.labels")
    parser.add_argument("--twin", metavar="FOLDER", help="weights that were trained in the same way, but for validation images")
    runs(parser, calibrate)


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
    from reslight.analysis.explain import MAX_IMAGES, class_number, draw_explanations
    from reslight.analysis.explain import explain as explained
    from reslight.analysis.figure import format_of, new_figure, save
    from reslight.deploy.images import decoded
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
            rows.append(explained(net, Path(name).name, decoded(name, net.preprocess).image, number))
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


def report(sources: Sequence[str], root: str, output: str, labels: str | None = None) -> None:
    """Write a page about what a network gets wrong, and why.

    Args:
        sources: A run, or a folder or name of weights; or the runs of a cross-validation.
        root: The folder of the images.
        output: The page to write.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.

    Raises:
        OSError: missing weights, runs or images, or a page that cannot be written.
        UsageError: images that do not fit the network, or a file that is no page.
    """
    from reslight.atomic import write_files

    path = Path(output)
    if path.suffix not in (".html", ".htm") or path.is_dir():
        raise UsageError(f"--output is {output}: a report is an HTML file. Use a name that ends in .html.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--output is {output}: the folder {path.parent} is missing. Make it, or choose another.")
    from reslight.analysis.report.report import report as made

    found = made(sources, root, labels)
    content = found.html.encode()
    write_files({path: content})
    print("\n".join(found.lines))
    print(f"written {output}: {len(content) / 1e6:.2f} MB")


def calibrate(folder: str, root: str, labels: str | None = None, twin: str | None = None) -> None:
    """Fit a temperature to the validation images of weights, and store it with them.

    Args:
        folder: The folder of the weights.
        root: The folder of the images.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.
        twin: The folder of the twin's weights, if the temperature is to be that of a twin.

    Raises:
        OSError: missing weights or images, or a folder that cannot be written.
        UsageError: no validation images that training left out, no best temperature, or a twin that is none.
    """
    from reslight.analysis.calibrate import calibrate as calibrated

    found = calibrated(Path(folder), root, labels, None if twin is None else Path(twin))
    print(f"temperature {found.temperature:.4f}, fitted to {found.total:,} validation images{' of the twin' if twin else ''}")
    print(f"ECE {found.ece_before:.4f} without it, {found.ece:.4f} with it")
    if found.test_ece is not None:
        print(f"ECE {found.test_ece:.4f} on the test images, which the temperature has not seen")
    print(f"written {folder}: config.json and README.md")
