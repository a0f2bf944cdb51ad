"""The `reslight` command. Heavy imports are local to the command that needs them, so `--help` answers at once."""

import argparse
import difflib
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from reslight import __version__

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

TRAINER_COMMANDS = {
    "fit": "train a network; everything it makes goes to runs/<config>/<n>",
    "validate": "measure a run's network on the validation images",
    "test": "measure a run's network on the test images",
    "predict": "write what a run's network answers for the test images",
}

NOT_FOR_USERS = (
    r"The number of training batches .* is smaller than the logging interval",  # every epoch has its row all the same
    r"You defined a `validation_step` but have no `val_dataloader`",  # val_size is 0, as asked
    r"It is recommended to use `self.log",  # the numbers are summed over the devices before they are logged
    r"Be aware that when using `ckpt_path`.*: \['EMAWeightAveraging'\]",  # validate, test and predict take the average itself
    r"Found \d+ module\(s\) in eval mode at the start of training",  # what model.freeze left as it was
    r".*LeafSpec.* is deprecated",  # of Lightning's to torch
)
"""Beginnings of warnings that a person can do nothing about."""
EXPERIMENTS = ("degradation", "depth", "shortcuts", "responses", "identity")
BUDGETS = {
    "tiny": "a minute, on digits, to see that everything works",
    "short": "an evening, a twentieth of the paper's iterations",
    "full": "the paper's 64,000",
}
PAPER = (
    "Trains the networks of an experiment of He et al. 2015, measures them on the test images, draws the paper's figure again and prints "
    "a table. What was trained before is not trained again; after a stop the same command goes on."
)
LIBRARIES = ("torchvision", "timm", "transformers", "akamaster", "chenyaofo", "kuangliu")
LOST = ("gloo/transport", "remote process exited", "Connection closed by peer", "Connection reset by peer")
"""What torch.distributed says when another process of the run has died."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What was typed behind `reslight`; sys.argv's if None.

    Returns:
        0; 1 when it failed, 2 for a mistake in what was typed or configured, 128 and the signal's number when one ended it:
        130 after Ctrl-C, 143 after SIGTERM, 138 after SIGUSR1.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        if words and words[0] in TRAINER_COMMANDS:
            _run_trainer(words, debug)
        elif words[:1] and words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
            raise ValueError(f"{words[0]} stands where the command belongs; it comes first, as in `reslight fit --config digits`")
        elif not words:
            _parser().print_help()
            return MISTAKE
        else:
            options = _parser().parse_args(words)
            if options.run(options) is False:  # it ran, and what it checked is not as it should be
                return FAILED
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning makes exit code 1 of Ctrl-C
            return _interrupted()
        if isinstance(number := getattr(stop, "signal", None), signal.Signals) and _is_first():
            print(f"reslight: stopped by {number.name}", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else DONE if stop.code is None else FAILED
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # whoever read the output has had enough, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # else Python's own flush at exit complains
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _failed(error)
    return DONE


class _Parser(argparse.ArgumentParser):
    """argparse, with a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"invalid choice: '([^']+)'", message):
            choices = re.findall(r"'?(\w+)'?[,)]", message.partition("choose from")[2])
            near = difflib.get_close_matches(found[1], choices, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(choices)}"
            option = re.match(r"argument (--[\w-]+)", message)
            raise ValueError(f"{f'{option[1]} knows no' if option else 'there is no command'} {found[1]}; {hint}")
        raise ValueError(f"{message}; `{self.prog} --help` shows how")


