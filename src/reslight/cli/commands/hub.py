"""`reslight push` and `reslight pull`."""

from reslight.cli.parser import Commands, runs


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    parser = commands.add_parser("push", help="publish a folder of weights on the Hugging Face Hub, as one commit or not at all")
    parser.add_argument("folder", metavar="FOLDER", help="what `reslight export` wrote")
    parser.add_argument("repository", metavar="OWNER/NAME[@BRANCH]", help="where to; it is made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it a private one")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request in place of a commit")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    runs(parser, push)
    parser = commands.add_parser("pull", help="copy weights from the Hugging Face Hub into a folder, checked")
    parser.add_argument("repository", metavar="OWNER/NAME[@REV]", help="a branch, a tag or a commit of it; main if left out")
    parser.add_argument("output", metavar="OUT", help="the folder to write")
    runs(parser, pull)


def push(folder: str, repository: str, *, private: bool, create_pr: bool, dry_run: bool) -> None:
    """Publish a folder on the Hugging Face Hub, see `reslight.push`."""
    from reslight.hub.client import hide_bars_without_tty
    from reslight.weights.push import push

    hide_bars_without_tty()
    print("\n".join(push(folder, repository, private=private or None, create_pr=create_pr, dry_run=dry_run)))


def pull(repository: str, output: str) -> None:
    """Copy weights from the Hugging Face Hub into a folder, see `reslight.pull`."""
    from reslight.hub.client import hide_bars_without_tty
    from reslight.weights.pull import pull

    hide_bars_without_tty()
    print(f"written {pull(repository, output)}")
