"""The index of large folders of classes: the same images as listed, until a folder changes."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.image_folder.test_class_tree import write

from reslight.data.image_folder import tree_index
from reslight.data.image_folder.class_tree import ClassTree, read_tree
from reslight.data.image_folder.splits import LabelledImages
from reslight.data.image_folder.tree_index import indexed_tree

NAMES = ("a/1.png", "a/in/deep/2.png", "a/notes.txt", "b/e\u0301.png", "loose.png", "loose.txt")


def settle(root: Path) -> None:
    """Make all folders as old as those of a dataset that was unpacked yesterday."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (1_700_000_000, 1_700_000_000))


def facts(tree: ClassTree) -> list[object]:
    known = LabelledImages.from_tree(tree, tree.classes)
    return [tree.classes, list(tree.paths), list(tree.labels), list(tree.misplaced), list(tree.others), known.labels, known.fingerprint]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tree_index, "_FEWEST", 1)
    root = write(tmp_path / "set", *NAMES)
    (root / "empty").mkdir()
    (root / "b" / os.fsdecode(b"\xff.png")).touch()
    (root / "b" / "gone.png").symlink_to("nowhere")
    (root / "c").symlink_to(write(tmp_path / "disk", "x/1.png") / "x")
    settle(tmp_path)
    return root


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were listed, in the place of being read from the index."""
    found: list[Path] = []

    def counted(root: Path) -> ClassTree:
        found.append(root)
        return read_tree(root)

    monkeypatch.setattr(tree_index, "read_tree", counted)
    return found


def test_the_second_time_nothing_is_listed(root: Path, listed: list[Path], caplog: pytest.LogCaptureFixture):
    expected = facts(read_tree(root))
    for _ in range(3):
        tree = indexed_tree(root)
        assert [str(fact) for fact in facts(tree)] == [str(fact) for fact in expected]
        assert tree.empty == ["empty"]
    assert listed == [root]
    (file,) = (root.parent / "cache" / "folders").iterdir()
    with caplog.at_level(logging.INFO):
        indexed_tree(root)
    assert caplog.messages == [
        f"images: 6 in {root}, none of whose folders has changed since they were listed; delete {file} to list them again"
    ]
    file.unlink()
    indexed_tree(root)
    assert len(listed) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write(root, "a/0.png"),
        lambda root: write(root, "a/in/deep/3.png"),
        lambda root: (root / "a/1.png").unlink(),
        lambda root: (root / "a/1.png").rename(root / "a/9.png"),
        lambda root: (root / "empty").rename(root / "another"),
        lambda root: (root / "d").mkdir(),
        lambda root: (root / "a/in/deep").rename(root / "a/in/deeper"),
        lambda root: write(root.parent, "disk/x/2.png"),
        lambda root: write(root, "e\u0301.png"),
    ],
    ids=["added", "added deep", "removed", "renamed", "class renamed", "class added", "folder renamed", "added behind a link", "misplaced"],
)
def test_every_change_of_a_folder_is_noticed(root: Path, listed: list[Path], change: Callable[[Path], object]):
    indexed_tree(root)
    change(root)
    assert [str(fact) for fact in facts(indexed_tree(root))] == [str(fact) for fact in facts(read_tree(root))]
    assert listed == [root, root]


def test_another_folder_of_the_same_time_is_noticed(root: Path, listed: list[Path]):
    indexed_tree(root)
    (root / "a").rename(root.parent / "old")
    write(root, "a/other.png")
    settle(root)
    assert "other.png" in [path.name for path in indexed_tree(root).paths]
    assert len(listed) == 2


def test_a_folder_that_has_just_changed_is_not_indexed(root: Path, listed: list[Path]):
    """The file system may give the next change the same time."""
    write(root, "b/new.png")
    for _ in range(2):
        indexed_tree(root)
    assert len(listed) == 2
    assert not (root.parent / "cache").exists()


def test_few_images_are_not_indexed(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree_index, "_FEWEST", 7)
    indexed_tree(root)
    assert not (root.parent / "cache").exists()


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "version", "pipe"])
def test_a_damaged_index_is_made_again(root: Path, listed: list[Path], damage: str, monkeypatch: pytest.MonkeyPatch):
    expected = [str(fact) for fact in facts(indexed_tree(root))]
    (file,) = (root.parent / "cache" / "folders").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "version":
        monkeypatch.setattr(tree_index, "_FORMAT", "2")
    elif damage == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        content[-3] ^= 1
        file.write_bytes({"cut": bytes(content[:-9]), "bit": bytes(content), "empty": b""}[damage])
    for _ in range(2):
        assert [str(fact) for fact in facts(indexed_tree(root))] == expected
    assert len(listed) == 2


def test_a_cache_that_cannot_be_written_is_reported(root: Path, caplog: pytest.LogCaptureFixture):
    (root.parent / "cache").write_bytes(b"")
    assert len(indexed_tree(root).paths) == 6
    (message,) = caplog.messages
    assert "cannot be written" in message
    assert message.endswith("Until then, each start lists the images again. RESLIGHT_CACHE sets the folder.")


def test_a_missing_folder_is_an_error_with_an_index_too(root: Path):
    indexed_tree(root)
    root.rename(root.parent / "moved")
    with pytest.raises(FileNotFoundError):
        indexed_tree(root)
