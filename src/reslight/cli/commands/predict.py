"""The commands that classify image files: predict, for any number of them, and classify, which prints."""

import sys
from collections.abc import Sequence
from pathlib import Path

from reslight.cli.parser import Commands, runs
from reslight.cores import available_cores
from reslight.messages import UsageError, counted, shortened, visible

_LINE = 1_000
"""Characters of a line that are printed, with paths in it."""
SOURCE = "weights (a folder, a name from `reslight weights`, or a repository on the Hub), a run's folder, or an exported file"


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    _add_predict(commands)
    _add_classify(commands)


def _add_predict(commands: Commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="write the classes of image files to a file; with --config, of a run's test images",
        usage="reslight predict WEIGHTS|RUN|FILE PICTURES ... [-o OUT] [options]\n"
        "       reslight predict --config NAME [--any.setting VALUE ...]",
        description="Write a row for each picture: path, label, probability, label2, probability2, ..., error. A picture that cannot be "
        "read is a row with its error; the exit code is then 1. An interrupted command resumes when it is repeated.",
        epilog="With a first argument that begins with a dash, this is Lightning's predict: it writes predictions.csv for the test "
        "images of a run, with their true labels. Its settings: reslight predict --config digits --help.",
        conflict_handler="resolve",  # shell completion adds the settings of the other form
    )
    parser.add_argument("source", metavar="WEIGHTS|RUN|FILE", help=SOURCE)
    about = "image files, folders (all images in them, at any depth), patterns in quotes, @LIST, or - for paths from standard input"
    parser.add_argument("pictures", nargs="*", metavar="PICTURES", help=about)
    about = "a text file with a path on each line, or with a zero byte after each path; may be repeated"
    parser.add_argument("--list", dest="lists", action="append", default=[], metavar="FILE", help=about)
    parser.add_argument("-o", "--output", metavar="OUT", help="file to write: .csv, .jsonl or .parquet (default: csv on standard output)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes of each picture, at most (default: 5)")
    about = "keep only classes with a probability above this (default: all; with several labels for each image 0.5)"
    parser.add_argument("--threshold", type=float, metavar="P", help=about)
    about = "parquet file for what the last layer gets of each picture; not with exported files"
    parser.add_argument("--embeddings", metavar="OUT.parquet", help=about)
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: the cores that this process may use)")
    about = "compute with the network as it is, not in its quickest form on this CPU (docs: Predict says what differs)"
    parser.add_argument("--exact", action="store_true", help=about)
    runs(parser, predict)


def _add_classify(commands: Commands) -> None:
    parser = commands.add_parser("classify", help="print the most probable classes of image files")
    parser.add_argument("source", metavar="WEIGHTS|RUN|FILE", help=SOURCE)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files that Pillow reads")
    about = "with weights for several labels for each image, print the classes with a probability above this (default: 0.5)"
    parser.add_argument("--threshold", type=float, metavar="P", help=about)
    about = "with weights for one label: say `not sure` where no class has this probability (`reslight report` measures what that is worth)"
    parser.add_argument("--sure", type=float, metavar="P", help=about)
    runs(parser, classify)


def predict(
    source: str,
    pictures: Sequence[str],
    *,
    lists: Sequence[str],
    output: str | None,
    top: int,
    threshold: float | None,
    embeddings: str | None,
    threads: int | None,
    exact: bool,
) -> bool:
    """Write the classes of image files to a file, see `reslight.deploy.predict`.

    Args:
        source: Weights, a run, or an exported file.
        pictures: Files, folders, patterns, `@LIST`, or `-`.
        lists: Files with paths.
        output: A .csv, .jsonl or .parquet file; csv on standard output if None.
        top: Classes of each picture, at most.
        threshold: Only classes with a probability above it are kept.
        embeddings: A .parquet file for embeddings.
        threads: Threads; all cores if None.
        exact: Compute with the network as it is.

    Returns:
        False if a picture could not be read.

    Raises:
        OSError: missing weights or pictures, or a file that cannot be written.
        UsageError: an option that is out of range, or an output that exists.
    """
    from reslight.cli.allocator import keep_freed_blocks
    from reslight.deploy.predict.output import SUFFIXES, check_suffix

    check_probability("threshold", threshold, "0.5")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}: it must be at least 1. Leave it out for all cores.")
    if top < 1:
        raise UsageError(f"--top is {top}: it must be at least 1. Use 5, for example.")
    if output is not None:
        check_suffix("--output", Path(output), SUFFIXES)
    if embeddings is not None:
        check_suffix("--embeddings", Path(embeddings), (".parquet",))
        if output is None or Path(output) == Path(embeddings):
            raise UsageError("--embeddings needs a file of its own for the classes. Add --output predictions.csv, for example.")
    from reslight.deploy.predict.pictures import Pictures

    found = Pictures(pictures, lists)
    from reslight.deploy.classifier import Classifier
    from reslight.deploy.predict.predict import predict

    keep_freed_blocks()
    workers = threads or available_cores()
    classifier = Classifier(source, threads=1, workers=workers, exact=exact, threshold=0.5 if threshold is None else threshold)
    if embeddings is not None:
        classifier.check_embeddings()
    print(f"{visible(source, _LINE)}: {classifier.form}, {counted(workers, 'thread')}", file=sys.stderr)
    least = threshold if threshold is not None else 0.5 if classifier.multi_label else 0.0
    out = None if output is None else Path(output)
    try:
        done = predict(classifier, found, out, top=top, threshold=least, embeddings=None if embeddings is None else Path(embeddings))
    except KeyboardInterrupt:
        if output is not None:
            print(f"\nnot finished: {visible(output, _LINE)}. The same command resumes it.", file=sys.stderr)
        raise
    resumed = f", {done.resumed:,} of them by an interrupted command" if done.resumed else ""
    errors = f"; {done.errors:,} could not be read, see the column error" if done.errors else ""
    where = f"written {output}: " if output else ""
    print(f"{where}{counted(done.pictures, 'picture')}{resumed}{errors}; {done.speed:,.0f}/s", file=sys.stderr)
    return not done.errors


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
    from reslight.deploy.classifier import Classifier
    from reslight.deploy.formats import is_exported_file
    from reslight.deploy.prediction import predictions

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
