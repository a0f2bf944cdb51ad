"""Every test begins and ends in the same process state, in a folder of its own, without the network."""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
# One thread a process: the suite runs in as many processes as there are cores, and threads that wait for each other cost more than they
# bring on tiny networks. Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

pytest_plugins = ["tests.hub_fixtures"]


NOT_BY_DEFAULT = {"nightly", "network", "bench"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first: a mistake shows early. What takes too long for every day is run by `-m nightly`."""
    if not any(name in config.option.markexpr for name in NOT_BY_DEFAULT):
        left_out = [item for item in items if any(item.get_closest_marker(name) for name in NOT_BY_DEFAULT)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the modules of torch, Lightning and the tests: a fifth of the time went to its walks over them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def clean_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    log = logging.getLogger("reslight")
    environment, show, handlers, level = dict(os.environ), warnings.showwarning, log.handlers[:], log.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])  # the command line appends the current folder
    monkeypatch.setenv("RESLIGHT_CACHE", str(tmp_path / "decoded"))
    yield
    os.environ.clear()
    os.environ.update(environment)
    warnings.showwarning = show
    log.handlers[:] = handlers
    log.setLevel(level)
    assert not torch.distributed.is_initialized(), "a test left a process group behind"
    assert not torch.are_deterministic_algorithms_enabled(), "a test left deterministic algorithms on"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def reslight(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command line, in this process: `reslight("models", "resnet*")`."""
    from reslight.cli.main import main

    def run(*words: object) -> Answer:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Answer(code, *capfd.readouterr())

    return run
