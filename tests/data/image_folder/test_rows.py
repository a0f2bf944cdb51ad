"""Tables with paths, groups and lists of labels, against class folders and label files of the same images."""

import csv
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from reslight.data.image_folder.image_set import find_image_set
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.image_folder.rows import Texts, _relative
from reslight.data.image_folder.splits import LabelledImages
from reslight.messages import UsageError

NAMES = ["10.png", "9.png", "a b.png", "Zo\u0308.png"]
FOLDERS = {"cat": ["", "inner", "inner/deep"], normalize("NFC", "Bär"): ["", "x"]}


def png(number: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (6 + number % 3, 7, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    paths = [f"{one}/{inner}/{name}".replace("//", "/") for one, inners in FOLDERS.items() for inner in inners for name in NAMES]
    return {path: png(number) for number, path in enumerate(paths)}


def write_table(path: Path, rows: Mapping[str, Sequence[object]], features: Mapping[str, object]) -> None:
    struct = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    columns = {name: arrow.array(values, struct) if name == "image" else arrow.array(values) for name, values in rows.items()}
    table = arrow.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def label_feature(names: Sequence[str]) -> dict[str, object]:
    return {"label": {"names": list(names), "_type": "ClassLabel"}}


def same(one: LabelledImages, other: LabelledImages) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.labels.tolist() == other.labels.tolist()
    assert one.content == other.content
    assert [one.images.read(n) for n in range(len(one.images))] == [other.images.read(n) for n in range(len(other.images))]
    assert (one.groups is None) == (other.groups is None)
    if one.groups is not None and other.groups is not None:
        assert one.groups.tolist() == other.groups.tolist()
        assert one.group_names == other.group_names


@pytest.mark.parametrize("start", ["", "/home/cat/set/"])
def test_rows_with_paths_are_the_images_of_class_folders(tmp_path: Path, start: str):
    """In any order of the rows, with paths of the machine on which the table was made."""
    images, classes = pictures(), sorted(FOLDERS)
    for path, data in images.items():
        (tmp_path / "folders" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / path).write_bytes(data)
    order = np.random.default_rng(3).permutation(len(images))
    paths = [list(images)[number] for number in order]
    labels = [classes.index(path.partition("/")[0]) for path in paths]
    cells = [{"bytes": images[path], "path": start + path} for path in paths]
    for shard in range(2):
        rows = {"image": cells[shard::2], "label": labels[shard::2]}
        write_table(tmp_path / f"shards/train-0000{shard}-of-00002.parquet", rows, label_feature(classes))
    found, expected = find_image_set(str(tmp_path / "shards")), find_image_set(str(tmp_path / "folders"))
    assert found.classes == expected.classes
    same(found.splits["train"], expected.splits["train"])
    names = found.splits["train"].names
    assert names
    assert expected.splits["train"].names
    assert [normalize("NFC", name) for name in names()] == [normalize("NFC", name) for name in expected.splits["train"].names()]
    assert found.splits["train"].images.name(0).startswith("row ")


@pytest.mark.parametrize("kind", [str, int])
def test_groups_are_those_of_a_label_file(tmp_path: Path, kind: type):
    images = {f"{number}.png": png(number) for number in range(8)}
    labels, groups = [0, 1] * 4, [7, 7, 3, 3, 5, 5, 7, 3]
    (tmp_path / "set").mkdir()
    for name, data in images.items():
        (tmp_path / "set" / name).write_bytes(data)
    with (tmp_path / "set/metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "Patient ID"), *zip(images, map("ab".__getitem__, labels), groups, strict=True)])
    cells = [{"bytes": data, "path": name} for name, data in images.items()]
    rows = {"image": cells, "label": labels, "patient_id": [kind(one) for one in groups]}
    write_table(tmp_path / "shards/train.parquet", rows, label_feature("ab"))
    found, expected = find_image_set(str(tmp_path / "shards")), find_image_set(str(tmp_path / "set"))
    same(found.splits["train"], expected.splits["train"])
    assert found.splits["train"].group_names == ("7", "3", "5")


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (([1, None], [2, 2]), r"train-00000.* has 1 of 2 images without a value in the column group: all or none must have a group"),
        (([None, None], [2, 2]), r"train-00000.* has no groups, and other shards have: all or none must"),
        (([None, None], [None, None]), None),
    ],
)
def test_groups_of_some_images_are_no_groups(tmp_path: Path, groups: tuple[list[int | None], ...], says: str | None):
    """They would be in both training and validation."""
    for shard, of_shard in enumerate(groups):
        rows = {
            "image": [{"bytes": png(shard + more), "path": None} for more in (0, 2)],
            "label": [0, 1],
            "group": arrow.array(of_shard, arrow.int64()),
        }
        write_table(tmp_path / f"train-0000{shard}-of-00002.parquet", rows, label_feature("ab"))
    if says is None:
        assert find_image_set(str(tmp_path)).splits["train"].groups is None
    else:
        with pytest.raises(UsageError, match=says):
            find_image_set(str(tmp_path))


def test_groups_in_one_of_two_label_files_of_a_split(tmp_path: Path):
    for number in range(4):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / f"train/{number}.png").write_bytes(png(number))
    (tmp_path / "metadata.csv").write_text("file_name,label,group\ntrain/0.png,a,1\ntrain/1.png,b,2\n")
    (tmp_path / "train/metadata.csv").write_text("file_name,label\n2.png,a\n3.png,b\n")
    with pytest.raises(
        UsageError, match=r"train/metadata.csv has no groups, and .*metadata.csv has, for the same split train: all or none"
    ):
        find_image_set(str(tmp_path))


def test_several_labels_are_those_of_a_label_file(tmp_path: Path):
    images = {f"{number}.png": png(number) for number in range(6)}
    labels = [[0], [2, 1], [], [1], [0, 1, 2], [2]]
    (tmp_path / "set").mkdir()
    for name, data in images.items():
        (tmp_path / "set" / name).write_bytes(data)
    with (tmp_path / "set/metadata.csv").open("w", newline="") as file:
        texts = ["|".join("abc"[number] for number in row) for row in labels]
        csv.writer(file).writerows([("file_name", "labels"), *zip(images, texts, strict=True)])
    cells = [{"bytes": data, "path": name} for name, data in images.items()]
    features = {"labels": {"feature": {"names": list("abc"), "_type": "ClassLabel"}, "_type": "List"}}
    write_table(tmp_path / "shards/train.parquet", {"image": cells, "labels": labels}, features)
    found = find_image_set(str(tmp_path / "shards"))
    expected = find_image_set(str(tmp_path / "set"), columns=LabelColumns(separator="|"))
    assert found.multi_label
    assert found.classes == expected.classes == ("a", "b", "c")
    same(found.splits["train"], expected.splits["train"])


def test_texts_that_are_not_utf_8_are_kept():
    assert Texts.of([b"a", b"", b"\xff/\xc3\xa4"]).decoded() == ["a", "", "\udcff/ä"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/a/b/1", "/a/c/2"], ["b/1", "c/2"]),
        (["/a/1", "/a/b/2"], ["1", "b/2"]),
        (["/1", "/a/2"], ["1", "a/2"]),
        (["a/1", "/a/2"], ["a/1", "a/2"]),
        (["/a/b/1"], ["1"]),
    ],
)
def test_paths_of_a_machine(paths: list[str], expected: list[str]):
    assert _relative(paths) == expected
