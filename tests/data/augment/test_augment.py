"""Each augmentation against a slow one that goes image by image and pixel by pixel."""

import dataclasses
import math

import pytest
import torch

from reslight.data.augment.augment import Augment, crop, cutout, flip
from reslight.data.augment.randaugment import randaugment, trivialaugment
from reslight.data.rng import Draw, integers

SHAPE = (11, 3, 8, 6)
FILL = (10, 20, 30)


def some_images(shape=SHAPE):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def drawn(index, epoch, draw, high, seed=4):
    return int(integers(seed, epoch, torch.tensor([index]), draw, high))


def mirrored(place, length):
    """Return the place inside the image whose pixel a place around it reflects."""
    place = abs(place)
    return place if place < length else 2 * (length - 1) - place


def slow_image(image, index, epoch, augment):
    """Augment one image, pixel by pixel."""
    channels, height, width = image.shape
    fill = augment.fill if isinstance(augment.fill, tuple) else (augment.fill,) * channels
    is_flipped = {
        "none": False,
        "random": drawn(index, epoch, Draw.FLIP, 2) == 1,
        "alternating": (drawn(index, 0, Draw.FLIP_START, 2) + epoch) % 2 == 1,
    }[augment.flip]
    down = drawn(index, epoch, Draw.CROP_Y, 2 * augment.pad + 1) - augment.pad if augment.pad else 0
    right = drawn(index, epoch, Draw.CROP_X, 2 * augment.pad + 1) - augment.pad if augment.pad else 0
    center = drawn(index, epoch, Draw.CUTOUT_Y, height), drawn(index, epoch, Draw.CUTOUT_X, width)
    out = torch.empty_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + down, x + right
                if augment.pad_mode == "reflect":
                    from_y, from_x = mirrored(from_y, height), mirrored(from_x, width)
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[c, y, x] = image[c, from_y, width - 1 - from_x if is_flipped else from_x]
                else:
                    out[c, y, x] = fill[c]
                half = augment.cutout // 2
                corner = center[0] - half, center[1] - half
                if 0 <= y - corner[0] < augment.cutout and 0 <= x - corner[1] < augment.cutout:
                    out[c, y, x] = fill[c]
    return out


