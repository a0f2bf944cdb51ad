"""`reslight data`: list the problems of a dataset, show its training images, and pack it."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslight.cli.commands.data_pack import add_pack
from reslight.cli.commands.label_file import add_label_file, label_columns
from reslight.cli.parser import Commands, Parser, runs
from reslight.messages import UsageError, counted, visible

if TYPE_CHECKING:
    from reslight.data.check.check import Lookalikes

MOST_PAIRS, MOST_DRAWN = 20, 48
"""The most near copies that are listed, and drawn."""
MOST_CLASSES = 20
"""The most classes whose images are all counted; of more, as many are listed, the rarest and the most frequent ones."""


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = "list the problems of a dataset: unreadable files, misplaced files, images in both train and test"
    data = commands.add_parser("data", help="check, show or pack the images of a dataset", description="Commands on datasets.")
    checks = data.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_SettingsParser)
    parser = checks.add_parser("check", help=about, description=f"{about.capitalize()}. The exit code is 1 if there is a problem.")
    parser.add_argument("root", metavar="ROOT", help="folder of the images, as data.root, or OWNER/DATASET[@REVISION] on the Hub")
    about = "a figure of the near copies in different splits, to be written: .png, .pdf or .svg"
    parser.add_argument("--sheet", metavar="FILE", help=about)
    parser.add_argument("--threads", type=int, metavar="N", help="threads that open images (default: all cores)")
    add_label_file(parser)
    parser.add_argument("--channels", type=int, default=3, metavar="N", help="channels of the images, if not gray or RGB")
    runs(parser, check_data)
    about = "draw training images as the network gets them, and a histogram of the classes"
    more = (
        "The images are the first ones of the first step of `reslight fit` with the same arguments: augmented, mixed, with their labels. "
        "Settings of the data, such as --data.batch_size 64, can be added. Needs matplotlib: pip install 'reslight[plot]'."
    )
    parser = checks.add_parser("show", help=about, description=f"{about.capitalize()}. {more}")
    parser.add_argument(
        "root", nargs="?", metavar="ROOT", help="folder of your images, or OWNER/DATASET: as data.root of --config finetune"
    )
    parser.add_argument("--config", action="append", default=[], metavar="NAME", help="a configuration, as for `reslight fit`")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the figure to write: .png, .pdf or .svg")
    parser.add_argument("--images", type=int, default=32, metavar="N", help="images to show (default: 32)")
    runs(parser, show_data, trains=True)
    add_pack(checks.add_parser)


class _SettingsParser(Parser):
    """Leaves settings of `fit`, such as `--data.seed 3`, as words in `settings`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse all other arguments."""
        if not self.prog.endswith(" show"):
            return super().parse_known_args(args, namespace)
        waiting: list[str] = list(args or ())
        settings: list[str] = []
        others: list[str] = []
        while waiting:
            word = waiting.pop(0)
            is_setting = word.startswith(("--data.", "--data=", "--model.", "--seed_everything")) or word == "--data"
            (settings if is_setting else others).append(word)
            if is_setting and "=" not in word and waiting and not waiting[0].startswith("-"):
                settings.append(waiting.pop(0))
        namespace, unknown = super().parse_known_args(others, namespace or argparse.Namespace())
        namespace.settings = settings
        return namespace, unknown


def check_data(
    root: str,
    threads: int | None = None,
    labels: str | None = None,
    columns: Sequence[str] = (),
    sheet: str | None = None,
    channels: int = 3,
) -> bool:
    """Open every image of a dataset and print its problems, see `reslight.data.check.check`.

    Args:
        root: The folder of the images, or a dataset on the Hub.
        threads: Threads that open images; all cores if None.
        labels: The label file; None for the one that is found in the folder, if there is one.
        columns: Columns of the label file, each as `KIND=NAME`.
        sheet: The figure of near copies to write; None for none.
        channels: Channels of the images, if not gray or RGB.

    Returns:
        Whether there are no problems.

    Raises:
        OSError: a missing dataset.
        UsageError: a dataset that cannot be checked.
    """
    from reslight.data.check.check import Summary, check
    from reslight.data.check.problems import KINDS

    if sheet:
        _check_figure(sheet, "--sheet")
    summary, shows_progress = Summary(), sys.stderr.isatty()

    def print_progress(so_far: Summary) -> None:
        if shows_progress:
            print(f"\r{so_far.opened:,} of {so_far.images:,} images", end="", file=sys.stderr, flush=True)

    more: dict[str, Any] = {"labels": labels, "columns": label_columns(columns), "channels": channels}
    found = check(root, threads, summary, progress=print_progress, **more)
    for problem in found:
        clear = "\r\x1b[K" if shows_progress else ""
        print(f"{clear}{KINDS[problem.kind]}: {problem}", flush=True)
    if shows_progress:
        print("\r\x1b[K", end="", file=sys.stderr)
    if summary.splits:
        splits = ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())
        images, classes = counted(summary.opened, "image"), counted(summary.classes, "class", "classes")
        print(f"{images} ({splits}) of {classes}, {summary.bytes / 1e6:,.1f} MB")
    for line in class_table(summary.per_class):
        print(line)
    for kind, count in summary.kinds.items():
        print(f"{count:>6,}  {KINDS[kind]}")
    for line in near_copy_lines(summary.lookalikes):
        print(line)
    if sheet:
        print(_draw_copies(summary.lookalikes, sheet))
    total = summary.kinds.total()
    print(counted(total, "problem") if total else "no problems")
    return not summary.kinds


def show_data(root: str | None, config: Sequence[str], settings: Sequence[str], output: str, images: int) -> None:
    """Draw training images as the network gets them, and a histogram of the classes.

    Args:
        root: The folder of the images; None for that of the configuration.
        config: Configurations; finetune if empty.
        settings: Settings of the data, as words.
        output: The figure to write; its suffix selects the format.
        images: The number of images to show.

    Raises:
        UsageError: a setting or an argument that is not allowed.
        OSError: a missing dataset, or a file that cannot be written.
        MissingPackageError: matplotlib is not installed.
    """
    if images < 1:
        raise UsageError(f"--images is {images}: it must be at least 1. Use 32, the default.")
    if root is None and not config and not any(word.startswith("--data") for word in settings):
        raise UsageError("ROOT is missing: it is the folder of your images. Add it, or a --config.")
    from reslight.analysis.figure import save
    from reslight.analysis.sheet import captions, draw_sheet, pixels
    from reslight.cli.datamodule import data_module

    _check_figure(output, "--output")
    if root is not None:
        config, settings = config or ["finetune"], [f"--data.root={root}", *settings]
    data = data_module([*(word for name in config for word in ("--config", name)), *settings])
    data.prepare_data()
    data.setup("fit")
    batch = data.training_batch(next(iter(data.train_dataloader())), epoch=0)
    split = data.splits["train"]
    count, total = min(images, len(batch.labels)), len(split)
    title = f"{visible(data.name)}: {count} of {total:,} training images, as in the first step"
    shown = pixels(batch.images[:count], data.preprocess)
    counts = data.class_counts().tolist()
    save(draw_sheet(shown, captions(batch.labels[:count], data.labels), data.labels, counts, title), Path(output))
    print(f"written {output}: {count} of {total:,} training images, and {counted(data.num_classes, 'class', 'classes')}")
    if count < images:
        print(f"--images is {images}: a batch has {count} images. Set --data.batch_size to show more.")


def near_copy_lines(lookalikes: "Sequence[Lookalikes]") -> list[str]:
    """Return the warning about near copies in different splits, as lines; nothing if there are none."""
    if not lookalikes:
        return []
    pairs = counted(len(lookalikes), "pair")
    lines = [f"{pairs} of near copies in different splits (resized, compressed again or slightly cropped). Keep each image in one split:"]
    lines += [f"  {one.names[1]} ({one.splits[1]}) looks like {one.names[0]} ({one.splits[0]})" for one in lookalikes[:MOST_PAIRS]]
    left = len(lookalikes) - MOST_PAIRS
    return [*lines, *([f"  ... and {counted(left, 'more pair')}"] if left > 0 else [])]


def _draw_copies(lookalikes: "Sequence[Lookalikes]", sheet: str) -> str:
    """Draw near copies, and return a line that says so."""
    from reslight.analysis.figure import save
    from reslight.analysis.sheet import draw_pairs

    if not lookalikes:
        return f"not written {sheet}: there are no near copies in different splits"
    shown = lookalikes[:MOST_DRAWN]
    texts = (
        "\n".join(f"{split}: {visible(Path(name).name, 28)}" for split, name in zip(one.splits, one.names, strict=True)) for one in shown
    )
    title = f"{len(shown)} of {counted(len(lookalikes), 'pair')} of near copies in different splits"
    save(draw_pairs([(*one.decoded(), text) for one, text in zip(shown, texts, strict=True)], title), Path(sheet))
    return f"written {sheet}: {title}"


def _check_figure(file: str, argument: str) -> None:
    """Check the name of a figure, and that matplotlib is there, before the work.

    Raises:
        UsageError: another ending, or a folder.
        OSError: a missing parent folder.
    """
    from reslight.analysis.figure import format_of, new_figure

    try:
        format_of(Path(file))
    except (OSError, UsageError) as error:
        raise type(error)(str(error).replace("--output", argument)) from error
    new_figure(1, 1)


def class_table(counts: Mapping[str, Counter[str]]) -> list[str]:
    """Return a table of the images of each class, as lines; sorted by the images of the first split where classes are left out.

    Args:
        counts: Images of each class, by split.
    """
    names = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    if not names:
        return []
    left_out, half = len(names) - MOST_CLASSES, MOST_CLASSES // 2
    if left_out > 0:
        first = next(iter(counts.values()))
        names = sorted(names, key=lambda name: first[name])
        names = [*names[:half], *names[-half:]]
    rows = [["class", *counts], *([visible(name, 40), *(f"{of_split[name]:,}" for of_split in counts.values())] for name in names)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    if left_out > 0:
        lines.insert(half + 1, f"... {left_out:,} more classes, between the rarest and the most frequent ones")
    return lines
