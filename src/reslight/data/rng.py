"""Randomness as a pure function of (seed, epoch, index, draw).

There is no generator and no state: the purpose of a random number determines its value. A worker, a rank, a resumed run
and a GPU get the same integer for the same purpose, in any order and any batch.

The function is splitmix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195) read as a counter hash:
output `n` of a generator seeded with `key` is `mix(key + (n + 1) * GAMMA)`, which needs no outputs before it. Three
generators are nested, each number seeding the next: the seed's generator gives one key per epoch, that one a key per
draw, and the last one the number of a sample. The two outer levels are two Python integers; only the innermost runs
over a tensor.

torch has no unsigned 64-bit arithmetic, but int64 products and sums wrap to the same bits, and an arithmetic right
shift followed by a mask is a logical shift.
"""

from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

from reslight.messages import UsageError

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_WORD = (1 << 64) - 1

NEXT_DRAW = 2**40
"""Offset added to the index for each further draw of one purpose (a retry, a second operation), so that all are independent.
Larger than any dataset."""
_FLOAT_BITS = 24  # float32 holds integers of 24 bits exactly
_RANGE_BITS = 31  # 31 random bits times a range below 2**32 stay below 2**63


class Draw(IntEnum):
    """Purpose of a random number. The values are part of every published result: add new ones, never renumber."""

    ORDER = 0
    """Order of the samples in an epoch."""
    CROP_Y = 1
    CROP_X = 2
    FLIP = 3
    """Whether a sample is flipped in an epoch."""
    FLIP_START = 4
    """Whether a sample is flipped in even epochs or in odd epochs; drawn once, at epoch 0."""
    CUTOUT_Y = 5
    CUTOUT_X = 6
    VAL_SPLIT = 7
    """Training images that are set apart for validation; drawn once, at epoch 0."""
    TEST_SPLIT = 8
    """Test images of a dataset without an official test split; drawn once, at epoch 0."""
    PROTOTYPE = 9
    """Pixels of the class prototypes of `Synthetic`."""
    NOISE = 10
    """Noise on the images of `Synthetic`."""
    RESIZED_AREA = 11
    """Area of a random resized crop; ratio, row and column follow."""
    RESIZED_RATIO = 12
    RESIZED_Y = 13
    RESIZED_X = 14
    JITTER = 15
    """Length of the short side under scale jitter."""
    POLICY_OP = 16
    """Operation of RandAugment or TrivialAugment; its level and sign follow."""
    POLICY_LEVEL = 17
    POLICY_SIGN = 18
    PCA_1 = 19
    """Length of the color noise along each principal component of RGB values, the largest first."""
    PCA_2 = 20
    PCA_3 = 21
    ERASE = 22
    """Whether a box of a sample is erased; its area, ratio, row and column follow."""
    ERASE_AREA = 23
    ERASE_RATIO = 24
    ERASE_Y = 25
    ERASE_X = 26
    MIX = 27
    """Whether a sample is mixed with its partner."""
    MIX_KIND = 28
    """Whether a sample is mixed by mixup or by cutmix, if both are on."""
    MIX_LAMBDA = 29
    """Share of a sample in its mixture."""
    MIX_Y = 30
    """Row of the center of cutmix's box; its column follows."""
    MIX_X = 31
    LEFT_OUT = 32
    """Order in which images take turns in being left out of an epoch; drawn once, at epoch 0."""
    CLASS_TURN = 33
    """Order in which classes take turns in balanced sampling; drawn once, at epoch 0."""
    CLASS_ORDER = 34
    """Order of the images of a class in a round of balanced sampling; drawn at epoch 0 for each round."""
    FOLD = 35
    """Fold of each training image in a cross-validation; drawn once, at epoch 0."""
    CHUNK_ORDER = 36
    """Order of the chunks of a stream in an epoch."""


