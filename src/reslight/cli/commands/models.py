"""`reslight models`: list the architectures."""

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table
from reslight.messages import UsageError


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    parser = commands.add_parser("models", help="list the architectures with their parameters and multiply-adds (MACs)")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names with wildcards, such as 'resnet*_cifar'")
    runs(parser, models)


def models(pattern: str = "*") -> None:
    """Print the architectures whose names match, with their parameters, multiply-adds, input size and source.

    Args:
        pattern: A name with shell wildcards.

    Raises:
        UsageError: a pattern that matches no name.
    """
    from reslight.models import SOURCES, VARIANTS, cost_of, list_models

    names = list_models(pattern)
    if not names:
        raise UsageError(f"PATTERN is {pattern}: no architecture has such a name. Use * as a wildcard; `reslight models` lists all.")
    rows = []
    for name in names:
        config = VARIANTS[name]
        cost = cost_of(config)
        rows.append([name, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f}", f"{config.input_size}", SOURCES[name]])
    print(table(["name", "parameters", "MACs (M)", "at", "source"], rows))
