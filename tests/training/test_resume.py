"""A run that resumes from any of its checkpoints is the same as the run that was never interrupted."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from reslight.training import AtomicCheckpointIO

VARIANTS = {
    "stochastic depth, average": "",
    "no average, 16 bit": "--model.ema null --trainer.precision bf16-mixed",
    "muon": "--model.optim.name muon --model.optim.nesterov true",
    "no validation": "--data.val_size 0",
    "rare validation": "--trainer.check_val_every_n_epoch 2",
    "frequent validation": "--trainer.val_check_interval 2",
    "accumulation": "--trainer.accumulate_grad_batches 2",
    "steps": "--trainer.max_steps 7",
    "rare checkpoints": "--checkpoint.every_n_epochs 2 --checkpoint.every_n_train_steps 3",
    "plateau": "--model.schedule.name plateau --model.schedule.patience 0 --model.schedule.threshold 0.1 --model.schedule.gamma 0.5 "
    "--trainer.val_check_interval 2",
    "warm-up by error": "--model.schedule.name multistep --model.schedule.milestones [5,9] --model.schedule.warmup 0 "
    "--model.schedule.warmup_start 0.1 --model.schedule.warmup_until_error 0.95",
}


@pytest.fixture
def whole_and_steps(fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], list[Path]]:
    """Return a function that trains the whole run and returns a copy of its folder from each time a checkpoint was written."""
    write = AtomicCheckpointIO.save_checkpoint

    def train(words: list[str]) -> list[Path]:
        copies: list[Path] = []

        def save(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, storage_options: Any = None) -> None:
            write(self, checkpoint, path, storage_options)
            copies.append(Path(f"steps/{len(copies)}-{path.stem}-{checkpoint['global_step']}"))
            shutil.copytree(path.parents[1], copies[-1])

        with monkeypatch.context() as patch:
            patch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
            answer = fit("whole", *words)
        assert answer.code == 0, answer.err
        return copies

    return train


# By day one that keeps much state; the others are nightly.
DAILY = {"muon"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=name, marks=() if name in DAILY else pytest.mark.nightly) for name, words in VARIANTS.items()],
)
def test_a_run_resumes_from_each_of_its_checkpoints(fit, whole_and_steps, assert_same_run, words):
    copies = whole_and_steps(words.split())
    assert len(copies) > 5
    for copy in copies:
        shutil.rmtree("part", ignore_errors=True)
        shutil.copytree(copy, "part/tiny/1")
        answer = fit("part", *words.split(), "--ckpt_path", copy.name.split("-")[1])
        assert answer.code == 0, (copy, answer.err)
        assert_same_run()


class Stop(Callback):
    """Stops training in the middle of an epoch of 4 steps, as a user's callback may."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 6


PLATEAU = "--model.schedule.name plateau --model.schedule.patience 0 --model.schedule.threshold 0.5 --model.schedule.gamma 0.5"
STOPS = {
    "no row": ("--trainer.log_every_n_steps 4", f"--trainer.callbacks {__name__}.Stop"),
    "plateau": (PLATEAU, f"--trainer.callbacks {__name__}.Stop"),
    "scheduled": (f"{PLATEAU} --trainer.val_check_interval 2", f"--trainer.callbacks {__name__}.Stop"),
    "steps": ("--model.schedule.name constant", "--trainer.max_steps 6 --trainer.enable_progress_bar true"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "stop"),
    [pytest.param(*words, id=name, marks=pytest.mark.nightly if name == "scheduled" else ()) for name, words in STOPS.items()],
)
def test_a_run_that_was_stopped_within_an_epoch_resumes_as_one_that_was_not(fit, assert_same_run, words, stop):
    for root, more in (("whole", []), ("part", stop.split()), ("part", ["--ckpt_path", "last"])):
        answer = fit(root, *words.split(), *more)
        assert answer.code == 0, answer.err
    assert_same_run()
