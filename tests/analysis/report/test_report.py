"""The page of `reslight report`: what it says is counted by hand, and it is one safe file."""

import html.parser
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import reslight as package
from reslight.analysis.report.calibration import Calibrated, calibration_section
from reslight.analysis.report.charts import Line, line_chart, ticks
from reslight.analysis.report.outcome import Outcome, Part
from reslight.analysis.report.sections import per_class
from reslight.analysis.report.sources import _history
from reslight.cli.main import main
from reslight.data import Digits, Folder
from reslight.data.loading.split import Split
from reslight.metrics import ConfusionAndCalibration
from reslight.runs.folder import Run
from reslight.weights.calibration import Calibration

HOSTILE = "<script>x & 'y'"


class Reader(html.parser.HTMLParser):
    """Checks that tags are closed in order, and collects what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.texts.append(text)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[str, list[str]]:
    """The report on the published digits network."""
    from contextlib import redirect_stdout
    from io import StringIO

    path, printed = tmp_path_factory.mktemp("report") / "report.html", StringIO()
    with redirect_stdout(printed):
        assert main(["report", "resnet8.digits", "-o", str(path)]) == 0
    return path.read_text(encoding="utf-8"), printed.getvalue().splitlines()


@pytest.mark.slow
def test_it_counts_what_the_network_gets_right(digits):
    net, data = package.load("resnet8.digits"), Digits()
    data.setup("test")
    split = data.splits["test"]
    with torch.inference_mode():
        predicted = net(net.preprocess.normalize(split.images)).argmax(dim=1)
    right = int((predicted == split.labels).sum())
    text, lines = digits
    assert lines[0] == f"{right} of 360 test images of digits right ({right / 360:.2%})"
    assert lines[-1].startswith("written ")
    assert f"<strong>{right / 360:.2%}</strong>" in text
    confusion = re.findall(r'<td class="share right"[^>]*>(\d+)</td>', text)
    assert [int(number) for number in confusion] == [int(((predicted == one) & (split.labels == one)).sum()) for one in range(10)]
    assert "fitted to the 180 validation images" in text or "Not scaled" in text


@pytest.mark.slow
def test_it_is_one_file_that_everybody_can_read(digits):
    text, _ = digits
    page = Reader(text)
    assert len(text) < 5_000_000
    assert not page.all("script")
    assert not page.all("link")
    assert all(image["src"].startswith("data:image/webp;base64,") and image["alt"] for image in page.all("img"))
    assert page.all("img")
    assert not re.search(r"https?://|url\(|@import", text)
    assert (len(page.all("h1")), page.all("html")) == (1, [{"lang": "en"}])
    assert len(page.all("caption")) == len(page.all("table")) >= 5
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.all("svg"))
    anchors = {link["href"] for link in page.all("a")}
    assert anchors == {f"#{one['id']}" for one in page.all("section")}
    assert "prefers-color-scheme: dark" in text


def folder_of_images(root: Path, classes: list[str]) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 4)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(root / split / name / f"<i>{number}.png")


def test_names_of_classes_and_files_are_escaped(capsys):
    classes = sorted([HOSTILE, "b"])
    folder_of_images(Path("images"), classes)
    torch.manual_seed(0)
    preprocess = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    package.save(package.create_model("resnet8", num_classes=2), "w", preprocess=preprocess, labels=classes)
    assert main(["report", "w", "--data", "images", "-o", "r.html"]) == 0
    text = Path("r.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert not page.all("script")
    assert not page.all("i")
    assert HOSTILE in "".join(page.texts)
    assert any("<i>" in (image["alt"] or "") for image in page.all("img"))
    assert "8 test images" in capsys.readouterr().out


def test_images_that_cannot_be_read_are_named_and_not_counted(capsys, caplog):
    classes = ["a", "b"]
    folder_of_images(Path("images"), classes)
    for name in ("images/train/a/<i>1.png", "images/test/a/<i>2.png"):
        Path(name).write_bytes(Path(name).read_bytes()[:60])
    preprocess = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    package.save(package.create_model("resnet8", num_classes=2), "w", preprocess=preprocess, labels=classes)
    assert main(["report", "w", "--data", "images", "-o", "r.html"]) == 0
    assert "of 7 test images of images right" in capsys.readouterr().out
    assert "skipped: images/train/a/<i>1.png" in caplog.text
    assert "skipped: images/test/a/<i>2.png" in caplog.text
    texts = " ".join(Reader(Path("r.html").read_text(encoding="utf-8")).texts)
    assert "7 test images" in texts
    # Of the test images of a, those before and after the broken one keep their names.
    split = Folder("images", on_bad_image="skip", preprocess=preprocess)
    split.setup("test")
    part = Part.evaluate(package.load("w"), split.splits["test"])
    assert [part.name(number) for number in range(4)] == ["a/<i>0.png", "a/<i>1.png", "a/<i>3.png", "b/<i>0.png"]


def test_no_temperature_is_judged_by_the_images_that_it_was_fitted_to_and_no_image_was_trained_on(capsys):
    for number, name in enumerate("ab"):
        Path("images", name).mkdir(parents=True)
        for image in range(40):
            pixels = np.random.default_rng([number, image]).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(f"images/{name}/{image}.png")
    preprocess = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    data = Folder("images", preprocess, val_size=40)
    data.setup("fit")
    print_of_val = data.splits["val"].fingerprint
    about = {"name": "images", "kind": "Folder", "val_size": 40, "splits": {"val": {"size": 40, "fingerprint": print_of_val}}}
    fitted = Calibration(temperature=2.5, total=40, ece_before=0.2, ece=0.1, fingerprint=print_of_val)
    torch.manual_seed(0)
    net = package.create_model("resnet8", num_classes=2)
    package.save(net, "w", preprocess=preprocess, labels=["a", "b"], data=about, calibration=fitted)
    assert main(["report", "w", "--data", "images", "-o", "r.html"]) == 0
    text = Path("r.html").read_text(encoding="utf-8")
    assert "The weights have the temperature" not in text
    assert "each half of the validation images of images is divided by the temperature of the other half" in text or "Not scaled" in text
    Path("images/a/0.png").rename("images/b/new.png")  # other images are set apart for validation now
    assert main(["report", "w", "--data", "images", "-o", "r.html"]) == 2
    assert "--data is images: its validation images are not those that training left out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["resnet8.digits", "-o", "r.txt"], "--output is r.txt: a report is an HTML file. Use a name that ends in .html."),
        (["resnet8.digits", "-o", "none/r.html"], "--output is none/r.html: the folder none is missing."),
        (["resnet8.digits", "resnet8.digits", "-o", "r.html"], "two of the runs have the same validation images"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments: list[str], expected: str):
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"reslight: error: {expected}")
    assert error.count("\n") == 1


def test_other_classes_are_refused(capsys):
    folder_of_images(Path("images"), ["a", "b"])
    preprocess = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    package.save(package.create_model("resnet8", num_classes=3), "w", preprocess=preprocess)
    assert main(["report", "w", "--data", "images", "-o", "r.html"]) == 2
    assert "--data is images: its 2 classes, such as a, are not those of w." in capsys.readouterr().err
    assert not Path("r.html").exists()


@pytest.fixture
def trained_elsewhere() -> list[str]:
    """Weights in the folder w, whose training images were others than any of a test."""
    preprocess, classes = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3), ["a", "b"]
    about = {"name": "mine", "kind": "Folder", "val_size": 0, "splits": {"train": {"size": 9, "content": "0" * 64}}}
    torch.manual_seed(0)
    package.save(package.create_model("resnet8", num_classes=2), "w", preprocess=preprocess, labels=classes, data=about)
    return classes


def test_a_folder_of_test_images_is_enough(trained_elsewhere: list[str], capsys):
    folder_of_images(Path("images"), trained_elsewhere)
    shutil.rmtree("images/train")
    assert main(["report", "w", "--data", "images", "-o", "r.html"]) == 0
    assert "of 8 test images of images right" in capsys.readouterr().out
    assert "There is only one split." in Path("r.html").read_text(encoding="utf-8")


def test_images_that_may_be_training_images_are_refused(trained_elsewhere: list[str], capsys):
    folder_of_images(Path("images"), trained_elsewhere)
    shutil.rmtree("images/train")
    Path("images/test").rename("loose")
    assert main(["report", "w", "--data", "loose", "-o", "r.html"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("reslight: error: --data is loose: its images are not in splits, and not those of the training")


def test_a_stream_is_reported_with_the_labels_that_its_images_have(capsys):
    pytest.importorskip("litdata")
    folder_of_images(Path("images"), ["a", "b"])
    preprocess = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    assert main(["data", "pack", "images", "chunks", "--format", "litdata"]) == 0
    torch.manual_seed(0)
    package.save(
        package.create_model("resnet8", num_classes=2), "w", preprocess=preprocess, labels=["a", "b"], data={"name": "s", "kind": "Stream"}
    )
    assert main(["report", "w", "--data", "chunks", "-o", "r.html"]) == 0
    text = Path("r.html").read_text(encoding="utf-8")
    assert "of 8 test images of chunks right" in capsys.readouterr().out
    histogram = text[text.rindex("Images of each class") :]
    assert re.search(r'<th scope="col">test</th>(?!<th scope="col">train)', histogram)
    assert histogram.count("<td>4</td>") == 2
    assert re.search(r"item \d of test/", text)


def test_precision_recall_and_f1_are_those_of_sklearn():
    from sklearn.metrics import precision_recall_fscore_support

    generator = torch.Generator().manual_seed(0)
    labels, predictions = (torch.randint(4, (200,), generator=generator) for _ in range(2))
    matrix = torch.zeros(5, 5, dtype=torch.int64).index_put_((labels, predictions), torch.tensor(1), accumulate=True)
    pairs = torch.tensor([[a, b, int(matrix[a, b])] for a in range(5) for b in range(5) if matrix[a, b]])
    found = per_class(ConfusionAndCalibration(5, pairs, torch.zeros(15, 3)))
    expected = precision_recall_fscore_support(labels, predictions, labels=range(5), zero_division=0)
    np.testing.assert_allclose(np.array(found).T, expected[:3], atol=1e-12)


def test_images_of_several_networks_are_numbered_through():
    split = Split.from_images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.arange(3))
    parts = [Part(package.load("resnet8.digits"), split, torch.full((3, 10), float(one)), torch.arange(3)) for one in range(2)]
    outcome = Outcome(parts, [str(one) for one in range(10)], "title", "images")
    assert outcome.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert outcome.logits[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert [(parts.index(part), number) for part, number in map(outcome.place, range(6))] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert parts[0].name(2) == "image 2"


def test_a_run_without_a_finished_epoch_has_no_curves(caplog):
    Path("run").mkdir()
    Path("run/metrics.csv").write_text("epoch,step,train/acc1,val/acc1,train/loss_step\n1,1,,,0.5\n")
    assert _history(Run(Path("run"))) is None
    assert "the report has no curves: run has no finished epoch yet." in caplog.text


def test_how_often_it_is_right_is_told_of_the_probabilities_of_classify_too():
    """Before scaling, which is what `classify --sure` does without a stored temperature, 3 of 4 images reach 90 %; after it, none does."""
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    outcome = Outcome([Part(Any, Any, logits, torch.tensor([0, 0, 0, 0]))], ["a", "b"], "", "test images")
    text = calibration_section(outcome, Calibrated(outcome.logits / 2, ""))
    before, after = re.findall(r"at least 90%</th><td>(\d+)</td><td>([\d.]+)%</td><td>([\d.]*)%?</td>", text)
    assert (before, after) == (("3", "75.0", "66.67"), ("0", "0.0", ""))


def test_a_chart_places_its_points():
    chart = line_chart([Line("a & b", [(0, 0), (10, 50)], "blue", dots=True)], "x", "y", (0, 10), (0, 100), "title")
    assert 'points="56.0,270.0 626.0,141.0"' in chart
    assert "a &amp; b" in chart
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 64000) == [0, 20000, 40000, 60000]
    assert ticks(3, 3) == [3]
