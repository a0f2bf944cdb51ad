"""`reslight folds`: runs of folds, written here by hand, become a table."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from reslight.analysis.folds import cross_validation


def write_run(folder: Path, fold: str | None, *, acc1: float = 0.5, images: int = 10, lr: float = 0.1, content: str = "x") -> Path:
    folder.mkdir(parents=True)
    config = {"model": {"optim": {"lr": lr}}, "data": {"class_path": "Folder", "init_args": {"root": "photos", "fold": fold}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {"val/acc1": acc1, "val/loss": 2 * acc1, "train/acc1": 1.0}
    data: dict[str, Any] = {"splits": {"val": {"size": images}, "train": {"size": 20, "content": content}}}
    (folder / "summary.json").write_text(json.dumps({"metrics": metrics, "data": data}))
    return folder


def test_the_table_is_the_hand_count(reslight, tmp_path: Path):
    for number, (fold, acc1, images) in enumerate((("3/3", 0.9, 10), ("1/3", 0.5, 10), ("2/3", 0.75, 8)), 1):
        write_run(tmp_path / "runs" / "my" / str(number), fold, acc1=acc1, images=images)
    write_run(tmp_path / "runs" / "my" / "4", None)  # without a fold
    answer = reslight("folds", "runs/my")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "fold  images  val/acc1  val/loss  run",
        "1/3       10    0.5000    1.0000  runs/my/2",
        "2/3        8    0.7500    1.5000  runs/my/3",
        "3/3       10    0.9000    1.8000  runs/my/1",
        "mean            0.7167    1.4333",
        "std             0.2021    0.4041",
        "all folds: 20 of 28 images correct (71.43 %)",
    ]


def test_only_images_that_were_evaluated_are_counted(tmp_path: Path):
    """Of 10 images of a fold, 2 could not be read: an accuracy of 0.75 is 6 of 8."""
    for number in (1, 2):
        run = write_run(tmp_path / str(number), f"{number}/2", acc1=0.75, images=10)
        summary = json.loads((run / "summary.json").read_text())
        summary["data"]["splits"]["val"]["skipped"] = 2
        (run / "summary.json").write_text(json.dumps(summary))
    assert cross_validation([tmp_path / "1", tmp_path / "2"]).correct == (12, 16)
    for number in (1, 2):
        with (tmp_path / str(number) / "config.yaml").open("a") as file:
            file.write("trainer: {limit_val_batches: 1}\n")
    assert cross_validation([tmp_path / "1", tmp_path / "2"]).correct is None


def test_missing_and_unfinished_folds_are_named(reslight, tmp_path: Path):
    write_run(tmp_path / "runs" / "my" / "1", "1/3")
    (write_run(tmp_path / "runs" / "my" / "2", "2/3") / "summary.json").unlink()
    answer = reslight("folds", "runs/my/1", "runs/my/2")
    assert answer.code == 1
    assert answer.out.splitlines()[3:] == [
        "not finished: runs/my/2, which is left out",
        "missing: fold 2/3. Train it: reslight fit --config runs/my/1/config.yaml --data.fold 2/3",
        "missing: fold 3/3. Train it: reslight fit --config runs/my/1/config.yaml --data.fold 3/3",
    ]


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ({"fold": "2/3", "lr": 0.2}, r"runs/1 and .*runs/2 differ in 1 setting: model\.optim\.lr\. Give runs"),
        ({"fold": "2/3", "content": "y"}, r"differ in 1 setting: the images' contents\."),
        ({"fold": "2/4"}, r"differ in 1 setting: the number of folds\."),
        ({"fold": "1/3"}, r"runs/1 and .*runs/2 are of the same fold, 1/3\. Give one"),
        ({"fold": None}, r"runs/2 was not trained on a fold\. Train each"),
    ],
)
def test_runs_that_do_not_belong_together(tmp_path: Path, others: dict[str, Any], says: str):
    paths = [write_run(tmp_path / "runs" / "1", "1/3"), write_run(tmp_path / "runs" / "2", **others)]
    with pytest.raises(ValueError, match=says):
        cross_validation(paths)


def test_no_finished_run(tmp_path: Path):
    (write_run(tmp_path / "1", "1/3") / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"1 has not ended\. Train each fold"):
        cross_validation([tmp_path / "1"])
    (write_run(tmp_path / "2", "1/3") / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match=r"summary\.json is damaged: it has no validation metrics"):
        cross_validation([tmp_path / "2"])
