"""Images and labels of parquet shards against what was written into them."""

import json
import logging
import os
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow as arrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from reslight.data import Folder
from reslight.data.image_folder import shard_cache, shards
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.image_folder.shards import image_set_in_shards
from reslight.data.loading.cache import writing_to

NAMES = ["apple tree", "Bär"]


def png(number: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (6 + number % 3, 7, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path, images: Sequence[bytes | None], labels: Sequence[int | None], *, names: list[str] | None = NAMES, plain: bool = False
) -> None:
    struct = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    cells = arrow.array(images, arrow.binary()) if plain else arrow.array([{"bytes": data, "path": None} for data in images], struct)
    table = arrow.table({"image": cells, "label": arrow.array(labels, arrow.int64())})
    features = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(schema, path, row_group_size=3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight training images in two shards, three of validation, two unlabelled ones of test."""
    write(tmp_path / "set/data/train-00000-of-00002.parquet", [png(n) for n in range(5)], [0, 1, 0, 1, 0])
    write(tmp_path / "set/data/train-00001-of-00002.parquet", [png(n) for n in range(5, 8)], [1, 1, 0], plain=True)
    write(tmp_path / "set/data/validation-00000-of-00001.parquet", [png(20), None, png(22)], [1, 0, 0])
    write(tmp_path / "set/data/test-00000-of-00001.parquet", [png(30), png(31)], [-1, -1])
    return tmp_path / "set"


@pytest.mark.parametrize("rows", [1, 2, 256])
def test_every_image_is_read_back(root: Path, rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shard_cache, "_ROWS", rows)
    found = find_image_set(str(root))
    assert found.classes == tuple(NAMES)
    assert set(found.splits) == {"train", "val"}
    train, val = found.splits["train"], found.splits["val"]
    assert [train.images.read(n) for n in range(8)] == [png(n) for n in range(8)]
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0]
    assert train.labels.dtype == torch.int64
    assert train.images.name(6) == f"row 1 of {root}/data/train-00001-of-00002.parquet"
    assert [val.images.read(n) for n in range(3)] == [png(20), b"", png(22)]
    assert found.warnings == (f"{root} has no labels for its 2 test images, which are ignored",)


def test_the_second_time_no_shard_is_opened(root: Path, monkeypatch: pytest.MonkeyPatch):
    before = image_set_in_shards(root)
    monkeypatch.setattr(parquet, "ParquetFile", lambda *_, **__: pytest.fail("a shard was opened"))
    after = image_set_in_shards(root)
    assert before
    assert after
    assert before.classes == after.classes == tuple(NAMES)
    assert before.splits["train"].fingerprint == after.splits["train"].fingerprint
    assert after.splits["train"].images.read(7) == png(7)


def test_accents_may_be_composed_or_decomposed(tmp_path: Path):
    """The classes and the fingerprint are those of one spelling, and shards may differ in it."""
    found = {}
    for copy, forms in {"one": ("NFC", "NFC"), "two": ("NFD", "NFD"), "three": ("NFC", "NFD")}.items():
        for split, form in zip(("train", "validation"), forms, strict=True):
            names = [normalize(form, name) for name in NAMES]
            write(tmp_path / copy / f"{split}.parquet", [png(0), png(1)], [0, 1], names=names)
        found[copy] = find_image_set(str(tmp_path / copy))
    assert [one.classes for one in found.values()] == [("apple tree", normalize("NFC", "Bär"))] * 3
    assert len({one.splits["val"].fingerprint for one in found.values()}) == 1


def test_copying_is_logged_once(root: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "reslight"):
        image_set_in_shards(root)
        image_set_in_shards(root)
    assert len(caplog.messages) == 1
    assert "13 images" in caplog.messages[0]
    assert str(root) in caplog.messages[0]
    assert f"{root.parent}/decoded/shards" in caplog.messages[0]


def test_few_images_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shard_cache, "_ROWS", 2)
    file = root / "data/train-00000-of-00002.parquet"
    columns = shard_cache._columns(file)[0]
    assert [len(images) for images in shard_cache._images(file, columns, shard_cache._info(file, columns))] == [2, 2, 1]


def test_images_without_labels_are_not_copied(tmp_path: Path):
    write(tmp_path / "set/train.parquet", [png(0), png(1)], [0, 1])
    write(tmp_path / "set/test.parquet", [bytes(1_000_000)] * 3, [-1, None, -1])
    found = image_set_in_shards(tmp_path / "set")
    assert found
    assert found.warnings == (f"{tmp_path}/set has no labels for its 3 test images, which are ignored",)
    assert sum(path.stat().st_size for path in (tmp_path / "decoded").rglob("*.images")) < 20_000


def test_a_cut_file_or_a_pipe_in_the_cache_is_written_again(root: Path):
    image_set_in_shards(root)
    for number, path in enumerate(sorted((root.parent / "decoded").rglob("*.images"))):
        content = path.read_bytes()
        path.unlink()
        if number:
            path.write_bytes(content[: number * 100])
        else:
            os.mkfifo(path)
    found = image_set_in_shards(root)
    assert found
    assert [found.splits["train"].images.read(n) for n in range(8)] == [png(n) for n in range(8)]


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_a_flipped_bit_in_the_cache_changes_nothing(
    root: Path, flip: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """A bit of any byte, in images, labels, names, places or checksums: the file is written again, and the shard is not blamed."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of files
    image_set_in_shards(root)
    path = next((root.parent / "decoded").rglob(f"{shard_cache._cache_key(root / 'data/train-00001-of-00002.parquet')}-*"))
    sound = path.read_bytes()
    for place in range(0, len(sound), 11):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ flip]) + sound[place + 1 :])
        found = image_set_in_shards(root)
        assert found
        assert [found.splits["train"].images.read(n) for n in range(8)] == [png(n) for n in range(8)]
        assert found.splits["train"].labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0]
        assert found.classes == tuple(NAMES)
        assert path.read_bytes() == sound
    assert f"{path} is damaged: {root}/data/train-00001-of-00002.parquet is copied again" in caplog.text