def bits(seed: int, epoch: int, index: Tensor, draw: int | Sequence[int]) -> Tensor:
    """Return 64 random bits per sample.

    Args:
        seed: Any integer; only its lowest 64 bits count.
        epoch: Any integer; only its lowest 64 bits count.
        index: int64 sample numbers, of any shape, on any device.
        draw: Purpose of the bits, or several of them for one pass.

    Returns:
        int64 of the shape of `index`; with several draws `(len(draw), *index.shape)`.
    """
    epoch_key = _nth(seed, epoch)
    if isinstance(draw, int):
        return _mix_tensor(index * _signed(_GAMMA) + _signed(_nth(epoch_key, draw) + _GAMMA))
    steps = index * _signed(_GAMMA)
    # Keys are Python numbers, here and in `integers`: a tensor of them would make a GPU wait for the copy.
    return _mix_tensor(torch.stack([steps + _signed(_nth(epoch_key, one) + _GAMMA) for one in draw]))


def uniform(seed: int, epoch: int, index: Tensor, draw: int | Sequence[int]) -> Tensor:
    """Return float32 numbers in [0, 1), multiples of 2**-24; shapes as in `bits`."""
    top = (bits(seed, epoch, index, draw) >> (64 - _FLOAT_BITS)) & ((1 << _FLOAT_BITS) - 1)
    return top.to(torch.float32) * 2.0**-_FLOAT_BITS


def integers(seed: int, epoch: int, index: Tensor, draw: int | Sequence[int], high: int | Sequence[int]) -> Tensor:
    """Return integers in [0, high), uniform up to a bias below `high / 2**31`.

    Args:
        seed: As in `bits`.
        epoch: As in `bits`.
        index: As in `bits`.
        draw: As in `bits`.
        high: The exclusive upper bound, from 1 to 2**31; with several draws, one for all or one for each.

    Returns:
        int64; shapes as in `bits`.

    Raises:
        UsageError: a `high` that is out of range, or a number of them that does not match the draws.
    """
    highs = [high] if isinstance(high, int) else list(high)
    if any(not 1 <= one <= 1 << _RANGE_BITS for one in highs):
        raise UsageError(f"high is {high}: it must be 1 to 2**{_RANGE_BITS}.")
    draws = 1 if isinstance(draw, int) else len(draw)
    if len(highs) not in (1, draws):
        raise UsageError(f"high has {len(highs)} values: there are {draws} draws. Give one value for each draw.")
    words = bits(seed, epoch, index, draw).bitwise_right_shift_(64 - _RANGE_BITS).bitwise_and_((1 << _RANGE_BITS) - 1)
    if len(highs) == 1:
        words.mul_(highs[0])
    else:
        for row, one in zip(words, highs, strict=True):
            row.mul_(one)
    return words.bitwise_right_shift_(_RANGE_BITS)


def permutation(size: int, seed: int, epoch: int, draw: int = Draw.ORDER, device: torch.device | str = "cpu") -> Tensor:
    """Return the numbers 0 to `size - 1` in the random order of an epoch.

    Equal hashes, which occur about once in 2**64 / size**2 epochs, keep their ascending order, so that all devices sort alike.

    Returns:
        int64 `(size,)` on `device`.
    """
    return bits(seed, epoch, torch.arange(size, device=device), draw).argsort(stable=True)


def _nth(key: int, n: int) -> int:
    """Return output `n` (from 0) of the splitmix64 generator seeded with `key`, as an unsigned integer."""
    word = (key + (n + 1) * _GAMMA) & _WORD
    word = ((word ^ (word >> 30)) * _MIX_1) & _WORD
    word = ((word ^ (word >> 27)) * _MIX_2) & _WORD
    return word ^ (word >> 31)


def _mix_tensor(words: Tensor) -> Tensor:
    """Apply splitmix64's finalizer to int64 `words`, in place."""
    words = words.bitwise_xor_((words >> 30).bitwise_and_((1 << 34) - 1)).mul_(_signed(_MIX_1))
    words = words.bitwise_xor_((words >> 27).bitwise_and_((1 << 37) - 1)).mul_(_signed(_MIX_2))
    return words.bitwise_xor_((words >> 31).bitwise_and_((1 << 33) - 1))


def _signed(word: int) -> int:
    """Return the int64 with the lowest 64 bits of `word`."""
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word
