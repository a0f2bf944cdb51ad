"""`reslight calibrate`, and everything that uses the temperature of weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import reslight as package
from reslight.cli.main import main
from reslight.data import Digits
from reslight.weights.calibration import Calibration
from reslight.weights.catalog import bundled
from reslight.weights.saving import write_folder

FIELDS = {"temperature": 2.0, "total": 10, "ece_before": 0.1, "ece": 0.01, "fingerprint": "0" * 64}


@pytest.fixture
def folder() -> Path:
    """The published digits network, whose last layer is made three times as sure."""
    description = package.weights.folder.read_description(bundled("resnet8.digits"))
    net = package.load("resnet8.digits")
    with torch.no_grad():
        net.fc.weight *= 3
        net.fc.bias *= 3
    package.save(net, "w", data=dict(description.record.data))
    return Path("w")


def test_the_temperature_is_stored_used_and_verified(folder: Path, capsys):
    model = (folder / "model.safetensors").read_bytes()
    assert main(["calibrate", "w"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert (folder / "model.safetensors").read_bytes() == model
    stored = json.loads((folder / "config.json").read_text())["reslight"]["calibration"]
    data = Digits()
    data.setup("validate")
    split, net = data.splits["val"], package.load("w")
    assert (stored["total"], stored["fingerprint"]) == (180, split.fingerprint)
    assert net.temperature == stored["temperature"] > 1.5
    with torch.inference_mode():
        logits = net(net.preprocess.normalize(split.images)).double()
    losses = [float(torch.nn.functional.cross_entropy(logits / (net.temperature * by), split.labels)) for by in (0.95, 1.0, 1.05)]
    assert min(losses) == losses[1]
    assert printed[0] == f"temperature {net.temperature:.4f}, fitted to 180 validation images"
    assert f"divide the logits by {net.temperature:.4f}" in (folder / "README.md").read_text()
    assert main(["verify", "w"]) == 0
    assert f"ok       temperature {net.temperature:.4f}: ECE {stored['ece']:.4f}" in capsys.readouterr().out
    Image.fromarray(split.images[0, 0].numpy()).save("digit.png")
    answers = package.Classifier(net, exact=True).predict("digit.png").classes
    expected = (logits[0] / net.temperature).softmax(dim=0).sort(descending=True).values[:5]
    assert [probability for _, probability in answers] == pytest.approx(expected.tolist(), abs=1e-5)


def test_verify_notices_another_temperature(folder: Path, capsys):
    assert main(["calibrate", "w"]) == 0
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["reslight"]["calibration"]["temperature"] = 1.0
    path.write_text(json.dumps(config))
    capsys.readouterr()
    assert main(["verify", "w"]) == 1
    assert "DIFFERS  temperature 1.0000: ECE" in capsys.readouterr().out


def test_a_deeper_network_that_computes_the_same_has_the_same_temperature(folder: Path):
    record = package.weights.folder.read_description(folder).record
    write_folder(package.load("w"), folder, replace(record, calibration=Calibration(**FIELDS)))
    assert main(["deepen", "w", "deeper", "--to", "resnet20"]) == 0
    assert package.load("deeper").temperature == 2.0


@pytest.mark.slow
def test_onnx_files_give_logits_that_are_divided(folder: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["calibrate", "w"]) == 0
    assert main(["export", "w", "net.onnx", "--normalized-input"]) == 0
    net, session = package.load("w"), onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    images = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        expected = net(images) / net.temperature
    np.testing.assert_allclose(session.run(["logits"], {"images": images.numpy()})[0], expected, rtol=1e-4, atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map["temperature"] == str(net.temperature)


def test_weights_that_saw_all_images_are_refused(capsys):
    shutil.copytree(bundled("resnet8.digits"), "w")
    path = Path("w/config.json")
    config = json.loads(path.read_text())
    config["reslight"]["data"]["val_size"] = 0
    del config["reslight"]["data"]["splits"]["val"]
    path.write_text(json.dumps(config))
    assert main(["calibrate", "w"]) == 2
    error = capsys.readouterr().err
    assert "w was trained without validation images, and data has none: a temperature is fitted to images that training left out" in error
    assert error.count("\n") == 1


def test_images_without_the_validation_images_of_the_training_are_refused(capsys):
    about = {"name": "mine", "kind": "Folder", "val_size": 2, "splits": {"val": {"size": 2, "fingerprint": "0" * 64}}}
    preprocess = package.Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    package.save(package.create_model("resnet8", num_classes=2), "mine", preprocess=preprocess, labels=["a", "b"], data=about)
    for name in "ab":
        Path("pics/test", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"pics/test/{name}/1.png")
    assert main(["calibrate", "mine", "--data", "pics"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    record = package.weights.folder.read_description(Path("mine")).record
    write_folder(package.load("mine"), Path("mine"), replace(record, calibration=Calibration(**FIELDS)))
    assert main(["verify", "mine", "--data", "pics"]) == 1
    assert "DIFFERS  temperature: not the validation images that it was fitted to" in capsys.readouterr().out
    assert error.startswith("reslight: error: --data is pics: it has no validation images, and a temperature is fitted to images that")
    assert error.endswith("Give the data of the training.")


@pytest.fixture
def twins(folder: Path) -> tuple[Path, Path]:
    """Weights that were trained on all images, and those of `folder`, which left out some."""
    description = package.weights.folder.read_description(folder)
    about = {**description.record.data, "val_size": 0}
    about["splits"] = {"train": about["splits"]["train"]}
    net = package.load("w")
    with torch.no_grad():
        net.conv1.weight += 0.02 * torch.randn(net.conv1.weight.shape, generator=torch.Generator().manual_seed(0))
    package.save(net, "all", data=about)
    return Path("all"), folder


def test_the_temperature_of_a_twin_is_measured_on_the_test_images(twins: tuple[Path, Path], capsys):
    all_images, twin = twins
    assert main(["calibrate", "w"]) == 0
    own = package.load("w").temperature
    capsys.readouterr()
    assert main(["calibrate", "all", "--twin", "w"]) == 0
    printed = capsys.readouterr().out.splitlines()
    stored = json.loads((all_images / "config.json").read_text())["reslight"]["calibration"]
    sums = json.loads((twin / "config.json").read_text())["reslight"]["sha256"]
    assert (stored["temperature"], stored["twin"]) == (own, sums["model.safetensors"])
    data, net = Digits(), package.load("all")
    data.setup("test")
    split = data.splits["test"]
    with torch.inference_mode():
        best = (net(net.preprocess.normalize(split.images)).double() / own).softmax(dim=1).max(dim=1)
    ece = 0.0  # 15 bins of equal width, Guo et al. 2017
    for number in range(15):
        inside = (best.values > number / 15) & (best.values <= (number + 1) / 15)
        if inside.any():
            right = (best.indices == split.labels)[inside].double().mean()
            ece += float(inside.double().mean() * abs(right - best.values[inside].mean()))
    assert stored["test_ece"] == pytest.approx(ece, abs=1e-6)
    assert printed[2] == f"ECE {ece:.4f} on the test images, which the temperature has not seen"
    card = (all_images / "README.md").read_text()
    assert f"of a twin, the same network trained in the same way on the other images (model.safetensors `{stored['twin'][:12]}`)" in card
    assert f"On the test images, that of these weights is {100 * ece:.2f} % with it." in card
    assert main(["verify", "all"]) == 0
    assert f"temperature {own:.4f}: ECE {ece:.4f} on {len(split)} test images; as on the card" in capsys.readouterr().out
    config = json.loads((all_images / "config.json").read_text())
    config["reslight"]["calibration"]["test_ece"] = 0.9
    (all_images / "config.json").write_text(json.dumps(config))
    assert main(["verify", "all"]) == 1
    assert "the card says 0.9000" in capsys.readouterr().out


def test_another_network_is_no_twin(twins: tuple[Path, Path], capsys):
    _, twin = twins
    assert main(["calibrate", "w", "--twin", "all"]) == 2
    assert "--twin is all: it was trained without validation images, too." in capsys.readouterr().err
    path = twin / "config.json"
    config = json.loads(path.read_text())
    config["reslight"]["recipe"]["label_smoothing"] = 0.1
    path.write_text(json.dumps(config))
    assert main(["calibrate", "all", "--twin", "w"]) == 2
    assert "--twin is w: its label_smoothing differs. Train the same network" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0}, {"temperature": "2"}, {"ece": float("nan")}, {"total": 1.5}, {"more": 1}, {"test_ece": 0.1}, {"twin": "0" * 64}],
)
def test_a_calibration_of_a_stranger_is_checked(change: dict[str, object]):
    with pytest.raises(package.UsageError, match="calibration"):
        Calibration.from_dict(FIELDS | change)
    with pytest.raises(package.UsageError, match="calibration is 3"):
        Calibration.from_dict(3)
    for fields in (FIELDS, FIELDS | {"twin": "0" * 64, "test_ece": 0.02}):
        assert Calibration.from_dict(fields).to_dict() == fields


def test_weights_without_one_are_written_as_before():
    text = (bundled("resnet8.digits") / "config.json").read_text()
    package.weights.folder.read_description(bundled("resnet8.digits"))
    record = package.weights.folder.read_description(bundled("resnet8.digits")).record
    ours = json.loads(text)["reslight"]
    ours.pop("sha256")
    assert record.to_dict() == ours
    assert package.load("resnet8.digits").temperature == 1.0


def test_classify_says_where_it_is_not_sure(folder: Path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(noise).save("noise.png")
    answers = package.Classifier("w", exact=True).predict("noise.png").classes
    for level, is_sure in ((answers[0][1] - 1e-6, True), (1.0, False)):
        assert main(["classify", "w", "noise.png", "--sure", str(level)]) == 0
        assert ("  not sure: no class has a probability of" in capsys.readouterr().out) is not is_sure
    assert main(["classify", "w", "noise.png", "--sure", "2"]) == 2
    assert "--sure is 2: it must be 0 to 1, a probability. Use 0.9, for example." in capsys.readouterr().err
    assert main(["classify", "w", "noise.png", "--threshold", "0.3"]) == 2
    assert "--threshold is 0.3: w gives an image one label. Use --sure." in capsys.readouterr().err
    record = package.weights.folder.read_description(Path("w")).record
    write_folder(package.load("w"), Path("w"), replace(record, multi_label=True))
    assert main(["classify", "w", "noise.png", "--sure", "0.9"]) == 2
    assert "--sure is 0.9: w gives an image several labels, each above a threshold. Use --threshold." in capsys.readouterr().err
