"""The model of a crash finds what is not flushed, and finds nothing where everything is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_model import Recorder, survivors, uncut

from reslight.atomic import write_files

OLD, NEW = b"old" * 10, b"new" * 20


def naive(path: Path) -> None:
    path.write_bytes(NEW)


def without_sync(path: Path) -> None:
    path.with_name(".tmp").write_bytes(NEW)
    path.with_name(".tmp").replace(path)


def without_sync_of_the_folder(path: Path) -> None:
    with path.with_name(".tmp").open("wb") as file:
        file.write(NEW)
        file.flush()
        os.fsync(file.fileno())
    path.with_name(".tmp").replace(path)


def whole(path: Path) -> None:
    write_files({path: NEW})


HALF, ZEROS = NEW[: len(NEW) // 2], bytes(len(NEW))


@pytest.mark.parametrize(
    ("write", "ordered", "during", "after"),
    [
        (naive, True, {b"", OLD, HALF, NEW}, {b"", OLD, HALF, NEW}),
        (without_sync, True, {OLD, b"", HALF, NEW}, {OLD, b"", HALF, NEW}),
        (without_sync, False, {OLD, b"", HALF, NEW, ZEROS}, {OLD, b"", HALF, NEW, ZEROS}),
        (without_sync_of_the_folder, True, {OLD, NEW}, {OLD, NEW}),
        (without_sync_of_the_folder, False, {OLD, NEW}, {OLD, NEW}),
        (whole, True, {OLD, NEW}, {NEW}),
        (whole, False, {OLD, NEW}, {NEW}),
    ],
)
def test_what_a_crash_can_leave(tmp_path: Path, write: Callable[[Path], None], ordered: bool, during: set[bytes], after: set[bytes]):
    recorder = Recorder(tmp_path)
    with recorder.recording():
        write_files({tmp_path / "file": OLD})
        begin = len(recorder.ops)
        write(tmp_path / "file")
    recorder.check()
    ops = recorder.ops
    assert {state["file"] for state in survivors(ops, ordered=ordered)} == after
    assert {state["file"] for end in range(begin, len(ops) + 1) for state in survivors(ops[:end], ordered=ordered)} == during


def test_a_new_folder_lasts_if_the_one_above_is_flushed(tmp_path: Path):
    recorder = Recorder(tmp_path)
    with recorder.recording():
        write_files({tmp_path / "a/b/file": NEW})
        (tmp_path / "c").mkdir()
        write_files({tmp_path / "c/file": NEW})
    files = [{*state} for state in survivors(recorder.ops, ordered=False)]
    assert sorted(map(len, files)) == [1, 2], "c itself may be missing"
    assert all("a/b/file" in state for state in files)


def test_appended_lines_and_a_change_that_nobody_recorded(tmp_path: Path):
    recorder = Recorder(tmp_path)
    with recorder.recording():
        with (tmp_path / "log").open("w") as file:
            file.write("1\n")
            os.fsync(file.fileno() if not file.flush() else 0)
        with (tmp_path / "log").open("a") as file:
            file.write("22\n")
        os.truncate(tmp_path / "log", 3)
    assert uncut(recorder.ops) == {"log": b"1\n2"}
    found = {state.get("log") for state in survivors(recorder.ops, ordered=True)}
    assert found == {b"1\n", b"1\n2", b"1\n22\n"}
    recorder.check()
    (tmp_path / "log").write_text("another")
    with pytest.raises(AssertionError, match="not recorded"):
        recorder.check()
