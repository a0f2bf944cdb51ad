"""The hash is splitmix64 to the bit, and its numbers look random in every direction in which they are used."""

import itertools
import math

import pytest
import torch

from reslight.data.rng import Draw, bits, integers, permutation, uniform

WORD = 2**64
COUNT = 100_000


class SplitMix64:
    """The generator as published, with state and one output at a time."""

    def __init__(self, seed):
        self.state = seed % WORD

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % WORD
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        return z ^ (z >> 31)

    def nth(self, n):
        generator = SplitMix64(self.state)
        return [generator.next() for _ in range(n + 1)][-1]


def scalar_bits(seed, epoch, index, draw):
    epoch_key = SplitMix64(seed).nth(epoch)
    word = SplitMix64(SplitMix64(epoch_key).nth(draw)).nth(index)
    return word - WORD if word >= WORD // 2 else word


def test_reference_gives_the_published_vectors():
    generator = SplitMix64(1234567)
    assert [generator.next() for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert SplitMix64(0).next() == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5, -7])
@pytest.mark.parametrize("epoch", [0, 1, 163])
def test_equals_scalar_reference(seed, epoch):
    index = torch.arange(40)
    for draw in (Draw.ORDER, Draw.FLIP, Draw.NOISE):
        assert bits(seed, epoch, index, draw).tolist() == [scalar_bits(seed, epoch, i, draw) for i in range(40)]


def test_large_indices_wrap_as_64_bit_words():
    index = 2**62 + 12345
    key = SplitMix64(SplitMix64(SplitMix64(3).nth(1)).nth(Draw.FLIP)).state
    shifted = SplitMix64(key + index * 0x9E3779B97F4A7C15).next()
    assert bits(3, 1, torch.tensor([index]), Draw.FLIP).item() % WORD == shifted


def test_golden_order():
    order = sorted(range(10), key=lambda index: scalar_bits(1, 0, index, Draw.ORDER))
    assert permutation(10, seed=1, epoch=0).tolist() == order == [0, 3, 6, 5, 1, 9, 8, 7, 4, 2]


def test_shapes_and_several_draws_in_one_pass():
    index = torch.arange(6).view(2, 3)
    draws = [Draw.FLIP, Draw.CROP_Y]
    both = bits(1, 2, index, draws)
    assert both.shape == (2, 2, 3)
    for row, draw in zip(both, draws, strict=True):
        assert torch.equal(row, bits(1, 2, index, draw))
    numbers = integers(1, 2, index, draws, (2, 9))
    for row, draw, high in zip(numbers, draws, (2, 9), strict=True):
        assert torch.equal(row, integers(1, 2, index, draw, high))


def test_index_is_not_changed_and_order_of_access_does_not_matter():
    index = torch.arange(100)
    before = bits(5, 6, index, Draw.FLIP)
    assert torch.equal(index, torch.arange(100))
    chosen = torch.tensor([99, 3, 3, 41])
    assert torch.equal(bits(5, 6, chosen, Draw.FLIP), before[chosen])


def chi_square(values, bins):
    counts = torch.bincount(values, minlength=bins).double()
    expected = len(values) / bins
    return ((counts - expected) ** 2 / expected).sum().item()


@pytest.mark.parametrize("bins", [2, 9, 10, 64, 1000])
def test_integers_are_uniform(bins):
    values = integers(7, 3, torch.arange(COUNT), Draw.CROP_X, bins)
    assert int(values.min()) == 0
    assert int(values.max()) == bins - 1
    assert abs(chi_square(values, bins) - (bins - 1)) < 5 * math.sqrt(2 * (bins - 1))


def test_uniform_is_uniform_and_below_one():
    values = uniform(7, 3, torch.arange(COUNT), Draw.CROP_X)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert torch.equal((values * 2**24).frac(), torch.zeros(COUNT))
    assert abs(chi_square((values * 100).long(), 100) - 99) < 5 * math.sqrt(2 * 99)


def test_every_bit_is_fair():
    words = bits(7, 3, torch.arange(COUNT), Draw.CROP_X)
    ones = ((words.unsqueeze(1) >> torch.arange(64)) & 1).double().mean(0)
    assert (ones - 0.5).abs().max() < 5 * 0.5 / math.sqrt(COUNT)


