"""argparse with errors in one line, for all commands but the Trainer's."""

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from reslight.messages import UsageError, suggestion

Commands = Any
"""What argparse's `add_subparsers` returns; its class is private."""


TRAINER_COMMANDS = {
    "fit": "train a network; results are saved in runs/<config>/<n>",
    "validate": "evaluate a run's network on the validation images",
    "test": "evaluate a run's network on the test images",
    "predict": "write the predictions of a run's network for the test images",
}
"""The commands that LightningCLI parses, with their help."""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        if found := re.search(r"invalid choice: '([^']+)'", message):
            choices = re.findall(r"'?(\w+)'?[,)]", message.partition("choose from")[2])
            listed, argument = ", ".join(choices), message.removeprefix("argument ").partition(":")[0]
            start = (
                f"{found[1]}: there is no such command" if argument == "COMMAND" else f"{argument} is {found[1]}: there is no such value"
            )
            raise UsageError(f"{start}. {suggestion(found[1], choices, f'Choose one of {listed}.')}")
        if message.endswith("required: COMMAND"):
            choices = [name for action in self._actions if action.metavar == "COMMAND" for name in action.choices or ()]
            raise UsageError(f"{self.prog} needs a command: {', '.join(choices)}. Add one.")
        raise UsageError(f"{message}. `{self.prog} --help` shows the arguments.")


def runs(parser: argparse.ArgumentParser, command: Callable[..., Any], *, trains: bool = False) -> None:
    """Make a parser call a command's function with the parsed arguments, which have the same names.

    Args:
        parser: The command's parser.
        command: The function; it returns False if what it checked has a problem.
        trains: The command trains, so Lightning's log lines and warnings are reduced, too.
    """

    def run(options: argparse.Namespace) -> Any:
        return command(**{name: value for name, value in vars(options).items() if name not in ("run", "trains", "prog")})

    parser.set_defaults(run=run, trains=trains, prog=parser.prog)
