"""Many paths in one piece of memory: the same paths as a list of them."""

import os
from pathlib import Path

import numpy as np
import pytest

from reslight.data.image_folder.file_paths import FilePaths

NAMES = ["a/1.png", "a/b/\N{GRINNING FACE}.png", "a/" + os.fsdecode(b"\xff\xfe.png"), "a/na\nme.png", "b", "c/" + "x" * 200]


def test_they_are_the_paths_of_the_names():
    paths = FilePaths.below(Path("/root"), NAMES)
    expected = [Path("/root") / name for name in NAMES]
    assert list(paths) == expected
    assert (paths[-1], paths[1:4], paths[4:1:-2], len(paths)) == (expected[-1], expected[1:4], expected[4:1:-2], len(expected))
    assert list(paths.relative()) == NAMES
    with pytest.raises(IndexError):
        paths[len(NAMES)]


def test_no_paths():
    paths = FilePaths.below(Path("/root"), [])
    assert (list(paths), list(paths.relative()), paths.sizes().tolist(), bool(paths)) == ([], [], [], False)


def test_sizes_are_those_of_the_files(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_bytes(b"one")
    (tmp_path / "a" / "2").touch()
    (tmp_path / "link").symlink_to("a/1")
    (tmp_path / "self").symlink_to("self")
    paths = FilePaths.below(tmp_path, ["a/1", "a/2", "link", "self", "gone"])
    assert paths.sizes().tolist() == [3, 0, 3, -1, -1]
    assert paths.sizes().dtype == np.int64


@pytest.mark.parametrize("count", [4095, 4096, 4097, 8192])
def test_names_are_read_in_blocks(count: int):
    names = [f"class/{number}.jpg" for number in range(count)]
    paths = FilePaths.below(Path("root"), names)
    assert list(paths.relative()) == names
    assert paths.ends.nbytes + len(paths.names) < 30 * count
