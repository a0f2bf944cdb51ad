"""`reslight models`: the architectures."""

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table
from reslight.messages import UsageError


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    parser = commands.add_parser("models", help="list architectures with their parameters and MACs")
    parser.add_argument("pattern", nargs="?", default="*", help="names with wildcards, such as 'resnet*_cifar'")
    runs(parser, models)


def models(pattern: str = "*") -> None:
    """Print the architectures whose names match, with their size, their cost and where they come from.

    Raises:
        ValueError: None matches.
    """
    from reslight.models import SOURCES, VARIANTS, cost_of, list_models

    names = list_models(pattern)
    if not names:
        raise UsageError(f"no architecture matches {pattern!r}; `reslight models` lists all, and * stands for any letters")
    rows = []
    for name in names:
        config = VARIANTS[name]
        cost = cost_of(config)
        rows.append([name, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f}", f"{config.input_size}", SOURCES[name]])
    print(table(["name", "parameters", "MACs (M)", "at", "source"], rows))
