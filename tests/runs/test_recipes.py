"""The configurations that come with reslight: they are what their sources published, say only what differs, and train."""

import inspect
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

from reslight import data
from reslight.models import resolve_config
from reslight.runs.config_files import find, names, packaged, recipe_settings
from reslight.runs.yaml_file import read
from reslight.training import ImageClassifier, OptimConfig, ScheduleConfig
from reslight.training.optim import LearningRate

FILES = sorted(packaged().rglob("*.yaml"))
RECIPES = [name for name in names() if not name.startswith("overlays/")]
OVERLAYS = [name for name in names() if name.startswith("overlays/")]
SEVERAL_PROCESSES = {"overlays/ddp", "overlays/multinode"}  # trained with in test_devices.py and test_scaling.py

RESNETS, PLAIN = [f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)], [f"plain{depth}" for depth in (20, 32, 44, 56, 110)]
# Accuracies as published: test errors of the paper's table 6; top-1 of its tables 2 to 4 (10-crop), of torchvision, and of timm's A3 at 224
KNOWN = {
    "cifar10/paper": dict(zip(RESNETS, ["8.75", "7.51", "7.17", "6.97", "6.43", "7.93"], strict=True)),
    "imagenet/paper": {"plain18": "72.06", "plain34": "71.46", "resnet18": "72.12", "resnet34": "74.97"}
    | {"resnet50": "77.15", "resnet101": "78.25", "resnet152": "78.57"},
    "imagenet/v1": {"resnet18": "69.758", "resnet34": "73.314", "resnet50": "76.130", "resnet101": "77.374", "resnet152": "78.312"},
    "imagenet/v2": {"resnet50": "80.858", "resnet101": "81.886", "resnet152": "82.284"},
    "imagenet/a3": {"resnet18": "68.25", "resnet34": "73.00", "resnet50": "78.05", "resnet101": "79.84", "resnet152": "80.55"},
}
NETS = {name: list(KNOWN[name]) for name in RECIPES if name.startswith("imagenet/")}
NETS |= {f"{dataset}/paper": RESNETS + PLAIN for dataset in ("cifar10", "cifar100")}
NETS |= {f"{dataset}/{name}": [*RESNETS, *PLAIN, "resnet18_cifar"] for dataset in ("cifar10", "cifar100") for name in ("modern", "muon")}
EACH = [(recipe, net) for recipe, nets in NETS.items() for net in nets]


@pytest.fixture(scope="session")
def cache() -> dict[tuple[str, ...], dict[str, Any]]:
    return {}


