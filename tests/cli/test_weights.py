"""The commands export, verify and weights, and the packaged weights."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import reslight as package
from reslight.data import Digits
from reslight.weights.catalog import CATALOG, Published
from reslight.weights.folder import read_description
from reslight.weights.results import EvalResult

QUICK = ("--config", "digits", "--trainer.max_epochs", 1, "--model.schedule.warmup", 0)


@pytest.fixture
def run(reslight) -> Path:
    assert reslight("fit", *QUICK, "--model.ema", 0.9).code == 0
    return Path("runs/digits/1")


def test_export_and_verify_agree_with_the_test_results(reslight, run):
    assert reslight("test", "--config", "digits").code == 0
    answer = reslight("export", run, "out", "--license", "mit")
    assert answer.code == 0, answer.err
    report = json.loads((run / "test.json").read_text())
    assert f"test: {report['counts']['correct1']} of 360 correct" in answer.out
    written = read_description(Path("out"))
    assert written.sha256["model.safetensors"] == report["sha256"]
    assert (written.record.weights, written.record.license, written.record.run["steps"]) == ("average", "mit", 19)
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    net = package.load("out")
    assert all(torch.equal(value, saved["state_dict"][f"net.{name}"]) for name, value in net.state_dict().items())
    answer = reslight("verify", "out")
    assert answer.code == 0, answer.out
    assert answer.out.count("ok ") == 5
    card, ece = Path("out/README.md"), report["calibration"]["ece"]
    text = card.read_text()
    assert f", ECE {ece:.4f}; as on the card" in answer.out
    assert f" | {report['counts']['nll'] / 360:.4f} | {100 * ece:.2f} % | 32-true | " in text
    card.write_text(text.replace("| test |", "| best |"))
    answer = reslight("verify", "out")
    assert answer.code == 1
    assert "DIFFERS  README.md has other numbers than config.json" in answer.out
    card.unlink()
    answer = reslight("verify", "out")
    assert answer.code == 1
    assert "DIFFERS  README.md is missing" in answer.out
    assert "other numbers" not in answer.out
    card.write_text(text)

    answer = reslight("export", run, "raw", "--raw")
    assert "without evaluation results" in answer.out, "the EMA weights were evaluated, not the raw ones"
    raw = package.load("raw")
    assert all(torch.equal(value, saved["current_model_state"][f"net.{name}"]) for name, value in raw.state_dict().items())
    answer = reslight("verify", "raw")
    assert "ok       test of digits: " in answer.out
    assert " of 360 correct (" in answer.out
    assert "; the card has no evaluation results to compare" in answer.out
    assert "out held other weights" in reslight("export", run, "out", "--raw").err


def test_weights_of_half_the_size_get_results_of_their_own(reslight, run):
    assert reslight("test", "--config", "digits").code == 0
    answer = reslight("export", run, "half", "--half")
    assert (
        "without evaluation results: a run's are of the weights before rounding; `reslight verify half --data ROOT --record half` "
        in answer.out
    )
    assert Path("half/model.safetensors").stat().st_size < 0.6 * 75_002 * 4
    answer = reslight("verify", "half", "--record", "half")
    assert (answer.code, answer.err) == (0, "")
    assert "ok       test of digits: " in answer.out
    assert answer.out.endswith("; written to config.json and README.md\n")
    (found,) = read_description(Path("half")).record.metrics
    net, data = package.load("half"), Digits()
    data.setup("test")
    split = data.splits["test"]
    with torch.no_grad():
        logits = torch.cat([net(net.preprocess(image)[None]) for image in split.images])
    assert (found.split, found.total, found.fingerprint) == ("test", 360, split.fingerprint)
    assert found.correct1 == int((logits.argmax(1) == split.labels).sum())
    assert found.nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, split.labels, reduction="sum")), rel=1e-5)
    answer = reslight("verify", "half")
    assert answer.code == 0
    assert answer.out.count("\nok ") == 4
    assert "as on the card" in answer.out
    answer = reslight("verify", "half", "--record", "half")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "--record is half: its card has results, which are compared. Leave it out." in answer.err
    answer = reslight("export", run, "half", "--half", "--license", "mit")
    assert f"test: {found.correct1} of 360 correct" in answer.out, "the results of the same weights stay"
    assert read_description(Path("half")).record.metrics == (found,)
    assert "--record is empty: it must be the folder" in reslight("verify", "half", "--record", "").err


@pytest.mark.slow
def test_only_results_on_the_dataset_of_the_training_are_written(reslight):
    for number, name in enumerate(("train/a", "train/b", "val/a", "val/b", "test/a", "test/b")):
        Path("all", name).mkdir(parents=True)
        for copy in range(4):
            Image.new("RGB", (32, 32), (40 * number, 60 * copy, 0)).save(Path("all", name, f"{copy}.png"))
    trained = ("--config", "finetune", "--data.root", "all", "--model.init_from", "resnet8.digits", "--data.preprocess.size", 8)
    assert reslight("fit", *trained, "--trainer.max_epochs", 1, "--data.batch_size", 4).code == 0
    assert reslight("export", "runs/finetune/1", "half", "--half").code == 0
    before = {path.name: path.read_bytes() for path in Path("half").iterdir()}
    Path("others/test").mkdir(parents=True)
    Path("all/test").rename("moved")
    shutil.copytree("moved", "others/test", dirs_exist_ok=True)
    shutil.copytree("all/train", "unsplit")
    Path("unsplit/a/0.png").unlink()  # a copy of all training images would be taken for them
    for root in ("others", "unsplit"):
        assert reslight("verify", "half", "--data", root).code == 0
        answer = reslight("verify", "half", "--data", root, "--record", "half")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert f"--data is {root}: a card has results on the dataset of the training" in answer.err
    golden = Path("half/golden.safetensors")
    logits = safetensors.torch.load_file(golden)
    logits["logits"] *= 1.1
    content = safetensors.torch.save(logits, {"format": "pt"})
    config = Path("half/config.json").read_text()
    Path("half/config.json").write_text(config.replace(sha256(before[golden.name]).hexdigest(), sha256(content).hexdigest()))
    golden.write_bytes(content)
    answer = reslight("verify", "half", "--data", "all", "--record", "half")
    assert answer.code == 1
    assert "DIFFERS  nothing is evaluated and written, as the weights are not as they were saved" in answer.out
    assert golden.read_bytes() == content
    golden.write_bytes(before[golden.name])
    Path("half/config.json").write_text(config)
    assert {path.name: path.read_bytes() for path in Path("half").iterdir()} == before
    answer = reslight("verify", "half", "--data", "all", "--record", "half")
    assert (answer.code, answer.err) == (0, "")
    assert "ok       val of all: " in answer.out, "there are no test images"
    assert [one.split for one in read_description(Path("half")).record.metrics] == ["val"]
    package.save(package.load("resnet8.digits"), "unnamed")
    assert "these weights do not say which it was. Leave --record out." in reslight("verify", "unnamed", "--record", "unnamed").err


def test_verify_finds_a_card_with_better_results(reslight, run):
    reslight("test", "--config", "digits")
    reslight("export", run, "out")
    path = Path("out/config.json")
    config = json.loads(path.read_text())
    config["reslight"]["metrics"][0]["ece"] += 0.01
    path.write_text(json.dumps(config))
    answer = reslight("verify", "out")
    assert answer.code == 1
    assert "DIFFERS  test: " in answer.out
    config["reslight"]["metrics"][0]["ece"] -= 0.01
    config["reslight"]["metrics"][0]["correct1"] += 1
    config["reslight"]["metrics"][0]["correct5"] = 360
    path.write_text(json.dumps(config))
    answer = reslight("verify", "out")
    assert answer.code == 1
    assert "DIFFERS  test: " in answer.out


@pytest.mark.parametrize("name", ["model.safetensors", "golden.safetensors"])
def test_one_altered_byte_is_a_difference(reslight, name):
    package.save(package.load("resnet8.digits"), "out")
    file = Path("out", name)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    answer = reslight("verify", "out")
    assert answer.code == 1
    assert f"DIFFERS  out/{name} was changed: its sha256 is" in answer.out
    assert "ok       test" not in answer.out
    file.unlink()
    assert reslight("verify", "out").code == 2


def test_images_are_given_as_data(reslight):
    answer = reslight("verify", "resnet20.cifar10", "--data", "empty")
    assert (answer.code > 0, answer.err.count("\n")) == (True, 1)
    assert "--data is empty" in answer.err
    assert "or set --data." in answer.err
    assert "data.root" not in answer.err


def test_verify_names_the_classes_that_the_images_lack(reslight, caplog: pytest.LogCaptureFixture):
    net = package.create_model("resnet8", num_classes=3)
    labels, preprocess = ["cat", "dog", "owl"], package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    results = {"split": "test", "total": 4, "correct1": 3, "correct5": None, "nll": 1.0, "precision": "32-true", "batch_size": 4}
    metrics = (EvalResult(**results, fingerprint=None),)
    package.save(net, "out", preprocess=preprocess, labels=labels, metrics=metrics, data={"name": "pics", "kind": "Folder"})
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "cow", "emu")):
            folder = Path("pics", split, name)
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "1.png")
    answer = reslight("verify", "out", "--data", "pics")
    assert answer.code == 1
    assert "DIFFERS  test: " in answer.out
    assert "of 1 correct" in answer.out, "the image of the class that the network knows"
    assert "pics has no test images of 2 of the network's 3 classes: dog, owl" in caplog.messages
    assert "pics has 2 of 3 test images of 2 classes that the network does not know: cow, emu" in caplog.messages


def test_verify_evaluates_weights_without_results_on_images_that_are_given(reslight):
    """Converted weights do not name their data: class folders, unless the network is one for CIFAR."""
    net = package.create_model("resnet20", num_classes=3, shortcut="B")
    torch.nn.init.zeros_(net.fc.weight)
    with torch.no_grad():
        net.fc.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))  # always the second class, which has one of four images
    torch.save(net.state_dict(), "w.pth")
    assert reslight("convert", "w.pth", "out", "--from", "chenyaofo").code == 0
    for number, name in enumerate(("train/a", "train/b", "train/c", "test/a", "test/b", "test/c")):
        folder = Path("pics", name)
        folder.mkdir(parents=True)
        for copy in range(2 if name == "test/a" else 1):
            Image.new("RGB", (32, 32), (number, copy, 0)).save(folder / f"{copy}.png")
    answer = reslight("verify", "out", "--data", "pics")
    assert answer.code == 0, answer.err
    assert "ok       test of pics: 1 of 4 correct (25.00 %), mean NLL " in answer.out
    assert "; the card has no evaluation results to compare" in answer.out
    assert "; --data ROOT evaluates the weights on the images in ROOT" in reslight("verify", "out").out
    assert "--data is pics/test: it has neither test nor validation images" in reslight("verify", "out", "--data", "pics/test").err
    package.save(package.create_model("resnet20"), "cifar", preprocess=package.Preprocess(size=32, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert "pics/test/a is not named after a class of CIFAR-10" in reslight("verify", "cifar", "--data", "pics").err


def test_mistakes_are_one_line(reslight, run):
    Path("other").mkdir()
    Path("other/file").touch()
    for words, says in (
        (("export", "nothing", "out"), "nothing is missing: export needs a checkpoint"),
        (("export", run, "other"), "other holds other files than weights of reslight"),
        (("verify", "nothing"), "there is no folder and no published weight nothing"),
        (("verify", "other"), "other has no config.json"),
        (("weights", "vgg*"), "PATTERN is vgg*:"),
    ):
        answer = reslight(*words)
        assert answer.code == 2
        assert says in answer.err
        assert answer.err.count("\n") == 1
    reslight("fit", *QUICK)
    assert "has no average of weights (model.ema)" in reslight("export", "runs/digits/2", "out", "--raw").err


def test_weights_lists_every_row(reslight, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # not what this machine's own has
    answer = reslight("weights")
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == list(CATALOG) == package.list_weights()


def test_results_of_a_part_of_the_test_set_are_not_exported(reslight, run):
    assert reslight("test", "--config", "digits", "--trainer.limit_test_batches", 1).code == 0
    told = "without evaluation results: test.json has 64 of 360 images; run `reslight test` or `reslight validate` on all of them"
    assert told in reslight("export", run, "out").out


def test_where_no_images_were_set_apart_only_the_test_is_offered(reslight):
    assert reslight("fit", *QUICK, "--data.val_size", 0, "--trainer.limit_train_batches", 2).code == 0
    answer = reslight("export", "runs/digits/1", "out")
    assert "without evaluation results: run `reslight test` if there are test images, then export again" in answer.out


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_other_precisions_are_tested_exported_and_verified(reslight, precision):
    assert reslight("fit", *QUICK, "--trainer.precision", precision).code == 0
    assert reslight("test", "--config", "digits", "--trainer.precision", precision).code == 0
    answer = reslight("export", "runs/digits/1", "out")
    assert "of 360 correct" in answer.out, answer.out
    assert package.load("out").fc.weight.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    answer = reslight("verify", "out")
    assert answer.code == 0, answer.out + answer.err


def test_a_row_with_a_repository_is_taken_from_there(hub, pushed, reslight, monkeypatch):
    row = Published(accuracy=50.0, sha256="0" * 64, repository="acme/net", revision=hub.head("acme/net"))
    monkeypatch.setattr("reslight.weights.catalog.CATALOG", {"net.digits": row})
    monkeypatch.setattr("reslight.weights.locate.CATALOG", {"net.digits": row})
    monkeypatch.setattr("reslight.weights.listing.CATALOG", {"net.digits": row})
    assert package.load("net.digits").config == package.load(pushed).config
    assert "acme/net on the Hub" in reslight("weights", "net.*").out


@pytest.mark.parametrize("there", [{"repository": "a/b"}, {"revision": "0" * 40}, {"repository": "a/b", "revision": "main"}])
def test_a_row_names_a_repository_with_its_commit(there):
    with pytest.raises(ValueError, match="Give the commit, 40 hexadecimal digits"):
        Published(accuracy=1.0, sha256="0" * 64, **there)
