"""Standard deviations of layer responses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.nets import scrambled
from torch.nn import functional as F

import reslight as package
from reslight.analysis.figure import COLORS
from reslight.analysis.responses import Responses, draw_responses, image_batches, norms_of, responses
from reslight.data import Digits
from reslight.models import ResNet, ResNetConfig, create_model

CONFIG = {"depths": (1, 2), "widths": (8, 16), "stem": "small", "stem_width": 8, "num_classes": 5}
IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def by_hand(net: ResNet) -> list[np.ndarray]:
    """Every batch norm's output of a net of basic blocks with shortcut A, computed layer by layer."""

    def norm(x: torch.Tensor, module: torch.nn.BatchNorm2d) -> torch.Tensor:
        scale = module.weight / torch.sqrt(module.running_var + module.eps)
        return (x - module.running_mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + module.bias.view(1, -1, 1, 1)

    found = []
    x = norm(F.conv2d(IMAGES, net.conv1.weight, padding=1), net.bn1)
    found.append(x)
    x = x.clamp_min(0)
    for stage in (net.layer1, net.layer2):
        for block in stage:
            first = norm(F.conv2d(x, block.conv1.weight, stride=block.conv1.stride, padding=1), block.bn1)
            second = norm(F.conv2d(first.clamp_min(0), block.conv2.weight, padding=1), block.bn2)
            found += [first, second]
            x = (second + block.downsample(x)).clamp_min(0)
    return [one.detach().numpy().astype(np.float64) for one in found]


def test_they_are_those_of_the_layers_computed_by_hand():
    torch.manual_seed(0)
    net = scrambled(ResNet(ResNetConfig(**CONFIG, shortcut="A"))).train()
    found = responses(net, IMAGES.split(5), "small")
    assert net.training
    assert found.layers == ("bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2", "layer2.1.bn1", "layer2.1.bn2")
    np.testing.assert_allclose(found.std, [one.std() for one in by_hand(net)], rtol=1e-5)
    assert (found.name, found.images) == ("small", 12)
    assert found.mean == pytest.approx(np.mean(found.std))


def test_a_net_of_n_layers_has_a_response_for_each_convolution_and_none_for_shortcuts():
    for name, layers in {"resnet20": 19, "plain56": 55, "resnet110": 109}.items():  # the last layer is the classifier
        assert len(norms_of(create_model(name))) == layers
    assert len(norms_of(create_model("resnet50"))) == 1 + 16 * 3
    assert len(norms_of(create_model("preact_resnet18_cifar"))) == 8 * 2 + 1


def test_running_statistics_and_hooks_are_left_as_they_were():
    net = ResNet(ResNetConfig(**CONFIG)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    responses(net, [IMAGES])
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(ValueError, match="there are no images"):
        responses(net, [])


def test_networks_of_one_depth_have_one_color_if_they_differ_in_their_lines():
    def colors(*nets: tuple[int, bool]) -> list[int]:
        found = [Responses(f"{layers}", ("a",) * layers, (1.0,) * layers, 4, is_plain=is_plain) for layers, is_plain in nets]
        return [COLORS.index(line.get_color()) for line in draw_responses(found).axes[0].lines]

    assert colors((19, True), (55, True), (19, False), (31, False), (55, False)) == [0, 2, 0, 1, 2]
    assert colors((19, False), (55, False), (19, False)) == [0, 1, 2]


def test_the_picture_has_both_orders_and_a_line_a_net():
    found = [Responses("plain-20", ("a", "b", "c"), (1.0, 3.0, 2.0), 4, is_plain=True), Responses("$a$b", ("a", "b"), (0.5, 0.7), 4)]
    above, below = draw_responses(found).axes
    assert [list(line.get_ydata()) for line in above.lines] == [[1.0, 3.0, 2.0], [0.5, 0.7]]
    assert [list(line.get_ydata()) for line in below.lines] == [[3.0, 2.0, 1.0], [0.7, 0.5]]
    assert [line.get_linestyle() for line in above.lines] == ["--", "-"]
    figure = above.figure
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain-20", r"\$a\$b"]
    figure.draw_without_rendering()
    assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in (above, below))
    assert all(tick == int(tick) for axes in (above, below) for tick in axes.get_xticks())
    with pytest.raises(ValueError, match="there are no layer responses to draw"):
        draw_responses([])


@pytest.mark.parametrize(("wanted", "got"), [(1, 1), (7, 7), (100, 100), (360, 360), (1000, 360)])
def test_images_come_evenly_from_the_whole_set(wanted: int, got: int):
    net = package.load("resnet8.digits")
    digits = Digits()
    digits.setup("test")
    split = digits.splits["test"].images
    batches = list(image_batches(net, {"name": "digits", "val_size": 180}, "data", wanted))
    assert sum(map(len, batches)) == got
    every = max(1, 360 // wanted)
    assert torch.equal(torch.cat(batches), net.preprocess.normalizer("cpu", torch.float32)(split[::every][:wanted], torch.channels_last))


def test_the_command(reslight: Callable[..., Any]):
    answer = reslight("responses", "resnet8.digits", "-o", "responses.png", "--images", 100)
    assert answer.code == 0, answer.err
    first, second = answer.out.splitlines()
    assert first.startswith("resnet8.digits  7 layers, mean std ")
    assert first.endswith(", on 100 test images of digits")
    assert second == "written responses.png"
    assert Path("responses.png").stat().st_size > 10_000
    assert (
        reslight("responses", "resnet8.digits", "-o", "a.png", "--images", 0).err
        == "reslight: error: --images is 0: it must be at least 1. Use a larger number.\n"
    )
    assert "did you mean resnet8.digits" in reslight("responses", "resnet8.digit", "-o", "a.png").err
    assert "a figure is saved as .png, .pdf or .svg" in reslight("responses", "resnet8.digits", "-o", "a.bmp").err
