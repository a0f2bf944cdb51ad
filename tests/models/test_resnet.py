"""The network as a module: features, head, initialisation, and what PyTorch does with modules."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

from reslight.models import VARIANTS, ResNet, ResNetConfig, cifar_config, create_model

# One network of each kind, small enough to run in no time.
KINDS = {
    "basic A": cifar_config(8),
    "plain": cifar_config(8, shortcut="none"),
    "bottleneck B, 7x7": ResNetConfig(depths=(1, 2), widths=(8, 16), block="bottleneck", stem_width=8, num_classes=5),
    "bottleneck C, deep, pooled": ResNetConfig(
        depths=(1, 1),
        widths=(16, 32),
        block="bottleneck",
        groups=4,
        width_per_group=32,
        shortcut="C",
        stem="deep",
        stem_width=16,
        avg_down=True,
        num_classes=5,
    ),
    "preact A": cifar_config(8, preact=True, pad="end", drop_path=0.2),
    "preact bottleneck B": cifar_config(11, "bottleneck", preact=True, stride_on="1x1"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def net(request):
    torch.manual_seed(0)
    return ResNet(request.param)


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("resnet20", 32, {"stem": (16, 32), "layer1": (16, 32), "layer2": (32, 16), "layer3": (64, 8)}),
        (
            "resnet50",
            64,
            {"stem": (64, 16), "layer1": (256, 16), "layer2": (512, 8), "layer3": (1024, 4), "layer4": (2048, 2)},
        ),
        ("preact_resnet164", 32, {"stem": (16, 32), "layer1": (64, 32), "layer2": (128, 16), "layer3": (256, 8)}),
    ],
)
@torch.no_grad()
def test_features_have_names_and_shapes(name, size, shapes):
    features = create_model(name).eval().forward_features(torch.randn(2, 3, size, size))
    assert {name: tensor.shape for name, tensor in features.items()} == {
        name: (2, channels, side, side) for name, (channels, side) in shapes.items()
    }
    assert list(features) == list(shapes)


@torch.no_grad()
def test_the_head_on_the_last_features_gives_the_logits(net, images):
    net.eval()
    features = net.forward_features(images)
    kept = {name: tensor.clone() for name, tensor in features.items()}
    assert torch.equal(net.forward_head(features[net.config.stage_names[-1]]), net(images))
    for name, tensor in features.items():  # nothing downstream wrote into them
        assert torch.equal(tensor, kept[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_reset_head(net, images, dtype):
    net.to(dtype).eval()
    body = {name: tensor.clone() for name, tensor in net.state_dict().items() if not name.startswith("fc")}
    net.reset_head(7)
    assert net.config.num_classes == 7
    assert net.fc.weight.dtype == dtype
    assert not net.fc.training
    assert net(images.to(dtype)).shape == (4, 7)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in body.items())
    ResNet(net.config).load_state_dict(net.state_dict(), strict=True)


def test_reset_head_stays_on_the_device():
    with torch.device("meta"):
        net = create_model("resnet8")
    net.reset_head(3)
    assert net.fc.weight.is_meta


def test_reset_head_refuses_before_it_changes_anything(net):
    before = net.config, net.fc
    with pytest.raises(ValueError, match="num_classes is 0: it must be"):
        net.reset_head(0)
    assert (net.config, net.fc) == before


def test_a_name_is_no_config():
    with pytest.raises(ValueError, match=r"config is 'resnet20': ResNet takes a ResNetConfig. For a name, use create_model"):
        ResNet("resnet20")


def test_he_initialisation():
    """Every convolution: mean 0 and variance 2 / fan-out, within 5 standard deviations of the estimates."""
    torch.manual_seed(3)
    for name in ("resnet56", "resnet18", "resnext50_32x4d", "preact_resnet164", "resnet50d"):
        for module in create_model(name).modules():
            if isinstance(module, nn.Conv2d):
                # As torchvision's networks have it: groups do not divide the fan-out.
                fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
                std, count = math.sqrt(2 / fan_out), module.weight.numel()
                assert abs(module.weight.mean().item()) < 5 * std / math.sqrt(count)
                assert module.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count))
                assert module.bias is None
            elif isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all()
                assert (module.bias == 0).all()


def test_weights_come_from_the_global_generator():
    def weights():
        torch.manual_seed(5)
        return create_model("resnet8").state_dict().values()

    assert all(torch.equal(one, other) for one, other in zip(weights(), weights(), strict=True))


def test_parameter_names_are_public():
    """Published weights have these names: a change here breaks them."""
    assert list(create_model("resnet8", shortcut="B").state_dict())[:7] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
        "layer1.0.conv1.weight",
    ]
    parameters = dict(create_model("preact_resnet164").named_parameters())
    assert {"conv1.weight", "layer1.0.bn3.weight", "layer2.0.downsample.0.weight", "bn.bias", "fc.bias"} <= set(parameters)
    assert "bn1.weight" not in parameters
    assert "layer2.0.downsample.1.weight" not in parameters


@torch.no_grad()
def test_channels_last(net, images):
    net.eval()
    expected = net(images)
    net.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    for features in net.forward_features(images).values():
        assert features.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["autocast", "true"])
def test_bfloat16_is_near_float32(net, images, mode):
    net.eval()
    expected = net(images).detach()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        dtype = torch.bfloat16 if mode == "true" else torch.float32
        net.to(dtype)
        logits = net.eval()(images.to(dtype))
        net.train()(images.to(dtype)).float().square().mean().backward()
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).norm() < 0.05 * expected.norm()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@torch.no_grad()
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_copies_are_independent_and_equal(net, images, copied):
    net.eval()
    twin = copied(net)
    assert twin.config == net.config
    assert torch.equal(twin(images), net(images))
    twin.fc.weight.zero_()
    assert net.fc.weight.any()


@torch.no_grad()
def test_torch_save_of_a_whole_network(images):
    net, file = create_model("resnet8").eval(), io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(images), net(images))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_compile_in_place_keeps_names_and_results(images, checkpoint):
    """The tracing of `torch.compile` without its code generator, which would only add rounding."""
    eager = create_model("resnet8", checkpoint=checkpoint)
    compiled = copy.deepcopy(eager)
    compiled.compile(backend="aot_eager", fullgraph=True)
    for net in (eager, compiled):
        net(images).square().mean().backward()
    assert list(compiled.state_dict()) == list(eager.state_dict())
    for name, tensor in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, msg=name)
    for mine, other in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    torch.testing.assert_close(compiled.eval()(images), eager.eval()(images))


@torch.no_grad()
def test_export_with_any_batch_size(net):
    net.eval()
    batch = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    exported = torch.export.export(net, (torch.randn(3, 3, 32, 32),), dynamic_shapes=batch).module()
    for size in (1, 3, 5):
        images = torch.randn(size, 3, 32, 32)
        torch.testing.assert_close(exported(images), net(images))


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (33, 47), (1, 1)])
def test_any_image_size(net, size):
    assert net.eval()(torch.randn(2, 3, *size)).shape == (2, net.config.num_classes)


def test_networks_are_in_training_mode_and_learn():
    torch.manual_seed(0)
    net = create_model("resnet8", in_channels=1)
    assert net.training
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name, config in VARIANTS.items() if config.input_size == 32])
def test_every_small_variant_has_a_shape_on_meta(name):
    with torch.device("meta"):
        net = create_model(name, depths=(1,) * len(VARIANTS[name].depths))
        assert net.eval()(torch.empty(2, 3, 32, 32)).shape == (2, 10)
