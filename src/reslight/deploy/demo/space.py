"""Write and publish a Space of the Hugging Face Hub: the demo's page with the weights beside it."""

import os
import re
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import yaml

from reslight.hub.client import client, with_retries
from reslight.hub.commit import changed_files, commit_files, head_of, repository_info, size_of
from reslight.hub.repo import Repository
from reslight.messages import MissingPackageError, UsageError
from reslight.version import __version__
from reslight.weights.folder import CARD, CONFIG, GOLDEN, MODEL, check_folder

_APP = '''"""Classify images with the weights beside this file. JPEG, PNG and WebP images in examples/ are offered to choose from."""

from pathlib import Path

import reslight
from reslight.deploy.demo.page import launch, make_page

HERE = Path(__file__).parent
examples = sorted(path for path in (HERE / "examples").glob("[!.]*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
page = make_page(reslight.load(HERE / "weights"), {title!r}, examples)

if __name__ == "__main__":
    launch(page)
    page.block_thread()
'''
_ABOUT = """
# {title}

A page that classifies images, and shows where in an image the network found its class (Grad-CAM). The weights are in `weights/`; to offer
images to choose from, put them into `examples/`. `reslight push --space` wrote these files, and replaces them when it runs again.
"""
_CPU = "--extra-index-url https://download.pytorch.org/whl/cpu"
"""Where pip finds builds of torch without CUDA, which are a tenth of the size; pip prefers them to those of the same version on PyPI."""


def space_files(folder: str | os.PathLike[str], title: str) -> dict[str, bytes | Path]:
    """Return the files of a Space, by their paths in it.

    Args:
        folder: The folder of weights that `reslight export` or `save` wrote.
        title: The heading of the page.

    Raises:
        MissingPackageError: a package of the demo is not installed, whose version is needed.
        UsageError: a damaged folder.
    """
    here = Path(folder)
    record = check_folder(here)
    front = {
        "title": title,
        "emoji": "\N{FRAME WITH PICTURE}",
        "colorFrom": "indigo",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": _version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",  # the Hub's own choice is older than these packages need
        "app_file": "app.py",
        "license": record.license,
    }
    front = {key: value for key, value in front.items() if value}
    readme = f"---\n{yaml.safe_dump(front, allow_unicode=True, sort_keys=False)}---\n{_ABOUT.format(title=title)}"
    files: dict[str, bytes | Path] = {
        "README.md": readme.encode(),
        "app.py": _APP.format(title=title).encode(),
        "requirements.txt": "\n".join([_CPU, *requirements(), ""]).encode(),
    }
    return files | {f"weights/{name}": here / name for name in (MODEL, GOLDEN, CONFIG, CARD) if (here / name).exists()}


def requirements() -> list[str]:
    """Return reslight, the packages that it names, and gradio, with the versions that are installed here.

    Raises:
        MissingPackageError: a package is not installed.
    """
    named = {"gradio"}
    for line in requires("reslight") or ():
        if "extra ==" not in line and (name := re.match(r"[\w.-]+", line)):
            named.add(name[0])
    return [f"reslight[demo]=={__version__}", *(f"{name}=={_version(name)}" for name in sorted(named))]


def _version(name: str) -> str:
    """Return the installed version of a package, without what names its build, such as +cpu."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        raise MissingPackageError(
            f"a Space names the versions of its packages, and {name} is not installed: pip install 'reslight[demo]'"
        ) from None


def push_space(
    folder: str | os.PathLike[str], repository: str, *, private: bool | None = None, create_pr: bool = False, dry_run: bool = False
) -> list[str]:
    """Publish a Space as one commit.

    Args:
        folder: The folder of weights that `reslight export` or `save` wrote.
        repository: `OWNER/NAME` of the Space; created if it is missing.
        private: Whether a new Space is private; None for the owner's default.
        create_pr: Open a pull request instead of pushing to the branch.
        dry_run: Return what would be done, and do nothing.

    Returns:
        Lines that say what was done, and where the Space is.

    Raises:
        OSError: a request that failed; one line says why.
        UsageError: a damaged folder, a branch, or a pull request to a Space that does not exist.
    """
    where = Repository.parse(repository, "space")
    if where.revision:
        raise UsageError(f"{repository} names a branch: a Space runs what is on its branch main. Write {where.name}.")
    contents = space_files(folder, where.name.partition("/")[2])
    api = client()
    found = repository_info(api, where)
    if found and private and not found.private:
        raise UsageError(f"{where.name} is public: this Space would not be private. Make it private on the Hub, or use another name.")
    if not found and create_pr:
        raise UsageError(f"the Space {where.name} does not exist, so it cannot get a pull request. Push without one first.")
    head = head_of(api, where, "main") if found else None
    changed = changed_files(api, where, head, contents)
    if not changed:
        return [f"the Space {where.name} has the same files already, commit {head}"]
    lines = [f"{'send' if found else 'new '} {name}, {size_of(contents[name]):,} bytes" for name in changed]
    if distribution("reslight").read_text("direct_url.json"):  # pip writes it for folders and repositories, not for PyPI
        lines.append(f"note: requirements.txt names reslight {__version__}: the Space starts once this version is on PyPI")
    if dry_run:
        return [*lines, f"nothing was sent (dry run); the Space {where.name} {'exists' if found else 'would be created'}"]
    if not found:
        create = partial(api.create_repo, where.name, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        with_retries(create, f"creating the Space {where.name}", where)
        head = head_of(api, where, "main")
    commit, _ = commit_files(api, where, "main", head, contents, "Publish a demo with reslight", create_pr)
    return [*lines, f"done  {api.endpoint}/{where.path}, commit {commit}"]
