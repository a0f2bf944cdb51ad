"""The commands about weights: export, deepen, classify, convert, verify, weights."""

import sys
from collections.abc import Sequence
from pathlib import Path

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table
from reslight.messages import UsageError
from reslight.weights.interop.names import FORMATS

WEIGHTS = "a folder, a name of `reslight weights`, or a repository"


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    for add in (_add_export, _add_deepen, _add_verify_and_classify, _add_convert, _add_weights):
        add(commands)


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="write a checkpoint's weights as a folder to load, publish and read elsewhere")
    more = "; for ONNX also a folder or a name of weights"
    parser.add_argument("source", metavar="CKPT", help=f"a checkpoint, or a run's folder, such as runs/digits/1{more}")
    more = "or NET.onnx"
    parser.add_argument(
        "output", metavar="OUT", help=f"the folder to write: model.safetensors, config.json, golden.safetensors, README.md; {more}"
    )
    more = "onnx, which OUT ending with .onnx means too: one file, compared by onnxruntime; takes pip install 'reslight[onnx]'"
    parser.add_argument("--format", choices=["safetensors", "onnx"], help=more)
    parser.add_argument("--raw", action="store_true", help="the last step's weights, where `reslight test` measures their average")
    parser.add_argument("--license", metavar="ID", help="for the card: an SPDX identifier, such as apache-2.0")
    runs(parser, export)


def _add_deepen(commands: Commands) -> None:
    about = "add layers that change nothing: the deeper network computes the same, and can be trained on"
    parser = commands.add_parser("deepen", help=about, description=f"{about.capitalize()} (He et al. 2015, section 1).")
    parser.add_argument(
        "source", metavar="RUN|FOLDER|NAME", help="a run, to go on with it deeper, its optimizer's state carried over; or weights"
    )
    parser.add_argument("output", metavar="OUT", help="the folder to write: a run for a run, weights for weights")
    parser.add_argument("--to", required=True, metavar="ARCH", help="the deeper architecture, such as resnet56 for a resnet20")
    runs(parser, deepen)


def _add_verify_and_classify(commands: Commands) -> None:
    parser = commands.add_parser("verify", help="measure weights again, from their very file, and compare with what their card says")
    parser.add_argument("source", metavar="FOLDER|NAME|OWNER/NAME[@REV]", help=WEIGHTS)
    parser.add_argument("--data", dest="root", default="data", metavar="ROOT", help="folder of the images (default: data)")
    runs(parser, verify)
    parser = commands.add_parser("classify", help="name what is in pictures, with probabilities")
    parser.add_argument("source", metavar="FOLDER|NAME|OWNER/NAME[@REV]", help=WEIGHTS)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files of any kind that Pillow reads")
    runs(parser, classify)


def _add_convert(commands: Commands) -> None:
    parser = commands.add_parser("convert", help="make a folder of another library's weights, or a file for another library")
    parser.add_argument("source", metavar="FILE|FOLDER", help="with --from a .safetensors, .pth or .th file; with --to a folder or a name")
    parser.add_argument("output", metavar="OUT", help="with --from a folder; with --to a file, .safetensors or .pth")
    way = parser.add_mutually_exclusive_group(required=True)
    for option, text in (("--from", "whose weights they are"), ("--to", "whom to write for")):
        way.add_argument(
            option,
            dest="came_from" if option == "--from" else "to",
            choices=FORMATS,
            metavar="LIBRARY",
            help=f"{text}: {', '.join(FORMATS)}",
        )
    parser.add_argument("--check", action="store_true", help="build that library's network, if it is installed, and compare logits")
    for statistic in ("mean", "std"):
        parser.add_argument(f"--{statistic}", type=float, nargs="+", metavar="X", help=f"{statistic} of the images' channels, 0 to 1")
    runs(parser, convert)


def _add_weights(commands: Commands) -> None:
    parser = commands.add_parser("weights", help="list weights with their accuracy and size: published ones, and those in the Hub's cache")
    parser.add_argument("pattern", nargs="?", default="*", help="names with wildcards, such as '*.cifar10'")
    parser.add_argument("--remote", dest="owner", metavar="OWNER", help="list this owner's on the Hugging Face Hub instead")
    runs(parser, weights)


def export(source: str, output: str, *, format: str | None = None, raw: bool = False, license: str | None = None) -> None:
    """Write the weights of a checkpoint as a folder to publish or to load, or as an ONNX file.

    Args:
        source: A checkpoint file, or a run's folder, which means its last.ckpt; for ONNX also a folder or a name of weights.
        output: The folder, or the .onnx file, to write.
        format: "safetensors" or "onnx"; None to go by the name of `output`.
        raw: The weights of the last step, not their average.
        license: An SPDX identifier for the card.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ImportError: What writes ONNX is not installed.
        ValueError: It cannot be exported, or `output` holds other things.
    """
    from reslight.runs.export import export
    from reslight.runs.folder import Run
    from reslight.runs.trained import trained_net
    from reslight.training.resume import read_checkpoint

    path = Path(source)
    if path.is_dir():
        path = Run(path).checkpoint()
    if (format or ("onnx" if output.endswith(".onnx") else "safetensors")) == "onnx":
        from reslight.weights import load
        from reslight.weights.interop.onnx import export_onnx

        if raw and not path.is_file():
            raise UsageError(f"{source} is no checkpoint, so it holds one set of weights; leave out --raw")
        net = trained_net(read_checkpoint(path), path, raw=raw)[0] if path.is_file() else load(source)
        print("\n".join(export_onnx(net, Path(output), license=license)))
        return
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; give a run's folder, such as runs/digits/1, or a file")
    print("\n".join(export(path, Path(output), raw=raw, license=license)))


