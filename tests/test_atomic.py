"""Files that belong together: all of the new ones or all of the old ones, and nothing else."""

import errno
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from reslight.atomic import write_files


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bytes_and_functions_are_written_and_folders_made(tmp_path: Path):
    write_files({tmp_path / "a" / "one": b"1", tmp_path / "a" / "two": lambda file: file.write(b"2")})
    assert contents(tmp_path / "a") == {"one": b"1", "two": b"2"}


def full(file: BinaryIO) -> None:
    file.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_in_torch(file: BinaryIO) -> None:
    """Fail as torch.save does, which hides the system's error behind one of its own."""
    try:
        full(file)
    finally:
        raise RuntimeError("unexpected pos 128 vs 64")


@pytest.mark.parametrize("fails", [full, full_in_torch])
def test_a_failure_keeps_every_earlier_file(fails, tmp_path: Path):
    before = {"one": b"old 1", "two": b"old 2"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=r"/two cannot be written: No space left on device\. ") as stopped:
        write_files({tmp_path / "one": b"new 1", tmp_path / "two": fails})
    assert "\n" not in str(stopped.value)
    assert contents(tmp_path) == before


def test_an_error_that_is_not_the_systems_is_not_translated(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        write_files({tmp_path / "one": lambda file: 1 / 0})
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_who_may_read_a_file_is_the_users_choice(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        write_files({tmp_path / "cache": b"images"})
    finally:
        os.umask(before)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == mode
