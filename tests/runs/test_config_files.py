"""Every configuration parses, says only what differs, trains as its source says, and does some steps on tiny images."""

import inspect
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from reslight import data
from reslight.messages import UsageError
from reslight.models import resolve_config
from reslight.runs import config_files as recipes
from reslight.runs.config_files import find, names, read
from reslight.training import ImageClassifier, OptimConfig, ScheduleConfig
from reslight.training.optim import LearningRate

RECIPES = [name for name in names() if not name.startswith("overlays/")]
OVERLAYS = [name for name in names() if name.startswith("overlays/")]
SEVERAL_PROCESSES = {"overlays/ddp", "overlays/multinode"}  # trained with in test_devices.py and test_scaling.py


def test_there_are_some():
    assert "digits" in RECIPES
    assert {"overlays/smoke", "overlays/bf16", "overlays/cpu"} <= set(OVERLAYS)


@pytest.mark.parametrize("name", names())
def test_a_file_is_short_and_says_only_what_differs(name: str):
    text = find(name).read_text(encoding="utf-8")
    assert text.startswith("# "), "the first line says what it is"
    assert len(text.splitlines()) <= 45
    assert "ckpt_path" not in yaml.safe_load(text)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_parses(reslight, name: str):
    answer = reslight("fit", "--config", name, "--print_config")
    assert answer.code == 0, answer.err
    assert yaml.safe_load(answer.out)["model"]["net"] or name == "finetune"  # which takes the net of the weights


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_parses_on_top(reslight, name: str):
    plain = yaml.safe_load(reslight("fit", "--config", "digits", "--print_config").out)
    answer = reslight("fit", "--config", "digits", "--config", name, "--print_config")
    assert answer.code == 0, answer.err
    assert yaml.safe_load(answer.out) != plain


PAPER_NETS = [f"{kind}{depth}" for kind in ("resnet", "plain") for depth in (20, 32, 44, 56, 110)] + ["resnet1202"]
CIFAR = [name for name in RECIPES if name.startswith("cifar")]
PAPER = [name for name in CIFAR if "/paper_" in name]
MODERN = [name for name in CIFAR if "/paper_" not in name and not name.endswith("/fast")]


@pytest.fixture(scope="session")
def resolved() -> dict[str, dict[str, Any]]:
    """Settings of every CIFAR recipe as a run gets them; filled by `parsed`."""
    return {}


@pytest.fixture
def parsed(reslight, resolved):
    def parse(name: str) -> dict[str, Any]:
        if name not in resolved:
            resolved[name] = yaml.safe_load(reslight("fit", "--config", name, "--print_config").out)
        return resolved[name]

    return parse


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_every_net_of_the_paper_has_both_recipes(dataset: str):
    expected = {f"{dataset}/{prefix}{net}" for net in PAPER_NETS for prefix in ("", "paper_")}
    assert expected | {f"{dataset}/fast", f"{dataset}/resnet18_cifar"} == {name for name in CIFAR if name.startswith(f"{dataset}/")}


