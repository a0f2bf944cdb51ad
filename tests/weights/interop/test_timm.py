"""timm builds and loads every network of reslight after `import reslight.weights.timm`."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.hub_server import HubServer, connect
from tests.nets import scrambled

import reslight
from reslight.models import VARIANTS
from reslight.weights.folder import check_folder

timm = pytest.importorskip("timm")
import reslight.weights.timm  # noqa: E402  # after the skip

NETS = {
    "shortcut A": VARIANTS["resnet20"],
    "plain": VARIANTS["plain20"],
    "one channel": replace(VARIANTS["resnet8"], in_channels=1),
    "pre-activation": VARIANTS["preact_resnet18_cifar"],
    "a net without a name": replace(VARIANTS["resnet20"], depths=(1, 2), widths=(8, 24), shortcut="B", stem_width=8),
    "not like the ImageNet nets": replace(VARIANTS["resnet18"], shortcut="A", pad="end"),
}


def saved(config: reslight.ResNetConfig, classes: int = 5, *, half: bool = False) -> torch.nn.Module:
    """Return a network, saved in the folder `ours`."""
    net = scrambled(reslight.ResNet(replace(config, num_classes=classes)))
    channels, size = config.in_channels, config.input_size
    net.preprocess = reslight.Preprocess(size=size, mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.3, 0.25)[:channels])
    reslight.save(net, "ours", preprocess=net.preprocess, labels=[f"class {number}" for number in range(classes)], half=half)
    return reslight.load("ours") if half else net


def test_every_architecture_is_registered():
    assert set(timm.list_models("reslight_*")) == {f"reslight_{name}" for name in VARIANTS}


@pytest.mark.parametrize("config", NETS.values(), ids=NETS)
def test_a_folder_loads_with_equal_logits_and_the_same_preprocessing(config):
    ours = saved(config)
    theirs = timm.create_model("local-dir:ours", pretrained=True).eval()
    mode = "L" if config.in_channels == 1 else "RGB"
    image = Image.effect_noise((300, 260), 60).convert(mode)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=theirs), is_training=False)
    assert (transform(image) - ours.preprocess(image)).abs().max() < 1e-5
    x = torch.stack([ours.preprocess(image), torch.randn(config.in_channels, config.input_size, config.input_size)])
    with torch.inference_mode():
        assert torch.equal(theirs(x), ours(x))
    assert theirs.pretrained_cfg["label_names"] == [f"class {number}" for number in range(5)]


def test_the_code_of_the_card_loads_them_from_the_hub(tmp_path, monkeypatch):
    ours = saved(VARIANTS["resnet20"])
    with HubServer() as hub:
        connect(hub, monkeypatch, tmp_path / "hub")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        reslight.push("ours", "acme/resnet20")
        card = hub.files("acme/resnet20")["README.md"].decode()
        code = [block.partition("```")[0] for block in card.split("```python\n")[1:]]
        known: dict = {}
        exec(next(block for block in code if "import timm" in block), known)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(known["net"](x), ours(x))


def test_timms_usual_arguments():
    ours = saved(VARIANTS["resnet20"])
    x = torch.randn(2, 3, 32, 32)
    few = timm.create_model("local-dir:ours", pretrained=True, num_classes=3).eval()
    assert few.get_classifier().out_features == 3 == few.num_classes
    assert torch.equal(few.layer3[2].conv2.weight, ours.layer3[2].conv2.weight)
    none = timm.create_model("local-dir:ours", pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        assert torch.equal(none(x), ours.forward_pool(none.forward_features(x)))
        assert torch.equal(few.forward_head(few.forward_features(x), pre_logits=True), none(x))
    one = timm.create_model("local-dir:ours", pretrained=True, in_chans=1).eval()
    assert torch.allclose(one.conv1.weight, ours.conv1.weight.sum(1, keepdim=True))  # timm's rule for gray images
    few.reset_classifier(7)
    assert few(x).shape == (2, 7)
    deep = timm.create_model("reslight_resnet20", depths=[5, 5, 5], drop_path_rate=0.1, num_classes=100)
    assert (deep.config.depths, deep.config.drop_path, deep.config.num_classes) == ((5, 5, 5), 0.1, 100)


@pytest.mark.parametrize("config", NETS.values(), ids=NETS)
def test_folders_that_timm_writes_of_them_load(config):
    saved(config)
    if "model_args" in Path("ours/config.json").read_text() and tuple(map(int, timm.__version__.split(".")[:3])) < (1, 0, 31):
        pytest.skip("this timm does not save a network's arguments")
    theirs = timm.create_model("local-dir:ours", pretrained=True, num_classes=3).eval()
    timm.models.save_for_hf(theirs, "theirs", safe_serialization=True)
    net = reslight.load("theirs")
    image = Image.effect_noise((300, 260), 60).convert("L" if config.in_channels == 1 else "RGB")
    assert torch.equal(net.preprocess(image), reslight.load("ours").preprocess(image))
    x = torch.randn(2, config.in_channels, config.input_size, config.input_size)
    with torch.inference_mode():
        assert torch.equal(net(x), theirs(x))


@pytest.mark.parametrize("name", ["resnet20", "plain20", "resnet50", "preact_resnet18_cifar"])
def test_features_have_the_shapes_that_timm_reports(name):
    net = timm.create_model(f"reslight_{name}", features_only=True).eval()
    size = VARIANTS[name].input_size
    with torch.inference_mode():
        features = net(torch.randn(1, 3, size, size))
    assert [one.shape[1] for one in features] == net.feature_info.channels()
    assert [size // one.shape[2] for one in features] == net.feature_info.reduction()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"drop_rate": 1.5}, "drop_rate is 1.5: it must be from 0 to 1"),
        ({"global_pool": "max"}, "global_pool is 'max': reslight's networks have avg"),
        ({"shortcuts": "A"}, "shortcuts.*shortcut"),
        ({"shortcut": "D"}, "shortcut is 'D'"),
        ({"num_classes": -1}, "num_classes is -1"),
    ],
)
def test_other_arguments_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        timm.create_model("reslight_resnet20", **arguments)


@pytest.mark.parametrize(("size", "resize"), [(64, 99), (64, 93), (112, 200), (192, 225), (224, 354), (224, 256), (8, 100), (32, None)])
def test_resize_survives_timm(size, resize):
    preprocess = reslight.Preprocess(size=size, resize=resize, mean=(0.5,) * 3, std=(0.2,) * 3)
    reslight.save(scrambled(reslight.create_model("resnet8")), "ours", preprocess=preprocess)
    theirs = timm.create_model("local-dir:ours", pretrained=True)
    image = Image.effect_noise((300, 260), 60).convert("RGB")
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=theirs), is_training=False)
    assert (transform(image) - preprocess(image)).abs().max() < 1e-5
    timm.models.save_for_hf(theirs, "theirs", safe_serialization=True)
    assert torch.equal(reslight.load("theirs").preprocess(image), preprocess(image))


def test_without_timm_the_error_names_the_package():
    code = "import sys; sys.modules['timm'] = None; import reslight.weights.timm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("Run pip install timm.")


def test_weights_with_a_mean_image_are_not_offered_to_timm():
    net = scrambled(reslight.create_model("resnet8"))
    reslight.save(net, "ours", preprocess=reslight.Preprocess(size=4, mean=(0.5,) * 48, std=(1.0,) * 3))
    assert "pretrained_cfg" not in json.loads(Path("ours/config.json").read_text())
    assert "it cannot subtract a mean image" in Path("ours/README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "half"),
    [(VARIANTS["resnet18"], False), (VARIANTS["resnet18"], True), (VARIANTS["resnet20"], False), (NETS["one channel"], False)],
    ids=["timm's", "timm's, in half the size", "reslight's", "gray"],
)
def test_transformers_reads_the_folder(config, half):
    """transformers reads timm's folders through timm."""
    transformers = pytest.importorskip("transformers")
    ours = saved(config, classes=3, half=half)
    theirs = transformers.AutoModelForImageClassification.from_pretrained("ours").eval()
    image = Image.effect_noise((64, 48), 60).convert("RGB" if config.in_channels == 3 else "L")
    assert theirs.config.id2label == {0: "class 0", 1: "class 1", 2: "class 2"}
    x = torch.randn(2, config.in_channels, config.input_size, config.input_size)
    with torch.inference_mode():
        assert (theirs(x).logits - ours(x)).abs().max() <= 1e-6
    if config.in_channels == 3:  # transformers' processor converts every image to RGB
        pixels = transformers.AutoImageProcessor.from_pretrained("ours")(image, return_tensors="pt")["pixel_values"]
        assert (pixels[0] - ours.preprocess(image)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "preact_resnet18_cifar"])
