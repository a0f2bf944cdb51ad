"""The `reslight` command. Heavy imports are local to the command that needs them, so `--help` answers at once."""

import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reslight.cli.commands import (
    bench,
    completion,
    configs,
    data,
    diagnose,
    export,
    folds,
    hub,
    models,
    paper,
    plots,
    predict,
    serve,
    weights,
)
from reslight.cli.parser import TRAINER_COMMANDS, Parser
from reslight.cli.streams import keep_running_without_reader, prepare_streams
from reslight.cores import shorten_active_waiting
from reslight.interrupts import INTERRUPTED, ending_at_once, is_rank_zero
from reslight.messages import UsageError, as_sentence, visible
from reslight.version import __version__

DONE, FAILED, MISTAKE = 0, 1, 2

IGNORED_WARNINGS = (
    r"The number of training batches .* is smaller than the logging interval",  # each epoch has its row in metrics.csv anyway
    r"You defined a `validation_step` but have no `val_dataloader`",  # data.val_size is 0
    r"It is recommended to use `self.log",  # the numbers are summed over the devices before they are logged
    # validate, test and predict load the average; a tuner that fails restores the run without its callbacks
    r"Be aware that when using `ckpt_path`.*: \[('(EMAWeightAveraging|Checkpoints)'(, )?)+\]",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # of model.freeze
    r".*LeafSpec.* is deprecated",  # Lightning's use of torch
)
"""Beginnings of warnings that the user cannot act on."""
PEER_LOST = ("gloo/transport", "remote process exited", "Connection closed by peer", "Connection reset by peer")
"""What torch.distributed says when another process of the run has died."""
LONGEST = 2_000
"""Characters of an error that are printed; our own have fewer."""
BUG = (
    "This is a bug, in reslight or in code of your own that it ran: re-run with --debug for the traceback, and report it on the issue "
    "tracker of the repository that reslight came from"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What was typed behind `reslight`; sys.argv's if None.

    Returns:
        0; 1 when it failed, 2 for a mistake in what was typed or configured, 128 and the signal's number when one ended it:
        130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 138 after SIGUSR1.
    """
    prepare_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    shorten_active_waiting()  # before anything imports torch
    words = [word for word in words if word != "--debug"]
    try:
        try:
            is_done = _run(words, debug)
        finally:
            if sys.stdout is not None:  # `>&-` closes it
                sys.stdout.flush()
    except SystemExit as stop:
        if _is_from_interrupt(stop):  # Lightning makes exit code 1 of Ctrl-C
            return _interrupted()
        if isinstance(number := getattr(stop, "signal", None), signal.Signals) and is_rank_zero():
            print(f"reslight: stopped by {number.name}", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else DONE if stop.code is None else FAILED
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # the reader of the output, such as `head`, closed it
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _interrupted() if _is_from_interrupt(error) else _failed(error)
    return DONE if is_done else FAILED


def _run(words: list[str], debug: bool) -> bool:
    """Run the command; return False if it ran and its check found a problem."""
    if words and words[0] in TRAINER_COMMANDS and not _takes_pictures(words):
        _run_trainer(words, debug)
        return True
    if words[:1] and words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        raise UsageError(f"{words[0]} is no command: the command comes first. Use `reslight fit --config digits`, for example.")
    if not words:
        if "_ARGCOMPLETE" in os.environ:  # a shell asks, see `reslight completion`
            from reslight.cli.complete import complete

            complete(make_parser())
        make_parser().print_help()
        raise SystemExit(MISTAKE)
    options, unknown = make_parser().parse_known_args(words)
    if "pictures" in options:
        unknown = _take_pictures(options.pictures, unknown)
    if unknown:
        raise UsageError(f"{options.prog} has no argument {' '.join(unknown)}. `{options.prog} --help` shows the arguments.")
    if options.trains:
        keep_running_without_reader()
        with ending_at_once():
            from reslight.cli import trainer  # noqa: F401  # Lightning configures its logging on import
        _configure_logging(debug)
    return options.run(options) is not False


def _takes_pictures(words: list[str]) -> bool:
    """Return whether `predict` is that of image files, which begins with the weights: Lightning's has settings only."""
    return words[0] == "predict" and (words[1:] in (["-h"], ["--help"]) or (len(words) > 1 and not words[1].startswith("-")))


def _take_pictures(pictures: list[str], unknown: list[str]) -> list[str]:
    """Add the pictures behind options to those before, where argparse stops, and return what are no pictures."""
    end = unknown.index("--") if "--" in unknown else len(unknown)
    options = [word for word in unknown[:end] if word.startswith("-") and word != "-"]
    pictures += [word for word in unknown[:end] if word not in options] + unknown[end + 1 :]
    return options


def _run_trainer(words: list[str], debug: bool) -> None:
    keep_running_without_reader()
    with ending_at_once():
        from reslight.cli.trainer import run
    if (here := str(Path.cwd())) not in sys.path:  # modules beside the configuration, as with `python -m reslight`, but last
        sys.path.append(here)
    _configure_logging(debug)  # after the imports, since Lightning configures its own
    run(words)


def _configure_logging(debug: bool) -> None:
    """Configure logging: print reslight's messages plainly, hide library messages below WARNING."""
    log = logging.getLogger("reslight")
    log.setLevel(logging.DEBUG if debug else logging.INFO if is_rank_zero() else logging.ERROR)
    if not any(isinstance(handler, _PlainHandler) for handler in log.handlers):  # main() may be called several times in a process
        log.addHandler(_PlainHandler())
    if not debug:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        warnings.showwarning = _warn
        for message in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            # What libraries tell their developers ends no run, even with `python -W error`.
            warnings.filterwarnings("ignore", category=category)


class _PlainHandler(logging.Handler):
    """Print messages up to INFO on stdout as they are, worse ones on stderr with their level in front; no control characters."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        lines = "\n".join(visible(line, len(line)) for line in message.split("\n"))
        if record.levelno <= logging.INFO:
            print(lines, flush=True)
        else:
            print(f"{record.levelname.lower()}: {lines}", file=sys.stderr)


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
    """Print one line on stderr: a user's mistake as it is, anything else as a bug; return the exit code."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    unreachable = isinstance(error, ConnectionError | TimeoutError) and not error.errno  # the Hub; what the user typed may be right
    mistake = isinstance(error, UsageError | OSError) and not unreachable
    stopped = isinstance(error, FloatingPointError)
    if not (mistake or unreachable) and any(word in text for word in PEER_LOST):
        # Any process may print it, since rank 0 may be the one that died; in one write, since several may do so at once.
        sys.stderr.write("reslight: stopped: another process of this run died; its error is above. Resume with --ckpt_path last\n")
        return FAILED
    if not (mistake or stopped):
        text = _with_origin(error, text, unreachable=unreachable)
    if is_rank_zero():
        # A message may quote what strangers wrote, such as a key of a file or an answer of a server.
        print(f"reslight: {'stopped' if stopped else 'error'}: {visible(text, LONGEST)}", file=sys.stderr)
    return MISTAKE if mistake else FAILED


def _with_origin(error: Exception, text: str, *, unreachable: bool) -> str:
    """Return the message of an error that is no mistake in what was typed, with what it comes from and what to do."""
    from reslight.cli.blame import hiding_file, origin

    named = f"{type(error).__name__}: {as_sentence(text)}"
    if file := hiding_file(error):
        return f"{named} {file} hides the module of that name that Python or a package has: rename it."
    if place := origin(error):
        return f"{place}: {named} Correct it there; --debug shows the traceback."
    return text if unreachable else f"{named} {BUG}"


def _is_from_interrupt(error: BaseException) -> bool:
    """Return whether Ctrl-C caused an error: torch.save raises one when it is interrupted in a write."""
    while error.__context__ and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return isinstance(error, KeyboardInterrupt)


def _interrupted() -> int:
    if is_rank_zero():
        print("\nreslight: interrupted", file=sys.stderr)
    return INTERRUPTED


def make_parser() -> Parser:
    """Return the parser of all commands. The Trainer's are only listed: their settings take Lightning to know.

    What is parsed has `run`, to be called with it, and `trains`, see `reslight.cli.parser.runs`.
    """
    parser = Parser(
        prog="reslight",
        description="Train ResNets with PyTorch Lightning. A first run: reslight fit --config digits",
        epilog="Every command has --help. Every command takes --debug, which shows the traceback of an error.",
    )
    parser.add_argument("--version", action="version", version=f"reslight {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in TRAINER_COMMANDS.items():
        if name != "predict":  # which takes pictures, too
            commands.add_parser(name, help=text)
    for topic in TOPICS:
        topic.add_parsers(commands)
    return parser


TOPICS = (configs, models, plots, folds, paper, export, weights, predict, diagnose, bench, serve, hub, data, completion)
"""The modules of commands, in the order of the help."""
