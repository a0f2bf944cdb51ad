"""Grad-CAM against the gradients that the paper defines it by, and the sheet of `reslight explain`."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import reslight as package
from reslight.analysis.gradcam import enlarged, grad_cam, overlay, rgb
from reslight.cli.main import main


def net_of(name: str, classes: int = 7) -> package.ResNet:
    torch.manual_seed(0)
    net = package.create_model(name, num_classes=classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of one batch: others would overflow in a thousand layers
    with torch.no_grad():
        net.train()(torch.randn(4, net.config.in_channels, 32, 32))
    net.eval()
    return net


SOME = ("resnet8", "plain20", "preact_resnet18_cifar", "resnet50d")
ALL = [name if name in SOME else pytest.param(name, marks=pytest.mark.nightly) for name in package.list_models()]


@pytest.mark.parametrize("name", ALL)
def test_the_maps_are_those_of_the_gradients(name: str):
    """Equations 1 and 2 of the paper, with autograd; captum's LayerGradCam differs by less than 2e-6 of the largest value, too."""
    net, images, classes = net_of(name), torch.randn(3, 3, 32, 32), torch.tensor([1, 2, 3])
    found = []
    handle = net.avgpool.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    reference = net(images)
    handle.remove()
    gradient = torch.autograd.grad(reference.gather(1, classes[:, None]).sum(), found[0])[0]
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * found[0]).sum(dim=1).relu().detach()
    logits, heat = grad_cam(net, images, classes)
    assert torch.equal(logits, reference)
    assert (heat - expected).abs().max() <= 1e-5 * expected.max()
    best = grad_cam(net, images)[1]
    assert torch.equal(best, grad_cam(net, images, reference.argmax(dim=1))[1])
    assert not net.avgpool._forward_pre_hooks


def test_a_map_is_hot_in_the_same_place_when_it_is_enlarged():
    heat = torch.zeros(1, 4, 4)
    heat[0, 1, 2] = 5
    large = enlarged(heat, (32, 32))[0]
    assert (float(large.max()), large.shape) == (1.0, (32, 32))
    assert {divmod(int(place), 32)[0] // 8 for place in large.flatten().topk(9).indices} == {1}
    assert not enlarged(torch.zeros(1, 4, 4), (8, 8)).any()  # no division by zero


def test_an_overlay_has_the_colors_of_the_map():
    gray = torch.full((2, 2, 3), 100, dtype=torch.uint8)
    mixed = overlay(gray, torch.tensor([[0.0, 1.0], [0.5, 2.0]]))
    assert mixed[0, 0].tolist() == [45, 45, 47]  # 0.45 * 100 + 0.55 * (0, 0, 4)
    assert mixed[0, 1].tolist() == mixed[1, 1].tolist() == [184, 185, 135]
    assert mixed[1, 0].tolist() == [148, 75, 91]
    assert rgb(torch.zeros(4, 2, 5)).shape == (2, 5, 3)
    assert rgb(torch.ones(1, 2, 5)).shape == (2, 5, 3)


@pytest.fixture
def digit() -> str:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[1:7, 3:5] = 255
    Image.fromarray(pixels).save("one.png")
    return "one.png"


def test_explain_writes_a_sheet(digit: str, capsys):
    assert main(["explain", "resnet8.digits", digit, digit, "-o", "sheet.png", "--class", "7"]) == 0
    width, height = Image.open("sheet.png").size
    assert (width, height) == (1440, 760)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0] == lines[1]
    assert re.fullmatch(r"one\.png  \d \d+\.\d%", lines[0])
    assert lines[2] == "written sheet.png"


def test_a_bad_picture_is_one_line_and_the_others_are_drawn(digit: str, capsys):
    Path("bad.png").write_bytes(b"no image")
    assert main(["explain", "resnet8.digits", "bad.png", digit, "-o", "sheet.png"]) == 1
    assert "bad.png" in capsys.readouterr().err
    assert Image.open("sheet.png").size == (1440, 380)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["one.png", "-o", "sheet.png", "--class", "seven"], "--class is seven: the network has no such class."),
        (["none.png", "-o", "sheet.png"], "none.png is missing. Give paths of image files."),
        (["one.png", "-o", "sheet.txt"], "--output is sheet.txt: a figure is saved as .png, .pdf or .svg."),
        (["one.png"] * 51 + ["-o", "sheet.png"], "51 images are given: a sheet has at most 50 rows."),
    ],
)
def test_mistakes_are_one_line(digit: str, capsys, arguments: list[str], expected: str):
    assert main(["explain", "resnet8.digits", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"reslight: error: {expected}")
    assert error.count("\n") == 1


@pytest.mark.slow  # seconds to import captum
@pytest.mark.parametrize("name", ["resnet8", "preact_resnet18_cifar", "resnet50d"])
def test_the_maps_are_those_of_captum(name: str):
    attr = pytest.importorskip("captum.attr")
    net, images, classes = net_of(name), torch.randn(2, 3, 40, 40), torch.tensor([1, 4])
    expected = attr.LayerGradCam(net, net.avgpool).attribute(images, target=classes, attribute_to_layer_input=True, relu_attributions=True)
    heat = grad_cam(net, images, classes)[1]
    assert (heat - expected[:, 0].detach()).abs().max() <= 1e-5 * heat.max()