@pytest.fixture
def parsed(reslight, cache) -> Callable[..., dict[str, Any]]:
    """Return the settings of a recipe as a run gets them; each is parsed once in a session."""

    def parse(name: str, *words: str) -> dict[str, Any]:
        if (name, *words) not in cache:
            root = ["--data.root", "images"] if name.partition("/")[0] in ("finetune", "imagenet") else []
            answer = reslight("fit", "--config", name, *words, *root, "--print_config")
            assert answer.code == 0, answer.err
            cache[name, *words] = yaml.safe_load(answer.out)
        return cache[name, *words]

    return parse


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(packaged()).as_posix())
def test_a_file_is_short_and_says_what_it_is(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.match(r"# \S", lines[0])
    assert len(lines) <= 45
    assert "ckpt_path" not in read(path)


def test_a_file_for_one_network_has_the_settings_of_a_network_that_the_recipe_lists():
    own = [path.relative_to(packaged()).with_suffix("").as_posix().split("-") for path in FILES if "-" in path.stem]
    assert {tuple(pair) for pair in own} <= set(EACH)
    for recipe, net in own:
        assert f"{net} " in find(recipe).read_text(encoding="utf-8") or recipe.endswith(("/modern", "/muon"))
        assert set(read(packaged() / f"{recipe}-{net}.yaml")) == {"model"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_parses(parsed, name: str):
    assert parsed(name)["model"]["net"] or name == "finetune"  # which takes the network of the weights


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_parses_on_top(parsed, name: str):
    assert parsed("digits", "--config", name) != parsed("digits")


@pytest.mark.parametrize("recipe", KNOWN)
def test_the_published_accuracies(recipe: str):
    text = find(recipe).read_text(encoding="utf-8")
    assert dict(re.findall(r"^#   (\w+) +([\d.]+) %", text, re.MULTILINE)) == KNOWN[recipe]
    assert ("Not run here." in text) == recipe.startswith("imagenet/")


@pytest.mark.parametrize(("recipe", "net"), EACH)
def test_a_recipe_has_the_papers_network(recipe: str, net: str):
    """Shortcuts A on ImageNet and the stride on the first 1x1 convolution (sections 3.3 and 4.1); 1,202 layers need less memory."""
    differs = {"checkpoint": True} if net == "resnet1202" else {}
    if recipe == "imagenet/paper" and "resnet" in net:
        differs = {"shortcut": "A"} if net in ("resnet18", "resnet34") else {"stride_on": "1x1"}
    stated = recipe_settings(recipe, net)["model"]["net"]
    stated = {"name": stated} if isinstance(stated, str) else dict(stated)
    assert resolve_config(stated.pop("name"), **stated) == resolve_config(net, **differs)


def learning_rates(settings: dict[str, Any], steps: int, steps_per_epoch: int) -> LearningRate:
    return LearningRate(ScheduleConfig(**settings["model"]["schedule"]), settings["model"]["optim"]["lr"], steps, steps_per_epoch)


@pytest.mark.parametrize("net", ["resnet20", "resnet110", "resnet1202"])
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_papers_schedule(parsed, dataset: str, net: str):
    """Section 4.2: batch 128, SGD with momentum 0.9, decay 1e-4 on all, 0.1 divided by 10 at 32k and 48k, stop at 64k, 45k/5k.

    ResNet-110 begins with 0.01, until the training error is below 80 %; so does the deeper network of the same kind here.
    """
    settings = parsed(f"{dataset}/paper", "--model.net", net)
    optim, trainer, images = OptimConfig(**settings["model"]["optim"]), settings["trainer"], settings["data"]["init_args"]
    assert (optim.name, optim.lr, optim.momentum, optim.nesterov, optim.weight_decay) == ("sgd", 0.1, 0.9, False, 1e-4)
    assert optim.decay_norms
    assert (trainer["max_steps"], trainer["max_epochs"], trainer["accumulate_grad_batches"]) == (64000, None, 1)
    assert (images["name"], images["batch_size"], images["val_size"], images["normalize"]) == (dataset, 128, 5000, "pixel_mean")
    assert (images["augment"]["pad"], images["augment"]["flip"], images["augment"]["cutout"]) == (4, "random", 0)
    assert (settings["model"]["label_smoothing"], settings["model"]["ema"]) == (0, None)
    rate = learning_rates(settings, 64000, 351)
    waits, warm_at = net != "resnet20", 400
    assert sum(rate(step, warm_at) for step in range(64000)) == pytest.approx(3200 + 160 + 16 - (400 * 0.09 if waits else 0))
    assert [rate(step, None) for step in (0, 5000)] == pytest.approx([0.01 if waits else 0.1] * 2)


def test_the_modern_schedule(parsed):
    """200 epochs of 351 steps: three of warm-up from a hundredth of 0.2, then one cosine, of which the mean is one half."""
    settings = parsed("cifar10/modern")
    images = settings["data"]["init_args"]
    assert (images["batch_size"], images["augment"]["flip"], images["normalize"]) == (128, "alternating", "channel")
    assert (settings["trainer"]["max_epochs"], settings["model"]["optim"]["decay_norms"]) == (200, False)
    rate = learning_rates(settings, 200 * 351, 351)
    assert [rate(0), rate(3 * 351), rate(200 * 351)] == pytest.approx([0.002, 0.2, 0])
    assert sum(rate(step) for step in range(3 * 351, 200 * 351)) == pytest.approx(0.1 * 197 * 351, rel=1e-4)
    fast = parsed("cifar10/fast")
    assert (fast["trainer"]["max_epochs"], fast["model"]["schedule"]["warmup"]) == (5, 1)
    assert fast["model"] | {"schedule": 0} == settings["model"] | {"schedule": 0}
    assert fast["data"] == settings["data"]


def test_the_muon_recipe_is_the_modern_one_with_another_optimizer(parsed):
    modern, muon = parsed("cifar10/modern"), parsed("cifar10/muon")
    changed = {"name": "muon", "lr": 0.04, "weight_decay": 0.05, "sgd_lr": 0.1, "sgd_weight_decay": 5e-4}
    assert muon["model"]["optim"] == modern["model"]["optim"] | changed
    assert muon["model"] | {"optim": 0} == modern["model"] | {"optim": 0}
    assert [muon[part] for part in ("trainer", "data")] == [modern[part] for part in ("trainer", "data")]


@pytest.mark.parametrize("recipe", ["paper", "modern", "muon", "fast"])
def test_the_recipes_of_cifar100_are_those_of_cifar10(parsed, recipe: str):
    settings = {dataset: parsed(f"{dataset}/{recipe}") for dataset in ("cifar10", "cifar100")}
    for dataset, parts in settings.items():
        assert parts["data"]["init_args"]["name"] == dataset
    without_name = [parts | {"data": parts["data"]["init_args"] | {"name": 0}} for parts in settings.values()]
    assert without_name[0] == without_name[1]


# Batch, epochs, optimizer, learning rate, decay, decay of norms, warm-up epochs, smoothing; crop, its size; test size and resize; loss
PUBLISHED = {
    "imagenet/paper": (256, None, "sgd", 0.1, 1e-4, True, 0, 0, "scale_jitter", 224, 224, 256, "cross_entropy"),
    "imagenet/v1": (256, 90, "sgd", 0.1, 1e-4, True, 0, 0, "random_resized", 224, 224, 256, "cross_entropy"),
    "imagenet/v2": (1024, 600, "sgd", 0.5, 2e-5, False, 5, 0.1, "random_resized", 176, 224, 232, "cross_entropy"),
    "imagenet/a3": (2048, 100, "lamb", 8e-3, 0.02, False, 5, 0, "random_resized", 160, 224, 235, "bce"),
}


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_an_imagenet_recipe_is_the_published_one(parsed, recipe: str):
    settings = parsed(recipe)
    model, images = settings["model"], settings["data"]["init_args"]
    optim, crop, test = model["optim"], images["crop"], images["preprocess"]
    assert PUBLISHED[recipe] == (
        *(images["batch_size"], settings["trainer"]["max_epochs"], optim["name"], optim["lr"], optim["weight_decay"], optim["decay_norms"]),
        *(model["schedule"]["warmup"], model["label_smoothing"], crop["kind"], crop["size"] or test["size"], test["size"], test["resize"]),
        model["loss"] or "cross_entropy",  # the default for one label
    )


def test_the_rest_of_the_imagenet_recipes(parsed):
    paper, v1, v2, a3 = (parsed(f"imagenet/{name}") for name in ("paper", "v1", "v2", "a3"))
    images = [settings["data"]["init_args"] for settings in (paper, v1, v2, a3)]
    assert paper["trainer"]["max_steps"] == 600_000  # section 3.4: up to 60 x 10^4 iterations
    assert (images[0]["augment"]["pca"], images[0]["crop"]["short_side"]) == (0.1, [256, 480])
    rate = learning_rates(paper, 600_000, 5004)
    assert sum(rate(step) for step in range(75_000, 600_000, 150_000)) == pytest.approx(0.1111)
    rate = learning_rates(v1, 90 * 5004, 5004)
    assert [rate(epoch * 5004) for epoch in (0, 29.9, 30, 60, 89)] == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])
    assert (images[2]["augment"]["policy"], images[2]["augment"]["random_erasing"]) == ("trivialaugment", 0.1)
    assert (images[2]["mix"]["mixup"], images[2]["mix"]["cutmix"], images[2]["repeated_augmentation"]) == (0.2, 1.0, 4)
    # torchvision: a decay of 0.99998 in every 32nd batch, of 8 devices with 128 images, scaled to 600 epochs
    every_32nd = 1 - (1 - 0.99998) * 8 * 128 * 32 / 600
    assert v2["model"]["ema"] == pytest.approx(every_32nd ** (1 / 32), abs=1e-6)
    rate = learning_rates(a3, 100 * 625, 625)
    assert [rate(0), rate(5 * 625), rate(100 * 625)] == pytest.approx([1e-4, 8e-3, 1e-6])
    assert (images[3]["mix"]["mixup"], images[3]["mix"]["cutmix"], images[3]["preprocess"]["interpolation"]) == (0.1, 1.0, "bicubic")
    assert images[3]["preprocess"]["resize"] == math.floor(224 / 0.95)
    augment = images[3]["augment"]  # timm's levels have a range of 10, torchvision's one of 30
    assert (augment["policy"], augment["magnitude"], augment["magnitude_std"]) == ("randaugment", 6 / 10 * 30, 0.5 / 10 * 30)


