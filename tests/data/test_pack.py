"""`reslight data pack`: what is in the shards, what `Folder` and `datasets` read of them, and what a stopped pack leaves."""

import csv
import hashlib
import json
import shutil
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from tests.data.image_folder.test_rows import same

from reslight.cli.commands.data_pack import pack_data
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.loading.decode import decode
from reslight.data.pack import pack as packing
from reslight.data.pack.pack import begin
from reslight.data.pack.recode import Recipe


def image(number: int, height: int = 40, width: int = 60) -> Image.Image:
    small = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight training and two test images, in nested folders, some small, one turned by its EXIF orientation, one gray."""
    number = 0
    for name in ("train/cat", "train/dog/inner", "test/cat"):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        for place in range(2 if name.startswith("test") else 4):
            number += 1
            made = image(number, *((12, 10) if place == 3 else (40, 60)))
            exif = Image.Exif()
            exif[0x0112] = 6 if number == 1 else 1
            (made.convert("L") if number == 2 else made).save(folder / f"{place}.jpg", exif=exif, quality=90)
    return tmp_path / "set"


def test_files_as_they_are(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The run of a pack is that of the folder: order, labels, fingerprints and bytes."""
    monkeypatch.setattr(packing, "_SHARD", 1500)
    pack_data(str(root), str(tmp_path / "out"))
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith(f"10 images (8 train, 2 test) of 2 classes to {tmp_path}/out: about ")
    size = sum(path.stat().st_size for path in (tmp_path / "out/data").iterdir())
    assert said[-1] == f"{tmp_path}/out has all 10 images, {size / 1e3:,.0f} kB. Use it with --data.root {tmp_path}/out"
    assert len(list((tmp_path / "out/data").glob("train-*"))) > 1
    found, expected = find_image_set(str(tmp_path / "out")), find_image_set(str(root))
    assert found.classes == expected.classes
    for split in ("train", "test"):
        same(found.splits[split], expected.splits[split])
    plan = json.loads((tmp_path / "out/pack.json").read_text())
    for name, about in plan["shards"].items():
        data = (tmp_path / "out/data" / name).read_bytes()
        assert about == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_test_images_without_labels_are_left_out(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (root / "test/cat").rename(root / "test/unknown")
    pack_data(str(root), str(tmp_path / "out"))
    said = capsys.readouterr().out
    assert "left out: 2 test images without labels; keep the folder to predict them\n" in said
    assert said.endswith(f"out has all 8 images, {said.rpartition('images, ')[2]}")


def test_the_library_datasets_reads_the_same(root: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    pack_data(str(root), str(tmp_path / "out"))
    files = {"train": str(tmp_path / "out/data/train-*.parquet"), "test": str(tmp_path / "out/data/test-*.parquet")}
    for split, path in files.items():
        loaded = datasets.Dataset.from_parquet(path, cache_dir=str(tmp_path / "cache"))
        assert loaded.features["label"].names == ["cat", "dog"]
        expected = find_image_set(str(root)).splits[split]
        assert loaded["label"][:] == expected.labels.tolist()
        pixels = np.asarray(loaded[0]["image"].convert("RGB"))
        assert (pixels == decode(expected.images.read(0), "").permute(1, 2, 0).numpy()).all(), "both turn images"


@pytest.mark.parametrize("form", [None, "png", "webp", "webp-lossless"])
def test_smaller_images(root: Path, tmp_path: Path, form: str | None):
    pack_data(str(root), str(tmp_path / "out"), size=20, format=form)
    found, expected = find_image_set(str(tmp_path / "out")).splits["train"], find_image_set(str(root)).splits["train"]
    kinds = {None: "JPEG", "webp-lossless": "WEBP"}
    for number in range(8):
        data, before = found.images.read(number), expected.images.read(number)
        pixels, whole = decode(data, ""), decode(before, "")
        is_small = min(whole.shape[-2:]) <= 20
        if is_small and form is None:
            assert data == before
            continue
        with Image.open(BytesIO(data)) as opened:
            assert opened.format == kinds.get(form, str(form).upper())
            assert opened.mode == ("L" if number == 1 and opened.format != "WEBP" else "RGB")
        shape = whole.shape[-2:] if is_small else (30, 20) if number == 0 else (20, 30)
        assert tuple(pixels.shape[-2:]) == tuple(shape)
        if form in ("png", "webp-lossless") and not is_small:
            width, height = pixels.shape[-1], pixels.shape[-2]
            picture = Image.fromarray(whole.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BICUBIC)
            assert np.abs(np.asarray(picture).astype(int) - pixels.permute(1, 2, 0).numpy()).max() <= 2, "Pillow's resizing"


def test_groups_and_several_labels_survive(tmp_path: Path):
    (tmp_path / "set").mkdir()
    rows = [("file_name", "labels", "split", "patient_id")]
    for number in range(8):
        image(number).save(tmp_path / f"set/{number}.png")
        rows.append((f"{number}.png", ["a|b", "b", "", "c|a"][number % 4], "train" if number < 5 else "val", f"p{number * 3 % 5}"))
    with (tmp_path / "set/metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    expected = find_image_set(str(tmp_path / "set"), columns=LabelColumns(separator="|"))
    pack_data(str(tmp_path / "set"), str(tmp_path / "out"), columns=["separator=|"])
    found = find_image_set(str(tmp_path / "out"))
    assert found.multi_label
    assert found.classes == expected.classes == ("a", "b", "c")
    for split in ("train", "val"):
        same(found.splits[split], expected.splits[split])
    pack_data(str(tmp_path / "out"), str(tmp_path / "again"))
    same(find_image_set(str(tmp_path / "again")).splits["train"], expected.splits["train"])


def test_a_stopped_pack_goes_on(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whole shards are kept, byte for byte, and half a shard is nowhere; the result is that of a pack that was not stopped."""
    monkeypatch.setattr(packing, "_SHARD", 1500)
    out, recipe, images = tmp_path / "out", Recipe(20), find_image_set(str(root))

    class Stop(BaseException):
        pass

    def stop(count: int) -> None:
        if count == 4:
            raise Stop

    with pytest.raises(Stop):
        list(begin(images, out, recipe, 2).write(stop))
    whole = {path.name: path.stat().st_mtime_ns for path in (out / "data").glob("*.parquet")}
    assert 1 <= len(whole) < len(begin(images, out, recipe, 2).shards())
    assert not [path for path in out.rglob("*.tmp") if path.name not in whole]
    assert threading.active_count() < 20
    list(begin(images, out, recipe, 2).write(lambda _: None))
    assert {name: (out / "data" / name).stat().st_mtime_ns for name in whole} == whole
    list(begin(images, tmp_path / "other", recipe, 1).write(lambda _: None))
    for path in (tmp_path / "other/data").iterdir():
        assert path.read_bytes() == (out / "data" / path.name).read_bytes()
    assert begin(images, out, recipe, 2).left() == []
    first = next(iter(whole))
    (out / "data" / first).write_bytes(b"")
    assert [shard.name for shard in begin(images, out, recipe, 2).left()] == [first]


def test_a_flipped_bit_in_a_shard_is_found(root: Path, tmp_path: Path):
    pack_data(str(root), str(tmp_path / "out"))
    path = next((tmp_path / "out/data").glob("train-*"))
    data = bytearray(path.read_bytes())
    place = data.index(find_image_set(str(root)).splits["train"].images.read(3)) + 40
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises((ValueError, OSError), match=r"train-00000-of-00001\.parquet is damaged") as caught:
        find_image_set(str(tmp_path / "out"))
    assert "\n" not in str(caught.value)


def test_images_that_cannot_be_read_are_kept(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (root / "train/cat/1.jpg").write_bytes(b"\xff\xd8 no image")
    pack_data(str(root), str(tmp_path / "out"), size=20)
    assert f"kept as it is: {root}/train/cat/1.jpg is not an image" in capsys.readouterr().out
    assert find_image_set(str(tmp_path / "out")).splits["train"].images.read(1) == b"\xff\xd8 no image"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"size": 0}, "--size is 0: it must be 1 to 8192 pixels"),
        ({"quality": 101}, "--quality is 101: it must be 1 to 100"),
        ({"format": "gif"}, "--format is gif: it must be one of jpeg, webp, png, webp-lossless"),
        ({"threads": 0}, "--threads is 0: it must be at least 1"),
        ({"out": " "}, "OUT is empty: it must be the folder of the shards"),
        ({"out": "{root}/packed"}, "OUT is .*packed: it is in the folder of the images"),
        ({"out": "{tmp}"}, "OUT is .*: it has other files"),
        ({"out": "{tmp}/begun", "quality": 90}, "OUT is .*begun: it has a pack of other settings"),
        ({"root": "{root}/train", "out": "{tmp}/begun"}, "OUT is .*begun: it has a pack of other images"),
        ({"root": "{tmp}/missing"}, "ROOT is .*missing: there is no such folder"),
        ({"root": "{tmp}/empty"}, "ROOT is .*empty: its split val has no images"),
        ({"root": "{tmp}/empty", "format": "litdata"}, "ROOT is .*empty: its split val has no images"),
    ],
)
def test_mistakes_are_one_line(root: Path, tmp_path: Path, arguments: dict[str, object], says: str):
    pack_data(str(root), str(tmp_path / "begun"))
    shutil.copytree(root, tmp_path / "empty")
    (tmp_path / "empty/val/cat").mkdir(parents=True)
    given = {"root": str(root), "out": str(tmp_path / "out")} | arguments
    given = {name: value.format(root=root, tmp=tmp_path) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises((ValueError, OSError), match=says) as caught:
        pack_data(**given)
    assert "\n" not in str(caught.value)


def test_a_disk_without_room_is_said_before(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"out needs about 0\.00 GB: the disk has 0\.00 GB\. Make room, or use a smaller --size"):
        pack_data(str(root), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_shards_have_small_row_groups(root: Path, tmp_path: Path):
    pack_data(str(root), str(tmp_path / "out"))
    schema = parquet.ParquetFile(next((tmp_path / "out/data").glob("train-*"))).schema_arrow
    assert schema.names == ["image", "label"]
