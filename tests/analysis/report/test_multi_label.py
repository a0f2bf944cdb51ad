"""The report on a network with several labels for each image, against hand counts and scikit-learn."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from tests.analysis.report.test_report import Reader

import reslight as package
from reslight.analysis.report.multi_label import calibration_error, reliability, worst_decisions
from reslight.analysis.report.outcome import label_text
from reslight.cli.main import main

NAMES = ["blue", "green", "<i>red"]
PREPROCESS = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> package.ResNet:
    """The network in the folder w, for the images of `images/` with the label file labels.csv."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    random, rows = np.random.default_rng(0), []
    for number in range(24):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(f"images/{number:02}.png")
        rows.append([f"{number:02}.png", "|".join(name for name in NAMES if random.random() < 0.45), "test" if number % 4 else "train"])
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "labels", "split"], *rows])
    torch.manual_seed(0)
    net = package.create_model("resnet8", num_classes=3)
    with torch.no_grad():
        net.fc.bias.copy_(-net(torch.zeros(1, 3, 8, 8))[0])  # else a class is predicted for all images, or for none
    about = {"name": "images", "kind": "Folder", "val_size": 0, "labels_columns": {"separator": "|"}}
    net.multi_label = True
    package.save(net, "w", preprocess=PREPROCESS, labels=sorted(NAMES), data=about)
    return package.load("w")


def test_the_page_has_the_numbers_of_scikit_learn(net: package.ResNet, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "w", "--data", "images", "--labels", "labels.csv", "-o", "r.html"]) == 0
    printed, text = capsys.readouterr().out.splitlines(), Path("r.html").read_text(encoding="utf-8")
    with Path("labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    labels = np.array([[name in row["labels"].split("|") for name in sorted(NAMES)] for row in rows])
    with torch.inference_mode():
        images = torch.stack([net.preprocess(Image.open(f"images/{row['file_name']}")) for row in rows])
        scores = net(images).sigmoid().numpy()
    mean = np.mean([average_precision_score(labels[:, one], scores[:, one]) for one in range(3)])
    exact = int(((scores > 0.5) == labels).all(axis=1).sum())
    assert printed[0].startswith(f"mAP {100 * mean:.2f} %, F1 ")
    assert printed[1] == f"all labels of 18 test images of images right: {exact} ({exact / 18:.2%})"
    precision, recall, f1, _ = precision_recall_fscore_support(labels, scores > 0.5, zero_division=0)
    cells = [f"<td>{value:.1%}</td>" for value in (precision[1], recall[1], f1[1])]
    assert "".join(cells) in text
    page = Reader(text)
    assert not page.all("i")
    assert page.all("img")
    assert "missed; labelled" in text
    assert len(page.all("caption")) == len(page.all("table"))


def test_calibration_of_decisions_is_counted_by_hand():
    probabilities = torch.tensor([[0.01, 0.99], [0.02, 0.97], [0.51, 0.03]], dtype=torch.float64)
    has = torch.tensor([[False, True], [True, False], [True, False]])
    bins = reliability(probabilities, has)
    assert bins[0].tolist() == pytest.approx([3, 1, 0.06])
    assert bins[14].tolist() == pytest.approx([2, 1, 1.96])
    assert bins[7].tolist() == pytest.approx([1, 1, 0.51])
    assert calibration_error(bins) == pytest.approx((0.94 + 0.96 + 0.49) / 6)


def test_each_class_shows_its_worst_mistake_first():
    probabilities = torch.tensor([[0.9, 0.2], [0.8, 0.6], [0.7, 0.9], [0.1, 0.4]])
    has = torch.tensor([[False, True], [False, False], [False, True], [True, False]])
    assert worst_decisions(probabilities, has, 3, missed=False) == [(0, 0), (1, 1), (1, 0)]
    assert worst_decisions(probabilities, has, 9, missed=True) == [(3, 0), (0, 1)]


def test_labels_are_told_in_words():
    assert label_text(torch.tensor(1), NAMES) == "green"
    assert label_text(torch.tensor([1, 0, 1], dtype=torch.uint8), NAMES) == "blue, <i>red"
    assert label_text(torch.zeros(3, dtype=torch.uint8), NAMES) == "nothing"


def test_a_temperature_is_refused_in_one_line(net: package.ResNet, capsys: pytest.CaptureFixture[str]):
    assert main(["calibrate", "w", "--data", "images", "--labels", "labels.csv"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "w gives an image several labels: one temperature cannot fit all of its classes" in error


def test_images_with_one_label_are_refused(net: package.ResNet, capsys: pytest.CaptureFixture[str]):
    for name in NAMES:
        Path("one/test", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"one/test/{name}/1.png")
    assert main(["report", "w", "--data", "one", "-o", "r.html"]) == 2
    assert "--data is one: it has one label for each image, and w gives several labels." in capsys.readouterr().err
