"""Several labels of an image: every way to write them gives the same dataset, and every mistake one line."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
import torch
from pyarrow import parquet
from tests.data.image_folder.test_folder import PREPROCESS, fill
from tests.data.image_folder.test_labelled_folder import write_csv, write_json_lines, write_parquet

from reslight.data import Folder
from reslight.data.image_folder.label_table import LabelColumns
from reslight.messages import UsageError

CLASSES = ("dog", "cat", "bird")
SETS = [("cat",), ("dog", "cat"), (), ("bird",), ("bird", "dog"), ("cat",), ("dog",), ("cat", "dog", "bird")]
HOT = {(): [0, 0, 0], ("bird",): [1, 0, 0], ("cat",): [0, 1, 0], ("dog",): [0, 0, 1]}
"""The classes in order: bird, cat, dog."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    fill(root, all=len(SETS))
    return root


def rows_of(root: Path) -> list[tuple[str, tuple[str, ...]]]:
    return [(f"all/{path.name}", names) for path, names in zip(sorted((root / "all").iterdir()), SETS, strict=True)]


def columns_of(yes: Any, no: Any) -> Callable[[Path, Path], tuple[Path, LabelColumns]]:
    def write(root: Path, folder: Path) -> tuple[Path, LabelColumns]:
        rows = [(file, *(yes if name in names else no for name in CLASSES), "x") for file, names in rows_of(root)]
        return write_csv(folder / "l.csv", rows, ("file_name", *CLASSES, "other")), LabelColumns(label=CLASSES)

    return write


def separator(root: Path, folder: Path) -> tuple[Path, LabelColumns]:
    rows = [(file, " | ".join((*names, " "))) for file, names in rows_of(root)]
    return write_csv(folder / "l.csv", rows, ("file_name", "labels")), LabelColumns(separator="|")


def lists(root: Path, folder: Path) -> tuple[Path, LabelColumns]:
    rows = [(file, [*names, *names]) for file, names in rows_of(root)]
    return write_json_lines(folder / "l.jsonl", rows, ("file", "label")), LabelColumns()


def bools(root: Path, folder: Path) -> tuple[Path, LabelColumns]:
    rows = [(file, *(name in names for name in CLASSES)) for file, names in rows_of(root)]
    return write_parquet(folder / "l.parquet", rows, ("file", *CLASSES)), LabelColumns(label=CLASSES[::-1])


def hub(root: Path, folder: Path) -> tuple[Path, LabelColumns]:
    """As `datasets` writes a list of numbers of named classes."""
    rows = rows_of(root)
    table = arrow.table({"file_name": [file for file, _ in rows], "label": [[CLASSES.index(name) for name in names] for _, names in rows]})
    features = {"label": {"feature": {"names": list(CLASSES), "_type": "ClassLabel"}, "_type": "List"}}
    path = folder / "l.parquet"
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    return path, LabelColumns()


FORMS = (columns_of(1, 0), columns_of("true", ""), columns_of("1.0", "0.0"), separator, lists, bools, hub)