def _parser() -> argparse.ArgumentParser:
    """All commands; those of the Trainer are only listed, for their settings take Lightning to know."""
    parser = _Parser(
        prog="reslight",
        description="Train ResNets with PyTorch Lightning. A first run: reslight fit --config digits",
        epilog="Every command answers --help. With --debug an error tells its whole story.",
    )
    parser.add_argument("--version", action="version", version=f"reslight {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in TRAINER_COMMANDS.items():
        commands.add_parser(name, help=text)
    models = commands.add_parser("models", help="list architectures with their parameters and MACs")
    models.add_argument("pattern", nargs="?", default="*", help="names with wildcards, such as 'resnet*_cifar'")
    models.set_defaults(run=lambda options: _commands().models(options.pattern))
    about = "draw the error curves of runs in one picture"
    more = (
        "thin and dashed the training error, bold the validation error, a dot the test error once it was measured. Takes matplotlib: "
        "pip install 'reslight[plot]'"
    )
    plot = commands.add_parser("plot", help=about, description=f"{about.capitalize()}: {more}")
    plot.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, such as runs/digits/1; runs/digits is its newest run")
    plot.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture; .png, .pdf or .svg")
    plot.set_defaults(run=lambda options: _commands().plot(options.runs, options.output))
    about = "draw the standard deviations of networks' layer responses"
    responses = commands.add_parser("responses", help=about, description=f"{about.capitalize()}, as figure 7 of He et al. 2015 does.")
    responses.add_argument("sources", nargs="+", metavar="RUN|FOLDER|NAME", help="a run's folder, or weights")
    responses.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture; .png, .pdf or .svg")
    responses.add_argument("--data", default="data", metavar="ROOT", help="folder of the images (default: data)")
    responses.add_argument("--images", type=int, default=1000, metavar="N", help="test images to measure on, at most (default: 1000)")
    responses.set_defaults(run=lambda options: _commands().responses(options.sources, options.output, options.data, options.images))
    paper = commands.add_parser("paper", help="run an experiment of the paper: networks, table, picture", description=PAPER)
    paper.add_argument("name", metavar="NAME", choices=EXPERIMENTS, help=", ".join(EXPERIMENTS))
    paper.add_argument("--budget", choices=BUDGETS, default="short", help="; ".join(f"{name}: {text}" for name, text in BUDGETS.items()))
    paper.add_argument("--seeds", type=int, default=1, metavar="N", help="train each network with the seeds 1 to N (default: 1)")
    paper.add_argument("--nets", nargs="+", default=[], metavar="NET", help="only these of its networks")
    paper.add_argument("--data", default="data", metavar="ROOT", help="folder of CIFAR-10 (default: data)")
    paper.add_argument("--root", default="runs/paper", metavar="DIR", help="where runs and results are kept (default: runs/paper)")
    paper.set_defaults(run=_paper)
    export = commands.add_parser("export", help="write a checkpoint's weights as a folder to load, publish and read elsewhere")
    more = "; for ONNX also a folder or a name of weights"
    export.add_argument("source", metavar="CKPT", help=f"a checkpoint, or a run's folder, such as runs/digits/1{more}")
    more = "or NET.onnx"
    export.add_argument(
        "output", metavar="OUT", help=f"the folder to write: model.safetensors, config.json, golden.safetensors, README.md; {more}"
    )
    more = "onnx, which OUT ending with .onnx means too: one file, compared by onnxruntime; takes pip install 'reslight[onnx]'"
    export.add_argument("--format", choices=["safetensors", "onnx"], help=more)
    export.add_argument("--raw", action="store_true", help="the last step's weights, where `reslight test` measures their average")
    export.add_argument("--license", metavar="ID", help="for the card: an SPDX identifier, such as apache-2.0")
    export.set_defaults(
        run=lambda options: _commands().export(options.source, options.output, **_only(options, "format", "raw", "license"))
    )
    about = "add layers that change nothing: the deeper network computes the same, and can be trained on"
    deepen = commands.add_parser("deepen", help=about, description=f"{about.capitalize()} (He et al. 2015, section 1).")
    deepen.add_argument(
        "source", metavar="RUN|FOLDER|NAME", help="a run, to go on with it deeper, its optimizer's state carried over; or weights"
    )
    deepen.add_argument("output", metavar="OUT", help="the folder to write: a run for a run, weights for weights")
    deepen.add_argument("--to", required=True, metavar="ARCH", help="the deeper architecture, such as resnet56 for a resnet20")
    deepen.set_defaults(run=lambda options: _commands().deepen(options.source, options.output, options.to))
    push = commands.add_parser("push", help="publish a folder of weights on the Hugging Face Hub, as one commit or not at all")
    push.add_argument("folder", metavar="FOLDER", help="what `reslight export` wrote")
    push.add_argument("repository", metavar="OWNER/NAME[@BRANCH]", help="where to; it is made if it is not there")
    push.add_argument("--private", action="store_true", help="make it a private one")
    push.add_argument("--create-pr", action="store_true", help="open a pull request in place of a commit")
    push.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    push.set_defaults(
        run=lambda options: _commands().push(options.folder, options.repository, **_only(options, "private", "create_pr", "dry_run"))
    )
    pull = commands.add_parser("pull", help="copy weights from the Hugging Face Hub into a folder, checked")
    pull.add_argument("repository", metavar="OWNER/NAME[@REV]", help="a branch, a tag or a commit of it; main if left out")
    pull.add_argument("output", metavar="OUT", help="the folder to write")
    pull.set_defaults(run=lambda options: _commands().pull(options.repository, options.output))
    verify = commands.add_parser("verify", help="measure weights again, from their very file, and compare with what their card says")
    verify.add_argument("source", metavar="FOLDER|NAME|OWNER/NAME[@REV]", help="a folder, a name of `reslight weights`, or a repository")
    verify.add_argument("--data", default="data", metavar="ROOT", help="folder of the images (default: data)")
    verify.set_defaults(run=lambda options: _commands().verify(options.source, options.data))
    classify = commands.add_parser("classify", help="name what is in pictures, with probabilities")
    classify.add_argument("source", metavar="FOLDER|NAME|OWNER/NAME[@REV]", help="a folder, a name of `reslight weights`, or a repository")
    classify.add_argument("images", nargs="+", metavar="IMAGE", help="files of any kind that Pillow reads")
    classify.set_defaults(run=lambda options: _commands().classify(options.source, options.images))
    convert = commands.add_parser("convert", help="make a folder of another library's weights, or a file for another library")
    convert.add_argument("source", metavar="FILE|FOLDER", help="with --from a .safetensors, .pth or .th file; with --to a folder or a name")
    convert.add_argument("output", metavar="OUT", help="with --from a folder; with --to a file, .safetensors or .pth")
    way = convert.add_mutually_exclusive_group(required=True)
    for option, text in (("--from", "whose weights they are"), ("--to", "whom to write for")):
        way.add_argument(
            option,
            dest="came_from" if option == "--from" else "to",
            choices=LIBRARIES,
            metavar="LIBRARY",
            help=f"{text}: {', '.join(LIBRARIES)}",
        )
    convert.add_argument("--check", action="store_true", help="build that library's network, if it is installed, and compare logits")
    for statistic in ("mean", "std"):
        convert.add_argument(f"--{statistic}", type=float, nargs="+", metavar="X", help=f"{statistic} of the images' channels, 0 to 1")
    convert.set_defaults(
        run=lambda options: _commands().convert(options.source, options.output, **_only(options, "came_from", "to", "check", "mean", "std"))
    )
    about = "look for what is wrong with a set of images: files that cannot be read, misplaced ones, copies in train and test"
    data = commands.add_parser("data", help="reslight data check ROOT: " + about)
    checks = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = checks.add_parser("check", help=about, description=f"{about.capitalize()}. Exit code 1 if there is anything.")
    check.add_argument("root", metavar="ROOT", help="folder of the images, as data.root; or OWNER/DATASET[@REVISION] on the Hub")
    check.add_argument("--threads", type=int, metavar="N", help="threads that open images (default: the machine's cores)")
    check.set_defaults(run=lambda options: _commands().check_data(options.root, options.threads))
    weights = commands.add_parser("weights", help="list weights with their accuracy and size: published ones, and those in the Hub's cache")
    weights.add_argument("pattern", nargs="?", default="*", help="names with wildcards, such as '*.cifar10'")
    weights.add_argument("--remote", metavar="OWNER", help="list this owner's on the Hugging Face Hub instead")
    weights.set_defaults(run=lambda options: _commands().weights(options.pattern, options.remote))
    return parser


def _paper(options: argparse.Namespace) -> None:
    from reslight import trainer_cli  # noqa: F401  # it trains; what is set up here is set up behind Lightning's own

    _talk_plainly(debug=False)
    _commands().paper(**_only(options, "name", "budget", "seeds", "nets", "data", "root"))


def _only(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _commands() -> Any:
    from reslight import commands

    return commands


def _run_trainer(words: list[str], debug: bool) -> None:
    from reslight.trainer_cli import run

    _talk_plainly(debug)  # behind the imports, in which Lightning sets up its own
    run(words, TRAINER_COMMANDS[words[0]], debug=debug)


def _talk_plainly(debug: bool) -> None:
    """Log lines and warnings as sentences; a library's notices only when they warn."""
    log = logging.getLogger("reslight")
    log.setLevel(logging.DEBUG if debug else logging.INFO if _is_first() else logging.ERROR)
    if not any(isinstance(handler, _Plain) for handler in log.handlers):  # a process may run several commands
        log.addHandler(_Plain())
    if not debug:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        warnings.showwarning = _warn
        for message in NOT_FOR_USERS:
            warnings.filterwarnings("ignore", message=message)


class _Plain(logging.Handler):
    """Information on stdout as it is; what is worse on stderr, with its level in front."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno <= logging.INFO:
            print(record.getMessage(), flush=True)
        else:
            print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def _is_first() -> bool:
    """Of several processes of a run, one talks."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _failed(error: Exception) -> int:
    """One line on stderr: what reslight says of a mistake as it is; anything else with what it was and where to read more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    mistake = isinstance(error, OSError) or (isinstance(error, ValueError | ImportError) and _raised_here(error))
    stopped = isinstance(error, FloatingPointError)
    if not mistake and any(word in text for word in LOST):
        # whichever process it is, for the first may be the one that is gone; in one write, for several do it at once
        sys.stderr.write("reslight: stopped: another process of this run is gone; what it said stands above. Go on with --ckpt_path last\n")
        return FAILED
    if not (mistake or stopped):
        text = f"{type(error).__name__}: {text} (run it again with --debug for the whole story)"
    if _is_first():
        print(f"reslight: {'stopped' if stopped else 'error'}: {text}", file=sys.stderr)
    return MISTAKE if mistake else FAILED


def _raised_here(error: Exception) -> bool:
    """Whether reslight itself raised it: a ValueError from inside a library is not yet a person's mistake."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parent)


def _interrupted() -> int:
    if _is_first():
        print("\nreslight: interrupted", file=sys.stderr)
    return INTERRUPTED
