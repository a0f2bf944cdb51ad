"""Images and labels of parquet shards against what was written into them."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from reslight.data import Folder, shards
from reslight.data.find import find_parts
from reslight.data.parquet import parts_in_shards

NAMES = ["apple tree", "Bär"]


def png(number: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (6 + number % 3, 7, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path, images: Sequence[bytes | None], labels: Sequence[int], *, names: list[str] | None = NAMES, plain: bool = False
) -> None:
    cells = list(images) if plain else [{"bytes": data, "path": None} for data in images]
    table = arrow.table({"image": cells, "label": list(labels)})
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


def test_every_image_is_where_it_was_written(root: Path):
    found = find_parts(str(root))
    assert found.classes == tuple(NAMES)
    assert set(found.parts) == {"train", "val"}
    train, val = found.parts["train"], found.parts["val"]
    assert [train.images.read(n) for n in range(8)] == [png(n) for n in range(8)]
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0]
    assert train.labels.dtype == torch.int64
    assert train.images.name(6) == f"row 1 of {root}/data/train-00001-of-00002.parquet"
    assert [val.images.read(n) for n in range(3)] == [png(20), b"", png(22)]
    assert found.remarks == (f"{root} does not say what is on its 2 test images, which are left out",)


def test_the_second_time_no_shard_is_read(root: Path, monkeypatch: pytest.MonkeyPatch):
    before = parts_in_shards(root)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("a shard was read"))
    after = parts_in_shards(root)
    assert before
    assert after
    assert before.parts["train"].fingerprint == after.parts["train"].fingerprint
    assert after.parts["train"].images.read(7) == png(7)


def test_a_shard_that_changes_is_read_again(root: Path, tmp_path: Path):
    before = parts_in_shards(root)
    write(root / "data/train-00001-of-00002.parquet", [png(40), png(41)], [1, 0])
    after = parts_in_shards(root)
    assert before
    assert after
    assert [after.parts["train"].images.read(n) for n in (0, 5, 6)] == [png(0), png(40), png(41)]
    assert before.parts["train"].fingerprint != after.parts["train"].fingerprint
    assert len(list((tmp_path / "decoded/shards").iterdir())) == 4, "nothing stale is kept"


def test_threads_and_processes_at_once(root: Path):
    barrier = threading.Barrier(4)

    def look(_: int) -> list[bytearray]:
        barrier.wait()
        found = parts_in_shards(root)
        assert found
        return [found.parts["train"].images.read(n) for n in range(8)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(look, range(4))) == [[png(n) for n in range(8)]] * 4


@pytest.mark.parametrize("place", ["", "data", "plain_text"])
def test_where_shards_may_lie(tmp_path: Path, place: str):
    write(tmp_path / "set" / place / "train.parquet", [png(0), png(1)], [0, 1])
    write(tmp_path / "set" / place / "test/0000.parquet", [png(2)], [1])
    found = parts_in_shards(tmp_path / "set")
    assert found
    assert {part: len(one.labels) for part, one in found.parts.items()} == {"train": 2, "test": 1}


def test_classes_without_names_are_numbers(tmp_path: Path):
    write(tmp_path / "train.parquet", [png(0), png(1), png(2)], [0, 2, 2], names=None)
    found = parts_in_shards(tmp_path)
    assert found
    assert found.classes == ("0", "1", "2")
    assert found.remarks == (f"{tmp_path} has no training image of 1",)


def test_a_data_module_decodes_them(root: Path):
    data = Folder(str(root), batch_size=4, on_bad_image="skip")
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert [batch.labels.tolist() for batch in batches] == [[1, 0]]  # the image without bytes is left out
    assert data.labels == tuple(NAMES)
    assert data.describe()["splits"]["val"] == {"size": 3, "fingerprint": data.splits["val"].fingerprint, "skipped": 1}


def damaged(root: Path) -> None:
    path = root / "data/train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:200])


def no_folder_for_the_cache(root: Path) -> None:
    (root.parent / "decoded").write_text("a file")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: write(root / "data/test-00000-of-00001.parquet", [png(1), png(2)], [0, None]), "has images without a label"),
        (damaged, "train-00000-of-00002.parquet is damaged or was cut short"),
        (no_folder_for_the_cache, "cannot be kept in .*make room, or set RESLIGHT_CACHE"),
        (lambda root: (root / "data/train-00001-of-00002.parquet").unlink(), "lacks train-00001-of-00002.parquet"),
        (lambda root: [path.unlink() for path in (root / "data").glob("train*")], "shards of val and test, but none of train"),
        (lambda root: write(root / "data/validation-00000-of-00001.parquet", [png(1)], [2]), "has the label 2 in val, expected 0 to 1"),
        (lambda root: write(root / "data/validation-00000-of-00001.parquet", [], []), "holds no images of val|labels must be whole"),
        (lambda root: (root / "data").rename(root / "a") and write(root / "b/train.parquet", [png(1)], [0]), "several sets of shards"),
    ],
)
def test_mistakes_are_one_line(root: Path, spoil, says: str):
    spoil(root)
    with pytest.raises((ValueError, OSError), match=says) as caught:
        find_parts(str(root))
    assert "\n" not in str(caught.value)
    cache = root.parent / "decoded"
    assert not cache.is_dir() or not list(cache.rglob(".*")), "nothing half-written is left"


def test_cifars_reader_shares_its_columns():
    assert shards.column_of(Path("x"), ["img", "fine_label"], shards.IMAGE_COLUMNS) == "img"
    with pytest.raises(ValueError, match="has the columns a, b; one of them must be called img or image"):
        shards.column_of(Path("x"), ["a", "b"], shards.IMAGE_COLUMNS)
