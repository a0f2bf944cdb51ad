"""RandAugment and TrivialAugment against torchvision's own, one image at a time."""

import pytest
import torch
from scipy.stats import chisquare, norm
from torchvision.transforms import v2

from reslight.data.augment import randaugment as policy
from reslight.data.augment.randaugment import LEVELS, OPS, apply, codes, randaugment, trivialaugment
from reslight.data.rng import Draw, integers, uniform

THEIRS = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
COUNT = 20_000
FAR = 2**40


def some_images(shape):
    """Of very different brightness and contrast, the last one of a single color."""
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for place in range(shape[0]):
        images[place] = images[place] // (place + 1) + 20 * place
    images[-1] = 77
    return images


def torchvisions(image, name, level, sign, space, fill):
    """One image through torchvision's transform, with what it would have drawn."""
    transform = THEIRS[space](fill=list(fill))
    magnitudes, is_signed = transform._AUGMENTATION_SPACE[name]
    values = magnitudes(LEVELS, *image.shape[-2:])
    magnitude = 0.0 if values is None else float(values[level])
    if is_signed and sign:
        magnitude *= -1
    return transform._apply_image_or_video_transform(image, name, magnitude, transform.interpolation, transform._fill)


@pytest.mark.parametrize("space", THEIRS)
def test_operations_are_torchvisions(space):
    assert OPS.keys() == THEIRS[space]._AUGMENTATION_SPACE.keys()
    for name, op in OPS.items():
        magnitudes, is_signed = THEIRS[space]._AUGMENTATION_SPACE[name]
        assert op.is_signed == is_signed
        assert (name in policy.SPACES[space]) == (magnitudes(LEVELS, 8, 8) is not None)


@pytest.mark.parametrize("space", THEIRS)
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shape", [(4, 3, 9, 12), (3, 1, 11, 11)], ids=["rgb", "grey"])
def test_every_level_and_sign_equals_torchvision(space, name, shape):
    images, fill = some_images(shape), (10, 20, 30)[: shape[1]]
    before, op = images.clone(), list(OPS).index(name)
    for level in range(LEVELS):
        for sign in (0, 1):
            chosen = codes(torch.full((1, len(images)), op), level, torch.full((1, len(images)), sign))
            expected = torch.stack([torchvisions(image, name, level, sign, space, fill) for image in images])
            assert torch.equal(apply(images, chosen, space, fill), expected), (level, sign)
    assert torch.equal(images, before)


def test_grey_images_keep_their_saturation():
    images = some_images((3, 1, 5, 5))
    chosen = codes(torch.full((1, 3), list(OPS).index("Color")), 30, torch.tensor([[0, 1, 1]]))
    assert torch.equal(apply(images, chosen, "trivialaugment", (0,)), images)


def test_one_fill_for_all_channels():
    images = some_images((2, 3, 8, 8))
    chosen = codes(torch.full((1, 2), list(OPS).index("Rotate")), 25, torch.tensor([[0, 1]]))
    assert torch.equal(apply(images, chosen, "trivialaugment", (9,)), apply(images, chosen, "trivialaugment", (9, 9, 9)))


def one(numbers):
    return int(numbers.item())


@pytest.mark.parametrize("epoch", [0, 3])
def test_trivialaugment_equals_slow_reference(epoch):
    images, indices = some_images((60, 3, 12, 16)), torch.arange(60) * 5 + 2
    got = trivialaugment(images, indices, fill=(1, 2, 3), seed=4, epoch=epoch)
    for row, index in enumerate(indices):
        op = one(integers(4, epoch, index, Draw.POLICY_OP, 14))
        level = one(integers(4, epoch, index, Draw.POLICY_LEVEL, 31))
        sign = one(integers(4, epoch, index, Draw.POLICY_SIGN, 2))
        assert torch.equal(got[row], torchvisions(images[row], list(OPS)[op], level, sign, "trivialaugment", (1, 2, 3)))


@pytest.mark.parametrize(("magnitude", "std"), [(9.0, 0.0), (7.0, 4.0)])
def test_randaugment_equals_slow_reference(magnitude, std):
    images, indices = some_images((40, 3, 12, 16)), torch.arange(40) * 5 + 2
    got = randaugment(images, indices, ops=3, magnitude=magnitude, magnitude_std=std, fill=(1, 2, 3), seed=4, epoch=2)
    for row, index in enumerate(indices):
        image = images[row]
        for number in (index, index + FAR, index + 2 * FAR):
            op = one(integers(4, 2, number, Draw.POLICY_OP, 14))
            sign = one(integers(4, 2, number, Draw.POLICY_SIGN, 2))
            level = round(magnitude + std * norm.ppf(uniform(4, 2, number, Draw.POLICY_LEVEL).item() + 2**-25))
            image = torchvisions(image, list(OPS)[op], min(max(level, 0), 30), sign, "randaugment", (1, 2, 3))
        assert torch.equal(got[row], image), row


