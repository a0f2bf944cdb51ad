"""Random erasing against a loop over images and attempts, and against torchvision's distribution."""

import math

import pytest
import torch
from scipy.stats import binomtest, ks_2samp
from torchvision.transforms import v2

from reslight.data.augment.erasing import blank, inside, random_boxes, random_erase
from reslight.data.rng import Draw, uniform

FAR = 2**40
COUNT = 20_000


def some_images(shape=(30, 3, 8, 14)):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def slow_box(index, height, width, seed, epoch):
    """The first box that is small enough, and how many were not; None for no box."""
    for attempt in range(10):
        draws = (Draw.ERASE_AREA, Draw.ERASE_RATIO, Draw.ERASE_Y, Draw.ERASE_X)
        u_area, u_ratio, u_y, u_x = (uniform(seed, epoch, torch.tensor(index + attempt * FAR), draw).item() for draw in draws)
        area = (0.02 + 0.31 * u_area) * height * width
        ratio = 0.3 * 11**u_ratio
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            return (math.floor(u_y * (height - h + 1)), math.floor(u_x * (width - w + 1)), h, w), attempt
    return None, 10


@pytest.mark.parametrize(("shape", "fill"), [((30, 3, 8, 14), (10, 20, 30)), ((60, 1, 3, 40), (7,)), ((60, 2, 1, 9), (7,))])
def test_equals_slow_reference(shape, fill):
    images, indices = some_images(shape), torch.arange(shape[0]) * 3 + 1
    before = images.clone()
    got = random_erase(images, indices, probability=0.6, fill=fill, seed=4, epoch=2)
    assert got.dtype == torch.uint8
    assert torch.equal(images, before)
    attempts = []
    for row, index in enumerate(indices.tolist()):
        expected = images[row].clone()
        box, attempt = slow_box(index, *shape[2:], 4, 2)
        attempts.append(attempt)
        if uniform(4, 2, torch.tensor(index), Draw.ERASE) < 0.6 and box:
            top, left, height, width = box
            for channel in range(shape[1]):
                expected[channel, top : top + height, left : left + width] = fill[channel % len(fill)]
        assert torch.equal(got[row], expected), row
    if shape[2] < 4:  # what these shapes are here for
        assert max(attempts) > 0
    if shape[2] == 1:
        assert max(attempts) == 10
        assert torch.equal(got, images)


def test_batches_cut_up_differently_are_augmented_alike():
    images, indices = some_images(), torch.arange(30)
    whole = random_erase(images, indices, probability=0.5, fill=(1, 2, 3), seed=1, epoch=1)
    for size in (1, 7):
        parts = [
            random_erase(images[i : i + size], indices[i : i + size], probability=0.5, fill=(1, 2, 3), seed=1, epoch=1)
            for i in range(0, 30, size)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_probability():
    images = torch.full((COUNT, 1, 10, 10), 9, dtype=torch.uint8)
    for probability in (0.1, 0.5):
        out = random_erase(images, torch.arange(COUNT), probability=probability, fill=(0,), seed=1, epoch=0)
        assert binomtest(int((out != images).flatten(1).any(1).sum()), COUNT, probability).pvalue > 1e-3
    assert torch.equal(random_erase(images, torch.arange(COUNT), probability=0.0, fill=(0,), seed=1, epoch=0), images)


def test_boxes_are_distributed_as_torchvisions():
    theirs = v2.RandomErasing()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        boxes = [theirs.make_params([torch.empty(3, 160, 224)]) for _ in range(4000)]
    top, left, height, width = (numbers.double() for numbers in random_boxes(torch.arange(COUNT), 160, 224, seed=1, epoch=0))
    assert (height < 160).all()
    assert (width < 224).all()
    ours = {"i": top, "j": left, "h": height, "w": width}
    for name, numbers in ours.items():
        assert ks_2samp(numbers.numpy(), [box[name] for box in boxes]).pvalue > 1e-3, name
    assert ks_2samp((height * width).numpy(), [box["h"] * box["w"] for box in boxes]).pvalue > 1e-3
    assert ks_2samp((height / width).numpy(), [box["h"] / box["w"] for box in boxes]).pvalue > 1e-3


def test_boxes_by_hand():
    # reaches over a corner; none; the whole image
    top, left = torch.tensor([-1, 1, 0]), torch.tensor([2, 1, 0])
    height, width = torch.tensor([2, 0, 2]), torch.tensor([2, 1, 3])
    got = inside(2, 3, top, left, height, width)
    assert got.tolist() == [[[[0, 0, 1], [0, 0, 0]]], [[[0, 0, 0], [0, 0, 0]]], [[[1, 1, 1], [1, 1, 1]]]]
    images = torch.full((3, 2, 2, 3), 5, dtype=torch.uint8)
    assert blank(images, top, left, height, width, (8, 9))[0].tolist() == [[[5, 5, 8], [5, 5, 5]], [[5, 5, 9], [5, 5, 5]]]
    assert blank(images, top, left, 1, 2, (8,))[1].tolist() == [[[5, 5, 5], [5, 8, 8]]] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_same_pixels():
    images, indices = some_images(), torch.arange(30)
    on_gpu = random_erase(images.cuda(), indices.cuda(), probability=0.5, fill=(1, 2, 3), seed=1, epoch=1)
    assert torch.equal(on_gpu.cpu(), random_erase(images, indices, probability=0.5, fill=(1, 2, 3), seed=1, epoch=1))
