"""The parts of a folder of images: which folders they are, how their classes are numbered, and what is wrong or worth knowing."""

from pathlib import Path

import pytest
from tests.data.image_folder.test_class_tree import write

from reslight.data.image_folder.class_tree import read_tree
from reslight.data.image_folder.splits import numbered_as, parts_of, trees_in


def pngs(folder: Path, **classes: int) -> Path:
    """Files that are called as images are; none is opened here."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write(folder / name, *(f"{number}.png" for number in range(count)))
    return folder


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train", "val", "test"], {"train": "train", "val": "val", "test": "test"}),
        (["training", "validation", "testing"], {"train": "training", "val": "validation", "test": "testing"}),
        (["train", "valid"], {"train": "train", "val": "valid"}),
        (["train", "training", "val", "valid", "validation"], {"train": "train", "val": "val"}),
        (["train", "test", "unlabelled"], {"train": "train", "test": "test"}),
        (["cats", "dogs"], {"train": "."}),
    ],
)
def test_which_folder_is_which_part(tmp_path: Path, folders: list[str], expected: dict[str, str]):
    for folder in folders:
        pngs(tmp_path / "set" / folder, a=1, b=1)
    trees = trees_in(tmp_path / "set")
    assert {part: tree.root for part, tree in trees.items()} == {part: tmp_path / "set" / name for part, name in expected.items()}


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        ([], "{root} holds no images in folders of classes; put CLASS/IMAGE there, or set data.root"),
        (["val", "test"], "{root} has val and test, but no train; put train/CLASS/IMAGE there, or the classes' folders alone"),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path: Path, folders: list[str], says: str):
    (root := tmp_path / "set").mkdir()
    for folder in folders:
        pngs(root / folder, a=1, b=1)
    with pytest.raises(ValueError, match=r".") as caught:
        trees_in(root)
    assert str(caught.value) == says.format(root=root)


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "set").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*set; set data\.root to the folder of your images$"):
        trees_in(tmp_path / "set")


def test_classes_have_the_numbers_of_training(tmp_path: Path):
    pngs(tmp_path / "train", a=1, b=2, c=1)
    pngs(tmp_path / "val", c=2, a=1)
    pngs(tmp_path / "test", b=1, c=0)
    parts = parts_of(trees_in(tmp_path))
    assert parts.classes == ("a", "b", "c")
    assert {part: found.labels.tolist() for part, found in parts.parts.items()} == {"train": [0, 1, 1, 2], "val": [0, 2, 2], "test": [1]}
    for found in parts.parts.values():
        classes = [Path(found.images.name(number)).parent.name for number in range(len(found.images))]
        assert [parts.classes[label] for label in found.labels.tolist()] == classes
    assert parts.remarks == (f"{tmp_path / 'val'} has no image of b", f"{tmp_path / 'test'} has no image of a, c")
    tree = numbered_as(read_tree(tmp_path / "val"), parts.classes)
    assert (tree.classes, tree.labels, tree.empty) == (("a", "b", "c"), [0, 2, 2], ["b"])


def test_many_names_are_cut_short(tmp_path: Path):
    pngs(tmp_path / "train", a=1, b=1)
    write(tmp_path / "train", *(f"{number}.png" for number in range(8)))
    (remark,) = parts_of(trees_in(tmp_path)).remarks
    assert remark.endswith("which are left out: 0.png, 1.png, 2.png, 3.png, 4.png and 3 more")


@pytest.mark.parametrize(
    ("train", "val", "says"),
    [
        ({"a": 1}, {}, "{root}/train has one class, a; a classifier needs two folders of classes or more"),
        ({"a": 1, "b": 0, "c": 0}, {}, "{root}/train has classes without an image: b, c; put images there, or remove them"),
        ({"a": 1, "b": 1}, {"b": 1, "x": 0, "y": 1}, "{root}/val has classes that {root}/train has not: x, y; give both the same folders"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, train: dict[str, int], val: dict[str, int], says: str):
    pngs(tmp_path / "train", **train)
    if val:
        pngs(tmp_path / "val", **val)
    with pytest.raises(ValueError, match=r".") as caught:
        parts_of(trees_in(tmp_path))
    assert str(caught.value) == says.format(root=tmp_path)
