"""More layers, the same function."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reslight.models import ResNet, ResNetConfig, added_blocks, create_model, deepen

SMALL = {"widths": (8, 16), "stem": "small", "stem_width": 8, "num_classes": 5}
IDENTICAL = {
    "A": {"shortcut": "A"},
    "A, zeros at the end": {"shortcut": "A", "pad": "end"},
    "B": {"shortcut": "B"},
    "B, average pooling": {"shortcut": "B", "avg_down": True},
    "bottleneck A": {"block": "bottleneck", "shortcut": "A"},
    "bottleneck B": {"block": "bottleneck", "shortcut": "B"},
    "bottleneck of the paper's stride": {"block": "bottleneck", "stride_on": "1x1"},
    "groups": {"block": "bottleneck", "groups": 2, "width_per_group": 32},
    "pre-activation A": {"preact": True, "shortcut": "A"},
    "pre-activation B": {"preact": True, "shortcut": "B"},
    "pre-activation C": {"preact": True, "shortcut": "C"},
    "pre-activation bottleneck": {"preact": True, "block": "bottleneck"},
    "pre-activation bottleneck C": {"preact": True, "block": "bottleneck", "shortcut": "C"},
    "deep stem": {"stem": "deep"},
    "recomputed": {"checkpoint": True},
    "zero init": {"zero_init": True},
}
IN_EVALUATION = {
    "plain": {"shortcut": "none"},
    "C": {"shortcut": "C"},
    "C, average pooling": {"shortcut": "C", "avg_down": True},
    "bottleneck C": {"block": "bottleneck", "shortcut": "C"},
}


def config(depths: tuple[int, ...], **fields: Any) -> ResNetConfig:
    return ResNetConfig(depths=depths, **SMALL | fields)


def trained(fields: dict[str, Any], seed: int = 0) -> tuple[ResNet, torch.Tensor, torch.Tensor]:
    """A network after some steps, so that no gamma is 1 and no running statistic as it began; and what it was trained on."""
    torch.manual_seed(seed)
    net, images, labels = ResNet(config((1, 2), **fields)), torch.randn(16, 3, 16, 16), torch.arange(16) % 5
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net, images, labels


def outputs(net: ResNet, images: torch.Tensor, mode: bool, bf16: bool) -> torch.Tensor:
    net = copy.deepcopy(net).train(mode)  # a look in training mode moves running statistics
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return net(images)


@pytest.mark.parametrize("fields", IDENTICAL.values(), ids=IDENTICAL)
def test_a_residual_net_computes_the_same_to_the_bit_and_learns_at_once(fields: dict[str, Any]):
    net, images, labels = trained(fields)
    deeper = deepen(net, config((3, 4), **fields))
    assert (deeper.config.depths, deeper.training) == ((3, 4), True)
    for mode in (True, False):
        for bf16 in (False, True):
            assert torch.equal(outputs(net, images, mode, bf16), outputs(deeper, images, mode, bf16)), (mode, bf16)
    blocks = [block for _, added in added_blocks(deeper, net.config) for block in added]
    assert len(blocks) == 4
    F.cross_entropy(deeper(images), labels).backward()
    for block in blocks:
        assert any(parameter.grad.abs().max() > 0 for parameter in block.parameters())
    torch.optim.SGD(deeper.parameters(), lr=0.1).step()
    deeper.zero_grad()
    F.cross_entropy(deeper(images), labels).backward()
    for block in blocks:  # behind the first step nothing of the branch is cut off any more
        assert all(p.grad.abs().max() > 0 for name, p in block.named_parameters() if "downsample" not in name)


@pytest.mark.parametrize("fields", IN_EVALUATION.values(), ids=IN_EVALUATION)
def test_a_net_without_identities_computes_the_same_in_evaluation(fields: dict[str, Any]):
    net, images, labels = trained(fields)
    deeper = deepen(net, config((4, 6), **fields))
    before, after = (outputs(one, images, False, False) for one in (net, deeper))
    assert float((after - before).abs().max() / before.abs().max()) < 1e-6
    before, after = (outputs(one, images, True, False) for one in (net, deeper))
    assert float((after - before).norm() / before.norm()) < 0.3  # approximately: batch statistics are not those that were foreseen
    F.cross_entropy(deeper(images), labels).backward()
    for _, blocks in added_blocks(deeper, net.config):
        for block in blocks:
            assert any(parameter.grad.abs().max() > 0 for parameter in block.parameters())


def test_plain_20_becomes_plain_56_and_computes_the_same_to_a_millionth():
    torch.manual_seed(0)
    net, images = create_model("plain20"), torch.randn(64, 3, 32, 32)
    for _ in range(30):  # statistics of its own
        with torch.no_grad():
            net(images + 0.1 * torch.randn_like(images))
    before, after = (outputs(one, images, False, False) for one in (net, deepen(net, "plain56")))
    assert float((after - before).abs().max() / before.abs().max()) < 1e-6


def test_a_plain_net_is_near_in_training_mode_for_its_moments_are_those_of_the_activations():
    """With the moments of a new batch norm, mean 0 and variance 1, the same layers would be far from the identity."""
    net, images, _ = trained({"shortcut": "none"})
    deeper = deepen(net, config((1, 3), shortcut="none"))
    wrong = copy.deepcopy(deeper)
    for _, blocks in added_blocks(wrong, net.config):
        for norm in (module for block in blocks for module in block.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.reset_parameters()
    before = outputs(net, images, True, False)
    near, far = (float((outputs(one, images, True, False) - before).norm() / before.norm()) for one in (deeper, wrong))
    assert near < far / 3


def test_the_moments_of_a_rectified_normal_variable_are_those_of_many_draws():
    from reslight.models.deepen import _rectified

    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0]))
        norm.bias.copy_(torch.tensor([0.3, -0.4, 1.5]))
    draws = torch.relu(torch.randn(2_000_000, 3, generator=torch.Generator().manual_seed(1)) * norm.weight + norm.bias).detach()
    mean, var = _rectified(norm)
    torch.testing.assert_close(mean.float(), draws.mean(0), atol=3e-3, rtol=0)
    torch.testing.assert_close(var.float(), draws.var(0), atol=8e-3, rtol=0)


def test_old_weights_keep_their_names_and_values_and_the_old_net_is_left_alone():
    net, _, _ = trained({})
    before = copy.deepcopy(net.state_dict())
    net.labels = tuple("abcde")
    deeper = deepen(net.eval(), config((2, 2)))
    assert not deeper.training
    assert deeper.labels == net.labels
    there = deeper.state_dict()
    assert all(torch.equal(there[name], value) for name, value in before.items())
    assert {name.rpartition(".")[0].rpartition(".")[0] for name in there.keys() - before.keys()} == {"layer1.1"}
    with torch.no_grad():
        deeper.conv1.weight.zero_()
    assert torch.equal(net.conv1.weight, before["conv1.weight"])


def test_a_name_gives_the_depths_and_the_net_its_options():
    net = create_model("resnet20", num_classes=7, in_channels=1, shortcut="B", drop_path=0.1)
    deeper = deepen(net, "resnet32").config
    assert (deeper.depths, deeper.num_classes, deeper.in_channels, deeper.shortcut, deeper.drop_path) == ((5, 5, 5), 7, 1, "B", 0.1)
    assert deepen(create_model("resnet18"), "resnet34").config.depths == (3, 4, 6, 3)
    assert deepen(create_model("resnet20").double(), "resnet32").fc.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("net", "to", "message"),
    [
        ("resnet56", "resnet20", "resnet20 has depths (3, 3, 3): the network has (9, 9, 9). Use resnet110, resnet1202"),
        ("resnet20", "resnet20", "resnet20 has depths (3, 3, 3): the network has them already. Use resnet32, resnet44,"),
        (
            "resnet20",
            "plain56",
            "plain56 has shortcut none instead of A: only layers can be added. Use resnet32",
        ),
        ("plain20", "resnet56", "resnet56 has shortcut A instead of none"),
        (
            "resnet20",
            "resnet50",
            "resnet50 has widths [64, 128, 256, 512] instead of [16, 32, 64], block bottleneck instead of basic, stem imagenet",
        ),
        ("resnet1202", "resnet20", "No named architecture is deeper: give a ResNetConfig with larger depths"),
        ("resnet20", "resnet57", "there is no network 'resnet57': did you mean"),
        (
            "resnet20",
            config((3, 3, 4), widths=(16, 32, 64), stem_width=16),
            "the deeper network has shortcut B instead of A, num_classes 5 instead of 10",
        ),
    ],
)
def test_architectures_that_are_not_deeper_are_refused(net: str, to: Any, message: str):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        deepen(create_model(net), to)


@pytest.mark.parametrize("fields", [{"block": "bottleneck"}, {"preact": True}])
def test_a_plain_network_without_identity_blocks_is_refused(fields: dict[str, Any]):
    net = ResNet(config((1, 1), shortcut="none", **fields))
    with pytest.raises(ValueError, match="this plain network cannot be deepened"):
        deepen(net, config((2, 1), shortcut="none", **fields))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memory_order_is_kept_so_that_outputs_are_equal_to_the_bit(layout):
    torch.manual_seed(0)
    net = create_model("resnet20", in_channels=1).eval().to(memory_format=layout)
    deeper, images = deepen(net, "resnet56"), torch.randn(16, 1, 8, 8)
    assert deeper.conv1.weight.shape == net.conv1.weight.shape
    assert all(new.is_contiguous(memory_format=layout) for new in deeper.parameters() if new.ndim == 4)
    with torch.no_grad():
        assert torch.equal(deeper(images), net(images))
