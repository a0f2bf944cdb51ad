"""The arguments of commands that name a label file."""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reslight.messages import UsageError, visible

if TYPE_CHECKING:
    from reslight.data.image_folder.label_table import LabelColumns


def add_label_file(parser: ArgumentParser) -> None:
    """Add `--labels` and `--columns`."""
    about = "label file of the images, as data.labels (default: metadata.csv and the like, if there is one)"
    parser.add_argument("--labels", metavar="FILE", help=about)
    about = "columns of the label file, as data.labels_columns, such as path=where label=species, label=[cat,dog] or separator=|"
    parser.add_argument("--columns", nargs="+", default=[], metavar="KIND=NAME", help=about)


def label_columns(words: Sequence[str]) -> "LabelColumns":
    """Return the columns of a label file that words such as `label=species` give.

    Raises:
        UsageError: another word.
    """
    from reslight.data.image_folder.label_table import USUAL, LabelColumns

    pairs = dict(word.partition("=")[::2] for word in words)
    if bad := [word for word in words if word.partition("=")[0] not in (*USUAL, "separator") or not word.partition("=")[2]]:
        raise UsageError(
            f"--columns is {visible(bad[0])}: it must be KIND=NAME, with a KIND of {', '.join(USUAL)}, or separator=TEXT. "
            "Use label=species, say."
        )
    columns: dict[str, Any] = dict(pairs)
    if pairs.get("label", "").startswith("["):  # as on the command line of fit
        columns["label"] = tuple(name.strip() for name in pairs["label"].strip("[]").split(","))
    return LabelColumns(**columns)
