"""`reslight data check`: what is wrong with a folder of images."""

import sys

from reslight.cli.parser import Commands, runs


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = "look for what is wrong with a set of images: files that cannot be read, misplaced ones, copies in train and test"
    data = commands.add_parser("data", help="reslight data check ROOT: " + about)
    checks = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = checks.add_parser("check", help=about, description=f"{about.capitalize()}. Exit code 1 if there is anything.")
    parser.add_argument("root", metavar="ROOT", help="folder of the images, as data.root; or OWNER/DATASET[@REVISION] on the Hub")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that open images (default: the machine's cores)")
    runs(parser, check_data)


def check_data(root: str, threads: int | None = None) -> bool:
    """Open every image of a set and print what is wrong with it, see `reslight.data.check.check`.

    Args:
        root: Folder of the images, or a data set of the Hub.
        threads: Threads that open images; the machine's cores if None.

    Returns:
        Whether nothing is.

    Raises:
        OSError: There is no such set.
        ValueError: It cannot be looked through.
    """
    from reslight.data.check.check import Summary, check
    from reslight.data.check.problems import KINDS

    summary, shows = Summary(), sys.stderr.isatty()

    def say(so_far: Summary) -> None:
        if shows:
            print(f"\r{so_far.opened:,} of {so_far.images:,} images", end="", file=sys.stderr, flush=True)

    for problem in check(root, threads, summary, progress=say):
        clear = "\r\x1b[K" if shows else ""
        print(f"{clear}{KINDS[problem.kind]}: {problem}", flush=True)
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr)
    parts = ", ".join(f"{count:,} {part}" for part, count in summary.splits.items())
    print(f"{summary.opened:,} images ({parts}) of {summary.classes:,} classes, {summary.bytes / 1e6:,.1f} MB")
    for kind, count in summary.kinds.items():
        print(f"{count:>6,}  {kind}")
    print("nothing is wrong with them" if not summary.kinds else f"{summary.kinds.total():,} problems")
    return not summary.kinds
