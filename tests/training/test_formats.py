"""Runs with a checkpoint of each format that there has been: they are still evaluated, resumed and exported.

A folder of tests/fixtures is a run: `reslight fit --config config.yaml`, then `reslight test`, whose test.json is kept.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from reslight.training import ImageClassifier
from reslight.training.checkpoint_file import FORMAT, read_checkpoint
from reslight.training.resume import changed_settings

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMATS = sorted(path.name for path in FIXTURES.glob("format-*"))
CHECKPOINT = "checkpoints/last.ckpt"


@pytest.fixture(params=FORMATS)
def run(request, tmp_path) -> Path:
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / "runs" / request.param / "1"))


@pytest.fixture
def two_threads() -> Iterator[None]:
    """With one thread, torch 2.11 corrupts memory in the backward pass of this network's 1x1 convolution of 4 channels."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def edit(run: Path, hyper_parameters: dict[str, Any], data: dict[str, Any]) -> None:
    """Change the settings in a run's last.ckpt; `optim` is merged."""
    contents = torch.load(run / CHECKPOINT, weights_only=True)
    settings = contents["hyper_parameters"]
    settings |= hyper_parameters | {"optim": settings["optim"] | hyper_parameters.get("optim", {})}
    contents["reslight"]["data"] |= data
    torch.save(contents, run / CHECKPOINT)


def test_the_present_format_has_a_run():
    assert f"format-{FORMAT}" in FORMATS


def test_a_checkpoint_is_plain_data(run):
    saved = torch.load(run / CHECKPOINT, weights_only=True)
    assert f"format-{saved['reslight']['format']}" == run.parent.name
    assert {"reslight", "torch", "lightning", "device", "devices", "accumulation", "threads"} <= saved["reslight"]["environment"].keys()


def test_its_evaluation_is_unchanged(reslight, run):
    expected = json.loads((run / "test.json").read_text())
    answer = reslight("test", "--config", run)
    assert answer.code == 0, answer.err
    report = json.loads((run / "test.json").read_text())
    assert report["counts"] == pytest.approx(expected["counts"], rel=1e-4)
    assert report["confusion"] == expected["confusion"]


@pytest.mark.usefixtures("two_threads")
def test_it_resumes(reslight, run):
    answer = reslight("fit", "--config", run, "--ckpt_path", "last", "--trainer.max_epochs", 4)
    assert answer.code == 0, answer.err
    contents = torch.load(run / CHECKPOINT, weights_only=True)
    assert contents["global_step"] == 16
    # Its 66 images left the last ones of each order out, and not in turn.
    assert contents["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"images": 66, "batch_size": 16, "accumulation": 1}]
    assert "16; each epoch leaves out 2 images\n" in answer.out + answer.err


@pytest.mark.usefixtures("two_threads")
def test_a_checkpoint_with_old_names_of_settings_resumes_and_is_exported(reslight, run):
    data = {"repeats": 1, "augment": {"pad": 1, "flip": "random", "erase": 0.0}, "mix": {"share": 1.0}}
    edit(run, {"optim": {"body_lr": 1.0}}, data)
    answer = reslight("export", run, "exported")
    assert answer.code == 0, answer.err
    recipe = json.loads(Path("exported/config.json").read_text())["reslight"]["recipe"]
    assert recipe["optim"]["backbone_lr"] == 1.0
    assert recipe["repeated_augmentation"] == 1
    assert "body_lr" not in recipe["optim"]
    assert "repeats" not in recipe
    again = reslight("fit", "--config", run, "--ckpt_path", "last", "--trainer.max_epochs", 4)
    assert again.code == 0, again.err
    assert "when the checkpoint was written" not in again.err
    changed = [line for line in again.err.splitlines() if "it was" in line]
    assert len(changed) == 1
    assert "max_epochs is 4: it was 3" in changed[0]


def test_old_names_of_settings_are_those_of_today(run):
    edit(run, {"optim": {"body_lr": 0.5}, "freeze": "body"}, {})
    model = ImageClassifier.load_from_checkpoint(run / CHECKPOINT, weights_only=True, map_location="cpu")
    assert (model.optim.backbone_lr, model.hparams["freeze"]) == (0.5, "backbone")
    assert changed_settings(run / CHECKPOINT, read_checkpoint(run / CHECKPOINT), model.hparams) == []


def test_a_flipped_bit_is_found(reslight, run):
    path = run / CHECKPOINT
    contents = bytearray(path.read_bytes())
    with ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        contents[contents.index(archive.read(largest))] ^= 1
    path.write_bytes(contents)
    answer = reslight("test", "--config", run)
    assert answer.code == 2
    assert f"{path.relative_to(Path.cwd())} is damaged: the checksum of {largest.filename} is wrong" in answer.err
