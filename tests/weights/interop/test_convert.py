"""State dicts of other libraries, compared with those libraries' own networks and with networks written here in their names."""

import contextlib
import re

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from reslight.models import ResNet, ResNetConfig, create_model
from reslight.weights.interop.agreement import build, compare_with_library
from reslight.weights.interop.convert import from_reslight, to_reslight
from reslight.weights.interop.infer import infer_config
from reslight.weights.interop.names import FORMATS, Family
from reslight.weights.interop.timm_models import TIMM, timm_architecture, timm_config
from reslight.weights.interop.transformers_config import from_transformers_config, transformers_config

timm = pytest.importorskip("timm")

FOUR = (64, 128, 256, 512)
HEAVY = {"resnext101_32x16d", "resnext101_32x32d"}  # up to 470 million weights: only their names and shapes


def random_state(state, seed=1):
    """Return random values for all tensors, running statistics included."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor):
        if not tensor.is_floating_point():
            return torch.full(tensor.shape, 7, dtype=tensor.dtype)
        if tensor.dim() == 1:  # batch norms and biases: positive, since a running variance must be
            return torch.rand(tensor.shape, generator=generator) + 0.5
        return torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5

    return {name: draw(tensor) for name, tensor in state.items()}


def scrambled(net):
    """Give a network random values, in eval mode."""
    net.load_state_dict(random_state(net.state_dict()), strict=True, assign=True)
    return net.eval()


def loaded(net, state):
    net.load_state_dict(state, strict=True)
    return net.eval()


@torch.inference_mode()
def logits(net, images):
    output = net(images)
    return getattr(output, "logits", output)


def noise(size, count=2, channels=3):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(3))


def assert_the_same_network(theirs, source, empty, size, expected=None, **known):
    """Convert in both directions: equal logits, and a round trip that is equal to the bit. Return the configuration."""
    state = theirs.state_dict()
    config, ours = to_reslight(state, source, known)
    assert expected is None or config == expected
    net, images = loaded(ResNet(config), ours), noise(size, channels=config.in_channels)
    wanted = logits(theirs, images)
    assert wanted.std() > 0
    assert torch.equal(logits(net, images), wanted)
    back = from_reslight(config, net.state_dict(), source)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    assert torch.equal(logits(loaded(empty, back), images), wanted)
    return config


# The networks of the repositories that are not packages, with their tensor names.


class Block(nn.Module):
    """A post-activation block whose shortcut has the given name; option A has no parameters."""

    def __init__(self, channels, width, stride, shortcut, bottleneck=False, option="B"):
        super().__init__()
        out = width * 4 if bottleneck else width
        sizes = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        if not bottleneck:
            sizes = [(channels, width, 3, stride), (width, width, 3, 1)]
        for number, (before, after, size, step) in enumerate(sizes, 1):
            self.add_module(f"conv{number}", nn.Conv2d(before, after, size, step, size // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
        self.layers, self.shortcut_name, self.zeros, self.step = len(sizes), shortcut, out - channels, stride
        self.option = option if option == "none" or stride != 1 or channels != out else "identity"
        if self.option == "B":
            self.add_module(shortcut, nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)))

    def forward(self, x):
        out = x
        for number in range(1, self.layers + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            out = out if number == self.layers else F.relu(out)
        if self.option == "none":
            return F.relu(out)
        if self.option == "B":
            x = getattr(self, self.shortcut_name)(x)
        elif self.option == "A":
            half = self.zeros // 2
            zeros = x.new_zeros(len(x), half, *out.shape[2:])
            x = torch.cat([zeros, x[:, :, :: self.step, :: self.step], zeros], 1)
        return F.relu(out + x)


class Cifar(nn.Module):
    """A ResNet for small images; the classifier has the given name."""

    def __init__(self, depths, widths, shortcut, head, bottleneck=False, option="B", num_classes=10):
        super().__init__()
        channels, self.stages, self.head = widths[0], len(widths), head
        self.conv1, self.bn1 = nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for block in range(depth):
                blocks.append(Block(channels, width, 2 if stage and not block else 1, shortcut, bottleneck, option))
                channels = width * 4 if bottleneck else width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.add_module(head, nn.Linear(channels, num_classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return getattr(self, self.head)(F.adaptive_avg_pool2d(x, 1).flatten(1))


def akamaster(depth=2, **options):
    return Cifar((depth,) * 3, (16, 32, 64), "shortcut", "linear", **options)


def chenyaofo(depth=2, **options):
    return Cifar((depth,) * 3, (16, 32, 64), "downsample", "fc", **options)


def kuangliu(depths=(1, 2, 1, 1), **options):
    return Cifar(depths, FOUR, "shortcut", "linear", **options)


SMALL = [
    ("akamaster", akamaster, {"option": "A"}, create_model("resnet20", depths=(2, 2, 2)).config),
    ("akamaster", akamaster, {"option": "B"}, create_model("resnet20", depths=(2, 2, 2), shortcut="B").config),
    ("chenyaofo", chenyaofo, {"num_classes": 100}, create_model("resnet20", depths=(2, 2, 2), shortcut="B", num_classes=100).config),
    ("kuangliu", kuangliu, {}, create_model("resnet18_cifar", depths=(1, 2, 1, 1)).config),
    ("kuangliu", kuangliu, {"bottleneck": True}, create_model("resnet50_cifar", depths=(1, 2, 1, 1)).config),
]


@pytest.mark.parametrize(("source", "make", "options", "config"), SMALL, ids=lambda value: value if isinstance(value, str) else "")
def test_repositories_for_cifar(source, make, options, config):
    assert_the_same_network(scrambled(make(**options)), source, make(**options), 32, config)


def test_a_plain_net_looks_like_option_a_and_is_not():
    theirs = scrambled(akamaster(option="none"))
    state = theirs.state_dict()
    assert to_reslight(state, "akamaster")[0].shortcut == "A"
    config, ours = to_reslight(state, "akamaster", {"shortcut": "none"})
    assert torch.equal(logits(loaded(ResNet(config), ours), noise(32)), logits(theirs, noise(32)))
    with pytest.raises(ValueError, match=r"^akamaster cannot build this network: shortcut is none, not A or B\.$"):
        from_reslight(config, ours, "akamaster")


def test_zeros_at_the_end_when_config_says_so():
    config, ours = to_reslight(akamaster(option="A").state_dict(), "akamaster", {"pad": "end"})
    assert config.pad == "end"
    with pytest.raises(ValueError, match="pad is end, not both"):
        from_reslight(config, ours, "akamaster")


# Packages.

TORCHVISION = {
    "basic": ("BasicBlock", (1, 2, 1, 1), {}),
    "bottleneck": ("Bottleneck", (1, 2, 1, 1), {}),
    "resnext": ("Bottleneck", (1, 2, 1, 1), {"groups": 32, "width_per_group": 4}),
    "wide": ("Bottleneck", (1, 1, 1, 2), {"width_per_group": 128}),
}


@pytest.mark.parametrize(("block", "depths", "options"), TORCHVISION.values(), ids=TORCHVISION)
def test_torchvision(block, depths, options):
    def make():
        return torchvision.models.ResNet(getattr(torchvision.models.resnet, block), depths, num_classes=7, **options)

    kind = "basic" if block == "BasicBlock" else "bottleneck"
    expected = ResNetConfig(depths=depths, widths=FOUR, block=kind, num_classes=7, **options)
    assert assert_the_same_network(scrambled(make()), "torchvision", make(), 64, expected) == expected
    # timm has the same networks under the same names.
    assert to_reslight(make().state_dict(), "timm")[0] == expected


def timm_net(name):
    with torch.device("meta"):  # random weights are not needed
        return timm.create_model(name, num_classes=11).eval()


@pytest.mark.parametrize("name", TIMM)
def test_names_and_shapes_of_timm(name):
    config, ours = to_reslight(timm_net(name).state_dict(), "timm")
    assert config == timm_config(name, {"num_classes": 11})
    assert timm_architecture(config) == name
    back = from_reslight(config, ours, "timm")
    assert {key: tensor.shape for key, tensor in back.items()} == {key: tensor.shape for key, tensor in timm_net(name).state_dict().items()}


QUICK = [name for name in TIMM if re.search(r"(18|26|34|50)", name)]
OTHERS = [pytest.param(name, marks=pytest.mark.nightly) for name in TIMM if name not in QUICK and name not in HEAVY]


@pytest.mark.parametrize("name", QUICK + OTHERS)
def test_logits_of_timm(name):
    theirs, images = timm_net(name), noise(64, count=1)
    state = random_state(theirs.state_dict())
    theirs.load_state_dict(state, strict=True, assign=True)
    config, ours = to_reslight(state, "timm")
    with torch.device("meta"):
        net = ResNet(config).eval()
    net.load_state_dict(ours, strict=True, assign=True)
    wanted, got = logits(theirs, images), logits(net, images)
    assert wanted.std() > 0
    if config.preact:  # timm's classifier is a 1x1 convolution, which sums in another order
        assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()
    else:
        assert torch.equal(got, wanted)
    back = from_reslight(config, ours, "timm")
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    assert back.keys() == state.keys()


@pytest.mark.parametrize("name", ["resnet10t", "resnet50t", "resnetrs50", "seresnet18", "resnetv2_18", "resnetv2_18d", "resnet50_mlp"])
def test_other_networks_of_timm_are_refused_by_name_and_by_weights(name):
    with pytest.raises(ValueError, match=rf"^architecture is '{name}': [^\n]+$"):
        timm_config(name)
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        to_reslight(timm_net(name).state_dict(), "timm")


def test_the_time_to_refuse_weights_grows_with_their_number_only(monkeypatch):
    calls = []
    name_of = Family.reslight_name
    monkeypatch.setattr(Family, "reslight_name", lambda self, name: calls.append(name) or name_of(self, name))
    state = timm_net("seresnet18").state_dict()
    with pytest.raises(ValueError, match=r"layer1\.0\.se\.fc1"):
        to_reslight(state, "timm")
    families = sum(len(one.families) for one in FORMATS.values())
    assert len(calls) < 10 * families * len(state)


@pytest.mark.parametrize("name", ["resnetblur18", "resnetaa50", "resnet50_gn", "resnet50_clip", "test_resnet"])
def test_networks_with_the_same_weights_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"architecture is '{name}'"):
        timm_config(name)


@pytest.mark.nightly  # only a new timm can change it
def test_no_resnet_of_timm_is_forgotten():
    taken = set()
    for name in timm.list_models(["*resnet*", "*resnext*"], exclude_filters="reslight_*"):  # reslight's, if another test registered them
        with contextlib.suppress(ValueError):
            to_reslight(timm_net(name).state_dict(), "timm")
            taken.add(name)
    # Anti-aliasing has no weights, so only the names of these networks differ.
    assert {name for name in taken - set(TIMM) if not re.match("resnetaa|resnetblur", name)} == set()
    assert set(TIMM) < taken


def test_timms_names_and_arguments():
    assert timm_config("resnet50.a1_in1k") == TIMM["resnet50"]
    changed = timm_config("resnet18", {"num_classes": 5, "in_chans": 1, "layers": [1, 1, 1, 1], "drop_rate": 0.2})
    assert (changed.num_classes, changed.in_channels, changed.depths) == (5, 1, (1, 1, 1, 1))
    assert timm_architecture(changed) is None
    assert timm_architecture(create_model("resnet18", num_classes=3, in_channels=1, drop_path=0.1, zero_init=True).config) == "resnet18"
    assert timm_architecture(create_model("resnet20").config) is None
    for arguments, message in [
        ({"aa_layer": "blur"}, "timm's model_args has the unknown key 'aa_layer'"),
        ({"num_classes": 0}, "num_classes is 0: it must be"),
        ({"layers": "deep"}, "depths is 'deep': it must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            timm_config("resnet18", arguments)
    with pytest.raises(ValueError, match="timm cannot build this network: groups is 2, not 1"):
        timm_config("resnetv2_50", {"cardinality": 2})


TRANSFORMERS = {
    "basic": {"layer_type": "basic", "hidden_sizes": list(FOUR), "depths": [1, 2, 1, 1]},
    "bottleneck": {"layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024], "depths": [1, 2, 1], "embedding_size": 32},
    "first 1x1": {"hidden_sizes": [64, 128], "depths": [1, 2], "downsample_in_bottleneck": True, "num_channels": 1},
}


@pytest.mark.parametrize("fields", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_transformers(fields):
    transformers = pytest.importorskip("transformers")

    def make(**arguments):
        return transformers.ResNetForImageClassification(transformers.ResNetConfig(**arguments))

    config = from_transformers_config(fields | {"num_labels": 6})
    described = transformers_config(config)
    assert from_transformers_config(described) == config
    theirs = scrambled(make(**fields, num_labels=6))
    # As in transformers' own config.json, where the number of classes is that of id2label.
    assert from_transformers_config(theirs.config.to_dict()) == config
    assert_the_same_network(theirs, "transformers", make(**described), 64, config, stride_on=config.stride_on)


def test_transformers_defaults_are_resnet50():
    transformers = pytest.importorskip("transformers")
    assert from_transformers_config({}) == create_model("resnet50", num_classes=2).config
    assert from_transformers_config(transformers.ResNetConfig().to_dict()) == create_model("resnet50", num_classes=2).config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage is True"),
        ({"model_type": "vit"}, "model_type is 'vit'"),
        ({"hidden_sizes": [1, 2, 3, 4]}, "multiples of 4"),
        ({"hidden_sizes": "wide"}, "hidden_sizes is 'wide'"),
        ({"layer_type": "funny"}, "block is 'funny'"),
        ({"depths": 3}, "depths is 3: it must be"),
    ],
)
def test_descriptions_of_transformers_that_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        from_transformers_config(fields)


# Contents of files.


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "best_prec1": 91.7},
        lambda state: {"net": {f"module.{name}": tensor for name, tensor in state.items()}, "acc": 95.0, "epoch": 199},
        lambda state: {"model": state},
        lambda state: {name: nn.Parameter(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        lambda state: {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
    ],
    ids=["state_dict", "net, module", "model", "parameters", "float64"],
)
def test_containers_around_the_weights(wrap):
    state = scrambled(akamaster(option="A")).state_dict()
    config, ours = to_reslight(wrap(state), "akamaster")
    assert config == to_reslight(state, "akamaster")[0]
    back = from_reslight(config, ours, "akamaster")
    assert all(type(tensor) is torch.Tensor and tensor.dtype in (torch.float32, torch.int64) for tensor in back.values())
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(dtype):
    half = chenyaofo().to(dtype)
    _, ours = to_reslight(half.state_dict(), "chenyaofo")
    assert torch.equal(ours["fc.weight"], half.fc.weight.float())
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32, torch.int64}


def test_old_files_have_no_batch_counters():
    state = {name: tensor for name, tensor in scrambled(kuangliu()).state_dict().items() if "num_batches" not in name}
    config, ours = to_reslight(state, "kuangliu")
    assert ours["bn1.num_batches_tracked"].item() == 0
    loaded(ResNet(config), ours)


def test_arguments_are_not_changed():
    state = akamaster().state_dict()
    names, copies, random = list(state), {name: tensor.clone() for name, tensor in state.items()}, torch.get_rng_state()
    config, ours = to_reslight(state, "akamaster")
    from_reslight(config, ours, "akamaster")
    assert list(state) == names
    assert all(torch.equal(state[name], tensor) for name, tensor in copies.items())
    assert torch.equal(torch.get_rng_state(), random)


# Errors, in one line.


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


RESNET = chenyaofo().state_dict()
REFUSED = {
    "empty": ({}, "chenyaofo", "weights are {}: they must be a state dict"),
    "empty inside": ({"state_dict": {}}, "chenyaofo", "weights are {}: they must be a state dict"),
    "a list": ([1, 2], "chenyaofo", "weights are [1, 2]: "),
    "a number": (RESNET | {"epoch": 3}, "chenyaofo", "'epoch' is a int"),
    "no name": (RESNET | {5: torch.zeros(1)}, "chenyaofo", "5 is a Tensor"),
    "unknown format": (RESNET, "caffe", "library is 'caffe': use one of torchvision, timm"),
    "foreign": (akamaster().state_dict(), "chenyaofo", "these weights have layer2.0.shortcut.0.weight, "),
    "a vit": (
        {"patch_embed.weight": torch.zeros(3, 3)},
        "timm",
        "patch_embed.weight, which no ResNet of timm has. They fit no other library",
    ),
    "half a prefix": (
        {f"module.{name}" if "fc" in name else name: tensor for name, tensor in RESNET.items()},
        "chenyaofo",
        "have module.fc.weight",
    ),
    "another library": (akamaster().state_dict(), "torchvision", "has. They fit akamaster: use --from akamaster."),
    "the nearest": (
        akamaster().state_dict() | {"se.weight": torch.zeros(3)},
        "torchvision",
        "no other library that reslight knows; the nearest is akamaster: these weights have se.weight, which no ResNet of akamaster has.",
    ),
    "other stem": (RESNET, "torchvision", "another network than torchvision's: stem is small, not imagenet; stem_width is 16, not 64"),
    "other widths": (kuangliu().state_dict(), "akamaster", "widths is (64, 128, 256, 512), not (16, 32, 64)"),
    "missing": (without(RESNET, "layer2.1.bn2.running_var"), "chenyaofo", "these weights lack layer2.1.bn2.running_var. "),
    "missing stem": (without(RESNET, "conv1.weight"), "chenyaofo", "these weights lack conv1.weight of 4 dimensions"),
    "missing head": (without(akamaster().state_dict(), "linear.weight"), "akamaster", "these weights lack linear.weight of 2 dimensions"),
    "missing norm": (without(RESNET, "bn1.weight"), "chenyaofo", "no batch norm after the stem"),
    "a missing block": ({name: t for name, t in RESNET.items() if "layer1.0." not in name}, "chenyaofo", "lack layer1.0."),
    "missing stage": ({name: t for name, t in RESNET.items() if "layer2." not in name}, "chenyaofo", "lack layer2.0."),
    "wrong shape": (RESNET | {"fc.bias": torch.zeros(9)}, "chenyaofo", "fc.bias (float32 [9] instead of float32 [10])"),
    "wrong dimensions": (RESNET | {"conv1.weight": torch.zeros(16)}, "chenyaofo", "lack conv1.weight of 4 dimensions"),
    "wrong type": (RESNET | {"fc.bias": torch.zeros(10, dtype=torch.int8)}, "chenyaofo", "fc.bias (int8 [10] instead of"),
    "too many": (RESNET | {"layer1.1.downsample.0.weight": torch.zeros(16, 16, 1, 1)}, "chenyaofo", "shortcut is C, not B"),
    "a bias": (RESNET | {"conv1.bias": torch.zeros(16)}, "chenyaofo", "have the unknown conv1.bias"),
    "5x5": (RESNET | {"conv1.weight": torch.zeros(16, 3, 5, 5)}, "chenyaofo", "the first convolution is 5x5"),
    "no channel": (RESNET | {"conv1.weight": torch.zeros(16, 0, 3, 3)}, "chenyaofo", "in_channels is 0: it must be"),
    "far stage": (RESNET | {"layer9999.0.conv1.weight": torch.zeros(1)}, "chenyaofo", "lack layer4.0."),
    "far block": (RESNET | {"layer1.9999.conv1.weight": torch.zeros(1)}, "chenyaofo", "more than 2,000"),
    "other digits": (RESNET | {"layer01.0.conv1.weight": torch.zeros(1)}, "chenyaofo", "have layer01.0.conv1.weight"),
    "a long name": (RESNET | {"x\n" * 10_000: torch.zeros(1)}, "chenyaofo", "these weights have x"),
    "unknown field": (RESNET, "chenyaofo", "ResNetConfig has the unknown key 'dephts': did you mean depths"),
}


@pytest.mark.parametrize(("state", "source", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(state, source, message, request):
    known = {"dephts": (2, 2, 2)} if "unknown field" in request.node.name else None
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        to_reslight(state, source, known)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_pre_activation_net_of_kuangliu_is_refused():
    state = {name: tensor for name, tensor in kuangliu().state_dict().items() if not re.match(r"bn1|.*shortcut\.1", name)}
    with pytest.raises(ValueError, match=r"no batch norm after the stem .* PreActResNet of pytorch-cifar"):
        to_reslight(state, "kuangliu")


@pytest.mark.parametrize(
    ("name", "fields", "target", "message"),
    [
        ("resnet20", {}, "torchvision", "torchvision cannot build this network: shortcut is A, not B; stem is small, not imagenet"),
        ("resnet50d", {}, "torchvision", "stem is deep, not imagenet; avg_down is True, not False"),
        ("resnet50", {"stride_on": "1x1"}, "timm", "timm cannot build this network: stride_on is 1x1, not 3x3"),
        ("resnet18", {"shortcut": "C"}, "timm", "shortcut is C, not B"),
        ("preact_resnet50", {"widths": (32, 64, 128, 256)}, "timm", "widths is (32, 64, 128, 256)"),
        ("preact_resnet18_cifar", {}, "kuangliu", "kuangliu cannot build this network: preact is True, not False"),
        ("resnext50_32x4d", {}, "transformers", "groups is 32, not 1"),
        ("resnet18", {}, "chenyaofo", "stem is imagenet, not small"),
        ("resnet18", {}, "caffe", "library is 'caffe'"),
    ],
)
def test_networks_that_a_library_does_not_have(name, fields, target, message):
    config = create_model(name, **fields).config
    for function in (lambda: from_reslight(config, {}, target), lambda: build(config, target)):
        with pytest.raises(ValueError, match=re.escape(message)):
            function()


def test_from_reslight_needs_the_complete_state_dict():
    net = create_model("resnet20")
    with pytest.raises(ValueError, match=r"^these weights lack fc.bias. "):
        from_reslight(net.config, without(net.state_dict(), "fc.bias"), "akamaster")
    with pytest.raises(ValueError, match=r"^these weights lack layer1\.3\.conv1\.weight, .* and \d+ more. "):
        from_reslight(create_model("resnet32").config, net.state_dict(), "akamaster")


@pytest.mark.parametrize("fields", [{"groups": 8, "width_per_group": 6}, {"width_per_group": 100}, {"width_per_group": 7, "groups": 3}])
def test_width_per_group_is_one_that_fits_every_stage(fields):
    config = ResNetConfig(depths=(1, 1, 1), widths=(16, 24, 64), block="bottleneck", num_classes=4, **fields)
    shapes = {name: tuple(tensor.shape) for name, tensor in ResNet(config).state_dict().items()}
    inferred = infer_config(shapes, {})
    assert {name: tuple(tensor.shape) for name, tensor in ResNet(inferred).state_dict().items()} == shapes
    assert inferred.groups == config.groups


# The comparison with installed libraries.


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("torchvision", {"in_channels": 1}),
        ("timm", {"in_channels": 1, "stem": "deep", "stem_width": 48, "avg_down": True, "groups": 2}),
        ("timm", {"stem": "deep", "avg_down": True, "preact": True}),
        ("transformers", {"stride_on": "1x1"}),
    ],
)
def test_a_network_has_the_logits_of_the_librarys_own(target, fields):
    pytest.importorskip(target)
    net = create_model("resnet50", depths=(1, 1, 1, 1), num_classes=5, **fields)
    net.load_state_dict(random_state(net.state_dict()))
    random = torch.get_rng_state()
    found = compare_with_library(net, target)
    assert found.max_difference <= (1e-5 if net.config.preact else 0.0)
    assert (found.same_class, found.images) == (1.0, 16)
    assert net.training
    assert torch.equal(torch.get_rng_state(), random)


def test_other_weights_have_other_logits(monkeypatch):
    net = create_model("resnet18", depths=(1, 1, 1, 1), num_classes=5)

    def swapped(config, state, target):
        other = from_reslight(config, state, target)
        return other | {"fc.bias": other["fc.bias"] + 1}

    monkeypatch.setattr("reslight.weights.interop.agreement.from_reslight", swapped)
    assert compare_with_library(net, "torchvision").max_difference == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("target", ["akamaster", "chenyaofo"])
def test_repositories_that_are_not_packages_cannot_be_built(target):
    with pytest.raises(ValueError, match=rf"library is {target}: .*{FORMATS[target].source}.* Use torchvision, timm"):
        build(create_model("resnet20", shortcut="B").config, target)


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm is not installed.* pip install timm"):
        build(create_model("resnet18").config, "timm")
