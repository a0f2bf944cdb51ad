"""Folders of classes: which files are images of which class, and the fingerprint of a dataset."""

import hashlib
import os
from pathlib import Path
from unicodedata import normalize

import pytest

from reslight.data.image_folder.class_tree import ClassTree, fingerprint_of, is_image, read_tree
from reslight.data.image_folder.splits import LabelledImages


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def found(tree: ClassTree) -> list[tuple[str, str]]:
    """Class and name of each image."""
    rows = zip(tree.labels, tree.paths, strict=True)
    return [(tree.classes[label], path.relative_to(tree.root).as_posix()) for label, path in rows]


def fingerprint(tree: ClassTree) -> str:
    return LabelledImages.from_tree(tree, tree.classes).fingerprint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("a.jpg", "a.JPEG", "a.b.png", "a b.Webp", "ü.tiff", "x.GIF", "x.bmp", "x.jfif", "x.avif", "x.jp2")),
        *((name, False) for name in ("a.pdf", "a.svg", "jpg", "png.", "a.jpg.txt", "a.mp4", "a", "")),
    ],
)
def test_image_extensions(name: str, expected: bool):
    assert is_image(name) == expected


def test_images_classes_and_other_files(tmp_path: Path):
    root = write(
        tmp_path / "set",
        *("cats/10.png", "cats/9.JPG", "cats/young cats/à.png", "cats/young cats/deep/z.webp", "cats/about.txt"),
        *("cats/old/1.png", "cats/old/deep/2.png", "cats/older/3.png"),
        *("Bäume im Wald/ß.png", "10/x.png", "9/x.png", "loose.png", "list.csv"),
        *(".DS_Store", ".git/a.png", "__MACOSX/a.png", "cats/.hidden.png", "cats/Thumbs.db", "cats/DESKTOP.INI", "cats/.thumbs/a.png"),
    )
    (root / "empty").mkdir()
    tree = read_tree(root)
    assert tree.classes == ("10", "9", "Bäume im Wald", "cats", "empty"), "sorted as text is"
    assert found(tree) == [
        ("10", "10/x.png"),
        ("9", "9/x.png"),
        ("Bäume im Wald", "Bäume im Wald/ß.png"),
        *(("cats", f"cats/{name}") for name in ("10.png", "9.JPG", "old/1.png", "old/deep/2.png", "older/3.png")),
        *(("cats", f"cats/young cats/{name}") for name in ("à.png", "deep/z.webp")),
    ]
    assert tree.empty == ["empty"]
    assert [path.name for path in tree.misplaced] == ["loose.png"]
    assert [path.name for path in tree.others] == ["list.csv", "about.txt"]


def test_links_are_followed_once(tmp_path: Path):
    write(tmp_path / "disk", "far/1.png", "far/deep/2.png", "far.png")
    root = write(tmp_path / "set", "a/0.png")
    (root / "a" / "file.png").symlink_to(tmp_path / "disk" / "far.png")
    (root / "a" / "self").symlink_to(root / "a")
    (root / "b").symlink_to(tmp_path / "disk" / "far", target_is_directory=True)
    (root / "b" / "deep" / "up").symlink_to(tmp_path / "disk" / "far")
    (root / "c").symlink_to(tmp_path / "gone")
    (root / "d").symlink_to(root / "d")
    tree = read_tree(root)
    assert found(tree) == [("a", "a/0.png"), ("a", "a/file.png"), ("b", "b/1.png"), ("b", "b/deep/2.png")]
    assert [path.name for path in tree.others] == ["c", "d"], "a broken link is not a class"


def test_a_broken_link_counts_as_an_image(tmp_path: Path):
    root = write(tmp_path / "set", "a/0.png")
    before = fingerprint(read_tree(root))
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    tree = read_tree(root)
    assert found(tree) == [("a", "a/0.png"), ("a", "a/gone.png")]
    assert fingerprint(tree) != before


def test_fingerprint_by_hand(tmp_path: Path):
    for place in ("one", "two"):
        tree = read_tree(write(tmp_path / place, "a/ü.png", "b/in/x.jpg"))
        # the classes, then for each image its name and its size in bytes, which is the length of its name here
        assert fingerprint(tree) == hashlib.sha256("a\0b\na/ü.png\0008\nb/in/x.jpg\00010".encode()).hexdigest()


def test_awkward_names_have_the_fingerprint_of_one_name_at_a_time(tmp_path: Path):
    """Marks that would compose with a letter before them, decomposed names, bytes that are not UTF-8, line breaks."""
    names = ("1\u0301", "\u0301", "e\u0301", "\u1100", "\u1161", "\u0323\u0307", os.fsdecode(b"\xff"), "na\nme", "ß\u0338=")
    root = tmp_path / "set"
    (root / "e\u0301").mkdir(parents=True)
    for name in names:
        (root / f"e\u0301/{name}.png").write_bytes(b"x" * len(name))
        (root / f"e\u0301/{name}.JPG").symlink_to("nowhere")
    tree = read_tree(root)
    expected = hashlib.sha256("é".encode())
    for path in sorted((root / "e\u0301").iterdir(), key=lambda path: (normalize("NFC", path.name), path.name)):
        if is_image(path.name):
            size = -1 if path.is_symlink() else path.stat().st_size
            expected.update(f"\n{normalize('NFC', path.relative_to(root).as_posix())}\0{size}".encode("utf-8", "surrogateescape"))
    assert fingerprint(tree) == expected.hexdigest()


def test_many_images_are_hashed_as_one_by_one():
    rows = [(f"a/e\u0301{number}.png", number) for number in range(2500)]
    expected = hashlib.sha256("\n".join(["a", *(f"a/é{number}.png\0{number}" for number in range(2500))]).encode())
    assert fingerprint_of(("a",), rows) == expected.hexdigest()


@pytest.mark.parametrize("change", ["size", "name", "class", "less", "more", "empty class"])
def test_every_change_changes_the_fingerprint(tmp_path: Path, change: str):
    root = write(tmp_path / "set", "a/1.png", "a/2.png", "b/3.png")
    before = fingerprint(read_tree(root))
    {
        "size": lambda: (root / "a/1.png").write_bytes(b"longer than its name"),
        "name": lambda: (root / "a/1.png").rename(root / "a/0.png"),
        "class": lambda: (root / "a/1.png").rename(root / "b/1.png"),
        "less": (root / "a/1.png").unlink,
        "more": lambda: write(root, "b/4.png"),
        "empty class": (root / "c").mkdir,
    }[change]()
    assert fingerprint(read_tree(root)) != before


def test_other_files_do_not_change_the_fingerprint(tmp_path: Path):
    root = write(tmp_path / "set", "a/1.png")
    before = fingerprint(read_tree(root))
    write(root, "a/notes.txt", "a/.DS_Store", "loose.png")
    assert fingerprint(read_tree(root)) == before


def test_a_missing_folder(tmp_path: Path):
    with pytest.raises(OSError, match="set"):
        read_tree(tmp_path / "set")
