"""A tiny run through the command line, and what it takes to call two runs the same."""

import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

TINY = """\
seed_everything: 5
trainer: {max_epochs: 3, log_every_n_steps: 2, enable_progress_bar: false}
model:
  net: {depths: [1, 1], widths: [4, 8], stem: small, stem_width: 4, drop_path: 0.2}
  ema: 0.8
  optim: {lr: 0.05, nesterov: true}
  schedule: {warmup: 2}
checkpoint: {every_n_train_steps: 1}
data:
  class_path: Synthetic
  init_args: {images: {size: 8, train_size: 96, test_size: 40}, batch_size: 16, val_size: 30, augment: {pad: 1, flip: random}}
"""
LOOPS = ("batch_progress", "epoch_progress", "_batches_that_stepped")
"""Lightning's counters, some of which it counts otherwise after a resume; those that decide anything are compared as `global_step`."""


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without what depends on the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "images_per_second"} for row in csv.DictReader(file)]


def contents(checkpoint: Path) -> dict[str, Any]:
    """Everything in a checkpoint: each number and text as it is, each tensor as the sha256 of its bytes."""

    def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
        for key, inner in pairs:
            yield from flat(inner, f"{name}/{key}")
        if isinstance(value, torch.Tensor):
            yield name, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        elif not pairs:
            yield name, value

    everything = dict(flat(torch.load(checkpoint, weights_only=True), ""))
    return {name: value for name, value in everything.items() if not any(loop in name for loop in LOOPS)}


@pytest.fixture
def fit(reslight: Callable[..., Any]) -> Callable[..., Any]:
    """`fit(place, *words)` trains a tiny network in the folder `place/tiny/1`."""
    Path("tiny.yaml").write_text(TINY)
    return lambda place, *words: reslight("fit", "--config", "tiny.yaml", "--trainer.default_root_dir", place, *words)


@pytest.fixture
def assert_same_run() -> Callable[[], None]:
    """Compares metrics.csv and last.ckpt of the first runs in `part` and `whole`."""

    def compare() -> None:
        part, whole = Path("part/tiny/1"), Path("whole/tiny/1")
        assert rows(part) == rows(whole)
        assert contents(part / "checkpoints/last.ckpt") == contents(whole / "checkpoints/last.ckpt")

    return compare
