"""Crops against torchvision's: the same distribution where they are random, the same bits where they are not."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from reslight.data.augment.crop import Center, RandomResizedCrop, ScaleJitter, resized, scaled_size
from reslight.preprocess import Preprocess
from reslight.weights.interop.timm_config import _crop_pct

INDICES = torch.arange(4000)
IMAGE = torch.randint(0, 256, (3, 61, 83), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_random_resized_crop_is_distributed_as_torchvisions():
    crop, height, width = RandomResizedCrop(224), 375, 500
    ours = [crop.window(height, width, rows) for rows in crop.draw(INDICES, seed=3, epoch=1).tolist()]
    torch.manual_seed(0)
    theirs = [v2.RandomResizedCrop(224).make_params([torch.empty(3, height, width)]) for _ in range(4000)]

    def facts(top: int, left: int, h: int, w: int) -> tuple[float, ...]:
        return (h * w / (height * width), math.log(w / h), top / (height - h + 1), left / (width - w + 1))

    mine = zip(*(facts(window.top, window.left, window.height, window.width) for window in ours), strict=True)
    other = zip(*(facts(one["top"], one["left"], one["height"], one["width"]) for one in theirs), strict=True)
    for name, a, b in zip(("area", "ratio", "row", "column"), mine, other, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3, name
    assert all(window.top + window.height <= height and window.left + window.width <= width for window in ours)


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10), (1, 1)])
def test_where_no_box_fits_the_middle_is_taken_as_in_torchvision(height: int, width: int):
    crop = RandomResizedCrop(8, scale=(0.9, 1.0), ratio=(0.99, 1.01))
    window = crop.window(height, width, crop.draw(torch.tensor([5]), 0, 0)[0].tolist())
    there = v2.RandomResizedCrop(8, scale=(0.9, 1.0), ratio=(0.99, 1.01)).make_params([torch.empty(3, height, width)])
    assert window[:4] == (there["top"], there["left"], there["height"], there["width"])


def test_the_middle_of_strips_of_any_size_is_torchvisions():
    scale = (0.99, 1.0)  # of nearly the whole area no box of the allowed shapes lies within a strip
    crop, theirs = RandomResizedCrop(8, scale), v2.RandomResizedCrop(8, scale)
    numbers = crop.draw(torch.tensor([1]), 0, 0)[0].tolist()
    for short in range(1, 12):
        for long in range(2 * short + 1, 2 * short + 9):
            for height, width in ((short, long), (long, short)):
                there = theirs.make_params([torch.empty(3, height, width)])
                assert crop.window(height, width, numbers)[:4] == (there["top"], there["left"], there["height"], there["width"])


@pytest.mark.parametrize("geometry", [RandomResizedCrop(16), ScaleJitter(16, (16, 40)), Center(16, 20)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (1, 31), (33, 1), (1, 3000), (3000, 1), (3, 400), (16, 16)])
def test_an_image_of_any_size_becomes_a_square(geometry, height: int, width: int):
    image = torch.full((3, height, width), 77, dtype=torch.uint8)
    for numbers in geometry.draw(INDICES[:5], seed=1, epoch=1):
        assert torch.equal(geometry(image, numbers), torch.full((3, 16, 16), 77, dtype=torch.uint8))


def test_scale_jitter_takes_the_papers_lengths(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("reslight.data.augment.crop.resized", lambda image, size, how: asked.append(size) or image)
    for numbers in ScaleJitter(224).draw(INDICES, seed=1, epoch=0):
        ScaleJitter(224)(IMAGE, numbers)
    lengths = torch.tensor(asked)[:, 0]  # the image is wider than high
    assert (lengths.min(), lengths.max()) == (256, 480)
    assert stats.chisquare(torch.bincount(lengths - 256).numpy()).pvalue > 1e-3


def test_scale_jitter_cuts_out_anywhere():
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(17), indexing="ij")
    image = torch.stack((rows, columns, columns)).to(torch.uint8)  # each pixel says where it is; not resized, it keeps that
    jitter = ScaleJitter(8, short_side=(17, 17))
    places = torch.stack([jitter(image, numbers)[:2, 0, 0] for numbers in jitter.draw(INDICES, seed=2, epoch=0)]).long()
    counts = torch.bincount(places[:, 0] * 10 + places[:, 1], minlength=130)  # 13 rows x 10 columns, all alike
    assert len(counts) == 130
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_scale_jitter_is_uniform():
    jitter = ScaleJitter(8, short_side=(8, 20))
    numbers = jitter.draw(INDICES, seed=1, epoch=0)
    lengths = torch.bincount(8 + (numbers[:, 0] * 13).int(), minlength=21)[8:]
    assert stats.chisquare(lengths.numpy()).pvalue > 1e-3
    picture = jitter(IMAGE, torch.tensor([0.999, 0.999, 0.0]))
    whole = tvf.resize_image(IMAGE, [20, int(20 * 83 / 61)], antialias=True)
    assert torch.equal(picture, whole[:, -8:, :8])  # the last rows, the first columns
    assert jitter(IMAGE, torch.tensor([0.0, 0.0, 0.0])).shape == (3, 8, 8)


@pytest.mark.parametrize(("height", "width"), [(61, 83), (83, 61), (40, 40), (33, 200), (7, 5), (224, 300)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_is_torchvisions_and_preprocesss(height: int, width: int, interpolation):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    got = Center(32, 40, interpolation)(image, torch.empty(0))
    how = v2.InterpolationMode(interpolation)
    assert torch.equal(got, v2.CenterCrop(32)(v2.Resize(40, how, antialias=True)(image)))
    preprocess = Preprocess(size=32, resize=40, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation=interpolation)
    assert torch.equal(preprocess.normalize(got), preprocess(image))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_is_preprocesss_for_any_size(interpolation):
    preprocess = Preprocess(size=13, resize=16, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation=interpolation)
    draw = torch.Generator().manual_seed(1)
    for height, width in [*torch.randint(1, 90, (40, 2), generator=draw).tolist(), (1, 700), (900, 2), (3, 97), (1, 33)]:
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=draw)
        got = Center(13, 16, interpolation)(image, torch.empty(0))
        assert torch.equal(preprocess.normalize(got), preprocess(image)), (height, width)
        if max(height, width) <= 32 * min(height, width):  # of longer strips torchvision would resize all, to keep the middle
            how = v2.InterpolationMode(interpolation)
            assert torch.equal(got, v2.CenterCrop(13)(v2.Resize(16, how, antialias=True)(image))), (height, width)


def test_a_part_is_resized_as_a_whole_image_would_be():
    for image in (IMAGE, IMAGE.permute(1, 2, 0).contiguous().permute(2, 0, 1)):  # planes, and a decoder's layout
        part = image[:, 5:50, 3:70]
        for size in ((24, 30), (90, 7), (45, 66), (1, 8)):
            for how in ("bilinear", "bicubic"):
                expected = tvf.resize_image(part.contiguous(), list(size), v2.InterpolationMode(how), antialias=True)
                assert torch.equal(resized(part, size, how), expected), (size, how)
    assert resized(IMAGE, (61, 83), "bilinear") is IMAGE


def test_random_parts_are_functions_of_seed_epoch_and_index():
    for geometry in (RandomResizedCrop(16), ScaleJitter(16, (16, 30))):
        together = geometry.draw(INDICES[:50], seed=4, epoch=2)
        alone = torch.cat([geometry.draw(INDICES[n : n + 1], seed=4, epoch=2) for n in range(50)])
        assert torch.equal(together, alone)
        for seed, epoch in ((5, 2), (4, 3)):
            assert not torch.equal(together, geometry.draw(INDICES[:50], seed=seed, epoch=epoch))


def test_shorter_side_as_in_torchvision():
    for height, width in ((61, 83), (83, 61), (500, 333)):
        assert scaled_size(40, height, width) == tuple(v2.Resize(40)(torch.empty(3, height, width)).shape[-2:])


@pytest.mark.parametrize("how", ["center", "squash", "letterbox"])
@pytest.mark.parametrize("size", [32, (32, 48), (48, 32), (20, 61)])
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_every_fit_is_timms(how: str, size, share: float):
    timm = pytest.importorskip("timm.data.transforms_factory")
    shape = (size, size) if isinstance(size, int) else size
    resize = int(min(shape) / share)
    preprocess = Preprocess(size, (0.1, 0.5, 0.9), (0.2,) * 3, resize, "bicubic", how)
    modes = {"center": "center", "squash": "squash", "letterbox": "border"}
    share = _crop_pct(preprocess)
    theirs = timm.transforms_imagenet_eval(shape, share, modes[how], interpolation="bicubic", mean=(0.1, 0.5, 0.9), normalize=False)
    ours = Center(preprocess.size, preprocess.resize, "bicubic", how, preprocess.fill_values)
    for height, width in [(61, 83), (83, 61), (40, 40), (33, 200), (200, 33), (7, 5), shape]:
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        got, pil = ours(image, torch.empty(0)), tvf.to_pil_image(image)
        assert got.shape == (3, *shape)
        assert torch.equal(preprocess.normalize(got), preprocess(image))
        assert torch.equal(preprocess(pil), preprocess.normalize(theirs(pil))), (height, width)


GEOMETRIES = [
    RandomResizedCrop((8, 12)),
    ScaleJitter((8, 12), (12, 20)),
    Center((8, 12), 9),
    *(Center((8, 12), 8, how=how, fill=(9, 8, 7, 6)) for how in ("squash", "letterbox")),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda one: f"{type(one).__name__}{getattr(one, 'how', '')}")
def test_16_bits_are_cropped_as_8(geometry):
    image = torch.randint(0, 256, (4, 31, 23), dtype=torch.uint8)
    numbers = geometry.draw(INDICES[:1], seed=1, epoch=1)[0]
    few, deep = geometry(image, numbers), geometry((image.int() * 257).to(torch.uint16), numbers)
    assert deep.dtype == torch.uint16
    assert few.shape == deep.shape == (4, 8, 12)
    assert (few.int() * 257 - deep.int()).abs().max() <= 257


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda one: f"{type(one).__name__}{getattr(one, 'how', '')}")
def test_a_reduced_image_gives_the_crop_of_the_whole_one(geometry):
    geometry = replace(geometry, **({"fill": (9, 8, 7)} if isinstance(geometry, Center) else {}))
    rows, columns = torch.meshgrid(torch.arange(160), torch.arange(240), indexing="ij")
    image = torch.stack((rows, columns, rows)).to(torch.uint8)  # each pixel says where it is
    for numbers in geometry.draw(INDICES[:8], seed=1, epoch=1):
        assert geometry.reduction(160, 240, numbers) <= geometry.largest_reduction(160, 240) + 1e-9 or isinstance(geometry, ScaleJitter)
        small = tvf.to_pil_image(image).reduce(2)
        got = geometry.of_reduced(small, (160, 240), 2, (0.0, 0.0), numbers)
        assert (got.int() - geometry(image, numbers).int()).abs().max() <= 2
