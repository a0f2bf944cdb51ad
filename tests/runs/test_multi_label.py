"""A run with several labels for each image, from the label file to the published weights; and what is refused in one line."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sandbox import contents, rows
from sklearn.metrics import average_precision_score, f1_score

import reslight as package
from reslight.data import Digits, Folder
from reslight.data.image_folder.label_table import LabelColumns
from reslight.messages import UsageError
from reslight.preprocess import Preprocess
from reslight.training import ImageClassifier
from reslight.weights import MultiLabelResult
from reslight.weights.folder import read_description

COLORS = {"blue": (30, 30, 200), "green": (30, 200, 30), "red": (200, 30, 30)}
NET = "{depths: [1], widths: [8], stem: small, stem_width: 8}"
DATA = [
    *("--data", "Folder", "--data.root", "images", "--data.labels", "labels.csv", "--data.labels_columns.separator", "|"),
    *("--data.preprocess.size", 12, "--data.preprocess.resize", 12, "--data.val_size", 0.25, "--data.batch_size", 12, "--data.threads", 1),
]
FIT = ["fit", "--model.net", NET, *DATA, "--trainer.accelerator", "cpu", "--threads", 1, "--trainer.max_epochs", 1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images with a band of each of their colors; every fourth one is a test image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    random, rows = np.random.default_rng(0), []
    for number in range(64):
        pixels = random.integers(90, 130, (12, 12, 3)).astype(np.uint8)
        names = [name for name in COLORS if random.random() < 0.45]
        for place, name in enumerate(COLORS):
            if name in names:
                pixels[:, 4 * place : 4 * place + 4] = COLORS[name]
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02}.png")
        rows.append([f"{number:02}.png", "|".join(names), "train" if number % 4 else "test"])
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "labels", "split"], *rows])
    return tmp_path


@pytest.mark.slow
def test_from_the_label_file_to_published_weights(folder: Path, reslight: Callable[..., Any]) -> None:
    fitted = reslight(*FIT, "--data.mix.mixup", 0.2, "--data.class_weights", "balanced", "--data.augment.random_erasing", 0.5)
    assert fitted.code == 0, fitted.err
    run = next((folder / "runs").glob("*/1"))
    assert "val/mAP" in (run / "metrics.csv").read_text()
    assert "best val/mAP" in fitted.out + fitted.err
    for command, split in (("test", "test"), ("validate", "val")):
        assert reslight(command, "--config", run / "config.yaml").code == 0
        report = json.loads((run / f"{command}.json").read_text())
        assert set(report["metrics"]) == {f"{split}/{name}" for name in ("loss", "mAP", "f1_micro", "f1_macro", "subset_acc")}
        assert (run / f"{command}.png").is_file()
    assert reslight("predict", "--config", run / "config.yaml").code == 0
    _check_against_scikit_learn(run, reslight)
    _check_images_without_labels(folder, run, reslight)
    assert reslight("export", run, "weights").code == 0
    verified = reslight("verify", "weights", "--data", "images", "--labels", "labels.csv")
    assert verified.code == 0, verified.out + verified.err
    assert "as on the card" in verified.out
    record = read_description(Path("weights")).record
    assert reslight("export", run, "half", "--half").code == 0
    recorded = reslight("verify", "half", "--data", "images", "--labels", "labels.csv", "--record", "half")
    assert "written to config.json and README.md" in recorded.out
    assert reslight("verify", "half", "--data", "images", "--labels", "labels.csv").code == 0
    assert record.multi_label
    assert all(isinstance(one, MultiLabelResult) for one in record.metrics)
    assert package.load("weights").multi_label
    config = json.loads(Path("weights/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    every = reslight("classify", "weights", "images/01.png", "--threshold", 0)
    assert all(name in every.out for name in COLORS)
    assert "no class has a probability above 100.00%" in reslight("classify", "weights", "images/01.png", "--threshold", 1).out
    assert reslight("plot", run, "-o", "curves.png").code == 0
    assert "3 classes" in reslight("data", "check", "images", "--labels", "labels.csv", "--columns", "separator=|").out


def _check_against_scikit_learn(run: Path, reslight: Callable[..., Any]) -> None:
    """Compare test.json with what scikit-learn says of the network's own logits, and predictions.csv with the same."""
    model = ImageClassifier.load_from_checkpoint(run / "checkpoints" / "last.ckpt", map_location="cpu").eval()
    columns, preprocess = LabelColumns(separator="|"), Preprocess(size=12, resize=12, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    data = Folder("images", preprocess, labels="labels.csv", labels_columns=columns, val_size=0.25, batch_size=16)
    data.setup("test")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]
    with torch.inference_mode():
        logits = torch.cat([model(batch.images) for batch in batches])
    truth = data.splits["test"].labels
    metrics = json.loads((run / "test.json").read_text())["metrics"]
    assert metrics["test/mAP"] == pytest.approx(average_precision_score(truth, logits, average="macro"), abs=1e-6)
    assert metrics["test/f1_micro"] == pytest.approx(f1_score(truth, logits > 0, average="micro", zero_division=0), abs=1e-6)
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = sorted(COLORS)
    assert [row["label"] for row in rows] == ["|".join(names[one] for one in row.nonzero().flatten().tolist()) for row in logits > 0]


