"""Mixup and cutmix against a loop over images, and the distribution of what they draw."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import betaincinv
from scipy.stats import beta, binomtest

from reslight.data.augment.mixup import Mix, cut_box, mixture, quantile
from reslight.data.rng import Draw, integers, uniform

COUNT = 20_000


def a_batch(count=12, channels=3, height=8, width=10, classes=5):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, channels, height, width, generator=generator)
    return images, torch.randint(0, classes, (count,), generator=generator), torch.arange(count) * 5 + 2


def lookup(index, epoch, draw, high=None):
    index = torch.tensor(index)
    return uniform(4, epoch, index, draw).item() if high is None else int(integers(4, epoch, index, draw, high))


def slow(images, labels, indices, mix, classes, epoch):
    """Mix image by image, with slices for boxes."""
    out, targets = images.clone(), torch.zeros(len(images), classes)
    height, width = images.shape[-2:]
    for row, index in enumerate(indices.tolist()):
        partner, own = row + 1 if row % 2 == 0 else row - 1, 1.0
        if partner < len(images) and lookup(index, epoch, Draw.MIX) < mix.prob:
            is_cut = lookup(index, epoch, Draw.MIX_KIND, 2) == 1 if mix.mixup and mix.cutmix else bool(mix.cutmix)
            alpha = mix.cutmix if is_cut else mix.mixup
            own = betaincinv(alpha, alpha, lookup(index, epoch, Draw.MIX_LAMBDA) + 2**-25)
            if is_cut:
                y, x = lookup(index, epoch, Draw.MIX_Y, height), lookup(index, epoch, Draw.MIX_X, width)
                half = math.sqrt(1 - own) / 2
                top, bottom = max(y - int(half * height), 0), min(y + int(half * height), height)
                left, right = max(x - int(half * width), 0), min(x + int(half * width), width)
                out[row, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
                own = 1 - (bottom - top) * (right - left) / (height * width)
            else:
                out[row] = own * images[row] + (1 - own) * images[partner]
        targets[row, labels[row]] += own
        if own < 1:
            targets[row, labels[partner]] += 1 - own
    return out, targets


MIXES = [Mix(mixup=0.2), Mix(cutmix=1.0), Mix(mixup=0.8, cutmix=1.0), Mix(mixup=1.0, cutmix=0.5, prob=0.6)]


@pytest.mark.parametrize("mix", MIXES, ids=repr)
@pytest.mark.parametrize("count", [12, 13, 1])
@pytest.mark.parametrize("epoch", [0, 3])
def test_equals_slow_reference(mix, count, epoch):
    images, labels, indices = a_batch(count)
    before = images.clone(), labels.clone()
    got, targets = mix(images, labels, indices, num_classes=5, seed=4, epoch=epoch)
    expected, expected_targets = slow(images, labels, indices, mix, 5, epoch)
    # lambda is interpolated, to 1e-5, and pixels reach 4
    assert torch.allclose(got, expected, rtol=0, atol=1e-4)
    assert torch.allclose(targets, expected_targets, rtol=0, atol=1e-5)
    assert targets.dtype == torch.float32
    assert torch.equal(targets.sum(1), torch.ones(count))
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    if count % 2:
        assert torch.equal(got[-1], images[-1])


def test_mixture_by_hand():
    values = torch.tensor([[0.0, 4.0], [8.0, 0.0], [5.0, 6.0]])
    own = torch.tensor([[0.75], [0.5], [1.0]])
    assert mixture(values, own).tolist() == [[2.0, 3.0], [4.0, 2.0], [5.0, 6.0]]


def test_boxes_by_hand():
    # lambda 3/4: half a side of 8 x 16, around the middle, then clipped at the top and on the right
    own = torch.tensor([0.75, 0.75, 1.0, 0.0], dtype=torch.float64)
    box = cut_box(own, torch.tensor([4, 1, 4, 4]), torch.tensor([8, 15, 8, 8]), 8, 16)
    assert torch.stack(list(box), 1).tolist() == [[2, 4, 4, 8], [0, 11, 3, 5], [4, 8, 0, 0], [0, 0, 8, 16]]


@pytest.mark.parametrize("size", [(16, 16), (7, 11)])
def test_labels_say_how_much_of_each_image_there_is(size):
    # an image's pixels are its label, so that what is in a mixture can be counted
    labels = torch.arange(64)
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 3, *size).contiguous()
    got, targets = Mix(cutmix=1.0)(images, labels, labels, num_classes=64, seed=1, epoch=0)
    for row in range(64):
        counts = torch.bincount(got[row, 0].flatten().long(), minlength=64)
        own = (counts[row].double() / (size[0] * size[1])).float()
        assert targets[row, row] == own
        assert targets[row, row ^ 1] == 1 - own
        assert counts[row] + counts[row ^ 1] == size[0] * size[1]
        assert torch.equal(got[row, 0], got[row, 2])
    assert 0.2 < targets.diagonal().mean() < 0.9
    mixed, weights = Mix(mixup=1.0)(images, labels, labels, num_classes=64, seed=1, epoch=0)
    assert torch.allclose(mixed[:, 0, 0, 0], weights @ labels.float(), rtol=1e-6)


@pytest.mark.parametrize("mix", MIXES, ids=repr)
def test_even_parts_of_a_batch_are_mixed_alike(mix):
    images, labels, indices = a_batch(22, height=7, width=9)
    whole = mix(images, labels, indices, num_classes=5, seed=1, epoch=1)
    for size in (2, 6):
        parts = [
            mix(images[i : i + size], labels[i : i + size], indices[i : i + size], num_classes=5, seed=1, epoch=1)
            for i in range(0, 22, size)
        ]
        for got, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(got), expected)


@pytest.mark.parametrize("mix", MIXES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_memory_format_are_kept(mix, dtype, memory_format):
    images, labels, indices = a_batch()
    given = images.to(dtype).contiguous(memory_format=memory_format)
    got, targets = mix(given, labels, indices, num_classes=5, seed=1, epoch=1)
    assert got.dtype == dtype
    assert targets.dtype == torch.float32
    assert got.is_contiguous(memory_format=memory_format)
    # rounded once, at the end
    expected, _ = mix(given.float(), labels, indices, num_classes=5, seed=1, epoch=1)
    assert torch.equal(got, expected.to(dtype))


def test_double_precision_stays_double():
    values = torch.tensor([[1 / 3], [1 / 7]], dtype=torch.float64)
    assert mixture(values, torch.tensor([[0.75], [0.25]])).flatten().tolist() == pytest.approx([2 / 7, 2 / 7], rel=1e-15)


@pytest.mark.parametrize(
    ("mix", "epoch", "is_on"),
    [
        (Mix(), 0, False),
        (Mix(prob=0.5), 0, False),
        (Mix(mixup=0.2, prob=0.0), 0, False),
        (Mix(mixup=0.2), 500, True),
        (Mix(cutmix=0.2, until_epoch=3), 2, True),
        (Mix(cutmix=0.2, until_epoch=3), 3, False),
        (Mix(cutmix=0.2, until_epoch=0), 0, False),
    ],
)
def test_on_and_off(mix, epoch, is_on):
    images, labels, indices = a_batch()
    assert mix.is_on(epoch) == is_on
    got, targets = mix(images, labels, indices, num_classes=5, seed=1, epoch=epoch)
    if is_on:
        assert targets.shape == (12, 5)
    else:
        assert got is images
        assert targets is labels


def test_share_and_kind():
    # of one bright and one dark image, cutmix leaves nothing in between
    labels = torch.arange(COUNT) % 2
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    mix = Mix(mixup=1.0, cutmix=1.0, prob=0.4)
    got, _ = mix(images, labels, torch.arange(COUNT), num_classes=2, seed=1, epoch=0)
    is_blended = ((got > 0) & (got < 1)).flatten(1).any(1)
    is_cut = (got != images).flatten(1).any(1) & ~is_blended
    assert binomtest(int(is_blended.sum()), COUNT, 0.2).pvalue > 1e-3
    # small boxes have no pixel of 8 x 8: lambda above 1 - 1/16 halves to a box without rows
    assert binomtest(int(is_cut.sum()), COUNT, 0.2 * 15 / 16).pvalue > 1e-3
    assert (is_blended[::2] != is_blended[1::2]).any()  # each of two has draws of its own


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 1.0, 2.0, 50.0])
def test_quantile_is_exact_enough_and_distributed_as_beta(alpha):
    steps = torch.cat([torch.arange(0, 2**24, 9973), torch.tensor([1, 2, 2**24 - 2, 2**24 - 1])])
    u = steps.double() / 2**24
    assert np.abs(quantile(u, alpha).numpy() - betaincinv(alpha, alpha, u.numpy() + 2**-25)).max() < 1e-5
    own = quantile(uniform(1, 0, torch.arange(COUNT), Draw.MIX_LAMBDA).double(), alpha).numpy()
    assert own.min() >= 0
    assert own.max() <= 1
    # Kolmogorov and Smirnov's statistic, at p = 0.001. Not nearer to 0 and 1 than lambda is exact: much of Beta(0.01, 0.01) lies there
    places = np.linspace(1e-5, 1 - 1e-5, 20_001)
    below = np.searchsorted(np.sort(own), places, side="right") / COUNT
    assert np.abs(below - beta.cdf(places, alpha, alpha)).max() < 1.95 / math.sqrt(COUNT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": -0.1}, r"mix.mixup is -0.1: it must be 0 \(off\) or more, and finite"),
        ({"cutmix": math.inf}, "mix.cutmix is inf: it must be 0"),
        ({"cutmix": math.nan}, "mix.cutmix is nan: it must be 0"),
        ({"prob": 1.2}, "mix.prob is 1.2: it must be 0 to 1"),
        ({"until_epoch": -1}, "mix.until_epoch is -1: it must be 0 or more"),
    ],
)
def test_bad_fields(settings, message):
    with pytest.raises(ValueError, match=message):
        Mix(**settings)


def test_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Mix().prob = 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_mixes_alike():
    images, labels, indices = a_batch()
    mix = Mix(mixup=0.8, cutmix=1.0)
    expected = mix(images, labels, indices, num_classes=5, seed=1, epoch=1)
    got = mix(images.cuda(), labels.cuda(), indices.cuda(), num_classes=5, seed=1, epoch=1)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one.cpu(), other)


def test_several_labels_are_mixed_by_hand():
    """Each image keeps its share of its own labels, and gets the rest of its partner's; the last of three has no partner."""
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    images, indices = torch.zeros(3, 1, 2, 2), torch.tensor([4, 9, 2])
    _, one = Mix(mixup=1.0)(images, torch.tensor([0, 1, 2]), indices, num_classes=3, seed=3, epoch=1)
    _, mixed = Mix(mixup=1.0)(images, labels, indices, num_classes=3, seed=3, epoch=1)
    first, second = float(one[0, 0]), float(one[1, 1])  # the shares of the images themselves
    assert mixed.tolist() == [pytest.approx([first, 1.0, 0.0]), pytest.approx([1 - second, 1.0, 0.0]), [1.0, 0.0, 1.0]]
    assert 0 < first < 1
