"""Images as files in the folders of their classes: which are taken, and the errors of bad ones."""

import numpy as np
import pytest
from PIL import Image


def test_only_images_count(small, tmp_path):
    small.write_class_folders(tmp_path)
    for name in (
        "train/README.md",
        "train/stray.png",
        "train/cat/.hidden.png",
        "train/cat/._0001.png",
        "train/cat/Thumbs.db",
        "labels.csv",
    ):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "train" / "empty").mkdir()
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]


def test_folders_may_be_links(small, tmp_path):
    small.write_class_folders(tmp_path / "disk")
    (tmp_path / "data" / "train").mkdir(parents=True)
    for folder in (tmp_path / "disk" / "train").iterdir():
        (tmp_path / "data" / "train" / folder.name).symlink_to(folder, target_is_directory=True)
    assert small.data(tmp_path / "data").load_split("train").fingerprint == small.metadata.fingerprints["train"]


def test_a_folder_without_classes_is_named(small, tmp_path):
    small.write_class_folders(tmp_path)
    for file in (tmp_path / "train").rglob("*.png"):
        file.rename(tmp_path / "train" / f"{file.parent.name}-{file.name}")
    assert small.refusal(tmp_path).startswith(f"{tmp_path / 'train'} has no images in folders of classes. Put train/CLASS/IMAGE there")


@pytest.mark.parametrize("suffix", [".PNG", ".bmp", ".webp", ".ppm"])
def test_other_lossless_formats(small, suffix, tmp_path):
    small.write_class_folders(tmp_path)
    for file in sorted(tmp_path.rglob("*.png")):
        with Image.open(file) as image:
            pixels = image.convert("RGB")
        file.unlink()
        pixels.save(file.with_suffix(suffix), **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]


def test_lossy_images_are_told(small, tmp_path):
    small.write_class_folders(tmp_path)
    for file in sorted(tmp_path.rglob("*.png")):
        with Image.open(file) as image:
            image.save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    assert "(lossy copies, such as JPEG, are others)" in small.refusal(tmp_path)


def test_an_image_with_transparency_or_grey(small, tmp_path):
    """Read as RGB, whatever mode they were saved in."""
    small.write_class_folders(tmp_path)
    file = next((tmp_path / "train").rglob("*.png"))
    with Image.open(file) as image:
        image.convert("RGBA").save(file)
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]
    Image.new("L", (32, 32), 7).save(file)
    images = small.data(tmp_path, allow_modified=True).load_split("train").images
    assert [7] in [image.unique().tolist() for image in images]


@pytest.mark.parametrize(
    ("small", "old", "shown"),
    [
        ("cifar10", "cat", "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck"),
        ("cifar100", "fox", "apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle and 90 more"),
    ],
    indirect=["small"],
)
def test_a_class_that_does_not_exist_is_named(small, old, shown, tmp_path):
    small.write_class_folders(tmp_path)
    new = tmp_path / "train" / "zebra"
    (tmp_path / "train" / old).rename(new)
    assert (
        small.refusal(tmp_path)
        == f"{new} is not named after a class of {small.metadata.title} ({shown}). Rename the folder, or set data.root."
    )


@pytest.mark.parametrize("small", ["cifar100"], indirect=True)
def test_other_spellings_of_classes(small, tmp_path):
    small.write_class_folders(tmp_path)
    for one, other in (("lawn_mower", "Lawn mower"), ("maple_tree", "maple-tree"), ("apple", "APPLE")):
        (tmp_path / "train" / one).rename(tmp_path / "train" / other)
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]


@pytest.mark.parametrize("content", [b"", b"GIF", b"\x89PNG\r\n\x1a\n", b"<html>"])
def test_what_is_no_image_is_named(small, content, tmp_path):
    small.write_class_folders(tmp_path)
    (file := tmp_path / "train" / "dog" / "1.png").write_bytes(content)
    assert small.refusal(tmp_path) == f"{file} cannot be read as an image (unknown format). Replace it by a sound copy."


def test_a_broken_image_is_named(small, tmp_path):
    small.write_class_folders(tmp_path)
    file = sorted((tmp_path / "train" / "dog").iterdir())[1]
    content = file.read_bytes()
    for damaged in (content[:1000], content[:40] + bytes(8) + content[48:]):
        file.write_bytes(damaged)
        text = small.refusal(tmp_path)
        assert text.startswith(f"{file} cannot be read as an image (")
        assert text.endswith("). Replace it by a sound copy.")


@pytest.mark.slow
def test_damage_never_passes(small, tmp_path):
    small.write_class_folders(tmp_path)
    file = next((tmp_path / "train" / "dog").iterdir())
    content = file.read_bytes()
    refused = 0
    for place in [*range(60), *range(60, len(content), 100)]:  # signature, header, and pixels
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        file.write_bytes(damaged)
        refused += small.is_refused(tmp_path)
    assert refused > 60


def test_an_image_of_another_size_is_named(small, tmp_path):
    small.write_class_folders(tmp_path)
    file = tmp_path / "train" / "ship" / "big.png"
    file.write_bytes(small.picture(np.zeros((48, 40, 3), np.uint8)))
    assert small.refusal(tmp_path) == f"{file} has 40 x 48 pixels: it must have 32 x 32. Replace it by the original."


def test_a_bomb_is_not_decoded(small, tmp_path, monkeypatch):
    small.write_class_folders(tmp_path)
    file = tmp_path / "train" / "ship" / "bomb.png"
    Image.new("1", (3000, 3000)).save(file)
    assert small.refusal(tmp_path).startswith(f"{file} has 3000 x 3000 pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert small.refusal(tmp_path).startswith(f"{file} cannot be read as an image (Image size (9000000 pixels) exceeds limit")
