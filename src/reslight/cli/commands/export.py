"""`reslight export`: weights as a folder to load and to publish, or as a file for another runtime."""

from pathlib import Path

from reslight.cli.parser import Commands, runs
from reslight.deploy.formats import FORMATS, format_of
from reslight.messages import UsageError

_FOLDER = "safetensors"
_IMAGES = 512
"""Training images that int8 is calibrated with."""


def add_parsers(commands: Commands) -> None:
    """Add the command of this file."""
    about = "write weights as a folder to load and to publish, or as a file for another runtime"
    more = (
        "A file takes pixels of any size and gives probabilities: the preprocessing is inside. It is compared with the network before it "
        "is written; `reslight verify FILE` evaluates it"
    )
    parser = commands.add_parser("export", help=about, description=f"{about[0].upper()}{about[1:]}. {more}.")
    about = "a checkpoint, or a run's folder, such as runs/digits/1; for a file also a folder or name of weights"
    parser.add_argument("source", metavar="CKPT|WEIGHTS", help=about)
    suffixes = ", ".join(f"NET{one.suffix}" for one in FORMATS.values())
    about = f"the folder to write (model.safetensors, config.json, golden.safetensors, README.md), or a file {suffixes}"
    parser.add_argument("output", metavar="OUT", help=about)
    about = f"default: by the suffix of OUT, and else {_FOLDER}. Needs pip install 'reslight[FORMAT]', except torch"
    parser.add_argument("--format", choices=[_FOLDER, *FORMATS], help=about)
    parser.add_argument("--raw", action="store_true", help="export the raw weights instead of the EMA weights")
    parser.add_argument("--half", action="store_true", help="a folder of half the size: convolutions and classifier are rounded to float16")
    parser.add_argument("--license", metavar="ID", help="license for the model card: an SPDX identifier, such as apache-2.0")
    about = "compute with whole numbers of 8 bits: smaller and faster, a little less accurate"
    parser.add_argument("--int8", action="store_true", help=about)
    about = f"with --int8: folder of the dataset, of whose training images {_IMAGES} are used to choose the ranges of the numbers"
    parser.add_argument("--calibrate", metavar="ROOT", help=about)
    parser.add_argument("--labels", metavar="FILE", help="with --calibrate: label file of the images, as data.labels")
    about = "torch: compile the network for CPUs like this one (AOTInductor), which takes minutes and a C++ compiler"
    parser.add_argument("--compile", action="store_true", help=about)
    about = "onnx: leave the preprocessing out; the file takes normalized images and gives logits"
    parser.add_argument("--normalized-input", action="store_true", help=about)
    runs(parser, export)


def export(
    source: str,
    output: str,
    *,
    format: str | None = None,
    raw: bool = False,
    half: bool = False,
    license: str | None = None,
    int8: bool = False,
    calibrate: str | None = None,
    labels: str | None = None,
    compile: bool = False,
    normalized_input: bool = False,
) -> None:
    """Write the weights of a checkpoint as a folder, or those of a checkpoint or a folder as a file for another runtime.

    Args:
        source: A checkpoint file, or a run's folder for its last.ckpt; for a file also a folder or name of weights.
        output: The folder or the file to write.
        format: "safetensors" or the name of a format; by the suffix of `output` if None.
        raw: Export the raw weights instead of the EMA weights.
        half: For a folder, round convolutions and classifier to float16.
        license: An SPDX identifier for the model card.
        int8: Compute with int8 in the file.
        calibrate: With int8, the folder of the dataset that the weights were trained on.
        labels: With calibrate, the label file of the images.
        compile: With torch, compile the network for CPUs like this one.
        normalized_input: With ONNX, leave the preprocessing out.

    Raises:
        FileNotFoundError: a missing checkpoint.
        MissingPackageError: a package of the format is not installed.
        UsageError: weights that cannot be exported, an `output` that holds other files, or options that do not go together.
    """
    path = Path(output)
    by_suffix = format_of(path)
    name = format or (by_suffix.name if by_suffix else _FOLDER)
    for option, is_given, needs, there in (
        ("--normalized-input", normalized_input, "--format onnx", name == "onnx" and not int8),
        ("--compile", compile, "--format torch", name == "torch" and not int8),
        ("--int8", int8, "a file", name != _FOLDER),
        ("--calibrate", calibrate is not None, "--int8", int8),
        ("--half", half, "a folder", name == _FOLDER),
        ("--labels", labels is not None, "--calibrate", calibrate is not None),
    ):
        if is_given and not there:
            raise UsageError(f"{option} is given for the format {name}{' with int8' if int8 else ''}: it is for {needs}. Leave it out.")
    if name == _FOLDER:
        _export_folder(source, path, raw=raw, half=half, license=license)
        return
    from reslight.deploy.formats.export import check_target, export_file
    from reslight.deploy.formats.sources import load_to_export

    check_target(path, FORMATS[name])
    net, record, sha256 = load_to_export(source, raw=raw, license=license)
    if normalized_input:
        from reslight.deploy.formats.normalized_onnx import export_normalized

        print("\n".join(export_normalized(net, path, license=record.license)))
        return
    batches = None
    if int8:
        from reslight.deploy.formats.calibration import calibration_images

        batches = calibration_images(record, calibrate, labels, _IMAGES)
    chosen = FORMATS[name]
    if compile:
        from reslight.deploy.formats.torch_compiled import COMPILED

        chosen = COMPILED
    print("\n".join(export_file(net, record, sha256, path, chosen, batches)))


def _export_folder(source: str, folder: Path, *, raw: bool, half: bool, license: str | None) -> None:
    from reslight.runs.export import export
    from reslight.runs.folder import Run

    path = Path(source)
    if path.is_dir():
        path = Run(path).checkpoint()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: export needs a checkpoint. Give its file, or a run's folder, such as runs/digits/1.")
    print("\n".join(export(path, folder, raw=raw, half=half, license=license)))
