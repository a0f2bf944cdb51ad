import pytest
import torch
from torch import nn

from reslight.models import VARIANTS, ResNet, ResNetConfig, cifar_config, cost_of, resolve_config


def real_parameters(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ResNet(config).parameters())


# Shortcuts A, B, C. The paper's table 6 rounds those of A to 0.27M, 0.46M, 0.66M, 0.85M, 1.7M and 19.4M.
CIFAR_PARAMETERS = {
    20: (269_722, 272_474, 283_962),
    32: (464_154, 466_906, 489_594),
    44: (658_586, 661_338, 695_226),
    56: (853_018, 855_770, 900_858),
    110: (1_727_962, 1_730_714, 1_826_202),
    1202: (19_421_274, 19_424_026, 20_538_714),
}


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110, pytest.param(1202, marks=pytest.mark.slow)])
def test_parameters_cifar(depth):
    counts = tuple(real_parameters(cifar_config(depth, shortcut=shortcut)) for shortcut in "ABC")
    assert counts == CIFAR_PARAMETERS[depth]


@pytest.mark.parametrize("depth", [20, 110])
def test_cifar100_adds_a_head(depth):
    ten, hundred = (cost_of(cifar_config(depth, num_classes=classes)).parameters for classes in (10, 100))
    assert hundred - ten == 5_850


# What torchvision publishes with its weights, and what others count for the networks with a small stem.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet50_cifar": 23_520_842,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "wrn28_10": 36_479_194,  # the count of the authors' network, xternalz/WideResNet-pytorch among others
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_by_name(name):
    assert real_parameters(VARIANTS[name]) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "shortcut", "parameters"),
    [
        ("resnet18", "A", 11_515_688),
        ("resnet34", "A", 21_623_848),
        ("resnet18", "C", 12_043_816),
        ("resnet34", "C", 22_716_840),
        ("resnet50", "C", 40_128_552),
    ],
)
def test_parameters_imagenet_shortcuts(name, shortcut, parameters):
    assert real_parameters(resolve_config(name, shortcut=shortcut)) == parameters


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("plain")])
def test_a_plain_net_has_the_parameters_of_its_option_a_twin(name):
    twin = resolve_config(name.replace("plain", "resnet"), shortcut="A")
    assert real_parameters(VARIANTS[name]) == real_parameters(twin)


@pytest.mark.parametrize("depth", [164, 1001])
def test_parameters_preactivation_by_hand(depth):
    """He et al. 2016: 1.7 M and 10.2 M, here counted on paper."""
    n, total, channels = (depth - 2) // 9, 3 * 16 * 9, 16
    for width in (16, 32, 64):
        out = 4 * width
        inside = 2 * width + 9 * width * width + 2 * width + width * out
        first = 2 * channels + channels * width + inside + channels * out
        others = 2 * out + out * width + inside
        total, channels = total + first + (n - 1) * others, out
    total += 2 * channels + channels * 10 + 10
    assert real_parameters(VARIANTS[f"preact_resnet{depth}"]) == total


@pytest.mark.parametrize(
    ("name", "fields", "millions", "digits"),
    [
        ("resnet20", {}, 40.55, 2),
        ("resnet32", {}, 68.86, 2),
        ("resnet44", {}, 97.17, 2),
        ("resnet56", {}, 125.5, 1),
        ("resnet110", {}, 252.9, 1),
        ("resnet1202", {}, 2829, 0),
        ("resnet18_cifar", {}, 555, 0),
        ("resnet34_cifar", {}, 1159, 0),
        ("resnet50_cifar", {}, 1298, 0),
        ("resnet18", {}, 1814, 0),
        ("resnet34", {}, 3664, 0),
        ("resnet50", {}, 4089, 0),
        ("resnet101", {}, 7801, 0),
        ("resnet152", {}, 11514, 0),
        ("resnet50", {"stride_on": "1x1"}, 3858, 0),
        ("resnet101", {"stride_on": "1x1"}, 7570, 0),
        ("resnet152", {"stride_on": "1x1"}, 11282, 0),
    ],
)
def test_macs_are_the_published_ones(name, fields, millions, digits):
    assert round(cost_of(resolve_config(name, **fields)).macs / 1e6, digits) == millions


def macs_of_a_real_forward(config, size):
    """Convolutions and classifier of a network that really runs, one by one from their hyper-parameters."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Linear):
            total += module.in_features * module.out_features
        else:
            height, width = output.shape[2:]
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += height * width * kernel * module.in_channels // module.groups * module.out_channels

    net = ResNet(config).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, config.in_channels, size, size))
    return total


COUNTED = {
    "resnet56": cifar_config(56),
    "resnet44, C, grey": cifar_config(44, shortcut="C", in_channels=1),
    "plain20": VARIANTS["plain20"],
    "preact bottleneck 56": cifar_config(56, "bottleneck", preact=True, stride_on="1x1"),
    "resnext50_32x4d": VARIANTS["resnext50_32x4d"],
    "resnet50d": VARIANTS["resnet50d"],
    "two stages": ResNetConfig(depths=(1, 5), widths=(24, 8), block="bottleneck", shortcut="C", stem_width=32),
}


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("size", [32, 75])
def test_cost_equals_a_count_on_the_whole_network(name, size):
    config = COUNTED[name]
    cost = cost_of(config, size)
    assert cost.macs == macs_of_a_real_forward(config, size)
    assert cost.parameters == real_parameters(config)


def test_the_default_size_is_the_usual_one():
    assert cost_of(VARIANTS["resnet20"]) == cost_of(VARIANTS["resnet20"], 32)
    assert cost_of(VARIANTS["resnet18"]) == cost_of(VARIANTS["resnet18"], 224)


def test_counting_draws_no_random_numbers():
    before = torch.get_rng_state()
    cost_of(VARIANTS["resnet20"])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_image_is_refused():
    with pytest.raises(ValueError, match="input_size is 0: it must be at least 1"):
        cost_of(VARIANTS["resnet20"], 0)