def correlation(a, b):
    return torch.corrcoef(torch.stack([a, b]).double())[0, 1].abs().item()


def test_neighbours_are_uncorrelated():
    index = torch.arange(COUNT)
    here = uniform(1, 10, index, Draw.FLIP)
    neighbours = {
        "seed": uniform(2, 10, index, Draw.FLIP),
        "epoch": uniform(1, 11, index, Draw.FLIP),
        "index": uniform(1, 10, index + 1, Draw.FLIP),
        "draw": uniform(1, 10, index, Draw.FLIP_START),
        "seed and epoch swapped": uniform(10, 1, index, Draw.FLIP),
    }
    for name, there in neighbours.items():
        assert correlation(here, there) < 5 / math.sqrt(COUNT), name


def test_one_image_over_many_epochs_is_random():
    flips = torch.stack([integers(1, epoch, torch.tensor([17]), Draw.FLIP, 2) for epoch in range(2000)]).flatten()
    assert abs(flips.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(2000)
    assert correlation(flips[1:], flips[:-1]) < 5 / math.sqrt(2000)


def test_permutation_differs_by_epoch_seed_and_draw():
    orders = [permutation(1000, seed, epoch) for seed, epoch in itertools.product(range(3), range(3))]
    orders.append(permutation(1000, 0, 0, draw=Draw.VAL_SPLIT))
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).sum() < 10  # one in expectation


def test_permutations_are_uniform():
    firsts = torch.stack([permutation(5, 3, epoch) for epoch in range(2000)])
    codes = (firsts * 5 ** torch.arange(5)).sum(1).unique(return_counts=True)[1]
    assert len(codes) == math.factorial(5)
    expected = 2000 / 120
    assert abs(((codes - expected) ** 2 / expected).sum().item() - 119) < 5 * math.sqrt(2 * 119)


def test_errors():
    index = torch.arange(2)
    with pytest.raises(ValueError, match=r"high is 0: .*2\*\*31"):
        integers(0, 0, index, Draw.FLIP, 0)
    with pytest.raises(ValueError, match=r"3.*2 draws"):
        integers(0, 0, index, [Draw.FLIP, Draw.CROP_X], [1, 2, 3])


def test_draws_are_never_renumbered():
    assert {draw.name: draw.value for draw in Draw} == {
        "ORDER": 0,
        "CROP_Y": 1,
        "CROP_X": 2,
        "FLIP": 3,
        "FLIP_START": 4,
        "CUTOUT_Y": 5,
        "CUTOUT_X": 6,
        "VAL_SPLIT": 7,
        "TEST_SPLIT": 8,
        "PROTOTYPE": 9,
        "NOISE": 10,
        "RESIZED_AREA": 11,
        "RESIZED_RATIO": 12,
        "RESIZED_Y": 13,
        "RESIZED_X": 14,
        "JITTER": 15,
        "POLICY_OP": 16,
        "POLICY_LEVEL": 17,
        "POLICY_SIGN": 18,
        "PCA_1": 19,
        "PCA_2": 20,
        "PCA_3": 21,
        "ERASE": 22,
        "ERASE_AREA": 23,
        "ERASE_RATIO": 24,
        "ERASE_Y": 25,
        "ERASE_X": 26,
        "MIX": 27,
        "MIX_KIND": 28,
        "MIX_LAMBDA": 29,
        "MIX_Y": 30,
        "MIX_X": 31,
        "LEFT_OUT": 32,
        "CLASS_TURN": 33,
        "CLASS_ORDER": 34,
        "FOLD": 35,
        "CHUNK_ORDER": 36,
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_same_numbers():
    index = torch.arange(10_000)
    draws = [Draw.FLIP, Draw.CROP_X]
    assert torch.equal(bits(1, 2, index, draws), bits(1, 2, index.cuda(), draws).cpu())
    assert torch.equal(uniform(1, 2, index, draws), uniform(1, 2, index.cuda(), draws).cpu())
    assert torch.equal(permutation(10_000, 1, 2), permutation(10_000, 1, 2, device="cuda").cpu())