def test_intermediate_outputs_are_those_of_the_layers(name):
    net = timm.create_model(f"reslight_{name}", num_classes=5).eval()
    size = VARIANTS[name].input_size // 4
    x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        stages = list(reslight.ResNet.forward_features(net, x).values())[1:]
        last, found = net.forward_intermediates(x)
        assert len(found) == 1 + len(stages)
        assert torch.equal(net.maxpool(found[0]), reslight.ResNet.forward_features(net, x)["stem"])
        assert all(torch.equal(one, other) for one, other in zip(found[1:], stages, strict=True))
        assert torch.equal(net.forward_head(last), net(x))
        (second,) = net.forward_intermediates(x, indices=[2], stop_early=True, intermediates_only=True)
        assert torch.equal(second, stages[1])
        assert len(net.forward_intermediates(x, indices=2, intermediates_only=True)) == 2
    with pytest.raises(ValueError, match="output_fmt is 'NLC'"):
        net.forward_intermediates(x, output_fmt="NLC")


def test_intermediate_outputs_are_those_of_timms_own_networks():
    ours, theirs = timm.create_model("reslight_resnet18").eval(), timm.create_model("resnet18").eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for one, other in zip(ours.forward_intermediates(x)[1], theirs.forward_intermediates(x)[1], strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients():
    net = timm.create_model("reslight_resnet8", num_classes=5)
    x = torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        assert all(net.get_submodule(name).recompute is enable for name in net.config.stage_names)
        net.zero_grad()
        net(x).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_layers_are_grouped_for_learning_rates_by_depth():
    from timm.models import group_parameters

    net = timm.create_model("reslight_resnet8")
    groups = group_parameters(net, net.group_matcher(), reverse=True)
    assert groups["conv1.weight"] == groups["bn1.bias"] == 0
    assert groups["layer1.0.conv1.weight"] < groups["layer2.0.conv1.weight"] < groups["layer3.0.conv2.weight"] < groups["fc.weight"]


def test_dropout_before_the_classifier():
    net = timm.create_model("reslight_resnet8", drop_rate=0.5)
    features = net.forward_features(torch.randn(4, 3, 32, 32)).detach()
    assert (net.train().forward_head(features, pre_logits=True) == 0).float().mean() > 0.3
    assert torch.equal(net.eval().forward_head(features), net.fc(features.mean((2, 3))))


def test_what_transformers_saves_loads_and_says_so(caplog):
    transformers = pytest.importorskip("transformers")
    net = saved(VARIANTS["resnet8"])
    theirs = transformers.AutoModelForImageClassification.from_pretrained("ours")
    with torch.no_grad():
        theirs.timm_model.fc.bias.add_(1)
    theirs.save_pretrained("theirs")
    back = reslight.load("theirs")
    assert torch.equal(back.fc.bias, net.fc.bias + 1)
    assert "theirs was written by transformers: what it says of accuracy and training may be of other weights" in caplog.text
    with pytest.raises(ValueError, match=r"^theirs was written by transformers, which keeps .* Write them: reslight\.save\("):
        check_folder(Path("theirs"))
    # A new head, as for fine-tuning: the record of the old one is still there.
    described = json.loads(Path("theirs/config.json").read_text())
    Path("theirs/config.json").write_text(json.dumps(described | {"num_classes": 3}))
    weights = load_file("theirs/model.safetensors")
    save_file(weights | {name: value[:3].clone() for name, value in weights.items() if name.startswith("fc.")}, "theirs/model.safetensors")
    tuned = reslight.load("theirs")
    assert (tuned.config.num_classes, tuned.labels) == (3, None)
    assert torch.equal(tuned.fc.bias, net.fc.bias[:3] + 1)
    Path("theirs/config.json").write_text(json.dumps(described | {"num_classes": "3"}))
    with pytest.raises(ValueError, match=r"theirs/config\.json: num_classes is '3'"):
        reslight.load("theirs")


@pytest.mark.parametrize("before", [True, False])
def test_what_transformers_trained_on_tells_the_kind_of_labels(before: bool):
    """Its training sets `problem_type`, whatever the object `reslight` says of the weights that it had loaded."""
    transformers = pytest.importorskip("transformers")
    net = scrambled(reslight.ResNet(VARIANTS["resnet8"])).eval()
    net.multi_label = before
    reslight.save(net, "ours", preprocess=reslight.Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    theirs = transformers.AutoModelForImageClassification.from_pretrained("ours")
    theirs.save_pretrained("same")
    assert reslight.load("same").multi_label is before
    theirs.config.problem_type = "single_label_classification" if before else "multi_label_classification"
    theirs.save_pretrained("theirs")
    assert reslight.load("theirs").multi_label is not before