def test_a_copy_that_is_damaged_in_training_is_made_again_once(root: Path, caplog: pytest.LogCaptureFixture):
    found = image_set_in_shards(root)
    assert found
    images = found.splits["train"].images
    for path in (root.parent / "decoded").rglob("*.images"):
        with path.open("r+b") as file:  # the mapped file itself
            file.write(bytes(64))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(images.read, [0, 0, 0, 5, 5, 5])) == [png(0)] * 3 + [png(5)] * 3
    assert len(caplog.messages) == 2, "once for each shard"


def test_a_shard_that_was_replaced_does_not_repair_a_copy(root: Path):
    found = image_set_in_shards(root)
    assert found
    for path in (root.parent / "decoded").rglob("*.images"):
        with path.open("r+b") as file:
            file.write(bytes(64))
    write(root / "data/train-00000-of-00002.parquet", [png(n) for n in range(1, 6)], [0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match=r"train-00000-of-00002\.parquet has other images than at the start of this run\. Start again\."):
        found.splits["train"].images.read(0)


def test_copies_go_to_other_processes(root: Path):
    found = image_set_in_shards(root)
    assert found
    sent = pickle.dumps(found.splits["train"].images)
    assert len(sent) < 2000, "paths, not images"
    assert pickle.loads(sent).read(7) == png(7)


def test_what_killed_processes_left_in_the_cache_is_removed(root: Path):
    image_set_in_shards(root)
    left = root.parent / "decoded/shards/.0123-4567.images.89ab.tmp"
    left.write_bytes(b"half an image")
    with writing_to(left.parent):
        image_set_in_shards(root)
        assert left.exists(), "another process may still write it"
    image_set_in_shards(root)
    assert not left.exists()


def test_the_content_of_shards_is_that_of_their_images(root: Path):
    def content() -> str:
        found = image_set_in_shards(root)
        assert found
        return found.splits["train"].content

    before = content()
    images = [png(n) for n in range(5)]
    write(root / "data/train-00000-of-00002.parquet", images, [0, 1, 0, 1, 0], plain=True)
    assert content() == before, "another form of the same images"
    images[3] = images[3][:-20] + bytes(20)  # of the same size
    write(root / "data/train-00000-of-00002.parquet", images, [0, 1, 0, 1, 0])
    assert content() != before


def test_a_shard_that_changes_is_read_again(root: Path, tmp_path: Path):
    before = image_set_in_shards(root)
    write(root / "data/train-00001-of-00002.parquet", [png(40), png(41)], [1, 0])
    after = image_set_in_shards(root)
    assert before
    assert after
    assert [after.splits["train"].images.read(n) for n in (0, 5, 6)] == [png(0), png(40), png(41)]
    assert before.splits["train"].fingerprint != after.splits["train"].fingerprint
    assert len(list((tmp_path / "decoded/shards").iterdir())) == 4, "nothing stale is kept"


def test_threads_read_at_once(root: Path):
    found = image_set_in_shards(root)
    assert found
    barrier = threading.Barrier(4)

    def look(first: int) -> list[tuple[int, bytearray]]:
        barrier.wait()
        return [(n % 8, found.splits["train"].images.read(n % 8)) for n in range(first, first + 200)]

    expected = [png(n) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert all(data == expected[n] for read in pool.map(look, range(4)) for n, data in read)


def test_threads_copy_at_once(root: Path):
    barrier = threading.Barrier(4)

    def look(_: int) -> list[bytearray]:
        barrier.wait()
        found = image_set_in_shards(root)
        assert found
        return [found.splits["train"].images.read(n) for n in range(8)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(look, range(4))) == [[png(n) for n in range(8)]] * 4


def test_another_process_copies_in_the_middle_of_it(root: Path, monkeypatch: pytest.MonkeyPatch):
    """A second process copies the shards while the first has written half a file."""
    others = []
    images = shard_cache._images

    def interrupted(*arguments: object):
        for number, batch in enumerate(images(*arguments)):
            yield batch
            if number == 0 and not others:
                others.append(None)
                others.append(image_set_in_shards(root))

    monkeypatch.setattr(shard_cache, "_ROWS", 2)
    monkeypatch.setattr(shard_cache, "_images", interrupted)
    for found in (image_set_in_shards(root), others[1]):
        assert found
        assert [found.splits["train"].images.read(n) for n in range(8)] == [png(n) for n in range(8)]
    assert len(list((root.parent / "decoded/shards").iterdir())) == 4, "one file for each shard, nothing half-written"


@pytest.mark.parametrize("place", ["", "data", "plain_text"])
def test_folders_of_shards(tmp_path: Path, place: str):
    write(tmp_path / "set" / place / "train.parquet", [png(0), png(1)], [0, 1])
    write(tmp_path / "set" / place / "test/0000.parquet", [png(2)], [1])
    found = image_set_in_shards(tmp_path / "set")
    assert found
    assert {split: len(one.labels) for split, one in found.splits.items()} == {"train": 2, "test": 1}


def test_classes_without_names_are_numbers(tmp_path: Path):
    write(tmp_path / "train.parquet", [png(0), png(1), png(2)], [0, 2, 2], names=None)
    found = image_set_in_shards(tmp_path)
    assert found
    assert found.classes == ("0", "1", "2")
    assert found.warnings == (f"{tmp_path} has no training images of 1",)


def test_columns_of_other_names_where_only_one_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    parquet.write_table(arrow.table({"text": ["a", "b"], "kind": [1, 0], "picture": [png(0), png(1)]}), tmp_path / "train.parquet")
    found = image_set_in_shards(tmp_path)
    assert found
    assert found.splits["train"].labels.tolist() == [1, 0]
    assert found.splits["train"].images.read(1) == png(1)
    assert caplog.messages == [f"{tmp_path}: labels are read from the column kind, the only one of whole numbers"]


def test_shards_with_hashes_in_their_names(tmp_path: Path):
    for number in range(2):
        write(tmp_path / f"train-0000{number}-of-00002-{number}123456789abcdef.parquet", [png(number)], [number])
    found = image_set_in_shards(tmp_path)
    assert found
    assert [found.splits["train"].images.read(n) for n in range(2)] == [png(0), png(1)]


COLUMNS: list[tuple[dict[str, list], str]] = [
    ({"picture": [b"a"], "label": [0], "other": [b"b"]}, "has the columns picture, label, other: .* img or image"),
    ({"image": [b"a"], "a": [0], "b": [1]}, "has the columns image, a, b: .* fine_label or label or labels"),
    ({"image": [[1, 2]], "label": [0]}, "has list<.*> in the column image: images must be bytes"),
    ({"image": [{"path": "a"}], "label": [0]}, "row 0 of .*train.parquet names a: there is no such image in"),
    ({"image": [b"a"], "label": ["cat"]}, "has string in the column label: labels must be whole numbers"),
    ({"image": [b"a"], "label": [1_000_000]}, "has the label 1000000: labels must be below 1,000,000"),
]


@pytest.mark.parametrize(("columns", "says"), COLUMNS)
def test_columns_that_do_not_fit(tmp_path: Path, columns: dict[str, list], says: str):
    parquet.write_table(arrow.table(columns), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=says) as caught:
        image_set_in_shards(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_data_module_decodes_them(root: Path):
    data = Folder(str(root), batch_size=4, on_bad_image="skip")
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert [batch.labels.tolist() for batch in batches] == [[1, 0]]  # the image without bytes is left out
    assert data.labels == tuple(NAMES)
    val = data.splits["val"]
    assert data.data_info()["splits"]["val"] == {"size": 3, "fingerprint": val.fingerprint, "content": val.content, "skipped": 1}


def damaged(root: Path) -> None:
    path = root / "data/train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:200])


def no_folder_for_the_cache(root: Path) -> None:
    (root.parent / "decoded").write_text("a file")


def hashed_beside_plain(root: Path) -> None:
    write(root / "data/train-00001-of-00002-0123456789abcdef.parquet", [png(1)], [0])


def hashed_of_one_and_of_two(root: Path) -> None:
    one_of_two_hashed(root)
    write(root / "data/train-00000-of-00001-0123456789abcdef.parquet", [png(1)], [0])


def one_of_two_hashed(root: Path) -> None:
    for path in (root / "data").glob("train*"):
        path.unlink()
    write(root / "data/train-00001-of-00002-0123456789abcdef.parquet", [png(1)], [0])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: write(root / "data/test-00000-of-00001.parquet", [png(1), png(2)], [0, None]), "has images without a label"),
        (damaged, "train-00000-of-00002.parquet is damaged"),
        (no_folder_for_the_cache, "decoded/shards cannot hold the images of .*RESLIGHT_CACHE"),
        (lambda root: (root / "data/train-00001-of-00002.parquet").unlink(), "set/data is incomplete: train-00001-of-00002 is missing"),
        (lambda root: [path.unlink() for path in (root / "data").glob("train*")], "shards of val and test, but none of train"),
        (
            lambda root: write(root / "data/validation-00000-of-00001.parquet", [png(1)], [2]),
            "has the label 2 in val: labels must be 0 to 1",
        ),
        (lambda root: write(root / "data/validation-00000-of-00001.parquet", [], []), "has no images in the shards of val"),
        (
            lambda root: write(root / "data/train-00001-of-00002.parquet", [png(1)], [None]),
            r"has the label -1 \(or none\) in train: labels must be 0",
        ),
        (
            lambda root: write(root / "data/validation-00000-of-00001.parquet", [png(1)], [0], names=NAMES[::-1]),
            "validation-00000-of-00001.parquet has other classes than .*train-00000-of-00002.parquet, or another order",
        ),
        (hashed_beside_plain, "shards of train from two uploads, train-00001-of-00002.parquet"),
        (lambda root: write(root / "data/train-00000-of-00001.parquet", [png(1)], [0]), "shards of train from two uploads"),
        (hashed_of_one_and_of_two, "shards of train from two uploads, train-00001-of-00002-0123"),
        (one_of_two_hashed, "train-00000-of-00002 is missing"),
        (
            lambda root: write(root / "data/train-00000-of-00002.parquet", [png(1)], [0], names=["a", "\x1b[31mb"]),
            r"train-00000-of-00002.parquet has class names that are not printable text: \\x1b\[31mb. Rename",
        ),
        (lambda root: (root / "data").rename(root / "a") and write(root / "b/train.parquet", [png(1)], [0]), "several sets of shards"),
    ],
)
def test_mistakes_are_one_line(root: Path, spoil, says: str):
    spoil(root)
    with pytest.raises((ValueError, OSError), match=says) as caught:
        find_image_set(str(root))
    assert "\n" not in str(caught.value)
    cache = root.parent / "decoded"
    assert not cache.is_dir() or not list(cache.rglob(".*")), "nothing half-written is left"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch):
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *how: opened(Path("/dev/full") if self.name.startswith(".") else self, *how))
    says = r"/decoded/shards cannot hold the images of .*parquet: No space left on device\. Make room, or set RESLIGHT_CACHE\.$"
    with pytest.raises(OSError, match=says):
        image_set_in_shards(root)


def test_folders_of_images_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The search by pattern listed each folder of a class seven times, which took seconds for a hundred thousand images."""
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    monkeypatch.setattr(shards, "shards_in", lambda folder, _: pytest.fail(f"{folder} was searched"))
    assert image_set_in_shards(tmp_path) is None
    assert image_set_in_shards(tmp_path / "missing") is None
