"""The splits of a folder of images: which folders they are, how their classes are numbered, and mistakes."""

from pathlib import Path
from unicodedata import normalize

import pytest
from tests.data.image_folder.test_class_tree import write

from reslight.data.image_folder.splits import find_class_trees, image_set_of
from reslight.messages import UsageError


def pngs(folder: Path, **classes: int) -> Path:
    """Write files with the names of images; no test here opens one."""
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
def test_which_folder_is_which_split(tmp_path: Path, folders: list[str], expected: dict[str, str]):
    for folder in folders:
        pngs(tmp_path / "set" / folder, a=1, b=1)
    trees = find_class_trees(tmp_path / "set")
    assert {split: tree.root for split, tree in trees.items()} == {split: tmp_path / "set" / name for split, name in expected.items()}


@pytest.mark.parametrize(
    ("folders", "says"),
    [([], "{root} has no images in folders of classes"), (["val", "test"], "data.root is {root}: it has val and test, but no train")],
)
def test_folders_that_cannot_be_trained_on(tmp_path: Path, folders: list[str], says: str):
    (root := tmp_path / "set").mkdir()
    for folder in folders:
        pngs(root / folder, a=1, b=1)
    with pytest.raises(UsageError) as caught:
        find_class_trees(root)
    assert str(caught.value).startswith(says.format(root=root))


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "set").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"^data\.root is .*set: there is no such folder\. Set it to"):
        find_class_trees(tmp_path / "set")


def test_classes_have_the_numbers_of_training(tmp_path: Path):
    pngs(tmp_path / "train", a=1, b=2, c=1)
    pngs(tmp_path / "val", c=2, a=1)
    pngs(tmp_path / "test", b=1, c=0)
    found = image_set_of(find_class_trees(tmp_path))
    assert found.classes == ("a", "b", "c")
    assert {split: one.labels.tolist() for split, one in found.splits.items()} == {"train": [0, 1, 1, 2], "val": [0, 2, 2], "test": [1]}
    for one in found.splits.values():
        classes = [Path(one.images.name(number)).parent.name for number in range(len(one.images))]
        assert [found.classes[label] for label in one.labels.tolist()] == classes
    assert found.warnings == (f"{tmp_path / 'val'} has no images of b", f"{tmp_path / 'test'} has no images of a, c")


def test_many_names_are_cut_short(tmp_path: Path):
    pngs(tmp_path / "train", a=1, b=1)
    write(tmp_path / "train", *(f"{number}.png" for number in range(8)))
    (warning,) = image_set_of(find_class_trees(tmp_path)).warnings
    assert warning.endswith("ignored: 0.png, 1.png, 2.png, 3.png, 4.png and 3 more")


@pytest.mark.parametrize(
    ("train", "val", "parts"),
    [
        ({"a": 1}, {}, ["{root}/train has one class, a:", "Add another"]),
        ({"a": 1, "b": 0, "c": 0}, {}, ["{root}/train has classes without images: b, c. ", "remove the folders"]),
        (
            {"a": 1, "b": 1},
            {"b": 1, "x": 0, "y": 1},
            ["{root}/val has classes that are missing in {root}/train: x, y. ", "remove the folders"],
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, train: dict[str, int], val: dict[str, int], parts: list[str]):
    pngs(tmp_path / "train", **train)
    if val:
        pngs(tmp_path / "val", **val)
    with pytest.raises(UsageError) as caught:
        image_set_of(find_class_trees(tmp_path))
    assert all(part.format(root=tmp_path) in str(caught.value) for part in parts)
    assert "\n" not in str(caught.value)


def test_accents_of_folders_may_be_composed_or_not(tmp_path: Path):
    """macOS may write NFD; a copy of the dataset has the same classes, labels and fingerprint."""
    for copy, forms in {"one": ("NFC", "NFC"), "two": ("NFD", "NFC"), "three": ("NFC", "NFD")}.items():
        for split, form in zip(("train", "test"), forms, strict=True):
            pngs(tmp_path / copy / split, a=1, e=1, z=1)
            pngs(tmp_path / copy / split, **{normalize(form, "é"): 2})
    sets = [image_set_of(find_class_trees(tmp_path / copy)) for copy in ("one", "two", "three")]
    for found in sets:
        assert found.classes == ("a", "e", "z", normalize("NFC", "é"))
        assert found.warnings == ()
        for split, images in found.splits.items():
            assert images.labels.tolist() == [0, 1, 2, 3, 3]
            assert images.fingerprint == sets[0].splits[split].fingerprint
            assert all(Path(images.images.name(number)).is_file() for number in range(5)), "opened by the name on disk"


def test_two_spellings_of_a_class_in_one_split(tmp_path: Path):
    for form in ("NFC", "NFD"):
        pngs(tmp_path / "set", a=1, **{normalize(form, "é"): 2})
    found = image_set_of(find_class_trees(tmp_path / "set"))
    assert found.classes == ("a", normalize("NFC", "é"))
    assert found.splits["train"].labels.tolist() == [0, 1, 1, 1, 1]
