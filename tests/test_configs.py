"""Every configuration parses, and does some steps on tiny synthetic images."""

from pathlib import Path

import pytest
import yaml

from reslight import recipes
from reslight.recipes import find, names

RECIPES = [name for name in names() if not name.startswith("overlays/")]
OVERLAYS = [name for name in names() if name.startswith("overlays/")]


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
    assert yaml.safe_load(answer.out)["model"]["net"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_parses_on_top(reslight, name: str):
    plain = yaml.safe_load(reslight("fit", "--config", "digits", "--print_config").out)
    answer = reslight("fit", "--config", "digits", "--config", name, "--print_config")
    assert answer.code == 0, answer.err
    assert yaml.safe_load(answer.out) != plain


SYNTHETIC = ["--data", "Synthetic", "--data.images.train_size", "64", "--data.images.test_size", "16", "--data.val_size", "16"]
STEPS = ["--data.batch_size", "8", "--trainer.max_steps", "3", "--trainer.max_epochs", "-1", "--model.schedule.warmup", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(reslight, name: str):
    size = "8" if name == "digits" else "32"
    answer = reslight("fit", "--config", name, *SYNTHETIC, "--data.images.size", size, *STEPS)
    assert answer.code == 0, answer.err
    assert "done   3 steps" in answer.out


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
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
