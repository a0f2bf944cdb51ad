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

from reslight.messages import UsageError
from reslight.parser import make_parser

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
            raise UsageError(f"{words[0]} stands where the command belongs; it comes first, as in `reslight fit --config digits`")
        elif not words:
            make_parser(TRAINER_COMMANDS).print_help()
            return MISTAKE
        else:
            options = make_parser(TRAINER_COMMANDS).parse_args(words)
            if options.trains:
                from reslight import trainer_cli  # noqa: F401  # what talks plainly is set up behind Lightning's own

                _talk_plainly(debug)
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
