"""The number of torch's threads: who decides, what is printed, and that measuring it changes nothing."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from sandbox import SETTINGS

from reslight.data import Synthetic, SyntheticImages
from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.training import ImageClassifier, Threads
from reslight.training.threads import fastest, training_step

TINY = SETTINGS["model"]["net"]


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with four free cores, on which nobody has set a number of threads."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("reslight.training.threads.available_cores", lambda processes: max(1, 4 // processes))
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The numbers that were compared, each time; 1 is the fastest."""
    calls: list[tuple[int, ...]] = []

    def choose(step: Callable[[], object], counts: list[int]) -> int:
        calls.append(tuple(counts))
        return 1

    monkeypatch.setattr("reslight.training.threads.fastest", choose)
    return calls


class Seen(Threads):
    """Notes the number of threads in a step."""

    def on_train_batch_start(self, *_: Any) -> None:
        self.in_step = torch.get_num_threads()


def fit(threads: Threads, **settings: Any) -> ImageClassifier:
    model = ImageClassifier(TINY, num_classes=10, **settings.pop("model", {}))
    images = SyntheticImages(size=settings.pop("size", 8), train_size=64, test_size=8)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": 1}
    trainer = Trainer(**quiet | {"enable_model_summary": False} | settings, callbacks=[threads])
    try:
        trainer.fit(model, Synthetic(images, batch_size=16, val_size=0, seed=0))
    finally:
        torch.use_deterministic_algorithms(False)
    return model


def test_the_fastest_number_on_this_network_is_taken_and_the_earlier_one_restored(measured):
    threads = Seen()
    fit(threads)
    assert measured == [(1, 2, 4)]
    assert (threads.in_step, threads.chosen) == (1, "1 of 4: faster on this network")
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"deterministic": True},
        {"fast_dev_run": 1},
        {"model": {"compile": True}},
    ],
    ids=str,
)
def test_not_where_a_measurement_must_not_decide(measured, settings, monkeypatch):
    monkeypatch.setattr("torch.nn.Module.compile", lambda self, **_: None)
    threads = Seen()
    fit(threads, **settings)
    assert not measured
    assert (threads.in_step, threads.chosen) == (4, "4 of 4")


def test_not_for_a_network_that_has_work_for_all(measured, monkeypatch):
    monkeypatch.setattr("reslight.training.threads.LONGEST_STEP", 1000)
    threads = Seen()
    fit(threads)
    assert not measured
    assert threads.in_step == 4


def test_never_more_than_torch_itself_would_take(measured):
    torch.set_num_threads(2)  # two cores with two threads each
    fit(Seen())
    assert measured == [(1, 2)]
    assert torch.get_num_threads() == 2


def test_the_setting_wins(measured, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads = Seen(3)
    threads.resumed = {"threads": 2, "devices": 1}
    fit(threads)
    assert not measured
    assert (threads.in_step, threads.chosen) == (3, "3: as set")


def test_then_the_variable(measured, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads = Seen()
    threads.resumed = {"threads": 2, "devices": 1}
    fit(threads)
    assert not measured
    assert (threads.in_step, threads.chosen) == (4, "4: OMP_NUM_THREADS")


def test_a_variable_that_lightning_sets_for_its_processes_is_not_the_users(measured, monkeypatch):
    threads = Seen()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    fit(threads)
    assert threads.in_step == 1


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"threads": 2, "devices": 1}, (2, "2 of 4: as in the checkpoint")),
        ({"threads": 64, "devices": 1}, (1, "1 of 4: faster on this network")),  # of a larger machine
        ({"threads": 2, "devices": 2}, (1, "1 of 4: faster on this network")),  # the share of one of two processes
        ({}, (1, "1 of 4: faster on this network")),
    ],
)
@pytest.mark.usefixtures("measured")
def test_then_the_checkpoint(environment, expected):
    threads = Seen()
    threads.resumed = environment
    fit(threads)
    assert (threads.in_step, threads.chosen) == expected


