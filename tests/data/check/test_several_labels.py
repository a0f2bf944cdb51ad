"""`data check` of images with several labels: images are counted for each class, and copies are compared by all their labels."""

import json
import shutil
from pathlib import Path

import pyarrow as arrow
from pyarrow import parquet
from tests.data.image_folder.test_folder import fill
from tests.data.image_folder.test_labelled_folder import write_csv

from reslight.data.check.check import Summary, check
from reslight.data.image_folder.label_table import LabelColumns


def test_images_are_counted_for_each_class_and_copies_compared_by_all(tmp_path: Path) -> None:
    fill(tmp_path, all=4)
    files = sorted((tmp_path / "all").iterdir())
    shutil.copy(files[0], files[3])
    labels = ["dog|cat", "cat", "", "dog"]
    rows = [(f"all/{file.name}", label) for file, label in zip(files, labels, strict=True)]
    write_csv(tmp_path / "l.csv", rows, ("file", "label"))
    summary = Summary()
    problems = list(check(str(tmp_path), 1, summary, labels=str(tmp_path / "l.csv"), columns=LabelColumns(separator="|")))
    assert summary.per_class == {"train": {"cat": 2, "dog": 2}}
    assert summary.classes == 2
    assert [str(one) for one in problems if one.kind == "contradiction"] == [
        f"{files[3]} is a copy of {files[0]}, which is in class cat + dog. Keep one of them."
    ]


def test_lists_of_labels_in_shards_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, all=3)
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted((tmp_path / "all").iterdir())]
    (tmp_path / "shards").mkdir()
    features = {"label": {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "List"}}
    table = arrow.table({"image": images, "label": [[0, 1], [1], []]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "shards" / "train-00000-of-00001.parquet")
    summary = Summary()
    assert list(check(str(tmp_path / "shards"), 1, summary)) == []
    assert summary.per_class == {"train": {"a": 1, "b": 2}}
