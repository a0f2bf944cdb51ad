import subprocess
import sys

import pytest

from reslight.models import (
    SOURCES,
    VARIANTS,
    ResNet,
    ResNetConfig,
    cifar_config,
    create_model,
    list_models,
    resolve_config,
)
from reslight.models.variants import architecture_of, net_setting

CIFAR = ["resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"]
PLAIN = ["plain20", "plain32", "plain44", "plain56", "plain110", "plain18", "plain34"]
IMAGENET = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet50d"]
SMALL_STEM = ["resnet18_cifar", "resnet34_cifar", "resnet50_cifar", "resnet101_cifar", "resnet152_cifar"]
WIDE = ["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2", "wrn28_10"]
PREACT = ["preact_resnet18_cifar", "preact_resnet110", "preact_resnet164", "preact_resnet1001"]
PREACT_IMAGENET = ["preact_resnet50", "preact_resnet101", "preact_resnet152", "preact_resnet200"]


def test_the_table_holds_exactly_the_documented_names():
    assert sorted(VARIANTS) == sorted(CIFAR + PLAIN + IMAGENET + SMALL_STEM + WIDE + PREACT + PREACT_IMAGENET)
    assert list(SOURCES) == list(VARIANTS)
    assert all(SOURCES.values())


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        VARIANTS["mine"] = VARIANTS["resnet20"]


@pytest.mark.parametrize("name", VARIANTS)
def test_classes_follow_the_images(name):
    assert VARIANTS[name].num_classes == (10 if VARIANTS[name].input_size == 32 else 1000)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_name_counts_the_layers_with_weights(name):
    config = VARIANTS[name]
    digits = "".join(char if char.isdigit() else " " for char in name).split()
    layers = 2 + sum(config.depths) * (3 if config.block == "bottleneck" else 2)
    # WRN-28-10 counts convolutions: the stem's, the blocks' and three projections, but not the classifier.
    assert int(digits[0]) == layers + (2 if name.startswith("wrn") else 0)


def test_list_models_matches_patterns_in_table_order():
    assert list_models() == list(VARIANTS)
    assert list_models("plain*") == PLAIN
    assert list_models("resnet??_cifar") == ["resnet18_cifar", "resnet34_cifar", "resnet50_cifar"]
    assert list_models("vgg*") == []


@pytest.mark.parametrize("depth", [8, 14, 20, 26, 1202])
def test_cifar_config_basic(depth):
    config = cifar_config(depth)
    assert 6 * config.depths[0] + 2 == depth
    assert (config.widths, config.shortcut, config.stem, config.stem_width) == ((16, 32, 64), "A", "small", 16)


@pytest.mark.parametrize("depth", [11, 29, 164, 1001])
def test_cifar_config_bottleneck(depth):
    config = cifar_config(depth, "bottleneck", preact=True)
    assert 9 * config.depths[0] + 2 == depth
    assert config.preact
    assert config.shortcut == "B"


def test_cifar_config_takes_any_field():
    config = cifar_config(20, shortcut="none", num_classes=100, in_channels=1)
    assert (config.shortcut, config.num_classes, config.in_channels) == ("none", 100, 1)
    assert cifar_config(20, shortcut="none") == VARIANTS["plain20"]


@pytest.mark.parametrize(
    ("depth", "block", "message"),
    [
        (21, "basic", r"depth is 21: with basic blocks it must be 6n\+2. Use 20 or 26"),
        (18, "basic", "Use 14 or 20"),
        (2, "basic", "Use 8 or 14"),
        (-4, "basic", "Use 8 or 14"),
        (165, "bottleneck", r"depth is 165: with bottleneck blocks it must be 9n\+2. Use 164 or 173"),
        (20.0, "basic", "depth is 20.0"),
        ("20", "basic", "depth is '20'"),
        (True, "basic", "depth is True"),
        (20, "wide", "block is 'wide': it must be one of basic, bottleneck"),
        (60_002, "basic", "30,000 blocks are more than 2,000"),
    ],
)
def test_cifar_config_says_what_is_wrong(depth, block, message):
    with pytest.raises(ValueError, match=message):
        cifar_config(depth, block)


def test_create_model_changes_any_field():
    net = create_model("resnet20", num_classes=100, shortcut="B")
    assert net.fc.out_features == 100
    assert net.config == cifar_config(20, num_classes=100, shortcut="B")
    assert net.training


def test_resolve_config_takes_names_configs_and_mappings():
    config = VARIANTS["resnet20"]
    assert resolve_config("resnet20") == resolve_config(config) == resolve_config(config.to_dict()) == config
    for net in ("resnet20", config, config.to_dict()):
        assert resolve_config(net, num_classes=7).num_classes == 7
    assert isinstance(create_model(config), ResNet)


@pytest.mark.parametrize(
    ("net", "fields", "message"),
    [
        ("resnet_20", {}, r"no network 'resnet_20': did you mean .*resnet20.*`reslight models` lists all"),
        ("ResNet50", {}, "did you mean resnet50"),
        ("vgg", {}, "no network 'vgg': `reslight models` lists all"),
        ("resnet20", {"num_clases": 3}, "unknown key 'num_clases': did you mean num_classes"),
        ("resnet20", {"shortcut": "X"}, "shortcut is 'X': it must be one of"),
        (20, {}, "the network is 20: it must be a name or a mapping"),
        (None, {}, "the network is None"),
        ({"depths": [1]}, {}, "is missing the keys 'widths', 'block'"),
    ],
)
def test_resolve_config_says_what_is_wrong(net, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve_config(net, **fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_name_of_a_configuration_is_found_again(name):
    config = resolve_config(name, num_classes=7, in_channels=1)
    assert architecture_of(config) == net_setting(config) == name


def test_a_configuration_without_a_name_is_its_fields():
    config = cifar_config(20, drop_path=0.1, num_classes=7)
    assert architecture_of(config) == "resnet20"
    setting = net_setting(config)
    assert setting == {key: value for key, value in config.to_dict().items() if key not in ("num_classes", "in_channels")}
    assert net_setting(cifar_config(26)) == {**setting, "drop_path": 0.0, "depths": [4, 4, 4]}
    assert architecture_of(cifar_config(26)) is None


def test_models_need_torch_only():
    code = (
        "import sys, reslight.models; "
        "heavy = {'torchvision', 'lightning', 'torchmetrics', 'timm', 'jsonargparse'} & set(sys.modules);"
        "leaves = ('reslight.models', 'reslight.messages', 'reslight.lazy', 'reslight.plain', 'reslight.version');"
        "ours = {m for m in sys.modules if m.startswith('reslight.') and not m.startswith(leaves)};"
        "sys.exit(f'{heavy} {ours}' if heavy or ours else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_jsonargparse_takes_a_name_or_a_mapping():
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--net", type=str | ResNetConfig)
    assert parser.parse_args(["--net=resnet20"]).net == "resnet20"
    parsed = parser.instantiate(parser.parse_args(["--net={depths: [1, 1], widths: [16, 32], stem: small}"]))
    assert parsed.net == ResNetConfig(depths=(1, 1), widths=(16, 32), stem="small")
