"""Folders with a label file: the same images as class folders, splits, groups, folds, and every mistake in one line."""

import csv
import gc
import json
import logging
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as arrow
import pytest
import torch
from pyarrow import parquet
from tests.data.image_folder.test_folder import PREPROCESS, fill

from reslight.data import Folder, ImageNet
from reslight.data.check.check import check
from reslight.data.image_folder.label_files import find_label_files
from reslight.data.image_folder.label_table import LabelColumns, read_label_table
from reslight.data.image_folder.labelled_folder import image_set_of_labels, read_labelled_folder
from reslight.messages import UsageError

Rows = Sequence[Sequence[Any]]
HEADER = ("file_name", "label", "split")


class Images(NamedTuple):
    """The same images twice: in class folders, and in folders that tell nothing of the classes."""

    folders: Path
    flat: Path
    rows: list[tuple[str, str, str]]
    """Path below `flat`, label and split, in random order."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    root = tmp_path_factory.mktemp("images")
    rows = []
    for split in ("train", "test"):
        folder = fill(root / "folders" / split, **{"b": 7, "a": 5, "Bäume im Wald": 4})
        fill(folder / "a" / "inner", deep=2)
        for number, path in enumerate(sorted(folder.rglob("*.png"))):
            label = path.relative_to(folder).parts[0]
            path = path.rename(path.with_name(f"x{number * 7 % 31:02}.png"))
            below = "/".join(path.relative_to(folder).parts[1:])
            copy = root / "flat" / "all" / split / below
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            rows.append((f"all/{split}/{below}", label, split))
    random.Random(1).shuffle(rows)
    return Images(root / "folders", root / "flat", rows)


def write_csv(path: Path, rows: Rows, header: Sequence[str] = HEADER, **form: Any) -> Path:
    with path.open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        csv.writer(file, **form).writerows([header, *rows])
    return path


def write_json_lines(path: Path, rows: Rows, header: Sequence[str] = HEADER) -> Path:
    path.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Rows, header: Sequence[str] = HEADER) -> Path:
    parquet.write_table(arrow.table(dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))), path)
    return path


def write_class_numbers(path: Path, rows: Rows) -> Path:
    """As the Hub writes it: numbers of named classes."""
    names = sorted({label for _, label, _ in rows}, reverse=True)
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    table = arrow.table(
        dict(zip(HEADER, map(list, zip(*[(file, names.index(label), split) for file, label, split in rows], strict=True)), strict=True))
    )
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    return path


FORMS: dict[str, Callable[[Path, Rows], Path]] = {
    "csv": lambda folder, rows: write_csv(folder / "l.csv", rows),
    "tsv": lambda folder, rows: write_csv(folder / "l.tsv", rows, delimiter="\t"),
    "semicolons": lambda folder, rows: write_csv(folder / "l.csv", rows, delimiter=";"),
    "quotes and Windows": lambda folder, rows: write_csv(folder / "l.csv", rows, quoting=csv.QUOTE_ALL, lineterminator="\r\n"),
    "byte-order mark": lambda folder, rows: write_csv(folder / "l.csv", rows, encoding="utf-8-sig"),
    "Excel's UTF-16": lambda folder, rows: write_csv(folder / "l.txt", rows, delimiter="\t", encoding="utf-16"),
    "spaces": lambda folder, rows: write_csv(folder / "l.csv", [[f" {cell} " for cell in row] for row in rows]),
    "other order": lambda folder, rows: write_csv(folder / "l.csv", [row[::-1] for row in rows], HEADER[::-1]),
    "other names": lambda folder, rows: write_csv(folder / "l.csv", rows, ("Image Path", "CLASS", "subset")),
    "backslashes": lambda folder, rows: write_csv(folder / "l.csv", [(row[0].replace("/", "\\"), *row[1:]) for row in rows]),
    "no extension": lambda folder, rows: write_csv(folder / "l.csv", [(row[0].removesuffix(".png"), *row[1:]) for row in rows]),
    "below the root": lambda folder, rows: write_csv(folder.parent / "l.csv", rows),
    "below the file": lambda folder, rows: write_csv(folder.parent / "l.csv", [(f"./{folder.name}//{row[0]}", *row[1:]) for row in rows]),
    "absolute": lambda folder, rows: write_csv(folder.parent / "l.csv", [(str(folder / row[0]), *row[1:]) for row in rows]),
    "twice": lambda folder, rows: write_csv(folder / "l.csv", [*rows, *rows]),
    "jsonl": lambda folder, rows: write_json_lines(folder / "l.jsonl", rows),
    "parquet": lambda folder, rows: write_parquet(folder / "l.parquet", rows),
    "numbers of classes": lambda folder, rows: write_class_numbers(folder / "l.parquet", rows),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_label_file_is_class_folders(images: Images, tmp_path: Path, form: str, expected: dict[str, Any]):
    shutil.copytree(images.flat, tmp_path / "flat", copy_function=os.link)
    file = FORMS[form](tmp_path / "flat", images.rows)
    data = Folder(str(tmp_path / "flat"), PREPROCESS, labels=str(file), val_size=0.25)
    data.setup()
    assert data.labels == ("Bäume im Wald", "a", "b")
    assert {name: split.info() for name, split in data.splits.items()} == expected


@pytest.fixture(scope="module")
def expected(images: Images) -> dict[str, Any]:
    """The splits of the class folders."""
    data = Folder(str(images.folders), PREPROCESS, val_size=0.25)
    data.setup()
    return {name: split.info() for name, split in data.splits.items()}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
@pytest.mark.parametrize("place", ["root", "splits"])
def test_metadata_is_found_beside_the_images(images: Images, tmp_path: Path, name: str, place: str, expected: dict[str, Any]):
    root = tmp_path / "set"
    shutil.copytree(images.flat / "all", root, copy_function=os.link)
    writers = {".csv": write_csv, ".jsonl": write_json_lines, ".parquet": write_parquet}
    write = writers[Path(name).suffix]
    if place == "root":
        write(root / name, [(path.removeprefix("all/"), label) for path, label, _ in images.rows], HEADER[:2])
    else:
        for split in ("train", "test"):
            rows = [(path.removeprefix(f"all/{split}/"), label) for path, label, of in images.rows if of == split]
            write(root / split / name, rows, HEADER[:2])
    data = Folder(str(root), PREPROCESS, val_size=0.25)
    data.setup()
    assert {name: split.info() for name, split in data.splits.items()} == expected
    assert {one.kind for one in check(str(root))} <= {"leak", "contradiction"}  # files of equal images


def test_class_folders_with_the_same_labels_in_a_file(images: Images, tmp_path: Path, expected: dict[str, Any]):
    rows = [
        (path.relative_to(images.folders).as_posix(), path.relative_to(images.folders).parts[1], path.relative_to(images.folders).parts[0])
        for path in images.folders.rglob("*.png")
    ]
    data = Folder(str(images.folders), PREPROCESS, labels=str(write_csv(tmp_path / "l.csv", rows)), val_size=0.25)
    data.setup()
    assert {name: split.info() for name, split in data.splits.items()} == expected


def test_metadata_without_labels_leaves_class_folders_alone(tmp_path: Path):
    root = fill(tmp_path / "set", a=2, b=2)
    write_csv(root / "metadata.csv", [("a/00.png", "a cat")], ("file_name", "text"))
    assert Folder(str(root), PREPROCESS, val_size=0).labels == ("a", "b")
    (root / "metadata.csv").write_bytes("Fotograf,Größe\n".encode("latin-1"))
    assert Folder(str(root), PREPROCESS, val_size=0).labels == ("a", "b")
    (root / "metadata.csv").write_bytes("file_name,größe\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"^line 1 of .*metadata\.csv is not UTF-8"):
        Folder(str(root), PREPROCESS, val_size=0)


def rows_of(count: int = 4) -> list[list[str]]:
    return [[f"{number}.png", "ab"[number % 2]] for number in range(count)]


def text_of(rows: Rows, header: str = "file_name,label") -> str:
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


LINE = "line 2 of {file} "
BROKEN: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("l.csv", "", "{file} has the columns none: none has a usual name for the path of an image"),
    "header only": ("l.csv", "file_name,label\n", "{file} has no rows"),
    "no header": ("l.csv", "0.png,a\n1.png,b\n", "{file} begins with an image: its first line must name the columns. Add file_name,label."),
    "no paths": ("l.csv", text_of(rows_of(), "number,label"), "{file} has the columns number, label: none has a usual name for the path"),
    "no labels": (
        "l.csv",
        text_of(rows_of(), "file_name,text"),
        "{file} has the columns file_name, text: none has a usual name for the label",
    ),
    "column twice": ("l.csv", "file_name,label,label\n0.png,a,a\n", "{file} has two columns label"),
    "empty label": ("l.csv", text_of([["0.png", " "], *rows_of()]), LINE + "has no label in the column label. Add it, or remove the row."),
    "empty path": ("l.csv", text_of([["", "a"], *rows_of()]), LINE + "has no path in the column file_name"),
    "missing image": ("l.csv", text_of([["9.png", "a"], *rows_of()]), LINE + "names 9.png: there is no such image in {root}"),
    "other folder, no extension": (
        "l.csv",
        text_of([["6", "a"], *rows_of()], "id,label"),
        LINE + "names 6: there is no such image in {root}. There is in/6.png: set data.root to {root}/in.",
    ),
    "other case": (
        "l.csv",
        text_of([["loose.png", "a"], *rows_of()]),
        LINE + "names loose.png: there is no such image in {root}. There is Loose.PNG",
    ),
    "other folder": (
        "l.csv",
        text_of([["6.png", "a"], *rows_of()]),
        LINE + "names 6.png: there is no such image in {root}. There is in/6.png: set data.root to {root}/in.",
    ),
    "outside": ("l.csv", text_of([["../out.png", "a"], *rows_of()]), LINE + "names ../out.png, which is outside of {root}"),
    "no image": ("l.csv", text_of([["notes.txt", "a"], *rows_of()]), LINE + "names notes.txt, which has no image extension"),
    "long path": ("l.csv", text_of([["x" * 5000 + ".png", "a"], *rows_of()]), LINE + "names xxx"),
    "two labels": ("l.csv", text_of([["0.png", "b"], *rows_of()]), "line 3 of {file} gives 0.png the label a: line 2 of {file} gives it b"),
    "two splits": (
        "l.csv",
        text_of([["0.png", "a", "test"], ["0.png", "a", "train"]], "file_name,label,split"),
        "line 3 of {file} gives 0.png the split train: line 2 of {file} gives it test",
    ),
    "unknown split": (
        "l.csv",
        text_of([["0.png", "a", "trian"]], "file_name,label,split"),
        LINE + "has the split trian: it must be one of",
    ),
    "empty split": ("l.csv", text_of([["0.png", "a", ""]], "file_name,label,split"), LINE + "has no split in the column split"),
    "no group": ("l.csv", text_of([["0.png", "a", ""]], "file_name,label,group"), LINE + "has no group in the column group"),
    "no training": ("l.csv", text_of([["0.png", "a", "test"]], "file_name,label,split"), "{file} has images of test, but none of train"),
    "one class": ("l.csv", text_of([["0.png", "a"], ["1.png", "a"]]), "{file} has one class, a: a classifier needs at least two"),
    "class without training": (
        "l.csv",
        text_of([["0.png", "a", "train"], ["1.png", "b", "train"], ["2.png", "c", "val"]], "file_name,label,split"),
        "{file} has classes in val that are missing in train: c",
    ),
    "unprintable class": ("l.csv", text_of([["in/6.png", "a\x1b[2J"], *rows_of()]), r"{file} has the label a\x1b[2J"),
    "too many fields": ("l.csv", text_of([["0.png", "a", "b"], *rows_of()]), LINE + "has 3 fields: the first line has 2"),
    "too few fields": ("l.csv", text_of([["0.png"], *rows_of()]), LINE + "has 1 fields: the first line has 2"),
    "open quote": ("l.csv", text_of([['"0.png', "a"], *rows_of()]), LINE + "cannot be read: unexpected end of data. Correct its quotes"),
    "wrong quote": ("l.csv", text_of([['"0".png', "a"], *rows_of()]), LINE + "cannot be read: ',' expected after '\"'"),
    "huge field": ("l.csv", text_of([["0.png", "a" * 200_000], *rows_of()]), LINE + "cannot be read: field larger than field limit"),
    "Latin-1": ("l.csv", text_of([["0.png", "Bäume"]]).encode("latin-1"), LINE + "is not UTF-8: save the file as UTF-8"),
    "broken UTF-16": ("l.csv", b"\xff\xfe" + "file_name,label\n0.png,a".encode("utf-16-le")[:-1], "is not UTF-16: save the file as UTF-8"),
    "UTF-16 without mark": ("l.csv", text_of(rows_of()).encode("utf-16-le"), "{file} has null characters: it must be text"),
    "a picture": ("l.csv", b"\x89PNG\r\n\x1a\n\0\0\0", "line 1 of {file} is not UTF-8"),
    "a workbook": ("l.xlsx", b"PK\x03\x04", "{file} is no label file: its name must end in .csv, .tsv, .jsonl or .parquet"),
    "no JSON": ("l.jsonl", '{"file_name": "0.png", "label": "a"}\n{"file_name"\n', LINE + "is not JSON: Expecting ':' delimiter"),
    "JSON list": ("l.jsonl", '[{"file_name": "0.png", "label": "a"}]\n', "line 1 of {file} must be a JSON object, such as"),
    "JSON deep": ("l.jsonl", '{"file_name": "0.png", "label": "a"}\n' + "[" * 200_000, LINE + "is not JSON"),
    "JSON without label": (
        "l.jsonl",
        '{"file_name": "0.png", "label": "a"}\n{"file_name": "1.png"}\n',
        LINE + "has no label in the column label",
    ),
    "JSON fraction": (
        "l.jsonl",
        '{"file_name": "0.png", "label": 0.5}\n',
        "line 1 of {file} has 0.5 in the column label: the label must be text",
    ),
    "JSON several": ("l.jsonl", '{"file_name": "0.png", "label": ["a", {}]}\n', "line 1 of {file} has ['a', {{}}] in the column label"),
    "no parquet": ("l.parquet", b"PAR1", "{file} is damaged or cut short"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_mistake_is_one_line(tmp_path: Path, name: str):
    root = tmp_path / "set"
    (root / "in").mkdir(parents=True)
    for path in (*(f"{number}.png" for number in range(4)), "Loose.PNG", "in/6.png", "notes.txt", "../out.png"):
        (root / path).write_bytes(b"")
    file_name, content, says = BROKEN[name]
    file = root / file_name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError) as caught:
        Folder(str(root), PREPROCESS, labels=str(file))
    text = str(caught.value)
    assert says.format(file=file, root=root) in text
    assert text.isprintable()
    assert len(text) < 1000
    problems = [problem for problem in check(str(root), labels=str(file)) if problem.kind == "labels"]
    assert any(says.format(file=file, root=root).replace("data.root", "ROOT")[:60] in str(problem) for problem in problems)


def test_all_mistakes_are_counted_and_listed(tmp_path: Path):
    root = fill(tmp_path / "set", a=3, b=3)
    rows = [["a/00.png", ""], ["a/01.png", "a"], ["b/00.png", "b"], ["b/00.png", "b"], ["b/09.png", "b"], ["b/01.png", "b", "x"]]
    file = write_csv(root / "l.csv", rows, HEADER[:2])
    with pytest.raises(
        UsageError, match=r"^line 2 of .*l\.csv has no label.* 2 more problems: `reslight data check .*set --labels .*l\.csv`"
    ):
        Folder(str(root), PREPROCESS, labels=str(file))
    found = [
        (one.kind, one.path.replace(f"{root}/", "")) for one in check(str(root), labels=str(file)) if one.kind not in ("contradiction")
    ]
    assert found == [
        ("unlisted", "a/00.png"),
        ("unlisted", "a/02.png"),
        ("unlisted", "b/01.png"),
        ("unlisted", "b/02.png"),
        ("labels", "line 2 of l.csv"),
        ("labels", "line 6 of l.csv"),
        ("labels", "line 7 of l.csv"),
        ("labels", "line 5 of l.csv"),
    ]


def test_what_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = fill(tmp_path / "set", x=6)
    rows = [("x/00.png", "a", "train", 1), ("x/01.png", "b", "train", 2), ("x/02.png", "a", "val", 1), ("x/01.png", "b", "train", 2)]
    file = write_csv(root / "l.csv", rows, (*HEADER, "patient_id"))
    caplog.set_level(logging.INFO)
    Folder(str(root), PREPROCESS, labels=str(file)).setup("fit")
    assert [record.getMessage() for record in caplog.records] == [
        f"labels: {file} (paths in file_name, classes in label, splits in split, groups in patient_id; relative to {root})",
        f"{file} has rows that repeat another one, which are ignored: line 5",
        f"{file} has groups in more than one split: group 1",
        f"{root} has images without a row in {file}, which are ignored: x/03.png, x/04.png, x/05.png",
        f"{file} has no val images of b",
    ]


def test_labels_without_their_separator_are_noticed(tmp_path: Path):
    fill(tmp_path, x=6)
    labels = ("cat", "dog", "cat; dog", "no finding", "black|white", "cat")
    rows = [(f"x/{number:02}.png", label) for number, label in enumerate(labels)]
    file = write_csv(tmp_path / "labels.csv", rows, HEADER[:2])
    hint = f"{file} has the class cat; dog, whose parts are classes, too. If they are several labels, set data.labels_columns.separator to "

    def warnings(columns: LabelColumns) -> Sequence[str]:
        files = find_label_files(tmp_path, str(file), columns)
        assert files is not None
        return image_set_of_labels(files).warnings

    assert warnings(LabelColumns()) == (f'{hint}";"',)
    assert warnings(LabelColumns(separator=";")) == ()


def test_a_file_of_another_folder_is_one_problem(tmp_path: Path):
    fill(tmp_path / "p", x=6)
    file = write_csv(tmp_path / "labels.csv", [(f"{number:02}.png", "ab"[number % 2]) for number in range(6)], HEADER[:2])
    (problem,) = check(str(tmp_path / "p"), labels=str(file))
    assert (problem.kind, problem.path) == ("labels", f"line 2 of {file}")
    where = f"There is x/00.png: give the folder {tmp_path / 'p' / 'x'}. None of the other 5 rows fits, either."
    assert problem.text == f"names 00.png: there is no such image in {tmp_path / 'p'}. {where}"
    assert not list(check(str(tmp_path / "p" / "x"), labels=str(file)))


def test_the_table_of_training_images_is_suggested(tmp_path: Path):
    fill(tmp_path, **{"train": 3})
    for name in ("sample_submission.csv", "train.csv"):
        (tmp_path / name).write_text("id,species\n")
    with pytest.raises(UsageError, match=r"data\.labels, such as to train\.csv\."):
        Folder(str(tmp_path), preprocess=PREPROCESS)


def test_columns_can_be_named(tmp_path: Path):
    root = fill(tmp_path / "set", x=4)
    rows = [(f"x/{number:02}.png", number, "ab"[number % 2], "cd"[number // 2]) for number in range(4)]
    write_csv(root / "l.csv", rows, ("where", "label", "kind", "camera"))
    columns = LabelColumns(path="where", label="kind", group="camera")
    data = Folder(str(root), PREPROCESS, labels="l.csv", labels_columns=columns, val_size=0)
    assert (data.labels, data.data_info()["labels_columns"]) == (
        ("a", "b"),
        {"path": "where", "label": "kind", "split": None, "group": "camera"},
    )
    with pytest.raises(UsageError, match=r"^data\.labels_columns\.label is knd: .*Did you mean kind\?$"):
        Folder(str(root), PREPROCESS, labels="l.csv", labels_columns=LabelColumns(path="where", label="knd"))


def grouped(root: Path, groups: int = 12) -> Folder:
    """Images of groups of four, in two classes; files are named so that groups are scattered."""
    fill(root, x=groups * 4)
    rows = [(f"x/{number:02}.png", "ab"[number % groups % 2], number % groups) for number in range(groups * 4)]
    write_csv(root / "metadata.csv", rows, ("file_name", "label", "group"))
    return Folder(str(root), PREPROCESS, val_size=0.25)


def groups_of(data: Folder, split: str) -> list[int]:
    groups = data._image_set.splits["train"].groups
    assert groups is not None
    return groups[data.splits[split].numbers].tolist()


def test_groups_are_not_divided(tmp_path: Path):
    data = grouped(tmp_path / "set")
    data.setup("fit")
    assert not set(groups_of(data, "train")) & set(groups_of(data, "val"))
    assert torch.bincount(data.splits["val"].labels).tolist() == [8, 4] or torch.bincount(data.splits["val"].labels).tolist() == [4, 8]
    with pytest.raises(UsageError, match=r"^data\.fold is of 13: the training images have 12 groups\. Use fewer folds\.$"):
        Folder(str(tmp_path / "set"), PREPROCESS, fold="1/13").setup("fit")


@pytest.mark.parametrize("with_groups", [False, True])
def test_each_image_is_in_one_fold(tmp_path: Path, with_groups: bool):
    root = tmp_path / "set"
    if with_groups:
        grouped(root)
    else:
        fill(root, a=24, b=24)
    seen: list[int] = []
    for number in range(1, 4):
        data = Folder(str(root), PREPROCESS, fold=f"{number}/3", seed=number)
        data.setup("validate")
        data.setup("fit")
        assert (len(data.splits["train"]), len(data.splits["val"]), data.has_validation) == (32, 16, True)
        assert torch.bincount(data.splits["val"].labels).tolist() == [8, 8]
        assert data.data_info()["fold"] == f"{number}/3"
        seen += data.splits["val"].numbers.tolist()
        if with_groups:
            assert not set(groups_of(data, "train")) & set(groups_of(data, "val"))
    assert sorted(seen) == list(range(48))


@pytest.mark.parametrize("fold", ["", "1", "0/5", "6/5", "1/1", "1/5/5", "a/b", "-1/5", "1.5/3"])
def test_no_fold(tmp_path: Path, fold: str):
    with pytest.raises(UsageError, match=r"^data\.fold is .*: it must be K/N, the K-th of N folds"):
        Folder(str(fill(tmp_path / "set", a=2, b=2)), PREPROCESS, fold=fold)


def test_folds_and_a_split_of_its_own(tmp_path: Path):
    for split in ("train", "val"):
        fill(tmp_path / "set" / split, a=2, b=2)
    with pytest.raises(UsageError, match=r"^data\.fold is 1/2: .*set has validation images of its own\. "):
        Folder(str(tmp_path / "set"), PREPROCESS, fold="1/2")


def test_a_class_that_is_in_one_fold_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = Folder(str(fill(tmp_path / "set", a=6, b=1)), PREPROCESS, fold="1/2")
    other = Folder(data.root, PREPROCESS, fold="2/2")
    data.setup("fit")
    other.setup("fit")
    (record,) = caplog.records
    assert record.getMessage().endswith("/2: all images of b are set apart for validation, so that training has none")


def test_a_class_whose_only_image_is_set_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Folder(str(fill(tmp_path / "set", a=3, b=1)), PREPROCESS, val_size=3).setup("fit")
    assert caplog.messages == ["data.val_size is 3: all images of b are set apart for validation, so that training has none"]


def test_a_class_beside_rarer_ones_in_groups_that_are_set_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Each class by which images are stratified keeps an image in training; others may not."""
    fill(tmp_path / "set", x=6)
    rows = [[f"x/{number:02}.png", f"r{number % 3}" + "|a" * (number < 3), number // 3] for number in range(6)]
    file = write_csv(tmp_path / "l.csv", rows, ("file", "label", "group"))
    data = Folder(str(tmp_path / "set"), PREPROCESS, labels=str(file), labels_columns=LabelColumns(separator="|"), val_size=3)
    data.setup("fit")
    assert not data.splits["train"].labels[:, 0].any()
    assert caplog.messages[-1] == "data.val_size is 3: all images of a are set apart for validation, so that training has none"


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"labels": "none.csv"}, FileNotFoundError, r"^data\.labels is none\.csv: there is no such file, and none in "),
        ({"labels": " "}, UsageError, r"^data\.labels is empty"),
        ({"labels": "."}, UsageError, "is no label file"),
        ({"labels": "l.csv", "root": "missing"}, FileNotFoundError, r"^data\.root is missing: there is no such folder"),
        ({"labels": "l.csv", "root": "owner/dataset"}, UsageError, r"^data\.labels is l\.csv: data\.root must be a folder then"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, settings: dict[str, str], error: type[Exception], says: str):
    fill(tmp_path / "set", a=1, b=1)
    with pytest.raises(error, match=says):
        Folder(**{"root": str(tmp_path / "set"), **settings})


