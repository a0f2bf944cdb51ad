"""Folders of images: what is found in them, what is set apart, and what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslight.data import Augment, Crop, Folder, Mix
from reslight.preprocess import Preprocess

FEED = Preprocess(size=8, resize=10, mean=(0.5,) * 3, std=(0.25,) * 3)


def fill(folder: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def names(data: Folder, part: str) -> list[str]:
    split = data.splits[part]
    return [Path(split.images.name(number)).name for number in split.numbers.tolist()]


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (("train", "val", "test"), {"train": 12, "val": 12, "test": 12}),
        (("training", "valid"), {"train": 12, "val": 12}),
        (("train", "test"), {"train": 9, "val": 3, "test": 12}),
        (("train",), {"train": 9, "val": 3}),
        (("",), {"train": 9, "val": 3}),
    ],
)
def test_layouts(tmp_path: Path, parts: tuple[str, ...], sizes: dict[str, int]):
    for part in parts:
        fill(tmp_path / "set" / part, **{"Bäume im Wald": 8, "cats": 4})
    data = Folder(str(tmp_path / "set"), FEED, val_size=0.25)
    data.setup()
    assert {part: len(split) for part, split in data.splits.items()} == sizes
    assert data.labels == ("Bäume im Wald", "cats")
    assert data.has_test == ("test" in parts)
    for split in data.splits.values():
        assert sorted(split.labels.unique().tolist()) == [0, 1]


def test_what_is_no_image_of_a_class(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = fill(tmp_path / "set", a=2, b=2)
    for name in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "b/.hidden.png", "a/notes.txt", "loose.png"):
        (root / name).write_bytes(b"x")
    (root / ".git").mkdir()
    fill(root / "b" / "holiday", deep=1)
    (root / "a" / "self").symlink_to(root / "a")
    data = Folder(str(root), FEED, val_size=0)
    data.setup("fit")
    assert names(data, "train") == ["00.png", "01.png", "00.png", "01.png", "00.png"]
    assert data.splits["train"].labels.tolist() == [0, 0, 1, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"{root} has images outside of every class's folder, which are left out: loose.png"
    ]


def test_the_same_images_are_set_apart_whatever_the_seed(tmp_path: Path):
    root = fill(tmp_path / "set", a=20, b=10)
    apart = []
    for seed, size in ((1, 6), (2, 0.2)):
        data = Folder(str(root), FEED, val_size=size, seed=seed)
        data.setup("fit")
        assert torch.bincount(data.splits["val"].labels).tolist() == [4, 2]
        assert not set(data.splits["val"].numbers.tolist()) & set(data.splits["train"].numbers.tolist())
        apart.append((names(data, "val"), data.describe()["splits"], data.val_size))
    assert apart[0] == apart[1]


def test_training_sees_crops_and_evaluation_the_centre(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), FEED, val_size=2, batch_size=6, crop=Crop(size=5))
    data.setup("fit")
    assert next(iter(data.train_dataloader())).images.shape == (6, 3, 5, 5)
    (batch,) = data.val_dataloader()
    picture = Image.open(data.splits["val"].images.name(int(data.splits["val"].numbers[0])))
    expected = FEED(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    assert torch.equal(FEED.normalize(batch.images)[0], expected)


def test_describe_is_plain_and_says_all(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), FEED, val_size=2, mix=Mix(cutmix=1.0), augment=Augment(erase=0.1))
    data.setup("fit")
    described = data.describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["kind"], described["crop"]["kind"], described["test_views"]) == ("Folder", "random_resized", "centre")
    assert (described["mix"]["cutmix"], described["augment"]["erase"], described["val_size"]) == (1.0, 0.1, 2)


def test_grey_weights_get_grey_images(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), Preprocess(size=8, mean=(0.5,), std=(0.25,)), val_size=0, batch_size=4)
    data.setup("fit")
    assert next(iter(data.train_dataloader())).images.shape == (4, 1, 8, 8)
    assert data.augment.fill == 117


def test_a_folder_that_changes_has_another_name(tmp_path: Path):
    root = fill(tmp_path / "set", a=3, b=3)

    def name() -> str:
        data = Folder(str(root), FEED, val_size=0)
        data.setup("fit")
        return data.splits["train"].fingerprint

    before = name()
    assert name() == before
    (root / "a" / "00.png").write_bytes(b"other")
    assert name() != before


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (lambda root: root.rename(root.with_name("away")), {}, "there is no folder .*set; set data.root"),
        (lambda root: [path.unlink() for path in root.rglob("*.png")], {}, "holds no images in folders of classes"),
        (lambda root: [path.unlink() for path in (root / "b").glob("*.png")], {}, "has classes without an image: b; put images there"),
        (lambda root: (root / "b").rename(root.with_name("b")), {}, "has one class, a; a classifier needs two"),
        (lambda root: fill(root / "test", a=1), {}, "has test, but no train; put train/CLASS/IMAGE there"),
        (lambda root: None, {"val_size": 8}, "data.val_size is 8, must be a share below 1, or a whole number below the 8"),
        (lambda root: None, {"val_size": 1.5}, "data.val_size is 1.5, must be a share"),
        (lambda root: None, {"threads": 0}, "data.threads is 0, must be at least 1"),
        (lambda root: None, {"on_bad_image": "shrug"}, "data.on_bad_image is 'shrug', must be one of: stop, skip"),
        (lambda root: None, {"test_views": "ten"}, "data.test_views is 'ten', must be one of: centre, ten_crop, multi_scale"),
        (lambda root: None, {"test_scales": ()}, r"data.test_scales is \[\], must be lengths"),
        (lambda root: None, {"repeats": 32, "mix": Mix(cutmix=1.0), "batch_size": 32}, "every image would be mixed with itself; use 64"),
        (lambda root: None, {"repeats": 3}, "data.batch_size is 64, which 3 copies of each image"),
        (lambda root: None, {"augment": Augment(pad=9, pad_mode="reflect")}, "augment.pad is 9"),
        (lambda root: None, {"preprocess": Preprocess(size=8, mean=(0,), std=(1,)), "test_views": "ten_crop"}, "for ten crops it must be"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, spoil, settings, says: str):
    root = fill(tmp_path / "set", a=4, b=4)
    spoil(root)
    with pytest.raises((ValueError, OSError), match=says) as caught:
        Folder(str(root), **{"preprocess": FEED, **settings})
    assert "\n" not in str(caught.value)


def test_classes_that_training_has_not(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "set" / "train", a=2, b=2, c=2)
    fill(tmp_path / "set" / "val", a=1, c=1)
    data = Folder(str(tmp_path / "set"), FEED)
    data.setup("fit")
    assert data.splits["val"].labels.tolist() == [0, 2], "numbered as in training"
    assert caplog.messages == [f"{tmp_path / 'set' / 'val'} has no image of b"]
    fill(tmp_path / "set" / "val", d=1)
    with pytest.raises(ValueError, match=r"has classes that .*train has not: d; give both the same folders"):
        Folder(str(tmp_path / "set"), FEED)


def test_an_empty_root_is_not_this_folder():
    with pytest.raises(ValueError, match=r"data\.root is empty"):
        Folder("")


def test_a_small_part_of_the_image_in_evaluation_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Folder(str(fill(tmp_path / "set", a=4, b=4)), Preprocess(size=8, resize=256, mean=(0.5,) * 3, std=(0.25,) * 3))
    assert caplog.messages == ["evaluation sees the middle 8 x 8 pixels of images with a shorter side of 256; set data.preprocess.resize"]


def test_nothing_to_test_on(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), FEED)
    with pytest.raises(ValueError, match="has no test images; `reslight validate` measures on the validation images"):
        data.setup("test")


@pytest.mark.parametrize("field", ["kind", "size", "scale", "ratio", "shorter"])
def test_crops_that_cannot_be(field: str):
    bad = {"kind": "whole", "size": 0, "scale": (0.5, 0.1), "ratio": (0.0, 1.0), "shorter": (30, 20)}
    with pytest.raises(ValueError, match=f"crop.{field} is "):
        Crop(**{field: bad[field]})
    with pytest.raises(ValueError, match=r"crop.shorter is .*must begin with 224, the crop's size"):
        Crop(kind="scale_jitter", shorter=(100, 200)).geometry(Preprocess(size=224, mean=(0.5,) * 3, std=(1.0,) * 3))
