"""`reslight verify FILE`: an exported file against the card of its weights, and what it writes to that card."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.nets import scrambled

import reslight as package
from reslight.deploy import verify
from reslight.deploy.formats import FORMATS, Session
from reslight.deploy.formats.about import About
from reslight.deploy.formats.export import export_file
from reslight.deploy.formats.opened import FileBackend
from reslight.deploy.formats.sources import load_to_export
from reslight.weights.folder import read_description
from reslight.weights.locate import bundled
from reslight.weights.verified_file import VerifiedFile


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network as a torch file, which needs no other package."""
    path = tmp_path_factory.mktemp("exported") / "digits.pt2"
    export_file(*load_to_export("resnet8.digits"), path, FORMATS["torch"])
    return path


def test_a_file_is_evaluated_and_listed_on_the_card(digits, reslight):
    shutil.copytree(bundled("resnet8.digits"), "out")
    answer = reslight("verify", digits, "--record", "out")
    assert answer.code == 0, answer.err + answer.out
    correct = next(one.correct1 for one in read_description(Path("out")).record.metrics if one.split == "test")
    assert f"test: {correct} of 360 correct" in answer.out
    assert f"the weights: {correct} of 360; the same prediction as in torch for 360" in answer.out
    entry = next(one for one in read_description(Path("out")).record.files if one.split == "test")
    assert (entry.format, entry.precision) == ("torch", "float32")
    assert (entry.total, entry.correct, entry.same) == (360, correct, 360)
    assert entry.nbytes == digits.stat().st_size
    assert entry.runtime == f"torch {torch.__version__}"
    assert f"| torch | float32 | {entry.nbytes / 1e6:.2f} MB | test | {correct} of 360 | 360 of 360 |" in Path("out/README.md").read_text()
    answer = reslight("verify", "out")
    assert answer.code == 0, answer.out
    assert "README.md has the numbers of config.json" in answer.out
    assert reslight("verify", digits, "--record", "out").code == 0
    assert len(read_description(Path("out")).record.files) == 2, "in place of the earlier entry"
    card = Path("out/README.md").read_text()
    Path("out/README.md").write_text(card.replace("360 of 360", "359 of 360"))
    assert "README.md has other numbers" in reslight("verify", "out").out


def test_one_line_for_other_weights_and_for_a_folder_that_is_no_file(digits, reslight):
    net = scrambled(package.load("resnet8.digits"))
    package.save(net, "other")
    for words, says in (
        ((digits, "--record", "other"), "not from these. Give the folder of its weights"),
        (("resnet8.digits", "--record", "other"), "--record is other: results of weights are written to their own folder"),
        (("missing.pt2",), "there is no file missing.pt2. Check the name."),
    ):
        answer = reslight("verify", *words)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert says in answer.err


@pytest.mark.parametrize(
    ("precision", "wrong", "good"),
    [("float32", 0, True), ("float32", 1, True), ("float32", 2, False), ("int8", 1, True), ("int8", 2, False)],
)
def test_how_much_a_file_may_differ(monkeypatch, precision, wrong, good):
    """Of each of the splits one image: 0.2 % of 360 are 0.72."""
    net, record, sha256 = load_to_export("resnet8.digits")
    shutil.copytree(bundled("resnet8.digits"), "out")

    def run(pixels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits = net(net.preprocess(pixels.permute(0, 3, 1, 2)))
            logits[:wrong] = -logits[:wrong]
            return logits.softmax(1)

    about = About.of(record, sha256, precision, "1")
    path = Path("net.onnx")
    path.write_bytes(b"x")
    monkeypatch.setattr(verify, "open_file", lambda path: FileBackend(path, about, Session(about.to_json(), run, "it 1.0"), 1))
    checks = list(verify.verify_file(path, folder=Path("out")))
    assert [check.good for check in checks] == [True, good, good, good]
    assert bool(read_description(Path("out")).record.files) == good


def test_the_card_counts_not_what_the_file_says_of_its_weights(monkeypatch):
    """A file without results, or with those of other images, would be recorded whatever it got right."""
    _, record, sha256 = load_to_export("resnet8.digits")
    shutil.copytree(bundled("resnet8.digits"), "out")
    path = Path("net.onnx")
    path.write_bytes(b"x")

    def checks(**change: object) -> list[verify.Check]:
        about = About.of(dataclasses.replace(record, **change), sha256, "float32", "1")
        session = Session(about.to_json(), lambda pixels: torch.full((len(pixels), 10), 0.1), "it 1.0")
        monkeypatch.setattr(verify, "open_file", lambda path: FileBackend(path, about, session, 1))
        return list(verify.verify_file(path, folder=Path("out")))

    splits = [one.split for one in record.metrics]
    assert [check.text.partition(":")[0] for check in checks(metrics=())[1:-1]] == splits
    assert not any(check.good for check in checks(metrics=())[1:])
    _, said = checks(labels=tuple("9876543210"))
    assert (said.text, said.good) == ("net.onnx has other values than its weights of: labels; export it again", False)
    assert not read_description(Path("out")).record.files


def test_photos_of_any_size_reach_the_file_whole(monkeypatch):
    """The dataset's own loader would resize them; a user's images are not resized before they get to the file."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for label in ("a", "b"):
            for number, (height, width) in enumerate(((20, 30), (50, 40), (9, 9))):
                pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
                path = Path("ROOT", split, label, f"{number}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(path)
    net = scrambled(package.ResNet(package.cifar_config(8, num_classes=2)))
    net.preprocess, net.labels = package.Preprocess(size=16, mean=(0.5,) * 3, std=(0.2,) * 3), ("a", "b")
    package.save(net, "out", data={"name": "mine", "kind": "Folder"})
    net, record, sha256 = load_to_export("out")
    shapes = []

    def run(pixels: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(pixels.shape[1:3]))
        with torch.inference_mode():
            return net(net.preprocess(pixels.permute(0, 3, 1, 2))).softmax(1)

    about = About.of(record, sha256, "float32", "1")
    Path("net.onnx").write_bytes(b"x")
    monkeypatch.setattr(verify, "open_file", lambda path: FileBackend(path, about, Session(about.to_json(), run, "it 1.0"), 1))
    checks = list(verify.verify_file(Path("net.onnx"), "ROOT", folder=Path("out")))
    assert all(check.good for check in checks), checks
    assert sorted(set(shapes)) == [(9, 9), (20, 30), (50, 40)]
    assert "the same prediction as in torch for 6" in checks[1].text


def test_what_config_says_of_files_is_checked():
    good = VerifiedFile(
        format="onnx",
        precision="int8",
        nbytes=5,
        sha256="0" * 64,
        runtime="it 1",
        split="test",
        total=9,
        correct=8,
        same=9,
        fingerprint="1" * 64,
    ).to_dict()
    assert VerifiedFile.from_dict(json.loads(json.dumps(good))).to_dict() == good
    for change, says in (
        ({"total": 7}, "at most all can be"),
        ({"nbytes": -1}, "files.nbytes is -1"),
        ({"format": "\x1b"}, "one line of text"),
        ({"sha256": 3}, "64 hexadecimal digits"),
        ({"more": 1}, "unknown key"),
    ):
        with pytest.raises(package.UsageError, match=says):
            VerifiedFile.from_dict(good | change)
    with pytest.raises(package.UsageError, match="must be an object"):
        VerifiedFile.from_dict([])
