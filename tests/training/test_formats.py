"""A run of each format of checkpoints that there has ever been: it is measured and goes on as on the day it was made.

A folder of tests/fixtures is a run: `reslight fit --config config.yaml`, then `reslight test`, whose test.json is kept.
"""

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from reslight.training.resume import FORMAT

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMATS = sorted(path.name for path in FIXTURES.glob("format-*"))


@pytest.fixture(params=FORMATS)
def run(request, tmp_path) -> Path:
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / "runs" / request.param / "1"))


def test_the_present_format_has_a_run():
    assert f"format-{FORMAT}" in FORMATS


def test_it_is_plain_data(run):
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert f"format-{saved['reslight']['format']}" == run.parent.name
    assert {"reslight", "torch", "lightning", "device", "devices", "accumulation", "threads"} <= saved["reslight"]["environment"].keys()


def test_it_answers_as_it_did(reslight, run):
    expected = json.loads((run / "test.json").read_text())
    answer = reslight("test", "--config", run)
    assert answer.code == 0, answer.err
    report = json.loads((run / "test.json").read_text())
    assert report["counts"] == pytest.approx(expected["counts"], rel=1e-4)
    assert report["confusion"] == expected["confusion"]


def test_it_goes_on(reslight, run):
    answer = reslight("fit", "--config", run, "--ckpt_path", "last", "--trainer.max_epochs", 4)
    assert answer.code == 0, answer.err
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 16


def test_a_flipped_bit_is_found(reslight, run):
    path = run / "checkpoints/last.ckpt"
    contents = bytearray(path.read_bytes())
    with ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        contents[contents.index(archive.read(largest))] ^= 1
    path.write_bytes(contents)
    answer = reslight("test", "--config", run)
    assert answer.code == 2
    assert f"{path.relative_to(Path.cwd())} is damaged: the checksum of {largest.filename} is wrong" in answer.err