def test_every_form_gives_the_same_dataset(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = sorted((" ".join(sorted(names)), [sum(HOT[name,][place] for name in names) for place in range(3)]) for names in SETS)
    found = set()
    for write in FORMS:
        file, columns = write(root, tmp_path)
        with caplog.at_level(logging.WARNING):
            data = Folder(str(root), PREPROCESS, labels=str(file), labels_columns=columns, val_size=0)
            data.setup("fit")
        assert f"{file} has 1 of 8 train images without a class" in caplog.text
        split = data.splits["train"]
        assert data.multi_label
        assert data.labels == ("bird", "cat", "dog")
        assert split.labels.dtype == torch.uint8
        assert split.labels.tolist() == [hot for _, hot in expected]
        assert data.data_info()["multi_label"] is True
        found.add(split.fingerprint)
    assert len(found) == 1


def test_a_batch_has_its_labels_as_float(root: Path, tmp_path: Path) -> None:
    file, columns = separator(root, tmp_path)
    data = Folder(str(root), PREPROCESS, labels=str(file), labels_columns=columns, val_size=0, batch_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    ready = data.on_after_batch_transfer(batch, 0)
    assert ready.labels.dtype == torch.float32
    assert torch.equal(ready.labels, data.splits["train"].labels[batch.indices].float())


def test_the_fingerprint_depends_on_the_labels(root: Path, tmp_path: Path) -> None:
    def fingerprint(sets: Sequence[Sequence[str]]) -> str:
        rows = [(file, "|".join(names)) for (file, _), names in zip(rows_of(root), sets, strict=True)]
        file = write_csv(tmp_path / "l.csv", rows, ("file_name", "label"))
        data = Folder(str(root), PREPROCESS, labels=str(file), labels_columns=LabelColumns(separator="|"), val_size=0)
        data.setup("fit")
        return data.splits["train"].fingerprint

    assert fingerprint(SETS) != fingerprint([("dog",), *SETS[1:]])


def test_metadata_with_columns_of_classes_is_found(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    fill(folder, all=len(SETS))
    columns_of(1, 0)(folder, folder)[0].rename(folder / "metadata.csv")
    assert Folder(str(folder), PREPROCESS, labels_columns=LabelColumns(label=CLASSES)).multi_label


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "file,cat,dog\n{0},1,0\n{1},-1,1\n",
            {"label": ("cat", "dog")},
            "line 3 of {file} has -1 in the column cat: the label must be 0, 1",
        ),
        (
            "file,cat,dog\n{0},1,0\n{1},-1,1\n",
            {"label": ["cat", "dog"]},
            "line 3 of {file} has -1 in the column cat: the label must be 0, 1",
        ),
        ("file,cat,dog\n{0},1,0\n{1},1,0\n", {"label": ("cat", "dog")}, "{file} has no training image of dog. Leave these columns out"),
        (
            "file,cat,dog\n{0},1,0\n",
            {"label": ("cat", "dgo")},
            "data.labels_columns.label is dgo: {file} has the columns file, cat, dog. ",
        ),
        (
            "file,label\n{0},a|b\n{0},b\n",
            {"separator": "|"},
            "line 3 of {file} gives {0} the label b: line 2 of {file} gives it a + b. ",
        ),
        ("file,label\n{0},a\n{1},\n", {"separator": "|"}, "{file} has one class, a: a classifier needs at least two."),
        ("file,label\n{0},\n{1},|\n", {"separator": "|"}, "{file} has no class: a classifier needs at least two."),
        (
            "file,label\n{0},a\n",
            {"separator": ""},
            "data.labels_columns.separator is '': it must be text, and null ",
        ),
        (
            "file,a,b\n{0},1,1\n",
            {"label": ("a", "b"), "separator": "|"},
            "data.labels_columns.separator is '|': it must be text, and null",
        ),
        ("file,label,split\n{0},a|b,train\n{1},c,val\n", {"separator": "|"}, "{file} has classes in val that are missing in train: c. Add"),
    ],
)
def test_a_mistake_is_one_line(root: Path, tmp_path: Path, text: str, columns: dict[str, Any], message: str) -> None:
    files = [file for file, _ in rows_of(root)]
    (tmp_path / "l.csv").write_text(text.format(*files))
    with pytest.raises(UsageError) as error:
        Folder(str(root), PREPROCESS, labels=str(tmp_path / "l.csv"), labels_columns=LabelColumns(**columns))
    assert str(error.value).startswith(message.format(*files, file=tmp_path / "l.csv")), error.value
    assert "\n" not in str(error.value)


def test_a_bad_value_in_a_list_is_one_line(root: Path, tmp_path: Path) -> None:
    files = [file for file, _ in rows_of(root)]
    path = write_json_lines(tmp_path / "l.jsonl", [(files[0], ["a", "b"]), (files[1], ["a", 1.5])], ("file", "label"))
    with pytest.raises(UsageError, match=r"line 2 of .* has \['a', 1.5\] in the column label: the label must be a list of text or whole"):
        Folder(str(root), PREPROCESS, labels=str(path))
