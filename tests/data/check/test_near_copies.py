"""Near copies are found and other images are not; the hash is that of the library imagehash."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslight.cli.commands.data import near_copy_lines
from reslight.data.check.check import Summary, check
from reslight.data.check.near_copies import LEAST_CORRELATION, near_copies, phash, thumbnail

COUNT = 60


def scenes(count: int = COUNT, size: int = 120) -> np.ndarray:
    """Smooth random images with a few boxes, uint8 `(N, H, W, 3)`."""
    rng = np.random.default_rng(3)
    result = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse).copy()
        for _ in range(4):
            top, left = rng.integers(0, size - 30, 2)
            pixels[top : top + 25, left : left + 30] = rng.integers(0, 256, 3)
        result.append(pixels)
    return np.stack(result)


def shrunk(image: Image.Image) -> Image.Image:
    return image.resize((71, 70), Image.Resampling.BILINEAR)


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((2, 8, 114, 117))


ALTERED = {"shrunk": shrunk, "compressed": compressed, "cropped": cropped, "all": lambda image: compressed(shrunk(cropped(image)))}


def thumbnails(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([thumbnail(torch.from_numpy(np.array(image)).permute(2, 0, 1)) for image in images])


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_near_copies_are_found_and_nothing_else(alter):
    images = scenes()
    copies = [np.asarray(alter(Image.fromarray(image))) for image in images[::2]]
    small = thumbnails([*images, *copies])
    groups = np.repeat([0, 1], [COUNT, len(copies)])
    found = near_copies(small, groups)
    assert sorted((one.first, one.second) for one in found) == [(2 * number, COUNT + number) for number in range(len(copies))]
    assert all(LEAST_CORRELATION <= one.correlation <= 1.0001 for one in found)
    assert [one.correlation for one in found] == sorted((one.correlation for one in found), reverse=True)
    assert near_copies(small, np.zeros(len(small), np.int64)) == [], "pairs within a group are not asked for"
    assert near_copies(small, np.where(groups == 1, -1, groups)) == [], "images that are left out"


def test_images_that_show_nothing_are_no_copies_of_each_other():
    flat = np.full((6, 32, 32), 128, np.uint8)
    flat[3:] += np.random.default_rng(0).integers(0, 3, (3, 32, 32), np.uint8)
    assert near_copies(flat, np.arange(6)) == []
    assert near_copies(np.zeros((0, 32, 32), np.uint8), np.zeros(0, np.int64)) == []


def test_the_hash_is_that_of_imagehash():
    small = thumbnails(list(scenes(20)))
    assert phash(small).tolist() == [phash_slowly(one).flatten().tolist() for one in small]
    imagehash = pytest.importorskip("imagehash")
    assert phash(small).reshape(-1, 8, 8).tolist() == [imagehash.phash(Image.fromarray(one)).hash.tolist() for one in small]


def phash_slowly(pixels: np.ndarray) -> np.ndarray:
    """The lines of imagehash 4.3's phash behind its resize, which leaves images of 32 x 32 pixels as they are."""
    from scipy import fft

    dct = fft.dct(fft.dct(pixels.astype(np.float64), axis=0), axis=1)[:8, :8]
    return dct > np.median(dct)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_thumbnails_of_any_channels_are_gray(channels):
    image = torch.full((channels, 50, 40), 200, dtype=torch.uint8)
    small = thumbnail(image)
    assert (small.shape, small.dtype, small.min(), small.max()) == ((32, 32), np.uint8, 200, 200)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """12 training and 12 test images, the last 3 of which are cropped training images."""
    for number, pixels in enumerate(scenes(21)):
        folder = tmp_path / "set" / ("train" if number < 12 else "test") / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        if number < 3:
            copy = tmp_path / "set" / "test" / ("cat", "dog")[number % 2] / f"copy{number}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            cropped(Image.fromarray(pixels)).save(copy)
    return tmp_path / "set"


def test_the_command_lists_and_draws_them(reslight, root: Path):
    answer = reslight("data", "check", root, "--sheet", "copies.png")
    assert answer.code == 0, "near copies are no problems"
    lines = answer.out.splitlines()
    first = next(place for place, line in enumerate(lines) if "near copies" in line)
    assert lines[first] == (
        "3 pairs of near copies in different splits (resized, compressed again or slightly cropped). Keep each image in one split:"
    )
    expected = [
        f"  {root}/test/{folder}/copy{number}.jpg (test) looks like {root}/train/{folder}/{number:02}.png (train)"
        for number, folder in enumerate(("cat", "dog", "cat"))
    ]
    assert sorted(lines[first + 1 : first + 4]) == sorted(expected)
    assert lines[-2:] == ["written copies.png: 3 of 3 pairs of near copies in different splits", "no problems"]
    with Image.open("copies.png") as image:
        assert image.width > 1000


def test_exact_copies_and_broken_images_are_no_near_copies(root: Path):
    (root / "test" / "cat" / "copy0.jpg").write_bytes((root / "train" / "cat" / "00.png").read_bytes())
    (root / "test" / "dog" / "copy1.jpg").write_bytes(b"")
    summary = Summary()
    kinds = [problem.kind for problem in check(str(root), summary=summary)]
    assert kinds == ["empty", "leak"]
    assert [one.names[1] for one in summary.lookalikes] == [str(root / "test" / "cat" / "copy2.jpg")]
    assert [tuple(image.shape) for image in summary.lookalikes[0].decoded()] == [(3, 120, 120), (3, 109, 112)]


def test_one_split_has_no_near_copies(root: Path):
    summary = Summary()
    assert list(check(str(root / "train"), summary=summary)) == []
    assert summary.lookalikes == []
    assert near_copy_lines([]) == []


def test_many_pairs_are_cut_and_bad_sheets_are_refused_first(reslight, root: Path, monkeypatch):
    summary = Summary()
    assert list(check(str(root), summary=summary)) == []
    lines = near_copy_lines(summary.lookalikes * 8)
    assert len(lines) == 22
    assert lines[0].startswith("24 pairs of near copies")
    assert lines[-1] == "  ... and 4 more pairs"
    answer = reslight("data", "check", root, "--sheet", "x.gif")
    assert answer.code == 2
    assert answer.err.startswith("reslight: error: --sheet is x.gif: a figure is saved as .png, .pdf or .svg.")
    answer = reslight("data", "check", root / "train", "--sheet", "x.png")
    assert "not written x.png: there are no near copies in different splits" in answer.out
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    answer = reslight("data", "check", root, "--sheet", "x.png")
    assert (answer.code, answer.out) == (2, "")
