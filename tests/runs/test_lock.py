"""A run has one owner: a second one is refused before it changes anything, and a dead one is replaced."""

import fcntl
import json
import os
import platform
import shutil
import signal
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from tests.runs.test_folder import TINY

from reslight.runs import lock
from reslight.runs.callback import RunFolder
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.lock import RunInUseError, RunLock

ELSEWHERE = json.dumps({"host": "node7", "pid": 42, "machine": "another"})


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path):
    first = RunLock(tmp_path)
    with pytest.raises(RunInUseError) as refused:
        RunLock(tmp_path)
    assert f"{tmp_path} is in use: process {os.getpid()} on {platform.node()} is training there" in str(refused.value)
    first.release()
    first.release()
    assert not list(tmp_path.iterdir())
    RunLock(tmp_path).release()


def test_the_lock_of_a_killed_owner_is_free_at_once_though_its_worker_lives(tmp_path: Path):
    reader, writer = os.pipe()
    owner = os.fork()
    if not owner:
        held = RunLock(tmp_path)
        worker = os.fork()
        if worker:
            os.write(writer, f"{worker}\n".encode())
        signal.pause()
        held.release()
    worker = int(os.read(reader, 100))
    try:
        with pytest.raises(RunInUseError, match=f"process {owner} on "):
            RunLock(tmp_path)
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        RunLock(tmp_path).release()  # without watching it, which takes longer than a test may
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("left", [ELSEWHERE, "not json", '["a list"]', '{"pid": 3}'])
def test_what_another_machine_left_behind_is_watched_and_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, left: str):
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.1)
    (tmp_path / lock.NAME).write_text(left)
    with caplog.at_level("INFO", "reslight"):
        RunLock(tmp_path).release()
    assert "watching it" in caplog.text
    assert ("process 42 on node7" in caplog.text) == (left == ELSEWHERE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("odd", ["link", "pipe", "folder"])
def test_only_a_regular_file_is_a_lock(tmp_path: Path, caplog, odd: str):
    mine, path = tmp_path / "mine.txt", tmp_path / lock.NAME
    mine.write_text("text of the user")
    {"link": lambda: path.symlink_to(mine), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[odd]()
    RunLock(tmp_path).release()
    assert mine.read_text() == "text of the user"
    assert f"{path} cannot be written: {'Is a directory' if odd == 'folder' else 'it is not a regular file'}. Nothing keeps" in caplog.text


@pytest.mark.parametrize("has_locks", [True, False], ids=["locks of one machine only", "no locks"])
def test_an_owner_that_no_lock_shows_is_known_by_its_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 5.0)
    monkeypatch.setattr(lock, "lock_alone", lambda _: has_locks or None)
    machines = iter(["first", *["second"] * 9])
    monkeypatch.setattr(lock, "_machine", lambda: next(machines))
    held = RunLock(tmp_path)
    with pytest.raises(RunInUseError, match=f"process {os.getpid()}"):
        RunLock(tmp_path)
    held.release()
    RunLock(tmp_path).release()


def test_a_released_file_that_is_still_there_has_no_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_watch", lambda *_: pytest.fail("there is nothing to watch"))
    (tmp_path / lock.NAME).touch()
    RunLock(tmp_path).release()


def test_a_folder_without_room_for_the_file_is_trained_in_with_a_warning(tmp_path: Path, caplog):
    (tmp_path / lock.NAME).mkdir()
    RunLock(tmp_path).release()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{tmp_path / lock.NAME} cannot be written: Is a directory." in caplog.text


def test_the_lock_of_another_user_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    held = RunLock(tmp_path)

    def opened(path: Path, mode: str = "r", **options: Any) -> FileIO:
        if mode != "r":
            raise PermissionError(13, "Permission denied")
        return FileIO(path, mode, **options)

    monkeypatch.setattr(lock, "FileIO", opened)
    with pytest.raises(RunInUseError, match=f"process {os.getpid()} on "):
        RunLock(tmp_path)
    fcntl.flock(next(iter(lock._held)), fcntl.LOCK_UN)
    RunLock(tmp_path)
    assert "cannot be written: Permission denied" in caplog.text
    held.release()


def test_a_lock_that_another_process_took_is_not_removed(tmp_path: Path):
    held = RunLock(tmp_path)
    (tmp_path / lock.NAME).unlink()
    (tmp_path / lock.NAME).write_text(ELSEWHERE)
    held.release()
    assert (tmp_path / lock.NAME).read_text() == ELSEWHERE


def test_the_beat_ends_with_the_lock(tmp_path: Path):
    held = RunLock(tmp_path)
    (beat,) = (thread for thread in threading.enumerate() if thread.name == "run lock")
    held.release()
    beat.join(5)
    assert not beat.is_alive()


def _files(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_is_training_cannot_be_resumed_but_used(reslight: Callable[..., Any]):
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    run = Path("runs/tiny/1")
    fit = ("fit", "--config", "tiny.yaml", "--trainer.max_epochs")
    assert reslight(*fit, 1).code == 0
    assert not (run / lock.NAME).exists()
    held = RunLock(run)
    before = _files(Path("runs"))
    answer = reslight(*fit, 2, "--ckpt_path", "last")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert f"runs/tiny/1 is in use: process {os.getpid()} on {platform.node()} is training there" in answer.err
    assert _files(Path("runs")) == before
    for words in (["test", "--config", "tiny.yaml"], ["predict", "--config", "tiny.yaml"], ["export", run, "weights"]):
        assert reslight(*words).code == 0
    assert reslight(*fit, 1).code == 0, "a new run has a folder of its own"
    held.release()
    assert reslight(*fit, 2, "--ckpt_path", run).code == 0
    assert not list(Path("runs").rglob(lock.NAME))


@pytest.mark.parametrize("lr", [0.1, 1e30], ids=["done", "failed"])
def test_a_run_is_locked_from_its_first_step_to_its_end(reslight: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, lr: float):
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    seen = []
    monkeypatch.setattr("reslight.training.ImageClassifier.on_train_batch_end", lambda *_: seen.append(Path("runs/tiny/1/.lock").exists()))
    assert reslight("fit", "--config", "tiny.yaml", "--model.optim.lr", lr).code == (0 if lr == 0.1 else 1)
    assert seen
    assert all(seen)
    assert not Path("runs/tiny/1/.lock").exists()


def test_all_processes_are_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first process tells the others, which have no lock of their own."""
    held = RunLock(tmp_path)
    told: list[str | None] = []

    class Strategy:
        def broadcast(self, value: str | None) -> str | None:
            told.append(value)
            return told[0]

    class Trainer:
        strategy = Strategy()

        def __init__(self, is_global_zero: bool) -> None:
            self.is_global_zero = is_global_zero

    for is_first in (True, False):
        with pytest.raises(RunInUseError):
            RunFolder(RunDirectory(tmp_path, "tiny"), lambda _: None)._own(Trainer(is_first), Run(tmp_path))  # type: ignore[arg-type]
    assert told[1] is None
    held.release()


def test_a_run_that_begins_with_a_checkpoint_of_a_requeued_job_says_so(reslight: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    """Lightning looks for such a file in the current folder, whatever made it."""
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    assert reslight("fit", "--config", "tiny.yaml").err == ""
    shutil.copy("runs/tiny/1/checkpoints/last.ckpt", "hpc_ckpt_1.ckpt")
    assert reslight("fit", "--config", "tiny.yaml").err == ""
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: True))
    answer = reslight("fit", "--config", "tiny.yaml", "--trainer.max_epochs", 2)
    assert answer.code == 0
    assert "hpc_ckpt_1.ckpt is a checkpoint that Lightning saved when it requeued a SLURM job: training starts from it" in answer.err
    assert reslight("fit", "--config", "tiny.yaml", "--trainer.max_epochs", 3, "--ckpt_path", "last").err == ""