@pytest.mark.parametrize("epoch", range(3))
def test_batches_cut_up_differently_are_augmented_alike(epoch):
    # 3 x 7 x 9 values: no image ends where a vector of the processor does
    images, indices = some_images((50, 3, 7, 9)), torch.arange(50)

    def augmented(rows):
        settings = {"fill": (5, 6, 7), "seed": 1, "epoch": epoch}
        some = randaugment(images[rows], indices[rows], ops=2, magnitude=9.0, magnitude_std=3.0, **settings)
        return trivialaugment(some, indices[rows], **settings)

    whole = augmented(slice(None))
    assert torch.equal(torch.cat([augmented(slice(row, row + 1)) for row in range(50)]), whole)
    assert torch.equal(torch.cat([augmented(slice(row, row + 7)) for row in range(0, 50, 7)]), whole)
    assert torch.equal(augmented(torch.arange(49, -1, -1)).flip(0), whole)
    images = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augmented(slice(None)), whole)


def drawn(monkeypatch, draw):
    """Operations, levels and signs, `(passes, COUNT)` each."""
    seen = []
    monkeypatch.setattr(policy, "apply", lambda images, chosen, *_: seen.append(chosen))
    draw(torch.empty(COUNT, 1, 1, 1), torch.arange(COUNT))
    return seen[0] // (2 * LEVELS), seen[0] // 2 % LEVELS, seen[0] % 2


def is_uniform(values, bins):
    return chisquare(torch.bincount(values.flatten(), minlength=bins)).pvalue > 1e-3


def test_trivialaugment_draws_evenly_and_independently(monkeypatch):
    op, level, sign = drawn(monkeypatch, lambda images, indices: trivialaugment(images, indices, fill=(0,), seed=1, epoch=4))
    assert op.shape == (1, COUNT)
    assert is_uniform(op, 14)
    assert is_uniform(level, 31)
    assert is_uniform(sign, 2)
    assert is_uniform((op * 31 + level) * 2 + sign, 14 * 31 * 2)


def rand(images, indices, magnitude=9.0, magnitude_std=0.0):
    return randaugment(images, indices, ops=2, magnitude=magnitude, magnitude_std=magnitude_std, fill=(0,), seed=1, epoch=4)


def test_randaugments_operations_are_drawn_evenly_and_independently(monkeypatch):
    op, level, sign = drawn(monkeypatch, rand)
    assert is_uniform(op[0] * 14 + op[1], 14 * 14)
    assert is_uniform(sign[0] * 2 + sign[1], 4)
    assert is_uniform(op * 2 + sign, 28)
    assert (level == 9).all()


@pytest.mark.parametrize(("magnitude", "std"), [(9.0, 3.0), (28.0, 2.5), (1.5, 0.7)])
def test_levels_are_normal_and_clipped(monkeypatch, magnitude, std):
    level = drawn(monkeypatch, lambda *batch: rand(*batch, magnitude, std))[1]
    edges = [-float("inf"), *(k + 0.5 for k in range(30)), float("inf")]
    expected = torch.tensor(norm.cdf(edges, magnitude, std)).diff() * level.numel()
    counts = torch.bincount(level.flatten(), minlength=31)
    likely = expected >= 5
    rare = [counts[~likely].sum().item(), expected[~likely].sum().item()]
    assert rare[0] < 20
    assert chisquare([*counts[likely].tolist(), rare[0]], [*expected[likely].tolist(), rare[1]]).pvalue > 1e-3


def test_a_fixed_level_is_rounded(monkeypatch):
    assert (drawn(monkeypatch, lambda *batch: rand(*batch, 12.6))[1] == 13).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_same_pixels():
    images, indices = some_images((200, 3, 12, 16)), torch.arange(200)
    cpu = trivialaugment(images, indices, fill=(1, 2, 3), seed=1, epoch=1).short()
    gpu = trivialaugment(images.cuda(), indices.cuda(), fill=(1, 2, 3), seed=1, epoch=1).cpu().short()
    names = [list(OPS)[op] for op in integers(1, 1, indices, Draw.POLICY_OP, 14)]
    for name, one_cpu, one_gpu in zip(names, cpu, gpu, strict=True):
        # float arithmetic of another device, cut off to a whole number, may be one off; moved and mapped pixels may not
        assert (one_cpu - one_gpu).abs().max() <= (1 if OPS[name].changes == "images" else 0), name