def test_imagenet_takes_a_label_file(tmp_path: Path):
    root = fill(tmp_path / "set", train=4)
    write_csv(root / "l.csv", [(f"train/{number:02}.png", ("n01440764", "n02102040")[number % 2]) for number in range(4)], HEADER[:2])
    assert ImageNet(str(root), preprocess=PREPROCESS, labels="l.csv", val_size=0).labels == ("tench", "English springer")


def test_many_classes_and_groups(tmp_path: Path):
    """No step is quadratic: each class has four images, each group eight, and half of the names lack their extension."""
    root = tmp_path / "set"
    root.mkdir()
    (first := root / "0.png").write_bytes(b"")
    for number in range(1, 4_000):
        os.link(first, root / f"{number}.png")
    write_csv(root / "l.csv", [(f"{n}.png" if n % 2 else n, n // 4, n // 8) for n in range(4_000)], ("id", "label", "group"))
    files = find_label_files(root, "l.csv")
    assert files is not None
    found = image_set_of_labels(files)
    assert (len(found.classes), len(found.splits["train"].images)) == (1_000, 4_000)
    assert found.splits["train"].groups is not None


def test_rows_of_nothing_but_faults(tmp_path: Path):
    (root := tmp_path / "set").mkdir()
    table = read_label_table(write_csv(root / "l.csv", [("", ""), ("", "a")], HEADER[:2]))
    assert (table.paths, [one.path for one in table.faults]) == ([], [f"line {n} of {root / 'l.csv'}" for n in (3,)])
    files = find_label_files(root, "l.csv")
    assert files is not None
    assert len(read_labelled_folder(files).faults) == 1


def test_garbage_is_collected_again_after_an_error(tmp_path: Path):
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError):
        find_label_files(tmp_path, "labels.csv")
    assert gc.isenabled()