def defaults(owner: Any) -> dict[str, Any]:
    if hasattr(owner, "__dataclass_fields__"):
        return {field.name: field.default for field in fields(owner)}
    known: dict[str, Any] = {}
    for base in reversed(inspect.getmro(owner)):  # a dataset passes what it leaves as it is to its base class
        known |= {name: parameter.default for name, parameter in inspect.signature(base.__init__).parameters.items()}
    return known


def leaves(content: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Return every setting of a file with its value and its default."""
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


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name != "overlays"], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_file_says_only_what_is_not_default(path: Path):
    for key, value, default in leaves(read(path)):
        assert value != default, f"{key} is {value} by default"


SYNTHETIC = ["--data", "Synthetic", "--data.images.train_size", "64", "--data.images.test_size", "16", "--data.val_size", "16"]
STEPS = ["--data.batch_size", "8", "--trainer.max_steps", "3", "--trainer.max_epochs", "-1", "--model.schedule.warmup", "0"]
# One network of each recipe by day, the cheapest; CIFAR-100 has CIFAR-10's recipes. The others differ in the network alone.
DAILY = {"digits": None, "finetune": None, "cifar10/fast": None, "cifar10/modern": "resnet20", "cifar10/paper": "resnet110"}
DAILY |= {
    "cifar10/muon": "resnet20",
    "cifar100/fast": None,
    "imagenet/paper": "plain18",
    "imagenet/v1": "resnet18",
    "imagenet/v2": "resnet50",
}
DAILY |= {"imagenet/a3": "resnet18"}
NIGHTLY = [pytest.param(*pair, marks=pytest.mark.nightly) for pair in EACH if pair not in DAILY.items()]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "net"), [*DAILY.items(), *NIGHTLY])
def test_a_recipe_trains(reslight, recipe: str, net: str | None):
    words = ["--model.net", net] if net else []
    words += ["--model.init_from", "resnet8.digits", "--data.images.in_channels", "1"] if recipe == "finetune" else []
    size = "8" if recipe == "digits" else "32"
    answer = reslight("fit", "--config", recipe, *SYNTHETIC, "--data.images.size", size, *STEPS, *words)
    assert answer.code == 0, answer.err
    assert "done   3 steps" in answer.out


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OVERLAYS if name not in SEVERAL_PROCESSES])
def test_an_overlay_trains(reslight, name: str):
    answer = reslight("fit", "--config", "digits", "--config", name, *STEPS)
    assert answer.code == 0, answer.err
