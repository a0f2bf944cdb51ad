"""Training that starts from published weights."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

import reslight as package
from reslight.data import Synthetic, SyntheticImages
from reslight.preprocess import Preprocess
from reslight.training import ImageClassifier, OptimConfig
from reslight.training.finetune import frozen_parts, initial_net
from reslight.training.optim import build_optimizer

CONFIG = {"depths": [1, 1, 1], "widths": [8, 16, 16], "stem": "small", "stem_width": 8, "num_classes": 6}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    net = package.ResNet(package.ResNetConfig(**CONFIG))
    package.save(net, tmp_path / "weights", preprocess=Preprocess(size=8, mean=(0.4,) * 3, std=(0.2,) * 3))
    return str(tmp_path / "weights")


def test_the_backbone_is_loaded_and_the_head_is_new(weights: str):
    there, here = package.load(weights).state_dict(), ImageClassifier(init_from=weights, num_classes=6).net
    assert here.config.num_classes == 6
    for name, value in here.state_dict().items():
        assert torch.equal(value, there[name]) != (name == "fc.weight" or name == "fc.bias"), name  # also with as many classes
    assert ImageClassifier(init_from=weights, num_classes=2, in_channels=3).net.fc.weight.shape == (2, 16)


def test_a_published_weight_by_its_name():
    assert initial_net("resnet8.digits", None, 3, 1).fc.out_features == 3


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_weights_for_other_channels_are_timms(weights: str, channels: int, caplog: pytest.LogCaptureFixture):
    timm = pytest.importorskip("timm.models._manipulate")
    there = package.load(weights)
    with caplog.at_level("INFO", logger="reslight"):
        here = initial_net(weights, None, 3, channels)
    assert here.config.in_channels == channels
    torch.testing.assert_close(here.conv1.weight, timm.adapt_input_conv(channels, there.conv1.weight))
    assert torch.equal(here.layer1[0].conv1.weight, there.layer1[0].conv1.weight)
    assert here.preprocess is None
    assert f"{'added up' if channels == 1 else 'repeated'} for {channels}" in caplog.text


def test_fields_that_may_differ_from_the_weights(weights: str):
    assert initial_net(weights, {"drop_path": 0.2}, 3, None).config.drop_path == 0.2
    same = {key: value for key, value in CONFIG.items() if key != "num_classes"}
    assert initial_net(weights, same, 3, None).config.num_classes == 3
    with pytest.raises(ValueError, match=r"model.net has .*widths \[16, 32, 64\] and not \[8, 16, 16\].*Remove model.net"):
        initial_net(weights, "resnet20", 3, None)
    with pytest.raises(ValueError, match=r"model\.net is missing"):
        ImageClassifier()


@pytest.mark.parametrize(
    ("through", "free"),
    [
        ("stem", ("layer1", "layer2", "layer3", "fc")),
        ("layer2", ("layer3", "fc")),
        ("backbone", ("fc",)),
        (None, ("conv1", "bn1", "layer1", "layer2", "layer3", "fc")),
    ],
)
@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_frozen_parts_do_not_change(weights: str, name: str, through: str | None, free: tuple[str, ...]):
    model = ImageClassifier(init_from=weights, num_classes=2, freeze=through, optim=OptimConfig(name, lr=0.5, backbone_lr=0.5))
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    model.train()
    optimizer = build_optimizer(model.optim, model.net)
    model(torch.randn(8, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    for name, value in model.net.state_dict().items():
        moved = not torch.equal(value, before[name])  # running statistics, too
        assert moved == (name.split(".")[0] in free), name


def test_a_trainer_does_not_change_frozen_parts(weights: str, tmp_path: Path):
    data = Synthetic(SyntheticImages(size=8, num_classes=2, train_size=32), batch_size=8, val_size=8)
    model = ImageClassifier(init_from=weights, num_classes=2, freeze="layer2")
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu").fit(model, data)
    moved = {name.split(".")[0] for name, value in model.net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"layer3", "fc"}
    assert not torch.equal(model.net.layer3[0].bn1.running_mean, before["layer3.0.bn1.running_mean"])


def test_a_preactivation_network_freezes_its_last_norm_with_its_last_stage():
    net = package.ResNet(package.ResNetConfig(**CONFIG, preact=True))
    assert net.bn in frozen_parts(net, "layer3")
    assert net.bn not in frozen_parts(net, "layer2")
    with pytest.raises(ValueError, match=r"model\.freeze is head: it must be stem, layer1, layer2, layer3, backbone or null"):
        frozen_parts(net, "head")
