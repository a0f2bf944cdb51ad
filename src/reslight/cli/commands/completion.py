"""`reslight completion`: the script that has a shell complete reslight's commands, settings and names."""

from reslight.cli.parser import Commands, runs
from reslight.messages import MissingPackageError

SHELLS = ("bash", "zsh", "fish")


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = "print the script that has your shell complete commands, settings and names"
    more = (
        'For bash add the line eval "$(reslight completion bash)" to ~/.bashrc; for zsh the same with zsh to ~/.zshrc, behind compinit; '
        "for fish reslight completion fish | source to ~/.config/fish/config.fish. Needs argcomplete: pip install 'reslight[completion]'"
    )
    parser = commands.add_parser("completion", help=about, description=f"{about.capitalize()}. {more}")
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    runs(parser, completion)


def completion(shell: str) -> None:
    """Print the script for a shell.

    Raises:
        MissingPackageError: argcomplete is not installed.
    """
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise MissingPackageError("reslight completion needs argcomplete. Run pip install 'reslight[completion]'.") from error
    print(shellcode(["reslight"], shell=shell))
