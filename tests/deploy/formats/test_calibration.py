"""The images that int8 is calibrated with are those of the training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from reslight.deploy.formats.calibration import calibration_images
from reslight.deploy.formats.sources import load_to_export
from reslight.messages import UsageError
from reslight.weights import Record


@pytest.fixture(scope="module")
def record() -> Record:
    """Of a network of class folders, whose training left out two images."""
    _, found, _ = load_to_export("resnet20.cifar10")
    return replace(found, data={"name": "photos", "kind": "Folder", "val_size": 2})


def folder_of(root: Path, classes: Sequence[str], images: int) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (40, 32), (number, 0, 0)).save(root / name / f"{number}.png")
    return root


def test_images_of_the_training_split_are_taken(record: Record, tmp_path: Path):
    assert record.labels is not None
    batches = calibration_images(record, str(folder_of(tmp_path, record.labels, 2)), None, 512)
    assert sum(len(batch) for batch in batches) == 18  # 20 less the two that training left out
    assert {(*batch.shape[1:], batch.dtype) for batch in batches} == {(32, 40, 3, torch.uint8)}


@pytest.mark.parametrize("option", ["--calibrate", "--data"])
def test_other_images_are_refused(record: Record, tmp_path: Path, option: str):
    other, few = folder_of(tmp_path / "other", ("apple", "pear"), 2), folder_of(tmp_path / "few", ("cat", "dog"), 1)
    for root, message in (
        (other, "its classes are apple, pear, and the network knows airplane, automobile, bird and 7 more. "),
        (few, "training left out 2 images, and it has no more than these. "),
    ):
        with pytest.raises(UsageError) as caught:
            calibration_images(record, str(root), None, 512, option)
        assert str(caught.value) == f"{option} is {root}: {message}Give the dataset of the training."
