"""The report of an evaluation: of few classes a matrix, of many the pairs of classes that occurred."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reslight.metrics import Evaluator
from reslight.runs import eval_results
from reslight.runs.json_file import read_json_file


def report_of(classes: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A report of four images, one of the last class, which are all taken for the last class."""
    monkeypatch.setattr(eval_results, "weights_sha256", lambda _: "0" * 64)
    evaluator = Evaluator(classes, details=True)
    logits = torch.zeros(4, classes).index_fill_(1, torch.tensor([classes - 1]), 3.0)
    evaluator.update(logits, torch.tensor([2, classes - 1, 0, 2]))
    trainer = SimpleNamespace(precision="32-true", datamodule=None)
    model: Any = SimpleNamespace(data_info={}, config=SimpleNamespace(num_classes=classes), trainer=trainer, net=None)
    return eval_results.evaluation_report("test", evaluator.counts(), evaluator.details(), model)


@pytest.mark.parametrize("classes", [6, eval_results.MAX_MATRIX])
def test_of_few_classes_a_matrix(classes: int, monkeypatch: pytest.MonkeyPatch):
    report = report_of(classes, monkeypatch)
    assert "confusion_pairs" not in report
    assert [sum(row) for row in report["confusion"]] == [row["total"] for row in report["per_class"]]
    assert report["confusion"][2] == [0] * (classes - 1) + [2]


@pytest.mark.parametrize("classes", [eval_results.MAX_MATRIX + 1, 21_000])
def test_of_many_classes_the_pairs(classes: int, monkeypatch: pytest.MonkeyPatch):
    report = report_of(classes, monkeypatch)
    assert "confusion" not in report
    last = classes - 1
    assert report["confusion_pairs"] == [[0, last, 1], [2, last, 2], [last, last, 1]]
    assert report["per_class"][last] == {"label": last, "total": 1, "correct": 1, "accuracy": 1.0}
    assert sum(row["total"] for row in report["per_class"]) == 4
    eval_results.save_report(report, Path("test.json"))
    assert Path("test.json").stat().st_size < 100 * classes
    assert json.loads(json.dumps(report)) == read_json_file(Path("test.json"), "")


def test_one_line_for_each_row_pair_class_and_bin(monkeypatch: pytest.MonkeyPatch):
    for classes, name in ((6, "confusion"), (1001, "confusion_pairs")):
        report = report_of(classes, monkeypatch)
        eval_results.save_report(report, Path("test.json"))
        lines = [line.strip().removesuffix(",") for line in Path("test.json").read_text().splitlines()]
        for row in (*report[name], *report["per_class"], *report["calibration"]["bins"]):
            assert json.dumps(row) in lines
