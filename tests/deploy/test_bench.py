"""`reslight bench`: what it counts, and each mistake in one line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import reslight as package
from reslight.cli.main import main
from reslight.data import Digits
from reslight.deploy.bench import bench as module
from reslight.deploy.bench import speed
from reslight.deploy.bench.bench import bench, chosen_formats, rows
from reslight.deploy.bench.side import Side
from reslight.deploy.formats import FORMATS, Format
from reslight.messages import MissingPackageError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started, and a measurement takes a millisecond."""
    monkeypatch.setattr(speed, "_SECONDS", 0.001)
    monkeypatch.setattr(module, "measure_starts", lambda sides, rounds: [side.starts.append(1.5) for side in sides])


def missing(*_: Any) -> None:
    raise MissingPackageError("--format is onnx: it needs the package onnx. pip install 'reslight[onnx]'")


def test_answers_are_counted_and_a_missing_package_is_a_line(quick: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Format, "module", missing)
    found = bench(["resnet8.digits"], [FORMATS["onnx"]], root="data", threads=1, rounds=2)
    net, data = package.load("resnet8.digits"), Digits()
    data.setup("test")
    split = data.splits["test"]
    with torch.inference_mode():
        right = int((net(net.preprocess.normalize(split.images)).argmax(dim=1) == split.labels).sum())
    exact, fast = found.sides
    assert (exact.right, exact.same, found.total) == (right, 360, 360)
    assert fast.same is not None
    assert fast.same >= 359
    assert [len(values) for values in exact.per_second.values()] == [2, 2]
    assert found.left_out == ["onnx: --format is onnx: it needs the package onnx. pip install 'reslight[onnx]'"]
    head, cells = rows(found)
    assert head == ["", "right", "as float32", "images/s, batch 1", "images/s, batch 32", "MB", "first answer"]
    assert [cells[0][0], cells[0][1], cells[0][2], *cells[0][5:]] == ["network, as it is", str(right), "360", "0.31", "1.50 s"]
    record = json.loads(json.dumps(found.to_dict()))
    assert record["rows"][0]["right"] == right
    assert record["versions"] == {"python": sys.version.split()[0], "torch": torch.__version__, "reslight": package.__version__}
    assert record["machine"].keys() == {"system", "instructions", "cores"}


def test_without_images_only_the_speed_is_measured(quick: None):
    found = bench(["resnet8.digits"], [], threads=1, rounds=1)
    assert rows(found)[0] == ["", "images/s, batch 1", "images/s, batch 32", "MB", "first answer"]
    assert found.images == "32 images of noise, 1x8x8"


def test_images_that_do_not_fit_are_refused_before_anything_is_exported(quick: None, tmp_path: Path):
    reported: list[str] = []
    options: dict[str, Any] = {"threads": 1, "rounds": 1, "report": reported.append}
    with pytest.raises(package.UsageError, match=r"^--data is data: resnet8\.digits and the others have different classes"):
        bench(["resnet8.digits", "resnet20.cifar10"], [FORMATS["torch"]], root="data", **options)
    with pytest.raises(package.UsageError, match="there are no test images of CIFAR-10 in it"):
        bench(["resnet20.cifar10"], [FORMATS["torch"]], root=str(tmp_path), **options)
    assert reported == []


def test_several_labels_are_right_together():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.7], [0.2, 0.3]])
    side: Any = type("", (), {"multi_label": True, "probabilities": lambda self, pictures: probabilities})()
    answers = module._answers(side, [])
    assert answers.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert module._agreeing(answers, torch.tensor([[1, 0], [1, 0], [0, 0]], dtype=torch.uint8)) == 2


def test_every_second_round_is_in_reverse():
    sides: list[Any] = ["a", "b", "c"]
    assert "".join(map(str, speed._turns(sides, 3))) == "abccbaabc"


def test_formats_are_chosen_by_name():
    assert chosen_formats(None) == list(FORMATS.values())
    assert chosen_formats("torch, onnx,torch") == [FORMATS["torch"], FORMATS["onnx"]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--int8"], "--int8 is given without --data: int8 needs training images"),
        (["--formats", "onnx,tflite"], "--formats is onnx,tflite: tflite is none of onnx, "),
        (["--rounds", "0"], "--rounds is 0: it must be at least 1."),
        (["-o", "b.csv"], "--output is b.csv: all values are written as JSON."),
        (["-o", "none/b.json"], "--output is none/b.json: the folder none is missing."),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str):
    assert main(["bench", "resnet8.digits", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"reslight: error: {expected}")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_fresh_process_gives_its_first_answer(monkeypatch: pytest.MonkeyPatch):
    net = package.load("resnet8.digits")
    side = Side("it", "resnet8.digits", package.Classifier(net, threads=1), 1)
    speed.measure_starts([side], 1)
    assert 0.5 < side.starts[0] < 120
    side.source = "none.onnx"
    with pytest.raises(package.UsageError, match="a fresh process could not classify with it: "):
        speed.measure_starts([side], 1)


@pytest.mark.nightly
def test_the_command_measures_every_installed_format(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "resnet8.digits", "--data", "data", "--int8", "--rounds", "1", "-o", "b.json"]) == 0
    found = json.loads(Path("b.json").read_text())
    assert all(row["same"] >= 359 for row in found["rows"] if "int8" not in row["name"])
    assert all(row["right"] >= 350 for row in found["rows"])
    assert "network, as it is" in capsys.readouterr().out
