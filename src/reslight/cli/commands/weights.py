"""The commands for weights: deepen, verify, convert, weights."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table
from reslight.messages import UsageError, shortened, visible
from reslight.weights.interop.names import FORMATS

if TYPE_CHECKING:
    from reslight.analysis.verify import Check

_LINE = 1_000
"""Characters of a line that are printed, with paths in it."""
WEIGHTS = "a folder, a name from `reslight weights`, or a repository on the Hub"


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    for add in (_add_deepen, _add_verify, _add_convert, _add_weights):
        add(commands)


def _add_deepen(commands: Commands) -> None:
    about = "add layers that do not change the output, to train the deeper network further"
    parser = commands.add_parser("deepen", help=about, description=f"{about.capitalize()} (He et al. 2015, section 1).")
    about = "a run, to resume with the deeper network and the optimizer's state; or weights"
    parser.add_argument("source", metavar="RUN|FOLDER|NAME", help=about)
    parser.add_argument("output", metavar="OUT", help="the folder to write: a run from a run, weights from weights")
    parser.add_argument("--to", required=True, metavar="ARCH", help="the deeper architecture, such as resnet56 from a resnet20")
    runs(parser, deepen)


def _add_verify(commands: Commands) -> None:
    parser = commands.add_parser(
        "verify", help="re-evaluate weights, or a file that `reslight export` wrote, and compare with the model card"
    )
    parser.add_argument("source", metavar="FOLDER|NAME|OWNER/NAME[@REV]|FILE", help=f"{WEIGHTS}; or an exported file, such as net.onnx")
    about = "folder of the images (default: data); if it is given, weights without evaluation results are evaluated, too"
    parser.add_argument("--data", dest="root", metavar="ROOT", help=about)
    parser.add_argument("--labels", metavar="FILE", help="label file of the images, as data.labels")
    about = "write the results to the card in this folder: those of an exported file, or of weights whose card has none (the same folder)"
    parser.add_argument("--record", metavar="FOLDER", help=about)
    runs(parser, verify)


def _add_convert(commands: Commands) -> None:
    parser = commands.add_parser("convert", help="convert another library's weights to a folder, or a folder to another library's file")
    parser.add_argument("source", metavar="FILE|FOLDER", help="with --from a .safetensors, .pth or .th file; with --to a folder or a name")
    parser.add_argument("output", metavar="OUT", help="with --from a folder; with --to a file, .safetensors or .pth")
    direction = parser.add_mutually_exclusive_group(required=True)
    for word, about in (("from", "the library that wrote FILE"), ("to", "the library to write OUT for")):
        about = f"{about}: {', '.join(FORMATS)}"
        direction.add_argument(f"--{word}", dest=f"{word}_library", choices=FORMATS, metavar="LIBRARY", help=about)
    parser.add_argument("--check", action="store_true", help="compare logits with that library's network; the library must be installed")
    for statistic in ("mean", "std"):
        parser.add_argument(f"--{statistic}", type=float, nargs="+", metavar="X", help=f"{statistic} of the images' channels, 0 to 1")
    about = "with --from: a text file with a class name on each line, in the order of the logits"
    parser.add_argument("--labels", metavar="FILE", help=about)
    runs(parser, convert)


def _add_weights(commands: Commands) -> None:
    parser = commands.add_parser("weights", help="list published weights, and weights in the Hub's cache, with their accuracy and size")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names with wildcards, such as '*.cifar10'")
    parser.add_argument("--remote", dest="owner", metavar="OWNER", help="list this owner's weights on the Hugging Face Hub instead")
    runs(parser, weights)


def deepen(source: str, output: str, to: str) -> None:
    """Write weights, or a run to resume, of a deeper network that computes the same, see `reslight.deepen`.

    Args:
        source: A run's folder, or a folder or name of weights.
        output: The folder to write: a run from a run, weights from weights.
        to: Name of the deeper architecture.

    Raises:
        OSError: a missing run, missing weights, or a folder that cannot be written.
        UsageError: an architecture that is not a deeper version of the network.
    """
    from reslight.runs.folder import find_run_or_weights

    if run := find_run_or_weights(source):
        from reslight.runs.fork import fork_run

        step = fork_run(run, Path(output), to)
        print(f"written {output}: the run {run.folder} at step {step:,}, its network now {to}")
        resume = shlex.join(["reslight", "fit", "--config", f"{output}/config.yaml", "--ckpt_path", output])
        print(f"next   {resume}, with a larger --trainer.max_epochs or max_steps")
        return
    from reslight.models import count_parameters
    from reslight.weights.deepen import deepen_folder

    net, deeper, comparison = deepen_folder(source, Path(output), to)
    difference = comparison.relative_difference
    same = "equal to the bit" if difference == 0 else f"the largest difference is {difference:.1e} of the largest logit"
    print(f"written {output}: {to}, {count_parameters(deeper.config):,} parameters instead of {count_parameters(net.config):,}")
    print(f"checked on the golden images: {same}")


def convert(
    source: str,
    output: str,
    *,
    from_library: str | None,
    to_library: str | None,
    check: bool,
    mean: list[float] | None,
    std: list[float] | None,
    labels: str | None = None,
) -> None:
    """Convert another library's file to a folder of weights, or weights to another library's file.

    Args:
        source: The file, or the folder or name of weights.
        output: The folder or the file to write.
        from_library: The library that wrote the file; None to write one.
        to_library: The library to write a file for; None to read one.
        check: Build that library's network and compare logits.
        mean: Mean of each channel, 0 to 1; as in that library's own scripts if None.
        std: Std of each channel, 0 to 1; as in that library's own scripts if None.
        labels: A text file with a class name on each line.

    Raises:
        OSError: missing weights, or a file that cannot be written.
        UsageError: weights that the library or reslight does not have, or an option of the other direction.
        MissingPackageError: `check` without the library.
    """
    from reslight.weights.interop.agreement import compare_with_library, import_library
    from reslight.weights.interop.exchange import export_file, import_file, read_config_beside

    library = str(from_library or to_library)
    if to_library and (mean or std or labels):
        option = "mean" if mean else "std" if std else "labels"
        raise UsageError(f"--{option} describes a file that is read with --from: --to does not use it. Leave it out.")
    if check:
        import_library(library)
    if from_library:
        given = {name: tuple(values) for name, values in (("mean", mean), ("std", std)) if values}
        imported = import_file(Path(source), Path(output), library, preprocess=given, labels=Path(labels) if labels else None)
        net, preprocess, weights = imported.net, imported.preprocess, imported.weights
        is_described = read_config_beside(Path(source), library) is not None
        print(f"written {output}: {sum(p.numel() for p in net.parameters()):,} parameters, {net.config.num_classes} classes")
        if weights.key:
            print(f"weights from {weights.key} in the file{', the moving average of the training' if weights.is_average else ''}")
        if weights.left_out:
            print(f"left out {shortened([visible(name) for name in weights.left_out])}: not in the network")
        origin = "as given" if mean or std else f"as in {library}'s own scripts; change them with --mean and --std"
        is_stride_assumed = net.config.block == "bottleneck" and library == "transformers"
        stride = "; bottlenecks are assumed to have their stride on the 3x3" if is_stride_assumed else ""
        print("network from the config.json beside the file" if is_described else f"network inferred from names and shapes{stride}")
        print(f"images {preprocess.shape[0]} x {preprocess.shape[1]}, mean {list(preprocess.mean)}, std {list(preprocess.std)}, {origin}")
    else:
        net = export_file(source, Path(output), library)
        print(f"written {output}, for load_state_dict of {library}")
    if check:
        found = compare_with_library(net, library)
        difference = f"largest difference of a logit {found.max_difference:.1e}, the same class in {found.same_class:.0%}"
        print(f"checked on {found.images} images: {difference}")


def verify(source: str, root: str | None = None, labels: str | None = None, record: str | None = None) -> bool:
    """Re-evaluate weights, or an exported file in its own runtime, and print the comparison with the model card.

    Args:
        source: A folder of weights, the name of a published weight, a repository on the Hub, or an exported file.
        root: The folder of the images, for datasets on disk; `data` if None.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.
        record: The folder of weights whose card gets the results: those of an exported file, or of the weights themselves.

    Returns:
        Whether all results are those of the card.
    """
    from reslight.deploy.formats import is_exported_file

    checks: Iterable[Check]
    if record == "":
        raise UsageError("--record is empty: it must be the folder of the weights.")
    if is_exported_file(source):
        from reslight.deploy.verify import verify_file

        checks = verify_file(Path(source), root, labels, Path(record) if record else None)
    else:
        from reslight.analysis.verify import verify
        from reslight.weights.folder import read_description
        from reslight.weights.locate import locate

        folder = locate(source, whole=True)
        if record and not (Path(source).is_dir() and Path(record).resolve() == folder.resolve()):
            raise UsageError(
                f"--record is {record}: results of weights are written to their own folder. Give that folder as FOLDER and as --record."
            )
        checks = verify(read_description(folder), root, labels, record_it=record is not None)
    all_good = True
    for check in checks:
        all_good &= check.good
        print(f"{'ok     ' if check.good else 'DIFFERS'}  {visible(check.text, _LINE)}", flush=True)
    return all_good


def weights(pattern: str = "*", owner: str | None = None) -> None:
    """Print the published weights and the weights in the cache whose names match, with accuracy, size and place.

    Args:
        pattern: A name with shell wildcards.
        owner: List this owner's repositories on the Hub instead.

    Raises:
        UsageError: a pattern that matches no name.
        OSError: no answer from the Hub.
    """
    from itertools import chain

    from reslight.weights.listing import cached, matching, published, remote

    found = matching(remote(owner) if owner else chain(published(), cached()), pattern)
    if not found and owner:
        matches = "" if pattern == "*" else f" with a name like {pattern}"
        raise UsageError(f"--remote is {owner}: the Hub shows no repository of this owner with the tag reslight{matches}. Check the name.")
    if not found:
        raise UsageError(f"PATTERN is {pattern}: no published weight has such a name. Use * as a wildcard; `reslight weights` lists all.")
    rows = [
        [
            row.name,
            f"{row.accuracy:.2f} %{' mAP' if row.is_map else ''}" if row.accuracy is not None else "",
            f"{row.cost.parameters:,}" if row.cost else "",
            f"{row.cost.macs / 1e6:,.1f}" if row.cost else "",
            f"{row.nbytes / 1e6:.2f} MB" if row.nbytes else "",
            row.place,
        ]
        for row in found
    ]
    columns = zip(["name", "top-1", "parameters", "MACs (M)", "size", "place"], *rows, strict=True)
    header, *cells = zip(*(column for column in columns if any(column[1:])), strict=True)  # the Hub knows no MACs
    print(table(list(header), [list(row) for row in cells]))