def deepen(source: str, output: str, to: str) -> None:
    """Write weights, or a run to go on with, of a deeper network that computes the same, see `reslight.deepen`.

    Args:
        source: A run's folder, or a folder or a name of weights.
        output: The folder to write: a run for a run, weights for weights.
        to: The architecture.

    Raises:
        OSError: There is no such run or weight, or it cannot be written.
        ValueError: `to` is no deeper version of the network.
    """
    from reslight.runs.folder import find_run_or_weights

    if run := find_run_or_weights(source):
        from reslight.runs.fork import fork_run

        step = fork_run(run, Path(output), to)
        print(f"written {output}: the run {run.folder} at step {step:,}, its network now {to}")
        print(f"next   reslight fit --config {output}/config.yaml --ckpt_path {output}, with a larger --trainer.max_epochs or max_steps")
        return
    from reslight.models import count_parameters
    from reslight.weights.deepen import deepen_folder

    net, deeper, comparison = deepen_folder(source, Path(output), to)
    difference = comparison.relative_difference
    same = "equal to the bit" if difference == 0 else f"the largest difference is {difference:.1e} of the largest logit"
    print(f"written {output}: {to}, {count_parameters(deeper.config):,} parameters where {count_parameters(net.config):,} were")
    print(f"checked on the golden images: {same}")


def classify(source: str, images: Sequence[str]) -> bool:
    """Print the most probable classes of pictures, and what was done to each.

    Args:
        source: A folder, a published weight's name, or a repository of the Hub.
        images: Files.

    Returns:
        Whether all could be read; each that could not has its line on stderr.
    """
    from reslight.analysis.classify import classify, read
    from reslight.weights import load

    net, good = load(source), True
    for name in images:
        try:
            picture = read(Path(name), net)
        except (OSError, ValueError) as error:
            good = False
            print(f"reslight: error: {error}", file=sys.stderr)
            continue
        print(f"{name}  ({', '.join(picture.steps)})")
        for label, probability in classify(net, picture):
            print(f"  {probability:7.2%}  {label}")
    return good


def convert(
    source: str, output: str, *, came_from: str | None, to: str | None, check: bool, mean: list[float] | None, std: list[float] | None
) -> None:
    """Make a folder of another library's file, or such a file of a folder.

    Args:
        source: The file, or the folder or name of weights.
        output: The folder, or the file.
        came_from: The library whose file it is; None to write one.
        to: The library to write for.
        check: Build that library's network and compare logits.
        mean: Per channel, 0 to 1, where the images are normalised otherwise than in that library's own scripts.
        std: The same of the standard deviation.

    Raises:
        OSError: Something is not there, or cannot be written.
        ValueError: It does not fit, or the library is not there to check with.
    """
    from reslight.weights.interop.agreement import compare_with_library, import_library
    from reslight.weights.interop.exchange import export_file, import_file, read_config_beside

    if check:
        import_library(str(came_from or to))
    if came_from:
        given = {name: tuple(values) for name, values in (("mean", mean), ("std", std)) if values}
        net, preprocess = import_file(Path(source), Path(output), came_from, preprocess=given)
        known = read_config_beside(Path(source), came_from) is not None
        print(f"written {output}: {sum(p.numel() for p in net.parameters()):,} parameters, {net.config.num_classes} classes")
        how = "as you said" if mean or std else f"as {came_from}'s own scripts do; --mean and --std if yours did otherwise"
        stride = (
            "; that a bottleneck strides on its 3x3 is assumed" if net.config.block == "bottleneck" and came_from == "transformers" else ""
        )
        print("network as the config.json beside it says" if known else f"network read off names and shapes{stride}")
        print(f"images {preprocess.size} x {preprocess.size}, mean {list(preprocess.mean)}, std {list(preprocess.std)}, {how}")
    else:
        net = export_file(source, Path(output), str(to))
        print(f"written {output}, for load_state_dict of {to}")
    if check:
        found = compare_with_library(net, str(came_from or to))
        difference = f"largest difference of a logit {found.max_difference:.1e}, the same class in {found.same_class:.0%}"
        print(f"checked on {found.images} images: {difference}")


def verify(source: str, root: str) -> bool:
    """Measure weights again and print what is as their card says and what is not.

    Args:
        source: A folder, or a published weight's name.
        root: Folder of the images, for data sets that have one.

    Returns:
        Whether everything is.
    """
    from reslight.analysis.verify import verify
    from reslight.weights.folder import read_description
    from reslight.weights.locate import locate

    good = True
    for check in verify(read_description(locate(source, whole=True)), root):
        good &= check.good
        print(f"{'ok     ' if check.good else 'DIFFERS'}  {check.text}", flush=True)
    return good


def weights(pattern: str = "*", owner: str | None = None) -> None:
    """Print the weights whose names match, with their accuracy, size and place: those published with reslight and those in the cache.

    Args:
        pattern: Shell-style.
        owner: List this owner's repositories on the Hub instead.

    Raises:
        ValueError: None matches.
        OSError: The Hub cannot be asked.
    """
    from itertools import chain

    from reslight.weights.listing import cached, matching, published, remote

    found = matching(remote(owner) if owner else chain(published(), cached()), pattern)
    if not found and owner:
        matches = "" if pattern == "*" else f" whose name matches {pattern!r}"
        raise UsageError(f"{owner} has no repository with the tag reslight on the Hub{matches}, or none that you may see")
    if not found:
        raise UsageError(f"no published weight matches {pattern!r}; `reslight weights` lists all, and * stands for any letters")
    rows = [
        [
            row.name,
            f"{row.accuracy:.2f} %" if row.accuracy is not None else "",
            f"{row.nbytes / 1e6:.2f} MB" if row.nbytes else "",
            row.place,
        ]
        for row in found
    ]
    print(table(["name", "top-1", "size", "place"], rows))
