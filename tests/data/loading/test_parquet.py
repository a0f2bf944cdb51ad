"""Columns and shards by their names; what is in them is tested with the datasets that read them."""

from pathlib import Path

import pytest

from reslight.data.loading.parquet import IMAGE_COLUMNS, column_of, shards_in
from reslight.messages import UsageError


def test_a_column_has_one_of_the_usual_names():
    assert column_of(Path("x"), ["fine_label", "image", "img"], IMAGE_COLUMNS) == "img"
    with pytest.raises(UsageError, match=r"has the columns a, b: .* img or image"):
        column_of(Path("x"), ["a", "b"], IMAGE_COLUMNS)


@pytest.mark.parametrize(
    "names",
    [
        ["train.parquet"],
        ["train/0000.parquet", "train/0001.parquet"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["train-0-of-1-0123456789abcdef.parquet"],
        [],
    ],
)
def test_the_shards_of_a_split_are_found(names: list[str], tmp_path: Path):
    for name in [*names, "validation-00000-of-00002.parquet", "trainer.parquet"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert shards_in(tmp_path, "train") == [tmp_path / name for name in names]


def test_all_missing_shards_are_counted(tmp_path: Path):
    (tmp_path / "train-00003-of-00007.parquet").touch()
    says = r"is incomplete: train-00000-of-00007, train-00001-of-00007, train-00002-of-00007 and 3 more are missing\."
    with pytest.raises(UsageError, match=says):
        shards_in(tmp_path, "train")