def _check_images_without_labels(folder: Path, run: Path, reslight: Callable[..., Any]) -> None:
    """Compare predictions of a folder, with an image in a folder that is named after a class, with those of the test images."""

    def predicted() -> dict[str, dict[str, str]]:
        with (run / "predictions.csv").open() as file:
            return {Path(row["path"]).name: row for row in csv.DictReader(file)}

    expected = predicted()
    shutil.copytree(folder / "images", folder / "holiday")
    (folder / "holiday" / "red").mkdir()
    (folder / "holiday" / "00.png").rename(folder / "holiday" / "red" / "00.png")
    ended = reslight("predict", "--config", run / "config.yaml", "--data.root", "holiday")
    assert ended.code == 0, ended.err
    found = predicted()
    assert len(found) == 64
    assert {name: (row["label"], row["probability"]) for name, row in found.items() if name in expected} == {
        name: (row["label"], row["probability"]) for name, row in expected.items()
    }
    assert {row["true_label"] for row in found.values()} == {""}, "the folder of an image tells one label, not all of them"


@pytest.mark.slow
def test_a_run_resumes_within_an_epoch_as_one_that_was_not_stopped(folder: Path, reslight: Callable[..., Any]) -> None:
    """An epoch has 3 steps; the rest of the second one is trained after the stop."""
    words = [*FIT, "--trainer.max_epochs", 2, "--seed_everything", 1, "--model.schedule.name", "constant", "--model.ema", 0.8]
    words += ["--data.mix.mixup", 0.2, "--data.augment.random_erasing", 0.5, "--data.class_weights", "balanced"]
    for root, more in (("whole", []), ("part", ["--trainer.max_steps", 4]), ("part", ["--ckpt_path", "last"])):
        answer = reslight(*words, "--trainer.default_root_dir", root, *more)
        assert answer.code == 0, answer.err
    whole, part = (next(Path(root).glob("*/1")) for root in ("whole", "part"))
    assert rows(part) == rows(whole)
    assert contents(part) == contents(whole)
    assert rows(whole)[-1]["step"] == "6"


REFUSED = {
    ("--model.loss", "cross_entropy"): "model.loss is cross_entropy: it is for one label of each image",
    ("--data.sampling", "balanced"): "data.sampling is balanced: each image has several labels",
    ("--checkpoint.monitor", "val/acc1"): "checkpoint.monitor is val/acc1: each image has several labels. Use val/loss or val/mAP.",
    ("--model.schedule.warmup_until_error", "0.8"): "model.schedule.warmup_until_error is 0.8: the error is for one label",
    ("--model.teacher", "resnet20.cifar10"): "model.teacher is resnet20.cifar10: distillation is for one label",
    ("--model.multi_label", "true"): "model.multi_label is true: it is taken from the data. Remove it.",
}


@pytest.mark.slow
def test_what_is_for_one_label_is_refused_in_one_line(folder: Path, reslight: Callable[..., Any]) -> None:
    for words, message in REFUSED.items():
        answer = reslight(*FIT, *words)
        assert answer.code == 2
        assert message in answer.err.splitlines()[-1]
    assert not list(folder.glob("runs/*/*"))


def test_a_classifier_is_for_the_labels_of_its_data() -> None:
    from lightning.pytorch import Trainer

    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    model = ImageClassifier("resnet8", num_classes=10, in_channels=1, multi_label=True)
    with pytest.raises(
        UsageError, match=r"model.multi_label is True: digits has one label for each image. Set model.multi_label to False."
    ):
        Trainer(accelerator="cpu", max_steps=1, **quiet).fit(model, Digits())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.tensor([0, 1]),
            r"labels are torch.int64 \(2,\) for 2 images: with several labels they must be 0 or 1 for each class, \(N, 3\)",
        ),
        (torch.tensor([[0.0, 0.5, 1], [0, 0, 0]]), "labels are from 0 to 1: with several labels they must be 0 or 1 for each class"),
        (torch.tensor([[0, 2, 1], [0, 0, 0]]), "labels are from 0 to 2"),
    ],
)
def test_labels_of_another_loader_are_checked(labels: torch.Tensor, message: str) -> None:
    from reslight.training.batches import checked_label_sets

    with pytest.raises(UsageError, match=message):
        checked_label_sets(labels, torch.zeros(2, 1, 4, 4), 3, mixed=False, reads=True)
    hot = torch.tensor([[True, False, True], [False, False, False]])
    assert checked_label_sets(hot, torch.zeros(2, 1, 4, 4), 3, mixed=False, reads=True).tolist() == [[1, 0, 1], [0, 0, 0]]
