"""The ONNX file of a network alone: its logits in onnxruntime, and the preprocessing in its metadata."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.nets import scrambled

import reslight as package
from reslight.deploy.formats import normalized_onnx as onnx
from reslight.models import VARIANTS

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NETS = {
    "shortcut A": VARIANTS["resnet20"],
    "shortcut A, padded at the end": replace(VARIANTS["resnet8"], pad="end", in_channels=1),
    "plain": VARIANTS["plain20"],
    "pre-activation": VARIANTS["preact_resnet18_cifar"],
    "bottleneck": VARIANTS["resnet50"],
    "deep stem, averaged shortcuts": VARIANTS["resnet50d"],
    "groups": replace(VARIANTS["resnext50_32x4d"], depths=(1, 1, 1, 1)),
}


def prepared(config: package.ResNetConfig, classes: int = 7) -> package.ResNet:
    net = scrambled(package.ResNet(replace(config, num_classes=classes)))
    channels = config.in_channels
    net.preprocess = package.Preprocess(size=config.input_size, mean=(0.5,) * channels, std=(0.2,) * channels)
    net.labels = tuple(f"class {number}" for number in range(classes))
    return net


def run(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


# By day the plain network, the cheapest; tests/deploy/formats/test_export.py has a residual one. The others are nightly.
DAILY = {"plain"}


@pytest.mark.parametrize(
    "config", [pytest.param(config, id=name, marks=() if name in DAILY else pytest.mark.nightly) for name, config in NETS.items()]
)
def test_onnxruntime_has_the_same_logits_for_any_batch(config):
    net, path = prepared(config), Path("net.onnx")
    onnx.export_normalized(net, path)
    for count in (1, 4, 7):
        images = torch.randn(count, config.in_channels, config.input_size, config.input_size)
        with torch.inference_mode():
            expected = net(images)
        assert (run(path, images) - expected).abs().max() <= 1e-4 * max(1, expected.abs().max())


def test_the_file_holds_the_preprocessing_and_is_the_same_every_time():
    net = prepared(VARIANTS["resnet8"])
    onnx.export_normalized(net, Path("one.onnx"), license="mit")
    onnx.export_normalized(net, Path("two.onnx"), license="mit")
    content = Path("one.onnx").read_bytes()
    assert content == Path("two.onnx").read_bytes()
    assert str(Path(package.__file__).parent).encode() not in content
    metadata = onnxruntime.InferenceSession(content).get_modelmeta().custom_metadata_map
    assert package.Preprocess.from_dict(json.loads(metadata["preprocess"])) == net.preprocess
    assert (json.loads(metadata["labels"]), metadata["license"]) == (list(net.labels), "mit")


def test_the_network_is_not_changed():
    net = prepared(VARIANTS["resnet8"]).double().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    onnx.export_normalized(net, Path("net.onnx"))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert run(Path("net.onnx"), torch.zeros(1, 3, 32, 32)).numpy().dtype == np.float32


def test_a_file_with_other_logits_is_not_written(monkeypatch):
    net, trace = prepared(VARIANTS["resnet8"]), onnx.trace

    def wrong(single, *about):
        single.fc.bias.data += 0.01
        model = trace(single, *about)
        single.fc.bias.data -= 0.01
        return model

    monkeypatch.setattr(onnx, "trace", wrong)
    with pytest.raises(ValueError, match=r"logits.* is 1\.0e-02: 1e-04 is allowed"):
        onnx.export_normalized(net, Path("net.onnx"))
    assert not list(Path().iterdir())


def test_the_export_command(reslight, monkeypatch):
    quick = ("--config", "digits", "--trainer.max_epochs", 1, "--model.schedule.warmup", 0, "--model.ema", 0.9)
    assert reslight("fit", *quick).code == 0
    images, found = torch.randn(2, 1, 8, 8), []
    for extra in ((), ("--raw",)):
        answer = reslight("export", "runs/digits/1", "net.onnx", "--normalized-input", *extra)  # the suffix selects the format
        assert answer.code == 0, answer.err
        assert "checked with onnxruntime: largest difference of a logit" in answer.out
        assert not answer.err
        assert reslight("export", "runs/digits/1", "out", *extra).code == 0
        with torch.inference_mode():
            assert (run(Path("net.onnx"), images) - package.load("out")(images)).abs().max() < 1e-4
        found.append(run(Path("net.onnx"), images))
    assert not torch.allclose(*found, atol=1e-3), "EMA weights and raw weights"

    before = Path("net.onnx").read_bytes()
    for words, says in (
        (("resnet8.digits", "net"), "is net: the name of a file in the format onnx ends with .onnx. Use net.onnx."),
        (("resnet8.digits", "no/net.onnx"), "the folder of no/net.onnx is missing"),
        (("nothing", "net.onnx"), "there is no folder and no published weight nothing"),
        (("resnet8.digits", "net.onnx", "--raw"), "resnet8.digits is not a checkpoint"),
    ):
        answer = reslight("export", *words, "--format", "onnx")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert says in answer.err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "not checked: onnxruntime is not installed" in reslight("export", "resnet8.digits", "new.onnx", "--normalized-input").out
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    answer = reslight("export", "resnet8.digits", "net.onnx", "--normalized-input")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "onnxscript is not installed" in answer.err
    assert "pip install 'reslight[onnx]'" in answer.err
    assert Path("net.onnx").read_bytes() == before


@pytest.mark.slow
def test_the_metadata_tell_of_several_labels(monkeypatch):
    """Without the key `activation`, the probabilities are a softmax, as in files of earlier versions."""
    net = prepared(VARIANTS["resnet8"])
    net.multi_label = True
    monkeypatch.setattr(onnx, "_compare_with_onnxruntime", lambda content, net: None)
    onnx.export_normalized(net, Path("net.onnx"))
    session = onnxruntime.InferenceSession(Path("net.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["activation"] == "sigmoid"
