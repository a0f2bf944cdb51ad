"""A run that is evaluated on images elsewhere: test, verify and predict from the command line."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cat")
SETTINGS = (
    *("--data", "Folder", "--data.root", "trained", "--data.batch_size", "6", "--data.threads", "1", "--data.preprocess.size", "8"),
    *("--data.preprocess.resize", "9", "--model.net.depths", "[1,1]", "--model.net.widths", "[4,8]", "--model.net.stem", "small"),
    *("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
)


def draw(folder: Path, **counts: int) -> None:
    """Images of a color for each class, with noise."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([number, count]).integers(0, 150, (9, 11, 3))
            pixels[..., CLASSES.index(name) if name in CLASSES else 0] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.mark.slow
def test_a_run_is_evaluated_on_another_root(reslight):
    draw(Path("trained"), ant=8, bee=8, cat=8)
    draw(Path("other/test"), cat=7, ant=5)
    assert reslight("fit", *SETTINGS).code == 0
    config = next(Path("runs").rglob("config.yaml"))
    assert reslight("validate", "--config", config).code == 0
    assert reslight("test", "--config", config).code == 2, "there are no test images"

    answer = reslight("test", "--config", config, "--data.root", "other")
    assert answer.code == 0, answer.err
    assert "warning: other has no test images of 1 of the network's 3 classes: bee" in answer.err
    report = json.loads((config.parent / "test.other.json").read_text())
    assert not (config.parent / "test.json").exists(), "the run's own result"
    data = report["data"]
    assert (data["root"], data["labels"], data["splits"]["test"]["size"]) == ("other", list(CLASSES), 12)

    assert reslight("predict", "--config", config, "--data.root", "other").code == 0
    rows = list(csv.DictReader((config.parent / "predictions.csv").read_text().splitlines()))
    assert Counter(row["true_label"] for row in rows) == {"ant": 5, "cat": 7}
    assert all(Path(row["path"]).parent.name == row["true_label"] for row in rows)
    correct = Counter(row["true_label"] for row in rows if row["label"] == row["true_label"])
    assert [row["correct"] for row in report["per_class"]] == [correct["ant"], 0, correct["cat"]]

    weights = Path("weights")
    assert reslight("export", config.parent, weights).code == 0
    assert "test:" not in reslight("verify", weights, "--data", "trained").out
    assert reslight("verify", weights).err.startswith("reslight: error: the results are those of a folder of images: give it as --data")
    answer = reslight("verify", weights, "--data", "other")
    assert answer.code == 1
    assert f"DIFFERS  test: not the images of the card, their fingerprint is {data['splits']['test']['fingerprint'][:12]}" in answer.out
    assert f"{sum(correct.values())} of 12 correct" in answer.out

    draw(Path("more/test"), ant=2, dog=3)
    answer = reslight("test", "--config", config, "--data.root", "more")
    assert answer.code == 2
    assert answer.err.startswith("reslight: error: data.root is more: it has 1 class that the network does not know: dog. ")
    assert reslight("test", "--config", config, "--data.root", "more", "--data.on_unknown_class", "skip").code == 0
    assert json.loads((config.parent / "test.more.json").read_text())["counts"]["total"] == 2
    Path("flat").mkdir()
    answer = reslight("verify", weights, "--data", "flat")
    assert answer.err == "reslight: error: flat has no images in folders of classes. Put CLASS/IMAGE there, or set --data or --labels.\n"
