"""Canonical order, fingerprints, and stratified splits."""

import hashlib

import pytest
import torch

from reslight.data.loading.fingerprint import fingerprint, image_keys
from reslight.data.loading.split import Split, class_quotas, stratified_split
from reslight.data.rng import Draw, permutation


def some_images(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 4, 5), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 3


def test_keys_hash_the_bytes_in_height_width_channel_order():
    images, _ = some_images(3)
    for image, key in zip(images, image_keys(images), strict=True):
        pixels = bytes(int(image[c, y, x]) for y in range(4) for x in range(5) for c in range(3))
        assert bytes(key.tolist()) == hashlib.sha256(pixels).digest()


def test_any_source_order_gives_the_same_split():
    images, labels = some_images()
    split = Split.from_images(images, labels)
    keys = [bytes(key.tolist()) for key in split.keys]
    assert keys == sorted(keys)
    shuffled = torch.randperm(20)
    again = Split.from_images(images[shuffled], labels[shuffled])
    assert torch.equal(again.images, split.images)
    assert torch.equal(again.labels, split.labels)
    assert again.fingerprint == split.fingerprint


def test_ties_are_ordered_by_label():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    for labels in ([2, 0, 1], [0, 1, 2], [1, 2, 0]):
        assert Split.from_images(images, torch.tensor(labels)).labels.tolist() == [0, 1, 2]


def test_fingerprint_by_hand_and_sensitivity():
    images, labels = some_images(4)
    split = Split.from_images(images, labels)
    by_hand = hashlib.sha256()
    by_hand.update(b"".join(bytes(key.tolist()) for key in split.keys))
    by_hand.update(b"".join(int(label).to_bytes(8, "little") for label in split.labels))
    assert split.fingerprint == fingerprint(split.keys, split.labels) == by_hand.hexdigest()
    relabelled = Split.from_images(images, labels.flip(0))
    images[0, 0, 0, 0] ^= 1
    assert len({split.fingerprint, relabelled.fingerprint, Split.from_images(images, labels).fingerprint}) == 3


def test_fingerprint_golden():
    images = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2)
    split = Split.from_images(images, torch.tensor([0, 1]))
    assert split.fingerprint == "63c21772239a35d374646b790a1f55d6f046c13e446c7a2fad7314b4c8b87af8"


def test_take_and_batch():
    split = Split.from_images(*some_images())
    indices = torch.tensor([7, 2])
    batch = split.batch(indices)
    taken = split.subset(indices)
    for images, labels in ((batch.images, batch.labels), (taken.images, taken.labels)):
        assert torch.equal(images, split.images[indices])
        assert torch.equal(labels, split.labels[indices])
    assert torch.equal(batch.indices, indices)
    assert torch.equal(taken.keys, split.keys[indices])
    batch.images.zero_()
    assert split.images[7].any()  # a batch is a copy


def test_from_images_errors():
    images, labels = some_images()
    with pytest.raises(ValueError, match=r"images are torch.float32 \(20, 3, 4, 5\): .*torch.uint8 \(N, C, H, W\)"):
        Split.from_images(images.float(), labels)
    with pytest.raises(ValueError, match=r"labels are torch.int64 \(19,\): .*torch.int64 \(20,\)"):
        Split.from_images(images, labels[1:])


@pytest.mark.parametrize("size", [0, 1, 13, 50, 99, 100])
def test_stratified_split_is_a_partition_in_proportion(size):
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    kept, taken = stratified_split(labels, size, seed=0, draw=Draw.VAL_SPLIT)
    assert len(taken) == size
    assert torch.equal(torch.cat([kept, taken]).sort().values, torch.arange(100))
    assert torch.equal(taken, taken.sort().values)
    assert torch.equal(kept, kept.sort().values)
    for label, share in enumerate((0.5, 0.3, 0.2)):
        assert abs((labels[taken] == label).sum() - share * size) < 1


def test_stratified_split_depends_on_seed_and_draw_only():
    labels = torch.arange(100) % 4
    first = stratified_split(labels, 20, 0, Draw.VAL_SPLIT)[1]
    assert torch.equal(first, stratified_split(labels, 20, 0, Draw.VAL_SPLIT)[1])
    assert not torch.equal(first, stratified_split(labels, 20, 1, Draw.VAL_SPLIT)[1])
    assert not torch.equal(first, stratified_split(labels, 20, 0, Draw.TEST_SPLIT)[1])


@pytest.mark.parametrize(("images", "classes", "size"), [(1000, 7, 200), (999, 300, 100), (100, 99, 1)])
def test_stratified_split_takes_the_first_images_of_each_class_in_random_order(images, classes, size):
    labels = torch.randint(classes, (images,), generator=torch.Generator().manual_seed(images))
    order = permutation(images, 3, epoch=0, draw=Draw.VAL_SPLIT)
    quotas = class_quotas(torch.bincount(labels), size).tolist()
    expected = [order[labels[order] == number][:quota] for number, quota in enumerate(quotas)]
    assert torch.equal(stratified_split(labels, size, 3, Draw.VAL_SPLIT)[1], torch.cat(expected).sort().values)
