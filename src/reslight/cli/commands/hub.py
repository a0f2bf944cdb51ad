"""`reslight push` and `reslight pull`: upload weights to the Hugging Face Hub, and download them."""

from reslight.cli.parser import Commands, runs


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    parser = commands.add_parser("push", help="publish a folder of weights on the Hugging Face Hub, in one commit")
    parser.add_argument("folder", metavar="FOLDER", help="a folder that `reslight export` wrote")
    parser.add_argument("repository", metavar="OWNER/NAME[@BRANCH]", help="the repository; it is created if it is missing")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of a commit to the branch")
    parser.add_argument("--space", action="store_true", help="publish a Space that shows `reslight demo` with these weights")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be uploaded")
    runs(parser, push)
    parser = commands.add_parser("pull", help="download weights from the Hugging Face Hub into a folder, and check them")
    parser.add_argument("repository", metavar="OWNER/NAME[@REV]", help="the repository, at a branch, tag or commit (default: main)")
    parser.add_argument("output", metavar="OUT", help="the folder to write")
    runs(parser, pull)


def push(folder: str, repository: str, *, private: bool, create_pr: bool, dry_run: bool, space: bool) -> None:
    """Publish a folder of weights on the Hugging Face Hub, see `reslight.push`, or a Space that shows a demo of them."""
    from reslight.hub.client import hide_bars_without_tty

    if space:
        from reslight.deploy.demo.space import push_space as push
    else:
        from reslight.weights.push import push

    hide_bars_without_tty()
    print("\n".join(push(folder, repository, private=private or None, create_pr=create_pr, dry_run=dry_run)))


def pull(repository: str, output: str) -> None:
    """Download weights from the Hugging Face Hub into a folder, see `reslight.pull`."""
    from reslight.hub.client import hide_bars_without_tty
    from reslight.weights.pull import pull

    hide_bars_without_tty()
    print(f"written {pull(repository, output)}")