def test_processes_share_the_cores(measured, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    threads = Seen()
    fit(threads)
    assert measured == [(1, 2)]
    assert threads.chosen == "1 of 2: faster on this network"


def test_a_number_below_1_is_a_mistake():
    with pytest.raises(UsageError, match="threads is 0: it must be at least 1"):
        Threads(0)


def test_the_number_is_restored_after_an_error(measured):
    threads = Seen()
    threads.on_train_batch_start = lambda *_: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        fit(threads)
    assert torch.get_num_threads() == 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only steps move; a thread has a core for `share` of the time."""
    clock = SimpleNamespace(now=0.0, share=1.0)
    clock.perf_counter = clock.monotonic = lambda: clock.now
    clock.process_time = lambda: clock.now * clock.share
    monkeypatch.setattr("reslight.training.threads.time", clock)
    return clock


@pytest.mark.parametrize("quickest", [1, 2, 4])
def test_the_fastest_step_wins(clock, quickest):
    def step() -> None:
        clock.now += 1.0 if torch.get_num_threads() == quickest else 2.0

    assert fastest(step, (1, 2, 4), budget=60) == quickest
    assert 60 < clock.now < 80, "whole rounds, until the time is over"
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("gain", "expected"), [(1.01, 1), (1.03, 4)])
def test_more_threads_must_gain_clearly(clock, gain, expected):
    def step() -> None:
        clock.now += {1: 1, 2: 0.995, 4: 1 / gain}[torch.get_num_threads()]

    assert fastest(step, (1, 2, 4), budget=60) == expected


def test_rare_long_steps_count(clock):
    """Each fifth step is 20 times as long with two threads: by the median they are twice as fast, on average half as fast."""
    steps = itertools.count()

    def step() -> None:
        clock.now += 1.0 if torch.get_num_threads() == 1 else 0.5 if next(steps) % 5 else 10.0

    assert fastest(step, (1, 2), budget=200) == 1


@pytest.mark.parametrize(("share", "expected"), [(0.9, 2), (0.7, 1)])
def test_one_thread_where_other_programs_use_the_cores(clock, share, expected):
    def step() -> None:
        clock.now += 1 / torch.get_num_threads()

    clock.share = share
    assert fastest(step, (1, 2), budget=60) == expected


def test_the_steps_that_are_timed_have_the_size_of_the_data(monkeypatch):
    """The network's own size is 8; a network for small images takes any."""
    shapes = []

    def choose(step: Callable[[], object], _: list[int]) -> int:
        with torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, inputs: shapes.append(tuple(inputs[0].shape)) if isinstance(module, ResNet) else None
        ):
            step()
        return 1

    monkeypatch.setattr("reslight.training.threads.fastest", choose)
    fit(Threads(), size=12)
    assert shapes[0] == (16, 3, 12, 12)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("optim", ["sgd", "muon"])
def test_measuring_changes_nothing(precision, optim):
    torch.manual_seed(0)
    model = ImageClassifier(TINY, {"name": optim})
    trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    step = training_step(trainer, model, 8, 8)
    step()
    step()
    assert torch.equal(torch.get_rng_state(), random), "although the network has stochastic depth"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {value.dtype for value in model.parameters()} == {torch.float32}


# -- the command line


@pytest.mark.nightly
@pytest.mark.slow
def test_a_run_says_and_saves_the_number_and_a_resume_takes_it(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}

    def reslight(*words: str, **more: str) -> str:
        command = [sys.executable, "-m", "reslight", "fit", "--config", "tiny.yaml", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return next(line for line in done.stdout.splitlines() if line.startswith("threads"))

    def saved(name: str) -> Any:
        return yaml.safe_load((Path(tmp_path) / "runs/tiny/1" / name).read_text())["threads"]

    assert reslight("--threads", "1") == "threads 1: as set"
    assert saved("config.yaml") == 1
    assert reslight("--ckpt_path", "last", "--trainer.max_epochs", "4").startswith("threads 1 of ")
    assert saved("config.1.yaml") is None
    assert reslight("--ckpt_path", "last", "--trainer.max_epochs", "5", OMP_NUM_THREADS="2") == "threads 2: OMP_NUM_THREADS"


def test_a_wrong_number_is_answered_in_a_line(reslight):
    ended = reslight("fit", "--config", "digits", "--threads", "0")
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == "reslight: error: threads is 0: it must be at least 1. Use null to let reslight choose."
