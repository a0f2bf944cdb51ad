"""`reslight configs`: the configurations that come with reslight."""

from fnmatch import fnmatchcase

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table
from reslight.messages import UsageError, suggestion


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = "list the configurations that come with reslight, for --config"
    parser = commands.add_parser("configs", help=about, description=f"{about.capitalize()}.")
    parser.add_argument("pattern", nargs="?", default="*", help="names with wildcards, such as '*/modern', or a folder, such as imagenet")
    runs(parser, configs)


def configs(pattern: str = "*") -> None:
    """Print the names of the packaged configurations that match, what each is, where the files are and how to use one.

    Raises:
        UsageError: no name matches.
    """
    from reslight.runs.config_files import names, packaged, title

    found = [name for name in names() if fnmatchcase(name, pattern) or name.startswith(f"{pattern}/")]
    if not found:
        fix = suggestion(pattern, names(), "Use * as a wildcard; `reslight configs` lists all.", count=3)
        raise UsageError(f"PATTERN is {pattern}: no configuration has such a name. {fix}")
    print(table(["name", "what it is"], [[name, title(name)] for name in found]))
    print("\nuse    reslight fit --config NAME [--model.net NET] [--config overlays/NAME]")
    print(f"files  {packaged()} (the comments in them list sources, networks and published accuracies)")
