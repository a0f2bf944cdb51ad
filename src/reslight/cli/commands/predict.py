"""The commands that use a network: classify."""

import sys
from collections.abc import Sequence
from pathlib import Path

from reslight.cli.parser import Commands, runs
from reslight.messages import UsageError, shortened, visible

_LINE = 1_000
"""Characters of a line that are printed, with paths in it."""
SOURCE = "weights (a folder, a name from `reslight weights`, or a repository on the Hub), a run's folder, or an exported file"


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    _add_classify(commands)


def _add_classify(commands: Commands) -> None:
    parser = commands.add_parser("classify", help="print the most probable classes of image files")
    parser.add_argument("source", metavar="WEIGHTS|RUN|FILE", help=SOURCE)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files that Pillow reads")
    about = "with weights for several labels for each image, print the classes with a probability above this (default: 0.5)"
    parser.add_argument("--threshold", type=float, metavar="P", help=about)
    about = "with weights for one label: say `not sure` where no class has this probability (`reslight report` measures what that is worth)"
    parser.add_argument("--sure", type=float, metavar="P", help=about)
    runs(parser, classify)


def classify(source: str, images: Sequence[str], threshold: float | None = None, sure: float | None = None) -> bool:
    """Print the most probable classes of image files, or all above a threshold, and how each image was preprocessed.

    Args:
        source: Weights, a run, or an exported file.
        images: Image files.
        threshold: With weights for several labels for each image, the probability above which a class is printed; 0.5 if None.
        sure: With weights for one label, the highest probability below which `not sure` is printed; None never prints it.

    Returns:
        False if a file could not be read; stderr gets a line for each.

    Raises:
        FileNotFoundError: none of the files exists.
        UsageError: a threshold that is not 0 to 1, or one for the other kind of labels.
    """
    from reslight.deploy.classifier import Classifier, predictions
    from reslight.deploy.formats import is_exported_file

    for option, value, usual in (("threshold", threshold, "0.5"), ("sure", sure, "0.9, for example")):
        check_probability(option, value, usual)
    if not any(Path(name).exists() for name in images):
        raise FileNotFoundError(f"{shortened(images)} {'are' if len(images) > 1 else 'is'} missing. Give paths of image files.")
    # A few images take no time, whichever way they are computed.
    classifier, all_read = Classifier(source, exact=not is_exported_file(source)), True
    if classifier.multi_label and sure is not None:
        raise UsageError(f"--sure is {sure:g}: {source} gives an image several labels, each above a threshold. Use --threshold.")
    check_threshold(threshold, source, multi_label=classifier.multi_label, instead="Use --sure.")
    least = 0.5 if threshold is None else threshold
    for name in images:
        try:
            image = classifier.decode(name)
        except (OSError, ValueError) as error:
            all_read = False
            print(f"reslight: error: {visible(error, _LINE)}", file=sys.stderr)
            continue
        print(f"{visible(name, _LINE)}  ({', '.join(image.steps)})")
        top = None if classifier.multi_label else 5
        found = predictions(classifier.compute([image.pixels])[0], classifier.labels, top)[0].classes
        if classifier.multi_label:
            found = tuple(pair for pair in found if pair[1] > least)
        if sure is not None and found[0][1] < sure:
            print(f"  not sure: no class has a probability of {sure:.2%}")
        for label, probability in found:
            print(f"  {probability:7.2%}  {visible(label)}")
        if not found:
            print(f"  no class has a probability above {least:.2%}")
    return all_read


def check_probability(option: str, value: float | None, usual: str) -> None:
    """Check an option that is a probability.

    Raises:
        UsageError: a value outside of 0 to 1.
    """
    if value is not None and not 0 <= value <= 1:
        raise UsageError(f"--{option} is {value:g}: it must be 0 to 1, a probability. Use {usual}.")


def check_threshold(threshold: float | None, source: str, *, multi_label: bool, instead: str) -> None:
    """Check that a threshold is for a network with several labels for each image.

    Raises:
        UsageError: a threshold for a network with one label.
    """
    if threshold is not None and not multi_label:
        raise UsageError(f"--threshold is {threshold:g}: {source} gives an image one label. {instead}")
