"""The weights that come with the package: each is what its row, its card and its training log say."""

import csv
import importlib
import re
from pathlib import Path

import pytest
import torch
import yaml
from tests.data.cifar.test_metadata import REAL, needs_real_images

import reslight as package
from reslight.weights.catalog import CATALOG, bundled
from reslight.weights.folder import FILES, read_description

ROOT = Path(__file__).parents[2]
HERE = [name for name, row in CATALOG.items() if row.repository is None]
LOGGED = [name for name in HERE if not name.endswith(".digits")]  # a minute of `reslight fit --config digits` is a log of its own


def counted(name: str) -> tuple[int, int]:
    """Return how many test images are correct, and of how many, according to config.json."""
    (tested,) = (one for one in read_description(bundled(name)).record.metrics if one.split == "test")
    return tested.correct1, tested.total


@pytest.mark.parametrize("name", HERE)
def test_it_is_what_its_row_and_its_card_say(name: str):
    described = read_description(bundled(name))
    correct, total = counted(name)
    assert described.sha256["model.safetensors"] == CATALOG[name].sha256
    assert f'reslight.load("{name}")' in (bundled(name) / "README.md").read_text()
    assert round(100 * correct / total, 2) == CATALOG[name].accuracy
    assert name.split(".")[:2] == [described.record.name, described.record.data["name"]]
    assert sum((bundled(name) / file).stat().st_size for file in FILES) < 24e6
    assert {value.dtype for value in package.load(name).state_dict().values()} == {torch.float32, torch.int64}


def test_the_digits_are_evaluated_again(reslight):
    answer = reslight("verify", "resnet8.digits")
    assert answer.code == 0
    assert answer.out.count("\nok ") + 1 == len(answer.out.splitlines()) == 6
    assert "test: 357 of 360 correct" in answer.out


@needs_real_images
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "resnet20.cifar10" else pytest.mark.nightly) for name in LOGGED])
def test_it_is_evaluated_again_on_the_real_images(reslight, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    root, images = REAL, 10_000
    if name.endswith(".cifar10-100"):
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        root, images = tmp_path / "cifar10-100", 20_000
        importlib.import_module("both").main([str(root), "--data", str(REAL)])
    answer = reslight("verify", name, "--data", root)
    assert answer.code == 0, answer.out + answer.err
    correct, total = counted(name)
    assert total == images
    assert f"test: {correct} of {total} correct" in answer.out
    assert "DIFFERS" not in answer.out


@pytest.mark.parametrize("name", LOGGED)
def test_its_configuration_and_log_are_in_the_docs(name: str):
    record, folder = read_description(bundled(name)).record, ROOT / "docs" / "weights" / name
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["seed_everything"] == record.run["seed"]
    assert config["data"]["init_args"]["val_size"] == record.data["val_size"] == 0  # trained on all images
    for part in ("optim", "schedule"):
        assert config["model"][part] == record.recipe[part]
    with (folder / "metrics.csv").open(newline="") as file:
        epochs = [row for row in csv.DictReader(file) if row["train/acc1"]]
    assert len(epochs) == config["trainer"]["max_epochs"]
    assert int(epochs[-1]["step"]) == record.run["steps"]
    assert (folder / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("page", ["README.md", "docs/guides/weights.md"])
def test_the_tables_have_its_numbers(name: str, page: str):
    correct, total = counted(name)
    (row,) = re.findall(rf"^\| `{re.escape(name)}` .*", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert f"{100 * correct / total:.2f} %" in row
    assert f"{sum(p.numel() for p in package.load(name).parameters()):,}" in row
    assert f"{correct:,} of {total:,}" in row
    if page == "README.md":
        assert f"{(bundled(name) / 'model.safetensors').stat().st_size / 1e6:.2f} MB" in row
        config = ROOT / (f"docs/weights/{name}/config.yaml" if name in LOGGED else "configs/digits.yaml")
        assert f"{yaml.safe_load(config.read_text())['trainer']['max_epochs']} epochs |" in row
