"""What can be typed behind `reslight`, but for the Trainer's commands; heavy imports wait for the command."""

import argparse
import difflib
import re
from importlib import import_module
from typing import Any, NoReturn

from reslight.messages import UsageError
from reslight.version import __version__

EXPERIMENTS = ("degradation", "depth", "shortcuts", "responses", "identity")
BUDGETS = {
    "tiny": "a minute, on digits, to see that everything works",
    "short": "an evening, a twentieth of the paper's iterations",
    "full": "the paper's 64,000",
}
LIBRARIES = ("torchvision", "timm", "transformers", "akamaster", "chenyaofo", "kuangliu")
WEIGHTS = "a folder, a name of `reslight weights`, or a repository"
Commands = Any
"""What argparse makes of subparsers; it has no name of its own."""


class Parser(argparse.ArgumentParser):
    """argparse, with a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Say it as a ValueError."""
        if found := re.search(r"invalid choice: '([^']+)'", message):
            choices = re.findall(r"'?(\w+)'?[,)]", message.partition("choose from")[2])
            near = difflib.get_close_matches(found[1], choices, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(choices)}"
            argument = message.removeprefix("argument ").partition(":")[0]
            where = "there is no command" if argument == "COMMAND" else f"{argument if argument[0] == '-' else self.prog} knows no"
            raise UsageError(f"{where} {found[1]}; {hint}")
        raise UsageError(f"{message}; `{self.prog} --help` shows how")


