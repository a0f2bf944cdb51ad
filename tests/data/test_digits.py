"""The digits: which images, in which split, with which statistics."""

import pytest
import torch
from sklearn.datasets import load_digits

from reslight.data import Digits
from reslight.data.digits import PREPROCESS

FINGERPRINTS = {
    "train": "4485de33be30e9d81a2e6b0613844ff1fe7f82694b03773e2809442c49005656",
    "val": "f4f226c3872d4ec0b56e436790c132e8f3e8e273dee434af609df4e428516116",
    "test": "9cf4bb609197fb4e2ddaac7f38e4bc0abeb7103514d8d801093cf6b7d0d1f493",
}


@pytest.fixture(scope="module")
def splits():
    digits = Digits()
    digits.setup()
    return digits.splits


def test_fingerprints_golden(splits):
    assert {name: split.fingerprint for name, split in splits.items()} == FINGERPRINTS


def test_sizes_and_proportions(splits):
    assert {name: len(split) for name, split in splits.items()} == {"train": 1257, "val": 180, "test": 360}
    shares = torch.bincount(torch.from_numpy(load_digits().target)) / 1797
    for split in splits.values():
        assert split.images.shape[1:] == (1, 8, 8)
        assert (torch.bincount(split.labels) - shares * len(split)).abs().max() < 1.5


def test_splits_are_scikit_learns_images_once_each(splits):
    source = load_digits()
    expected = sorted((*image.flatten(), label) for image, label in zip(source.images, source.target, strict=True))
    got = []
    for split in splits.values():
        levels = (split.images.double() * 16 / 255).round()
        got += [(*image.flatten().tolist(), label) for image, label in zip(levels, split.labels.tolist(), strict=True)]
    assert sorted(got) == expected


def test_full_scale_is_used(splits):
    assert len(splits["train"].images.unique()) == 17
    assert splits["train"].images.max() == 255


def test_statistics_are_those_of_the_training_set():
    train = Digits(val_size=0).load_split("train")
    pixels = train.images.double() / 255
    assert len(train) == 1437
    assert pixels.mean().item() == pytest.approx(PREPROCESS.mean[0], abs=5e-5)
    assert pixels.std(correction=0).item() == pytest.approx(PREPROCESS.std[0], abs=5e-5)


def test_test_split_does_not_depend_on_val_size_or_seed(splits):
    other = Digits(val_size=0, seed=9)
    other.setup()
    assert other.splits["test"].fingerprint == FINGERPRINTS["test"]
    seen = {bytes(key.tolist()) for name in ("train", "val") for key in splits[name].keys}
    assert {bytes(key.tolist()) for key in other.splits["train"].keys} == seen


def test_known_before_loading():
    digits = Digits()
    assert (digits.num_classes, digits.in_channels, digits.image_size) == (10, 1, 8)
    assert digits.labels == tuple("0123456789")
    assert digits.splits == {}