@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(pad=1),
        Augment(pad=4, fill=FILL),
        Augment(pad=3, pad_mode="reflect"),
        Augment(flip="random"),
        Augment(flip="alternating"),
        Augment(cutout=1),
        Augment(cutout=3, fill=FILL),
        Augment(cutout=4, fill=7),
        Augment(pad=2, pad_mode="reflect", flip="alternating", cutout=2, fill=FILL),
        Augment(pad=9, flip="random", cutout=5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_equals_slow_reference(augment, epoch):
    images, indices = some_images(), torch.arange(11) * 7 + 3
    before = images.clone()
    got = augment(images, indices, seed=4, epoch=epoch)
    assert got.dtype == torch.uint8
    assert torch.equal(images, before)
    for row, (image, index) in enumerate(zip(images, indices.tolist(), strict=True)):
        assert torch.equal(got[row], slow_image(image, index, epoch, augment)), row


EVERYTHING = Augment(pad=2, flip="random", cutout=3, fill=FILL, policy="randaugment", magnitude_std=3.0, pca=0.1, random_erasing=0.5)


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_the_order_is_as_documented(policy):
    images, indices = some_images((60, 3, 8, 6)), torch.arange(60)
    together = dataclasses.replace(EVERYTHING, policy=policy)
    parts = [
        Augment(flip="random"),
        Augment(pad=2, fill=FILL),
        Augment(policy=policy, magnitude_std=3.0, fill=FILL),
        Augment(pca=0.1),
        Augment(random_erasing=0.5, fill=FILL),
        Augment(cutout=3, fill=FILL),
    ]
    one_by_one = images
    for part in parts:
        one_by_one = part(one_by_one, indices, seed=1, epoch=1)
    assert torch.equal(together(images, indices, seed=1, epoch=1), one_by_one)


def test_settings_reach_the_policy():
    images, indices = some_images(), torch.arange(11)
    rand = randaugment(images, indices, ops=3, magnitude=20.0, magnitude_std=1.5, fill=FILL, seed=1, epoch=2)
    augment = Augment(policy="randaugment", policy_ops=3, magnitude=20.0, magnitude_std=1.5, fill=FILL)
    assert torch.equal(augment(images, indices, seed=1, epoch=2), rand)
    trivial = trivialaugment(images, indices, fill=(7,), seed=1, epoch=2)
    assert torch.equal(Augment(policy="trivialaugment", fill=7)(images, indices, seed=1, epoch=2), trivial)


@pytest.mark.parametrize(
    "augment", [Augment(pad=2, flip="random", cutout=3), EVERYTHING, dataclasses.replace(EVERYTHING, policy="trivialaugment")]
)
def test_batches_cut_up_differently_are_augmented_alike(augment):
    images, indices = some_images(), torch.arange(11)
    whole = augment(images, indices, seed=1, epoch=1)
    parts = [augment(images[i : i + 4], indices[i : i + 4], seed=1, epoch=1) for i in range(0, 11, 4)]
    assert torch.equal(torch.cat(parts), whole)
    alone = [augment(images[i : i + 1], indices[i : i + 1], seed=1, epoch=1) for i in range(11)]
    assert torch.equal(torch.cat(alone), whole)
    backwards = augment(images.flip(0), indices.flip(0), seed=1, epoch=1)
    assert torch.equal(backwards.flip(0), whole)


def test_non_contiguous_images_are_welcome():
    images, indices = some_images(), torch.arange(11)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    for augment in (Augment(pad=2, flip="random"), dataclasses.replace(EVERYTHING, pad=0, flip="none")):
        expected = augment(images, indices, seed=1, epoch=1)
        assert torch.equal(augment(channels_last, indices, seed=1, epoch=1), expected)
    assert torch.equal(crop(channels_last, indices % 2, indices % 3, 5, 3), crop(images, indices % 2, indices % 3, 5, 3))


def test_crops_and_flips_are_spread_evenly_and_independently():
    # the position of a single bright pixel tells flip and offsets
    images = torch.zeros(20_000, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 2] = 255
    out = Augment(pad=2, flip="random")(images, torch.arange(20_000), seed=0, epoch=0)
    places = out.flatten(1).argmax(1)
    y, x = places // 9, places % 9
    # rows 2 to 6; columns 0 to 4 unflipped and 4 to 8 flipped, so that column 4 comes from both
    rows = torch.bincount(y, minlength=9)[2:7] / 20_000
    columns = torch.bincount(x, minlength=9) / 20_000
    assert (rows - 0.2).abs().max() < 0.015
    assert (columns - torch.tensor([0.1] * 4 + [0.2] + [0.1] * 4)).abs().max() < 0.015
    joint = torch.bincount(y * 9 + x, minlength=81).view(9, 9)[2:7] / 20_000
    assert (joint - 0.2 * columns).abs().max() < 0.01


def test_alternating_flip_shows_both_sides_in_any_two_epochs():
    images, indices = some_images((1000, 1, 1, 2)), torch.arange(1000)
    augment = Augment(flip="alternating")
    epochs = [augment(images, indices, seed=3, epoch=epoch) for epoch in range(4)]
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert torch.equal(epochs[0].flip(-1), epochs[1])
    is_flipped = (epochs[0] != images).flatten(1).any(1)
    assert abs(is_flipped.float().mean() - 0.5) < 0.06


def test_cutout_center_reaches_every_pixel_and_is_clipped_at_the_edge():
    images = torch.full((5000, 1, 4, 4), 255, dtype=torch.uint8)
    out = Augment(cutout=1)(images, torch.arange(5000), seed=0, epoch=0)
    counts = (out == 0).sum(0).flatten() / 5000
    assert (counts - 1 / 16).abs().max() < 0.02
    corner = cutout(images[:1], torch.tensor([0]), torch.tensor([3]), 2, (0,))
    assert (corner == 0).sum() == 2


def test_kernels():
    images = some_images((2, 1, 2, 3))
    assert torch.equal(flip(images, torch.tensor([0, 1]))[0], images[0])
    assert torch.equal(flip(images, torch.tensor([0, 1]))[1], images[1].flip(-1))
    assert torch.equal(crop(images, torch.tensor([0, 1]), torch.tensor([1, 0]), 1, 2)[0], images[0, :, 0:1, 1:3])
    assert torch.equal(crop(images, torch.tensor([0, 1]), torch.tensor([1, 0]), 1, 2)[1], images[1, :, 1:2, 0:2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad": -1}, r"augment.pad is -1: it must be 0 \(off\) or more pixels"),
        ({"cutout": -3}, "augment.cutout is -3"),
        ({"pad_mode": "edge"}, "augment.pad_mode is 'edge': it must be one of constant, reflect"),
        ({"flip": "yes"}, "augment.flip is 'yes': it must be one of none, random, alternating"),
        ({"policy": "autoaugment"}, "augment.policy is 'autoaugment': it must be one of none, randaugment, trivialaugment"),
        ({"policy_ops": 0}, "augment.policy_ops is 0: it must be 1 or more"),
        ({"magnitude": 30.5}, "augment.magnitude is 30.5: it must be 0 to 30"),
        ({"magnitude": math.nan}, "augment.magnitude is nan: it must be 0 to 30"),
        ({"magnitude_std": -1.0}, r"augment.magnitude_std is -1.0: it must be 0 \(off\) or more, and finite"),
        ({"pca": math.inf}, "augment.pca is inf: it must be 0"),
        ({"random_erasing": 1.1}, "augment.random_erasing is 1.1: it must be 0 to 1"),
        ({"fill": 256}, "augment.fill is 256: it must be 0 to 255"),
        ({"fill": (0, -1, 0)}, r"augment.fill is \(0, -1, 0\): it must be 0 to 255"),
    ],
)
def test_bad_fields(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment(**settings)


def test_bad_for_these_images():
    for mode in ("constant", "reflect"):
        with pytest.raises(ValueError, match=r"augment.pad is 8: images have 8 x 8 pixels. Use 7 or less"):
            Augment(pad=8, pad_mode=mode).check(channels=3, shape=(8, 8))
    with pytest.raises(ValueError, match=r"augment.cutout is 9: images have 8 x 8 pixels. Use 8 or less"):
        Augment(cutout=9).check(channels=3, shape=(8, 8))
    Augment(pad=7, cutout=8).check(channels=3, shape=(8, 8))
    with pytest.raises(ValueError, match=r"augment.fill is \(1, 2, 3\): .*1 value, or 2"):
        Augment(fill=(1, 2, 3)).check(channels=2, shape=(8, 8))
    with pytest.raises(ValueError, match=r"augment.policy is randaugment: .*1 or 3 channels, not 2. Use none"):
        Augment(policy="randaugment").check(channels=2, shape=(8, 8))
    with pytest.raises(ValueError, match=r"augment.pca is 0.1: .*3 channels, not 1. Use 0"):
        Augment(pca=0.1).check(channels=1, shape=(8, 8))
    Augment(pad=7, fill=(1, 2, 3), policy="trivialaugment", pca=0.1).check(channels=3, shape=(8, 8))
    Augment(policy="trivialaugment", random_erasing=0.5).check(channels=1, shape=(8, 8))


def test_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Augment().pad = 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_same_pixels():
    augment = Augment(pad=2, pad_mode="reflect", flip="random", cutout=3, fill=FILL)
    images, indices = some_images(), torch.arange(11)
    on_gpu = augment(images.cuda(), indices.cuda(), seed=1, epoch=1)
    assert torch.equal(on_gpu.cpu(), augment(images, indices, seed=1, epoch=1))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_16_bits_are_augmented_as_8(memory_format):
    few = torch.randint(0, 256, (6, 4, 10, 14), dtype=torch.uint8).contiguous(memory_format=memory_format)
    deep, indices = (few.int() * 257).to(torch.uint16), torch.arange(6)
    for augment in (
        Augment(flip="random", fill=(200, 3, 4, 255), cutout=7, random_erasing=0.9),
        Augment(pad=3, fill=255),
        Augment(pad=3, pad_mode="reflect", flip="alternating"),
    ):
        expected, got = (augment(images.contiguous(), indices, seed=1, epoch=2) for images in (few, deep))
        assert got.dtype == torch.uint16
        assert torch.equal(expected.int() * 257, got.int())
    for settings in ({"policy": "randaugment"}, {"pca": 0.1}):
        with pytest.raises(ValueError, match=r"it needs values of 8 bits, not 16 \(preprocess.bits\). Use "):
            Augment(**settings).check(3, (8, 8), 16)
