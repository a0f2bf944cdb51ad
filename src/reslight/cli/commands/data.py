"""`reslight data check`: list the problems of a dataset."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reslight.cli.parser import Commands, runs
from reslight.messages import UsageError, counted, visible

if TYPE_CHECKING:
    from reslight.data.image_folder.label_table import LabelColumns


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = "list the problems of a dataset: unreadable files, misplaced files, images in both train and test"
    data = commands.add_parser("data", help="check ROOT: " + about, description="Commands on datasets.")
    checks = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = checks.add_parser("check", help=about, description=f"{about.capitalize()}. The exit code is 1 if there is a problem.")
    parser.add_argument("root", metavar="ROOT", help="folder of the images, as data.root, or OWNER/DATASET[@REVISION] on the Hub")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that open images (default: all cores)")
    about = "label file of the images, as data.labels (default: metadata.csv and the like, if there is one)"
    parser.add_argument("--labels", metavar="FILE", help=about)
    about = "columns of the label file, as data.labels_columns, such as path=where label=species"
    parser.add_argument("--columns", nargs="+", default=[], metavar="KIND=NAME", help=about)
    runs(parser, check_data)


def check_data(root: str, threads: int | None = None, labels: str | None = None, columns: Sequence[str] = ()) -> bool:
    """Open every image of a dataset and print its problems, see `reslight.data.check.check`.

    Args:
        root: The folder of the images, or a dataset on the Hub.
        threads: Threads that open images; all cores if None.
        labels: The label file; None for the one that is found in the folder, if there is one.
        columns: Columns of the label file, each as `KIND=NAME`.

    Returns:
        Whether there are no problems.

    Raises:
        OSError: a missing dataset.
        UsageError: a dataset that cannot be checked.
    """
    from reslight.data.check.check import Summary, check
    from reslight.data.check.problems import KINDS

    summary, shows_progress = Summary(), sys.stderr.isatty()

    def print_progress(so_far: Summary) -> None:
        if shows_progress:
            print(f"\r{so_far.opened:,} of {so_far.images:,} images", end="", file=sys.stderr, flush=True)

    found = check(root, threads, summary, progress=print_progress, labels=labels, columns=_label_columns(columns))
    for problem in found:
        clear = "\r\x1b[K" if shows_progress else ""
        print(f"{clear}{KINDS[problem.kind]}: {problem}", flush=True)
    if shows_progress:
        print("\r\x1b[K", end="", file=sys.stderr)
    if summary.splits:
        splits = ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())
        images, classes = counted(summary.opened, "image"), counted(summary.classes, "class", "classes")
        print(f"{images} ({splits}) of {classes}, {summary.bytes / 1e6:,.1f} MB")
    for kind, count in summary.kinds.items():
        print(f"{count:>6,}  {KINDS[kind]}")
    total = summary.kinds.total()
    print(counted(total, "problem") if total else "no problems")
    return not summary.kinds


def _label_columns(words: Sequence[str]) -> "LabelColumns":
    """Return the columns of a label file that words such as `label=species` give.

    Raises:
        UsageError: another word.
    """
    from reslight.data.image_folder.label_table import USUAL, LabelColumns

    pairs = dict(word.partition("=")[::2] for word in words)
    if bad := [word for word in words if word.partition("=")[0] not in USUAL or not word.partition("=")[2]]:
        raise UsageError(f"--columns is {visible(bad[0])}: it must be KIND=NAME, with a KIND of {', '.join(USUAL)}. Use label=species, say.")
    return LabelColumns(**pairs)
