"""resnet50d and the pre-activation networks against timm."""

import re

import pytest
import torch

from reslight.models import create_model

timm = pytest.importorskip("timm")


def stirred(net):
    """The network with running statistics and gammas that are not all 0 and 1."""
    generator = torch.Generator().manual_seed(2)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net


def to_resnetv2(state):
    """The mapping that `reslight/models/resnet.py` documents."""
    outside = {"conv1": "stem.conv", "bn": "norm", "fc": "head.fc"}
    renamed = {}
    for key, tensor in state.items():
        block = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(?:0\.)?(\w+)", key)
        if block:
            stage, number, layer, kind = block.groups()
            layer = "downsample.conv" if layer == "downsample" else layer.replace("bn", "norm")
            renamed[f"stages.{int(stage) - 1}.blocks.{number}.{layer}.{kind}"] = tensor
        else:
            module, kind = key.split(".")
            renamed[f"{outside[module]}.{kind}"] = tensor[:, :, None, None] if key == "fc.weight" else tensor
    return renamed


def test_resnet50d():
    ours, theirs = stirred(create_model("resnet50d")), timm.create_model("resnet50d")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    for training in (False, True):
        with torch.no_grad():
            assert torch.equal(ours.train(training)(images), theirs.train(training)(images))
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], tensor), key
    ours.load_state_dict(theirs.state_dict(), strict=True)


@pytest.mark.parametrize("depth", [50, 101])
def test_preactivation_through_the_documented_mapping(depth):
    ours, theirs = stirred(create_model(f"preact_resnet{depth}")), timm.create_model(f"resnetv2_{depth}")
    theirs.load_state_dict(to_resnetv2(ours.state_dict()), strict=True)
    images = torch.randn(2, 3, 64, 64)
    pooled = []
    ours.fc.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    theirs.head.fc.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].flatten(1)))
    for training in (False, True):
        with torch.no_grad():
            logits, expected = ours.train(training)(images), theirs.train(training)(images)
        # To the bit up to the classifier: timm's is a 1x1 convolution, which adds in another order.
        assert torch.equal(*pooled[-2:])
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
    mapped = to_resnetv2(ours.state_dict())
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(mapped[key], tensor), key
