"""Pipes, devices and files of gigabytes among images: refused at once, in one line."""

import os
from pathlib import Path

import pytest

from reslight.regular_file import read_regular


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert read_regular(tmp_path / "a.png", 6) == read_regular(tmp_path / "b.png", 6) == bytearray(b"pixels")


@pytest.mark.parametrize(
    ("kind", "make"),
    [("a pipe", os.mkfifo), ("a folder", os.mkdir), ("a device", lambda path: path.symlink_to("/dev/zero"))],
)
def test_nothing_else_is_read(tmp_path: Path, kind: str, make):
    make(tmp_path / "z.png")
    with pytest.raises(ValueError, match=rf"z\.png is {kind}: it must be a regular file\. Replace or remove it\."):
        read_regular(tmp_path / "z.png", 100)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path):
    with (tmp_path / "z.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"z\.png has 1,099,511,627,776 bytes: at most 1,000 are read"):
        read_regular(tmp_path / "z.png", 1000)


def test_missing_and_unreadable_files_are_errors_of_the_system(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "z.png", 1000)