def net_of(name: str) -> str:
    return name.partition("/")[2].removeprefix("paper_")


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_schedule(parsed, name: str):
    """Section 4.2: batch 128, SGD with momentum 0.9, decay 1e-4 on all, 0.1 divided by 10 at 32k and 48k, stop at 64k, 45k/5k."""
    settings = parsed(name)
    optim, schedule = OptimConfig(**settings["model"]["optim"]), ScheduleConfig(**settings["model"]["schedule"])
    assert (optim.name, optim.lr, optim.momentum, optim.nesterov, optim.weight_decay, optim.decay_norms) == (
        "sgd",
        0.1,
        0.9,
        False,
        1e-4,
        True,
    )
    trainer, images = settings["trainer"], settings["data"]["init_args"]
    assert (trainer["max_steps"], trainer["max_epochs"], trainer["accumulate_grad_batches"]) == (64000, None, 1)
    assert (images["name"], images["batch_size"], images["val_size"]) == (name.partition("/")[0], 128, 5000)
    assert images["normalize"] == "pixel_mean"
    assert (images["augment"]["pad"], images["augment"]["flip"], images["augment"]["cutout"]) == (4, "random", 0)
    assert (settings["model"]["label_smoothing"], settings["model"]["ema"]) == (0, None)
    # the sizes of 45k/5k in steps, 351 to an epoch (the last partial batch is dropped)
    rate = LearningRate(schedule, optim.lr, trainer["max_steps"], (50000 - images["val_size"]) // 128)
    steps = [0, 31999, 32000, 47999, 48000, 63999]
    assert [rate(step, 0) for step in steps] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    # ResNet-110 begins with 0.01, until the training error is below 80 %; so does the net of the same kind that is deeper
    waits = net_of(name) in ("resnet110", "resnet1202")
    assert schedule.warmup == 0
    assert schedule.warmup_until_error == (0.8 if waits else None)
    assert rate(300, None) == pytest.approx(0.01 if waits else 0.1)


def test_the_modern_recipes_differ_in_the_net_alone(parsed):
    recipe = {key: value for key, value in parsed("cifar10/resnet20").items() if key != "data"}
    images = parsed("cifar10/resnet20")["data"]["init_args"]
    assert (images["batch_size"], images["augment"]["flip"], images["normalize"]) == (128, "alternating", "channel")
    rate = LearningRate(ScheduleConfig(**recipe["model"]["schedule"]), recipe["model"]["optim"]["lr"], 200 * 351, 351)
    assert [rate(0), rate(3 * 351), rate(200 * 351)] == pytest.approx([0.002, 0.2, 0])
    for name in MODERN:
        other = {key: value for key, value in parsed(name).items() if key != "data"}
        other_images = parsed(name)["data"]["init_args"]
        assert other["model"] | {"net": 0} == recipe["model"] | {"net": 0}
        assert other["trainer"] == recipe["trainer"]
        assert other_images == images | {"name": name.partition("/")[0]}


@pytest.mark.parametrize("name", PAPER + MODERN)
def test_a_recipe_trains_the_net_of_its_name(name: str):
    net = yaml.safe_load(find(name).read_text(encoding="utf-8"))["model"]["net"]
    extra = {} if isinstance(net, str) else {key: value for key, value in net.items() if key != "name"}
    assert (net if isinstance(net, str) else net["name"]) == net_of(name)
    assert extra == ({"checkpoint": True} if net_of(name) == "resnet1202" else {})
    assert resolve_config(net_of(name)).num_classes == 10  # the command line sets it from the data


EACH = ("imagenet/paper_plain18", "imagenet/v1_resnet18", "imagenet/v2_resnet50", "imagenet/a3_resnet18")  # the others differ in the net
IMAGENET = [name for name in RECIPES if name.startswith("imagenet/")]
# Top-1 accuracies as published: the paper's tables 2 to 4 (10-crop), torchvision's, and timm's of A3 at 224 pixels
KNOWN = {
    "paper": {"plain18": "72.06", "plain34": "71.46", "resnet18": "72.12", "resnet34": "74.97"}
    | {"resnet50": "77.15", "resnet101": "78.25", "resnet152": "78.57"},
    "v1": {"resnet18": "69.758", "resnet34": "73.314", "resnet50": "76.130", "resnet101": "77.374", "resnet152": "78.312"},
    "v2": {"resnet50": "80.858", "resnet101": "81.886", "resnet152": "82.284"},
    "a3": {"resnet18": "68.25", "resnet34": "73.00", "resnet50": "78.05", "resnet101": "79.84", "resnet152": "80.55"},
}
# Batch, epochs, optimizer, rate, decay, decay of norms, warm-up epochs, smoothing; crop, size of it; test size and resize; loss
PUBLISHED = {
    "paper": (256, None, "sgd", 0.1, 1e-4, True, 0, 0, "scale_jitter", 224, 224, 256, "cross_entropy"),
    "v1": (256, 90, "sgd", 0.1, 1e-4, True, 0, 0, "random_resized", 224, 224, 256, "cross_entropy"),
    "v2": (1024, 600, "sgd", 0.5, 2e-5, False, 5, 0.1, "random_resized", 176, 224, 232, "cross_entropy"),
    "a3": (2048, 100, "lamb", 8e-3, 0.02, False, 5, 0, "random_resized", 160, 224, 235, "bce"),
}


def test_every_imagenet_recipe_is_known():
    assert set(IMAGENET) == {f"imagenet/{family}_{net}" for family, nets in KNOWN.items() for net in nets}


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_recipe_is_the_published_one(name: str):
    family, _, net = name.removeprefix("imagenet/").partition("_")
    text = find(name).read_text(encoding="utf-8")
    assert f"top-1 {KNOWN[family][net]} %" in text
    assert "Not run here." in text
    content = yaml.safe_load(text)
    model, data_ = content["model"], content["data"].get("init_args", {})
    optim, schedule = OptimConfig(**model["optim"]), ScheduleConfig(**model["schedule"])
    crop, feed = data.Crop(**data_.get("crop", {})), {"size": 224, "resize": 256} | data_.get("preprocess", {})
    batch = data_.get("batch_size", 256)
    assert PUBLISHED[family] == (
        *(batch, content["trainer"].get("max_epochs"), optim.name, optim.lr, optim.weight_decay, optim.decay_norms),
        *(schedule.warmup, model.get("label_smoothing", 0), crop.kind, crop.size or feed["size"], feed["size"], feed["resize"]),
        model.get("loss", "cross_entropy"),
    )
    made = resolve_config(net) if isinstance(model["net"], str) else resolve_config(model["net"].pop("name"), **model["net"])
    expected = resolve_config(net, **({"shortcut": "A"} if net in ("resnet18", "resnet34") else {}) if family == "paper" else {})
    if family == "paper" and expected.block == "bottleneck":
        expected = resolve_config(net, stride_on="1x1")
    assert made == expected


def test_what_else_the_imagenet_recipes_say():
    paper, v1, v2, a3 = (yaml.safe_load(find(name).read_text(encoding="utf-8")) for name in EACH)
    assert (paper["trainer"], paper["data"]["init_args"]["augment"]) == ({"max_steps": 600_000}, {"pca": 0.1})
    assert data.Crop(**paper["data"]["init_args"]["crop"]).short_side == (256, 480)
    rate = LearningRate(ScheduleConfig(**v1["model"]["schedule"]), 0.1, 90 * 5004, 5004)
    assert [rate(epoch * 5004) for epoch in (0, 29.9, 30, 60, 89)] == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])
    second = v2["data"]["init_args"]
    assert second["augment"] == {"policy": "trivialaugment", "random_erasing": 0.1}
    assert (second["mix"], second["repeated_augmentation"]) == ({"mixup": 0.2, "cutmix": 1.0}, 4)
    # torchvision: a decay of 0.99998 in every 32nd batch, of 8 devices with 128 images, scaled to 600 epochs
    every_32nd = 1 - (1 - 0.99998) * 8 * 128 * 32 / 600
    assert v2["model"]["ema"] == pytest.approx(every_32nd ** (1 / 32), abs=1e-6)
    rate = LearningRate(ScheduleConfig(**a3["model"]["schedule"]), 8e-3, 100 * 625, 625)
    assert [rate(0), rate(5 * 625), rate(100 * 625)] == pytest.approx([1e-4, 8e-3, 1e-6])
    assert a3["data"]["init_args"]["mix"] == {"mixup": 0.1, "cutmix": 1.0}
    assert a3["data"]["init_args"]["preprocess"] == {"resize": int(224 / 0.95), "interpolation": "bicubic"}
    assert a3["data"]["init_args"]["augment"] == {"policy": "randaugment", "magnitude": 6 / 10 * 30, "magnitude_std": 0.5 / 10 * 30}


