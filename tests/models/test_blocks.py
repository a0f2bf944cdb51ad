"""The blocks against a second, slow implementation, and stochastic depth."""

import pytest
import torch
from torch.nn import functional as F

from reslight.models import ResNet, ResNetConfig, cifar_config
from reslight.models.blocks import StochasticDepth, ZeroPadShortcut


class Slow:
    """The networks for small images with parameter-free shortcuts, written as formulas over a state dict."""

    def __init__(self, config, state, training):
        self.config, self.state, self.training = config, state, training

    def norm(self, x, name):
        if self.training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        gamma, beta = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        scale = gamma / (variance + 1e-5).sqrt()
        return x * scale[:, None, None] + (beta - mean * scale)[:, None, None]

    def conv(self, x, name, stride=1):
        """A convolution as a matrix product over unfolded patches."""
        weight = self.state[f"{name}.weight"]
        size = weight.shape[-1]
        patches = F.unfold(x, size, padding=size // 2, stride=stride)
        side = (x.shape[-1] - 1) // stride + 1
        return (weight.flatten(1) @ patches).unflatten(2, (side, side))

    def shortcut(self, x, channels, stride):
        """Option A pixel by pixel, channel by channel."""
        side = (x.shape[-1] - 1) // stride + 1
        out = torch.zeros(x.shape[0], channels, side, side, dtype=x.dtype)
        offset = (channels - x.shape[1]) // 2 if self.config.pad == "both" else 0
        for channel in range(x.shape[1]):
            for row in range(side):
                for column in range(side):
                    out[:, channel + offset, row, column] = x[:, channel, row * stride, column * stride]
        return out

    def convolutions(self, stride):
        if self.config.block == "basic":
            return [("conv1", stride), ("conv2", 1)]
        on_3x3 = self.config.stride_on == "3x3"
        return [("conv1", 1 if on_3x3 else stride), ("conv2", stride if on_3x3 else 1), ("conv3", 1)]

    def block(self, x, name, stride, first):
        convolutions = self.convolutions(stride)
        out, source = x, x
        for number, (conv, step) in enumerate(convolutions, start=1):
            if self.config.preact:
                out = self.norm(out, f"{name}.bn{number}").clamp(min=0)
                if number == 1 and first:
                    source = out
            out = self.conv(out, f"{name}.{conv}", step)
            if not self.config.preact:
                out = self.norm(out, f"{name}.bn{number}")
                if number < len(convolutions):
                    out = out.clamp(min=0)
        if self.config.shortcut == "A":
            out = out + self.shortcut(source, out.shape[1], stride)
        return out if self.config.preact else out.clamp(min=0)

    def __call__(self, x):
        x = self.conv(x, "conv1")
        if not self.config.preact:
            x = self.norm(x, "bn1").clamp(min=0)
        for stage, depth in enumerate(self.config.depths):
            for number in range(depth):
                stride = 2 if stage and not number else 1
                width = self.config.widths[stage] * (4 if self.config.block == "bottleneck" else 1)
                first = stride == 2 or x.shape[1] != width or stage == number == 0
                x = self.block(x, f"layer{stage + 1}.{number}", stride, first)
        if self.config.preact:
            x = self.norm(x, "bn").clamp(min=0)
        return x.mean((2, 3)) @ self.state["fc.weight"].T + self.state["fc.bias"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        cifar_config(14),
        cifar_config(14, pad="end"),
        cifar_config(14, shortcut="none"),
        cifar_config(20, "bottleneck", shortcut="A"),
        cifar_config(20, "bottleneck", shortcut="A", pad="end", stride_on="1x1"),
        cifar_config(20, "bottleneck", shortcut="none"),
        cifar_config(8, widths=(16, 19, 40)),  # an odd number of zeros
    ],
    ids=["both", "end", "plain", "bottleneck", "bottleneck end 1x1", "bottleneck plain", "odd"],
)
@torch.no_grad()
def test_networks_without_projections_against_formulas(config, preact, training):
    config = ResNetConfig(**{**config.to_dict(), "preact": preact})
    net = ResNet(config).double().train(training)
    for name, tensor in net.state_dict().items():
        if ".bn" in name or name.startswith("bn"):
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    images = torch.randn(3, 3, 13, 13, dtype=torch.float64)
    expected = Slow(config, net.state_dict(), training)(images)
    torch.testing.assert_close(net(images), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_option_a_puts_its_zeros_where_it_says():
    x = torch.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    both, end = ZeroPadShortcut(3, 2, "both")(x), ZeroPadShortcut(3, 2, "end")(x)
    assert both.flatten().tolist() == [0, 1, 5, 0, 0]
    assert end.flatten().tolist() == [1, 5, 0, 0, 0]


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("depth", [14, 11])
@torch.no_grad()
def test_zero_init_leaves_only_the_shortcuts(shortcut, preact, depth):
    """With every branch at zero, what enters the first stage's later blocks leaves them unchanged."""
    block = "basic" if depth == 14 else "bottleneck"
    config = cifar_config(depth, block, shortcut=shortcut, preact=preact, zero_init=True)
    net = ResNet(config).eval()
    x = torch.rand(2, 16, 8, 8)
    for stage in (net.layer1, net.layer2):
        for layer in stage:
            a = torch.relu(layer.bn1(x)) if preact and layer.shortcut_after_activation else x
            expected = layer.downsample(a)
            x = layer(x)
            assert torch.equal(x, expected if preact else expected.relu())


def test_stochastic_depth_follows_the_linear_rule():
    net = ResNet(cifar_config(20, drop_path=0.45))
    rates = [module.rate for module in net.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.05 * block for block in range(1, 10)])


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    out = StochasticDepth(0.3).train()(torch.full((20_000, 2, 2, 1), 7.0)).flatten(1)
    assert (out == out[:, :1]).all()
    values = out[:, 0].unique().tolist()
    assert values == pytest.approx([0.0, 7.0 / 0.7])
    assert (out[:, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.015)  # 4.6 standard deviations
    assert out.mean().item() == pytest.approx(7.0, rel=0.02)


def test_stochastic_depth_keeps_the_mean_in_bfloat16():
    torch.manual_seed(0)
    x = torch.rand(200_000, 1, 1, 1).bfloat16() + 1
    out = StochasticDepth(0.1)(x)
    assert out.dtype == torch.bfloat16
    assert out.double().mean().item() == pytest.approx(x.double().mean().item(), rel=0.003)


@torch.no_grad()
def test_stochastic_depth_depends_on_the_global_generator_alone():
    net = ResNet(cifar_config(14, drop_path=0.5))
    images = torch.randn(16, 3, 8, 8)

    def logits(seed):
        torch.manual_seed(seed)
        return net(images)

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))


@torch.no_grad()
def test_stochastic_depth_is_off_in_eval_mode_and_at_rate_zero():
    dropping, plain = ResNet(cifar_config(14, drop_path=0.5)), ResNet(cifar_config(14))
    plain.load_state_dict(dropping.state_dict())
    images = torch.randn(4, 3, 8, 8)
    state = torch.get_rng_state()
    assert torch.equal(dropping.eval()(images), plain.eval()(images))
    plain.train()(images)
    assert torch.equal(torch.get_rng_state(), state)
