"""A signal ends a run between two steps: its last step is saved, and the exit code is the shell's for the signal."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from reslight.training.signals import NUMBERS, Preempted, StopSignals

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138}


class Signal(Callback):
    """Sends this process a signal, as a scheduler would."""

    def __init__(self, when: str, step: int, name: str = "SIGTERM", times: int = 1) -> None:
        self.when, self.step, self.name, self.times = when, step, name, times

    def send(self, when: str, step: int) -> None:
        if (when, step) == (self.when, self.step):
            for _ in range(self.times):
                os.kill(os.getpid(), getattr(signal, self.name))

    def setup(self, trainer: Any, *_: Any, **__: Any) -> None:
        self.send("start", trainer.global_step)

    def on_fit_start(self, trainer: Any, *_: Any) -> None:
        self.send("fit", trainer.global_step)

    def on_sanity_check_start(self, trainer: Any, *_: Any) -> None:
        self.send("sanity check", trainer.global_step)

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        self.send("train", trainer.global_step)

    def on_before_backward(self, trainer: Any, *_: Any) -> None:
        self.send("step", trainer.global_step)

    def on_validation_start(self, trainer: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.send("validation", trainer.global_step)

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.send("validation batch", trainer.global_step)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.send("validated", trainer.global_step)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self.send("epoch", trainer.global_step)


def signalled(**how: Any) -> list[str]:
    return [f"--trainer.callbacks+={__name__}.Signal", *(f"--trainer.callbacks.{key}={value}" for key, value in how.items())]


@pytest.fixture(scope="module", autouse=True)
def handlers_are_restored():
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    assert [signal.getsignal(number) for number in NUMBERS] == before, "every command restores the handlers"


MOMENTS = {  # when, after how many steps, kept
    "in the first step": ("step", 0, 1),
    "in the middle of an epoch": ("step", 5, 6),
    "in the last step of an epoch": ("step", 3, 4),
    "before validation": ("validation", 4, 4),
    "in validation": ("validation batch", 8, 8),
    "after validation": ("validated", 4, 4),
    "at the end of an epoch": ("epoch", 8, 8),
    "in the last step": ("step", 11, 12),
    "in the last validation": ("validation batch", 12, 12),
}


@pytest.mark.parametrize(("when", "step", "kept"), MOMENTS.values(), ids=MOMENTS)
def test_a_stopped_run_resumes_as_if_it_was_not_stopped(fit, assert_same_run, when, step, kept):
    words = ["--checkpoint.every_n_train_steps", "null"]
    assert fit("whole", *words).code == 0
    answer = fit("part", *words, *signalled(when=when, step=step))
    assert (answer.code, answer.err.count("reslight: stopped by SIGTERM")) == (143, 1), answer.err
    assert answer.out.endswith("saved  part/tiny/1/checkpoints/last.ckpt; resume with --ckpt_path last\n")
    again = fit("part", *words, "--ckpt_path", "last")
    assert again.code == 0, again.err
    assert f"checkpoint part/tiny/1/checkpoints/last.ckpt, step {kept}\n" in again.out
    assert_same_run()


@pytest.mark.parametrize("name", CODES)
def test_each_signal_has_its_code(fit, name):
    answer = fit("part", *signalled(when="step", step=2, name=name))
    assert answer.code == CODES[name]
    assert ("interrupted" if name == "SIGINT" else f"stopped by {name}") in answer.err
    assert "Traceback" not in answer.err
    assert "step 3\n" in fit("part", "--ckpt_path", "last").out


@pytest.mark.parametrize("when", ["start", "fit", "sanity check", "train"])
def test_before_the_first_step_nothing_is_saved(fit, when):
    answer = fit("part", *signalled(when=when, step=0))
    assert answer.code == 143
    assert "reslight: stopped by SIGTERM" in answer.err
    assert not list(Path().rglob("*.ckpt"))


def test_a_second_signal_changes_nothing(fit, assert_same_run):
    words = ["--checkpoint.every_n_train_steps", "null"]
    assert fit("whole", *words).code == 0
    assert fit("part", *words, *signalled(when="step", step=5, times=3)).code == 143
    assert fit("part", *words, "--ckpt_path", "last").code == 0
    assert_same_run()


def test_a_second_ctrl_c_does_not_wait(fit):
    answer = fit("part", "--checkpoint.every_n_train_steps", "null", *signalled(when="step", step=2, name="SIGINT", times=2))
    assert answer.code == 130
    assert "no checkpoint" in answer.out


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_an_evaluation_stops_at_once(fit, reslight, command, monkeypatch):
    assert fit("runs").code == 0
    monkeypatch.setattr(
        f"reslight.training.ImageClassifier.{command.replace('validate', 'validation')}_step", lambda *_: os.kill(os.getpid(), 15)
    )
    answer = reslight(command, "--config", "tiny.yaml")
    assert answer.code == 143
    assert answer.err.count("reslight: stopped by SIGTERM") == 1


def test_the_first_signal_is_remembered():
    with StopSignals().listening() as signals:
        with pytest.raises(Preempted) as stopped:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert (stopped.value.code, stopped.value.signal) == (138, signal.SIGUSR1)
        signals.waits = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGUSR1


def test_sighup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals().listening() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