def defaults(owner: Any) -> dict[str, Any]:
    if hasattr(owner, "__dataclass_fields__"):
        return {field.name: field.default for field in fields(owner)}
    return {name: parameter.default for name, parameter in inspect.signature(owner).parameters.items()}


def leaves(content: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Every setting of a file with its value and its default."""
    model = content.get("model", {})
    images = content.get("data", {})
    arguments = images.get("init_args", {}) if isinstance(images, dict) else {}
    dataset = getattr(data, images["class_path"] if isinstance(images, dict) and images else "Digits")
    augment = asdict(defaults(dataset)["augment"])
    parts = [(content.get("trainer", {}), defaults(Trainer)), (model, defaults(ImageClassifier)), (arguments, defaults(dataset))]
    parts += [(model.get("optim", {}), defaults(OptimConfig)), (model.get("schedule", {}), defaults(ScheduleConfig))]
    parts += [(arguments.get("augment", {}), augment), (content, {"seed_everything": 1})]
    for settings, known in parts:
        yield from ((key, value, known[key]) for key, value in settings.items() if key in known)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_only_what_is_not_default(name: str):
    for key, value, default in leaves(yaml.safe_load(find(name).read_text(encoding="utf-8"))):
        assert value != default, f"{key} is {value} by default"


SYNTHETIC = ["--data", "Synthetic", "--data.images.train_size", "64", "--data.images.test_size", "16", "--data.val_size", "16"]
STEPS = ["--data.batch_size", "8", "--trainer.max_steps", "3", "--trainer.max_epochs", "-1", "--model.schedule.warmup", "0"]


OF_CIFAR100 = ("cifar100/fast", "cifar100/resnet20", "cifar100/paper_resnet20")  # the others are CIFAR-10's with more classes
DAILY = [name for name in RECIPES if "1202" not in name and name.partition("/")[0] not in ("imagenet", "cifar100")]
DAILY += [*EACH, *OF_CIFAR100, "cifar10/paper_resnet1202"]  # of 1,202 layers one takes a minute


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in DAILY else pytest.mark.nightly) for name in RECIPES])
def test_a_recipe_trains(reslight, name: str):
    size = "8" if name == "digits" else "32"
    weights = ["--model.init_from", "resnet8.digits", "--data.images.in_channels", "1"] if name == "finetune" else []
    answer = reslight("fit", "--config", name, *SYNTHETIC, "--data.images.size", size, *STEPS, *weights)
    assert answer.code == 0, answer.err
    assert "done   3 steps" in answer.out


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OVERLAYS if name not in SEVERAL_PROCESSES])
def test_an_overlay_trains(reslight, name: str):
    answer = reslight("fit", "--config", "digits", "--config", name, *STEPS)
    assert answer.code == 0, answer.err


def test_a_file_here_comes_first(tmp_path: Path):
    mine = tmp_path / "digits"
    mine.write_text("seed_everything: 9\n")
    assert find("digits") == Path("digits")
    mine.unlink()
    for name in ("digits", "digits.yaml", "configs/digits.yaml"):
        assert find(name) == recipes.packaged() / "digits.yaml"
    with pytest.raises(FileNotFoundError, match="the package has overlays/smoke"):
        find("overlays/smok")


def nested(first: str, form: str) -> str:
    """Return nine lines, each of which repeats the one before ten times."""
    repeats = [form % ", ".join([f"*{name}"] * 10) for name in "abcdefgh"]
    return "".join(f"{name}: &{name} {value}\n" for name, value in zip("abcdefghi", [first, *repeats], strict=True))


TOO_LARGE = {
    "aliases": (nested("[x, x, x]", "[%s]"), "10,000 values"),
    "merged": (nested("{x: 1}", "{<<: [%s]}"), "10,000 values"),
    "itself": ("a: &a [*a]\n", "alias"),
    "chain": ("".join(f"k{n}: &k{n} [{f'*k{n - 1}' if n else 1}]\n" for n in range(100)), "50 levels"),
    "deep": (f"a: {'[' * 3000}{']' * 3000}\n", "50 levels"),
    "long": ("#" * 200_000, "100,000 bytes"),
}


@pytest.mark.parametrize(("text", "bound"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_file_that_grows_is_refused_in_a_second(tmp_path: Path, text: str, bound: str):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(UsageError, match=bound):
        read(path)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("text", "part"),
    {
        "model: {net: [resnet20}\n": "line 1",
        "trainer:\n  max_steps: 3\n model: 1\n": "line 3",
        "a: *b\n": "line 1",
        "a: 2026-13-01\n": "month",
        "a: !!int x\n": "int",
        "a: !!python/object/apply:os.getcwd []\n": "line 1",
        "a: 1\n---\nb: 2\n": "line 2",
        "": "mapping",
        "- a\n": "mapping",
        "trainer: {1: 2}\n": "the key 1",
        "data: {class_path: CIFAR, root: x}\n": "root beside data.class_path",
    }.items(),
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, part: str):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))
    assert part in str(raised.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="text file"):
        read(path)


def test_an_alias_is_read(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &x {net: resnet20}\nb: *x\nc: {<<: *x, lr: 1}\n")
    assert read(path) == {"a": {"net": "resnet20"}, "b": {"net": "resnet20"}, "c": {"net": "resnet20", "lr": 1}}
