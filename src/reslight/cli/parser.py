"""argparse with errors in one line, for all commands but the Trainer's."""

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from reslight.messages import UsageError, did_you_mean

Commands = Any
"""What argparse makes of subparsers; it has no name of its own."""


TRAINER_COMMANDS = {
    "fit": "train a network; results are saved in runs/<config>/<n>",
    "validate": "evaluate a run's network on the validation images",
    "test": "evaluate a run's network on the test images",
    "predict": "write the predictions of a run's network for the test images",
}
"""The commands that take LightningCLI to parse, with what they are for."""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        if found := re.search(r"invalid choice: '([^']+)'", message):
            choices = re.findall(r"'?(\w+)'?[,)]", message.partition("choose from")[2])
            hint = did_you_mean(found[1], choices, f"choose one of {', '.join(choices)}", count=1)
            argument = message.removeprefix("argument ").partition(":")[0]
            start = (
                f"{found[1]}: there is no such command" if argument == "COMMAND" else f"{argument} is {found[1]}: there is no such value"
            )
            raise UsageError(f"{start}. {hint[0].upper()}{hint[1:]}")
        raise UsageError(f"{message}. `{self.prog} --help` shows the arguments")


def runs(parser: argparse.ArgumentParser, command: Callable[..., Any], *, trains: bool = False) -> None:
    """Have a command's function run with what was parsed; its arguments have the names of its parser's.

    Args:
        parser: The command's parser.
        command: The function. False as its answer means that what it checked is not as it should be.
        trains: The command trains, so Lightning's log lines and warnings are reduced, too.
    """

    def run(options: argparse.Namespace) -> Any:
        return command(**{name: value for name, value in vars(options).items() if name not in ("run", "trains")})

    parser.set_defaults(run=run, trains=trains)