def make_parser(trainer_commands: dict[str, str]) -> Parser:
    """All commands. What is parsed has `run`, to be called with it, and `trains`.

    Args:
        trainer_commands: The Trainer's, which are only listed: their settings take Lightning to know.
    """
    parser = Parser(
        prog="reslight",
        description="Train ResNets with PyTorch Lightning. A first run: reslight fit --config digits",
        epilog="Every command answers --help. With --debug an error tells its whole story.",
    )
    parser.add_argument("--version", action="version", version=f"reslight {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in trainer_commands.items():
        commands.add_parser(name, help=text)
    for add in ADDS:
        add(commands)
    return parser


def _runs(parser: argparse.ArgumentParser, where: str, *, trains: bool = False) -> None:
    """Name the function of a command, `module.function`; its arguments have the names of what is parsed."""

    def run(options: argparse.Namespace) -> Any:
        module, _, function = where.partition(".")
        given = {name: value for name, value in vars(options).items() if name not in ("run", "trains")}
        return getattr(import_module(f"reslight.{module}"), function)(**given)

    parser.set_defaults(run=run, trains=trains)


def _add_models(commands: Commands) -> None:
    models = commands.add_parser("models", help="list architectures with their parameters and MACs")
    models.add_argument("pattern", nargs="?", default="*", help="names with wildcards, such as 'resnet*_cifar'")
    _runs(models, "commands.models")


def _add_pictures(commands: Commands) -> None:
    about = "draw the error curves of runs in one picture"
    more = (
        "thin and dashed the training error, bold the validation error, a dot the test error once it was measured. Takes matplotlib: "
        "pip install 'reslight[plot]'"
    )
    plot = commands.add_parser("plot", help=about, description=f"{about.capitalize()}: {more}")
    plot.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, such as runs/digits/1; runs/digits is its newest run")
    plot.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture; .png, .pdf or .svg")
    _runs(plot, "commands.plot")
    about = "draw the standard deviations of networks' layer responses"
    responses = commands.add_parser("responses", help=about, description=f"{about.capitalize()}, as figure 7 of He et al. 2015 does.")
    responses.add_argument("sources", nargs="+", metavar="RUN|FOLDER|NAME", help="a run's folder, or weights")
    responses.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture; .png, .pdf or .svg")
    responses.add_argument("--data", dest="root", default="data", metavar="ROOT", help="folder of the images (default: data)")
    responses.add_argument("--images", type=int, default=1000, metavar="N", help="test images to measure on, at most (default: 1000)")
    _runs(responses, "commands.responses")


def _add_paper(commands: Commands) -> None:
    about = (
        "Trains the networks of an experiment of He et al. 2015, measures them on the test images, draws the paper's figure again and "
        "prints a table. What was trained before is not trained again; after a stop the same command goes on."
    )
    paper = commands.add_parser("paper", help="run an experiment of the paper: networks, table, picture", description=about)
    paper.add_argument("name", metavar="NAME", choices=EXPERIMENTS, help=", ".join(EXPERIMENTS))
    paper.add_argument("--budget", choices=BUDGETS, default="short", help="; ".join(f"{name}: {text}" for name, text in BUDGETS.items()))
    paper.add_argument("--iterations", type=int, metavar="N", help="another number of iterations than the budget's, the rest as it says")
    paper.add_argument("--seeds", type=int, default=1, metavar="N", help="train each network with the seeds 1 to N (default: 1)")
    paper.add_argument("--nets", nargs="+", default=[], metavar="NET", help="only these of its networks")
    paper.add_argument("--data", default="data", metavar="ROOT", help="folder of CIFAR-10 (default: data)")
    paper.add_argument("--root", default="runs/paper", metavar="DIR", help="where runs and results are kept (default: runs/paper)")
    _runs(paper, "commands.paper", trains=True)


def _add_export(commands: Commands) -> None:
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
    _runs(export, "weight_commands.export")


def _add_deepen(commands: Commands) -> None:
    about = "add layers that change nothing: the deeper network computes the same, and can be trained on"
    deepen = commands.add_parser("deepen", help=about, description=f"{about.capitalize()} (He et al. 2015, section 1).")
    deepen.add_argument(
        "source", metavar="RUN|FOLDER|NAME", help="a run, to go on with it deeper, its optimizer's state carried over; or weights"
    )
    deepen.add_argument("output", metavar="OUT", help="the folder to write: a run for a run, weights for weights")
    deepen.add_argument("--to", required=True, metavar="ARCH", help="the deeper architecture, such as resnet56 for a resnet20")
    _runs(deepen, "weight_commands.deepen")


def _add_hub(commands: Commands) -> None:
    push = commands.add_parser("push", help="publish a folder of weights on the Hugging Face Hub, as one commit or not at all")
    push.add_argument("folder", metavar="FOLDER", help="what `reslight export` wrote")
    push.add_argument("repository", metavar="OWNER/NAME[@BRANCH]", help="where to; it is made if it is not there")
    push.add_argument("--private", action="store_true", help="make it a private one")
    push.add_argument("--create-pr", action="store_true", help="open a pull request in place of a commit")
    push.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    _runs(push, "weight_commands.push")
    pull = commands.add_parser("pull", help="copy weights from the Hugging Face Hub into a folder, checked")
    pull.add_argument("repository", metavar="OWNER/NAME[@REV]", help="a branch, a tag or a commit of it; main if left out")
    pull.add_argument("output", metavar="OUT", help="the folder to write")
    _runs(pull, "weight_commands.pull")


def _add_use(commands: Commands) -> None:
    verify = commands.add_parser("verify", help="measure weights again, from their very file, and compare with what their card says")
    verify.add_argument("source", metavar="FOLDER|NAME|OWNER/NAME[@REV]", help=WEIGHTS)
    verify.add_argument("--data", dest="root", default="data", metavar="ROOT", help="folder of the images (default: data)")
    _runs(verify, "weight_commands.verify")
    classify = commands.add_parser("classify", help="name what is in pictures, with probabilities")
    classify.add_argument("source", metavar="FOLDER|NAME|OWNER/NAME[@REV]", help=WEIGHTS)
    classify.add_argument("images", nargs="+", metavar="IMAGE", help="files of any kind that Pillow reads")
    _runs(classify, "weight_commands.classify")


def _add_convert(commands: Commands) -> None:
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
    _runs(convert, "weight_commands.convert")


def _add_data(commands: Commands) -> None:
    about = "look for what is wrong with a set of images: files that cannot be read, misplaced ones, copies in train and test"
    data = commands.add_parser("data", help="reslight data check ROOT: " + about)
    checks = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = checks.add_parser("check", help=about, description=f"{about.capitalize()}. Exit code 1 if there is anything.")
    check.add_argument("root", metavar="ROOT", help="folder of the images, as data.root; or OWNER/DATASET[@REVISION] on the Hub")
    check.add_argument("--threads", type=int, metavar="N", help="threads that open images (default: the machine's cores)")
    _runs(check, "commands.check_data")


def _add_weights(commands: Commands) -> None:
    weights = commands.add_parser("weights", help="list weights with their accuracy and size: published ones, and those in the Hub's cache")
    weights.add_argument("pattern", nargs="?", default="*", help="names with wildcards, such as '*.cifar10'")
    weights.add_argument("--remote", dest="owner", metavar="OWNER", help="list this owner's on the Hugging Face Hub instead")
    _runs(weights, "weight_commands.weights")


ADDS = (
    _add_models,
    _add_pictures,
    _add_paper,
    _add_export,
    _add_deepen,
    _add_hub,
    _add_use,
    _add_convert,
    _add_data,
    _add_weights,
)
"""In the order of the help."""
