"""Folders and repositories that timm wrote."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.hub_server import HubServer, connect
from tests.nets import scrambled

import reslight
from reslight.weights.interop.timm_config import record_of

timm = pytest.importorskip("timm")
from timm.models import save_for_hf  # noqa: E402  # after the skip


def write(name: str, **arguments) -> tuple[torch.nn.Module, Path]:
    """Return a network of timm with random weights and statistics, and its folder."""
    net = scrambled(timm.create_model(name, **arguments))
    config = {"label_names": [f"class {number}" for number in range(net.num_classes)]}
    save_for_hf(net, "theirs", model_config=config, safe_serialization=True)
    return net, Path("theirs")


@pytest.mark.parametrize(
    ("name", "arguments", "tolerance"),
    [
        ("resnet18", {}, 0),
        ("resnet26d", {"num_classes": 7}, 0),
        pytest.param("resnet50c", {}, 0, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", {}, 0, marks=pytest.mark.slow),
        pytest.param("resnetv2_50", {"num_classes": 5}, 1e-6, marks=pytest.mark.slow),  # its classifier sums in another order
    ],
)
def test_a_folder_of_timm_has_equal_logits_and_preprocessing(name, arguments, tolerance):
    theirs, folder = write(name, **arguments)
    net = reslight.load(folder)
    assert not net.training
    assert net.labels[:2] == ("class 0", "class 1")
    image = Image.effect_noise((300, 260), 60).convert("RGB")
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=theirs), is_training=False)
    expected = transform(image)
    found = net.preprocess(image)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    x = torch.stack([expected, torch.randn_like(expected)])
    with torch.inference_mode():
        one, other = net(x), theirs(x)
    assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_a_repository_of_timm_loads_with_a_new_head(tmp_path, monkeypatch):
    theirs, folder = write("resnet18")
    with HubServer() as hub:
        connect(hub, monkeypatch, tmp_path / "hub")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        commit = hub.create("timm/resnet18.a1_in1k", {path.name: path.read_bytes() for path in folder.iterdir()})
        net = reslight.load(f"timm/resnet18.a1_in1k@{commit}", num_classes=3)
    assert net.fc.out_features == 3
    assert torch.equal(net.conv1.weight, theirs.conv1.weight)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c.update(architecture="seresnet50"), "architecture is 'seresnet50'"),
        (lambda c: c.update(architecture=5), "architecture is '5'"),
        (lambda c: c.update(model_args={"act_layer": "silu"}), "unknown key 'act_layer'"),
        (lambda c: c.update(model_args=[]) or c.update(model_args=[1]), "model_args is .*: it must be an object"),
        (lambda c: c.pop("pretrained_cfg"), "`reslight` and `pretrained_cfg` .* missing"),
        (lambda c: c["pretrained_cfg"].update(crop_pct=9), "crop_pct is 9: it must be a number from 0.01 to 1"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, 224, 10**9]), "input_size is"),
        (lambda c: c["pretrained_cfg"].update(mean="x"), "mean is x: it must be a list"),
        (lambda c: c["pretrained_cfg"].update(interpolation="lanczos"), "preprocess.interpolation is 'lanczos'"),
        (lambda c: c.update(label_names=["a"]), "labels has 1 name: the network has 1000 classes"),
        (lambda c: c.update(architecture="resnet34"), "holds 8 blocks: the network of its config.json has 16"),
        (lambda c: c.update(num_classes=10**9), "num_classes is 1000000000"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(edit, says):
    _, folder = write("resnet18")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=says) as stopped:
        reslight.load(folder)
    assert "\n" not in str(stopped.value)


def test_several_labels_are_known_to_other_libraries():
    """timm ignores the key, and transformers' pipeline takes a sigmoid with it."""
    net = scrambled(reslight.ResNet(replace(reslight.models.VARIANTS["resnet18"], num_classes=3))).eval()
    net.multi_label = True
    reslight.save(net, "several", preprocess=reslight.Preprocess(size=64, mean=(0.5,) * 3, std=(0.5,) * 3), labels=("a", "b", "c"))
    config = json.loads(Path("several/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert record_of(config).multi_label
    assert reslight.load("several").multi_label
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    theirs = timm.create_model("local-dir:several", pretrained=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(theirs(images), net(images), rtol=1e-5, atol=1e-5)
