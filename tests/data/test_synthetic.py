"""Generated images: of any kind asked for, the same everywhere, and learnable."""

import pytest
import torch

from reslight.data import Synthetic, SyntheticImages
from reslight.data.synthetic import _random_bytes


def loaded(images, **settings):
    data = Synthetic(images, **settings)
    data.setup()
    return data.splits


@pytest.mark.parametrize(("size", "channels", "classes"), [(8, 1, 2), (9, 3, 10), (32, 3, 100), (5, 2, 3), (3, 4, 4)])
def test_any_shape(size, channels, classes):
    data = Synthetic(SyntheticImages(size, channels, classes, 210, 50), val_size=40)
    data.setup()
    assert (data.image_size, data.in_channels, data.num_classes) == (size, channels, classes)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 170, "val": 40, "test": 50}
    for split in data.splits.values():
        assert split.images.shape[1:] == (channels, size, size)
        assert split.labels.max() < classes


def test_golden():
    splits = loaded(SyntheticImages(8, 3, 4, 20, 6), val_size=0)
    assert splits["train"].fingerprint == "e668168f1456d8e51c1462fbfaa0ee01edb8fcb408284daa1066b408b5544249"
    assert splits["test"].fingerprint == "47be1a1cf2e53e11a41a268adf7d366af94a1a1ede07f5b2f83815d4e0045faa"


def test_classes_are_balanced_and_images_distinct():
    splits = loaded(SyntheticImages(num_classes=7, train_size=300, test_size=70), val_size=0)
    assert torch.bincount(splits["train"].labels).tolist() == [43] * 6 + [42]
    assert torch.bincount(splits["test"].labels).tolist() == [10] * 7
    keys = torch.cat([split.keys for split in splits.values()])
    assert len(keys.unique(dim=0)) == 370


@pytest.mark.parametrize(("size", "channels", "classes"), [(8, 1, 10), (32, 3, 100), (8, 3, 500)])
def test_learnable_by_the_nearest_class_mean(size, channels, classes):
    splits = loaded(SyntheticImages(size, channels, classes, 4 * classes, classes), val_size=0)
    train, test = splits["train"], splits["test"]
    means = torch.stack([train.images[train.labels == c].float().mean(0).flatten() for c in range(classes)])
    answers = torch.cdist(test.images.flatten(1).float(), means).argmin(1)
    assert (answers == test.labels).float().mean() > 0.99


def test_random_bytes_do_not_depend_on_who_asks_with_whom():
    both = _random_bytes(torch.tensor([4, 9]), 13, 10)
    assert both.shape == (2, 13)
    assert torch.equal(both[1:], _random_bytes(torch.tensor([9]), 13, 10))
    values = _random_bytes(torch.arange(1000), 100, 10).flatten().long()
    assert (torch.bincount(values, minlength=256) / 100_000 - 1 / 256).abs().max() < 0.001


@pytest.mark.parametrize("field", ["size", "in_channels", "num_classes", "train_size", "test_size"])
def test_bad_fields(field):
    with pytest.raises(ValueError, match=rf"data.images.{field} is 0: .*1 or more"):
        SyntheticImages(**{field: 0})
