"""Datasets of the Hugging Face library, in memory, saved and as parquet with paths, against the class folders that they were made of."""

import json
import pickle
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from reslight.data import Folder
from reslight.data.check.check import Summary, check
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.image_folder.memory_dataset import image_set_in_memory
from reslight.data.image_folder.saved_dataset import image_set_saved
from reslight.data.image_folder.splits import ImageSet, LabelledImages
from reslight.data.loading.encoded import EncodedSplit

datasets = pytest.importorskip("datasets")
CLASSES = {"train": {"cat": 5, "dog": 4}, "test": {"dog": 2}}


def png(number: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (6 + number % 3, 7, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders of two splits."""
    number = 0
    for split, classes in CLASSES.items():
        for name, count in classes.items():
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for place in range(count):
                (tmp_path / "set" / split / name / f"{place}.png").write_bytes(png(number := number + 1))
    return tmp_path / "set"


@pytest.fixture
def loaded(root: Path) -> Any:
    """What `load_dataset("imagefolder")` makes of them: rows with paths, without its slow search for files."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {split: sorted((root / split).rglob("*.png"), reverse=True) for split in CLASSES}
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {"image": [str(path) for path in paths], "label": [path.parent.name for path in paths]}, features=features
            )
            for split, paths in rows.items()
        }
    )


def same(one: LabelledImages, other: LabelledImages) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.labels.tolist() == other.labels.tolist()
    assert one.content == other.content
    assert [one.images.read(n) for n in range(len(one.images))] == [other.images.read(n) for n in range(len(other.images))]


def all_same(found: ImageSet, expected: ImageSet) -> None:
    assert found.classes == expected.classes
    assert found.splits.keys() == expected.splits.keys()
    for split in found.splits:
        same(found.splits[split], expected.splits[split])


def test_a_dataset_in_memory(root: Path, loaded: Any):
    data = Folder(loaded, val_size=3)
    all_same(data.find_image_set(), find_image_set(str(root)))
    folders = Folder(str(root), val_size=3)
    for one in (data, folders):
        one.setup("fit")
    assert {name: split.fingerprint for name, split in data.splits.items()} == {
        name: split.fingerprint for name, split in folders.splits.items()
    }
    batch, expected = (next(iter(one.val_dataloader())) for one in (data, folders))
    assert batch.images.equal(expected.images)
    train = data.splits["train"]
    assert isinstance(train, EncodedSplit)
    assert train.images.name(0) == str(root / "train/cat/0.png")


@pytest.mark.parametrize("change", ["shuffled", "selected", "transformed"])
def test_a_dataset_that_was_changed(root: Path, loaded: Any, change: str):
    """Rows count, not their order, nor how they would be shown."""
    train = loaded["train"]
    changed = {
        "shuffled": lambda: train.shuffle(seed=1),
        "selected": lambda: datasets.concatenate_datasets([train.select(range(4)), train.select([8, 4, 6, 5, 7])]),
        "transformed": lambda: train.with_transform(lambda rows: {"image": [1] * len(rows["image"])}),
    }[change]()
    same(image_set_in_memory(changed).splits["train"], find_image_set(str(root)).splits["train"])


COLUMNS: dict[str, Callable[[], Any]] = {
    "pictures": lambda: [Image.open(BytesIO(png(number))) for number in range(4)],
    "bytes": lambda: [png(number) for number in range(4)],
    "structs": lambda: [{"bytes": png(number), "path": f"{number}.png"} for number in range(4)],
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_any_kind_with_labels_that_are_texts(kind: str):
    dataset = datasets.Dataset.from_dict({"image": COLUMNS[kind](), "label": ["b", "a", "b", "c"]})
    found = image_set_in_memory(dataset)
    images = found.splits["train"]
    assert found.classes == ("a", "b", "c")
    order = [1, 0, 2, 3] if kind == "structs" else [0, 1, 2, 3]  # of named images it is that of class folders
    assert images.labels.tolist() == [[1, 0, 1, 2][number] for number in order]
    for place, number in enumerate(order):
        pixels = [np.asarray(Image.open(BytesIO(data))) for data in (images.images.read(place), png(number))]
        assert (pixels[0] == pixels[1]).all()


def test_a_dataset_with_several_labels():
    dataset = datasets.Dataset.from_dict({"image": [png(number) for number in range(3)], "labels": [["b", "a"], [], ["b"]]})
    found = image_set_in_memory(dataset)
    assert found.multi_label
    assert found.classes == ("a", "b")
    assert found.splits["train"].labels.tolist() == [[1, 1], [0, 0], [0, 1]]


OTHERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "streamed": (lambda loaded: loaded["train"].to_iterable_dataset(), "is a streamed dataset: .* Load it without streaming=True"),
    "another object": (lambda loaded: [1, 2], r"data\.root is \[1, 2\]: it must be a folder, OWNER/DATASET, or a Dataset or DatasetDict"),
    "no images": (lambda loaded: loaded["train"].remove_columns("image"), r"data\.root has the columns label: .* img or image"),
    "fractions": (
        lambda loaded: datasets.Dataset.from_dict({"image": [b"a"], "label": [0.5]}),
        "has double in the column label: labels must be whole numbers or texts",
    ),
    "unknown class": (
        lambda loaded: datasets.DatasetDict(
            train=datasets.Dataset.from_dict({"image": [b"a", b"b"], "label": ["a", "b"]}),
            test=datasets.Dataset.from_dict({"image": [b"a"], "label": ["c"]}),
        ),
        "has classes in test that are missing in train: c",
    ),
    "names in another order": (
        lambda loaded: loaded | {"test": loaded["test"].cast_column("label", datasets.ClassLabel(names=["dog", "cat"]))},
        "has other classes in test, or another order, dog, cat instead of cat, dog: all splits must have the same",
    ),
    "no training": (lambda loaded: {"test": loaded["test"]}, "has images of test, but none of train"),
    "other splits": (lambda loaded: {"all": loaded["test"]}, "has the splits all: one of them must be train"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_dataset_is_one_line(loaded: Any, name: str):
    make, says = OTHERS[name]
    with pytest.raises(ValueError, match=says) as caught:
        Folder(make(loaded))
    assert "\n" not in str(caught.value)


def test_a_label_file_beside_a_dataset_is_refused(loaded: Any):
    with pytest.raises(ValueError, match=r"data\.labels is l\.csv: data\.root must be a folder then, not a dataset in memory"):
        Folder(loaded, labels="l.csv")


@pytest.mark.parametrize("shards", [1, 3])
def test_a_saved_dataset(root: Path, loaded: Any, tmp_path: Path, shards: int):
    loaded.save_to_disk(tmp_path / "saved", num_shards={"train": shards, "test": 1})
    found = image_set_saved(tmp_path / "saved")
    all_same(found, find_image_set(str(root)))
    images = found.splits["train"].images
    sent = pickle.dumps(images)
    assert len(sent) < 2000, "paths, not images"
    assert pickle.loads(sent).read(5) == images.read(5)
    assert find_image_set(str(tmp_path / "saved")).classes == ("cat", "dog")
    summary = Summary()
    assert list(check(str(tmp_path / "saved"), summary=summary)) == []
    assert summary.splits == {"train": 9, "test": 2}


def test_one_saved_dataset_without_the_library(root: Path, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded["train"].save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    same(find_image_set(str(tmp_path / "saved")).splits["train"], find_image_set(str(root)).splits["train"])


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a cut file": (
        lambda folder: (folder / "train/data-00000-of-00001.arrow").write_bytes(b"\xff\xff\xff\xff\0"),
        "data-00000-of-00001.arrow is damaged or cut short",
    ),
    "a missing file": (
        lambda folder: (folder / "train/data-00000-of-00001.arrow").unlink(),
        "saved/train is incomplete: data-00000-of-00001.arrow is missing",
    ),
    "no state": (lambda folder: (folder / "train/state.json").unlink(), "saved/train is incomplete: state.json is missing"),
    "no JSON": (lambda folder: (folder / "train/state.json").write_text("{"), "state.json is damaged"),
    "a file elsewhere": (
        lambda folder: change_json(folder / "train/state.json", _data_files=[{"filename": "../../x.arrow"}]),
        "state.json is damaged: it must list names in its folder",
    ),
    "a folder elsewhere": (lambda folder: change_json(folder / "dataset_dict.json", splits=["../train"]), "dataset_dict.json is damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_folder_is_one_line(loaded: Any, tmp_path: Path, name: str):
    loaded.save_to_disk(tmp_path / "saved")
    spoil, says = BROKEN[name]
    spoil(tmp_path / "saved")
    with pytest.raises(ValueError, match=says) as caught:
        find_image_set(str(tmp_path / "saved"))
    assert "\n" not in str(caught.value)


def test_offsets_that_point_elsewhere_are_found(tmp_path: Path):
    """A file whose offsets were altered would be read beyond its end."""
    dataset = datasets.Dataset.from_dict({"image": [png(0), png(1)], "label": ["a", "b"]})
    dataset.save_to_disk(tmp_path / "saved")
    file = tmp_path / "saved/data-00000-of-00001.arrow"
    sound, offsets = file.read_bytes(), np.array([0, len(png(0)), len(png(0)) + len(png(1))], "<i4").tobytes()
    assert sound.count(offsets) == 1
    file.write_bytes(sound.replace(offsets, np.array([0, 2**30, len(png(0)) + len(png(1))], "<i4").tobytes()))
    with pytest.raises(ValueError, match="is damaged or cut short"):
        find_image_set(str(tmp_path / "saved"))


def test_parquet_with_paths(root: Path, loaded: Any, tmp_path: Path):
    """Absolute paths, as `to_parquet` writes them, into the folder of the pictures or below it; and relative ones."""
    expected = find_image_set(str(root))
    shutil.copytree(root, tmp_path / "pictures")
    for split, one in loaded.items():
        one.to_parquet(root / "data" / f"{split}.parquet")
        rows = one.cast_column("image", datasets.Image(decode=False))
        paths = [str(Path(row["path"]).relative_to(root)) for row in rows["image"]]
        parquet.write_table(arrow.table({"image": paths, "label": one["label"]}), tmp_path / f"pictures/{split}.parquet")
    all_same(find_image_set(str(root)), expected)
    for split in CLASSES:  # without the names of the classes
        found = find_image_set(str(tmp_path / "pictures"))
        assert found.classes == ("0", "1")
        assert found.splits[split].labels.tolist() == expected.splits[split].labels.tolist()


def test_paths_in_parquet_that_lead_elsewhere(root: Path, loaded: Any, tmp_path: Path):
    """The rule is that of label files: an image below data.root."""
    (tmp_path / "out").mkdir()
    for folder in (tmp_path / "out", root):
        loaded["train"].to_parquet(folder / "train.parquet")
    with pytest.raises(ValueError, match=r"row 0 of .*train\.parquet names .*dog/3\.png, which is outside of .*out\. Set data\.root"):
        find_image_set(str(tmp_path / "out"))
    (problem,) = check(str(tmp_path / "out"))
    assert problem.kind == "labels"
    assert problem.text.endswith("None of the other 8 rows fits, either.")
    (root / "train/dog/3.png").unlink()
    with pytest.raises(ValueError, match=r"row 0 of .*names .*dog/3\.png: there is no such image in .*/set\. There is") as caught:
        find_image_set(str(root))
    assert "\n" not in str(caught.value)


def test_test_images_alone(root: Path, loaded: Any, tmp_path: Path):
    """What `reslight test --data.root OTHER` reads: no training images, and one class."""
    loaded["test"].save_to_disk(tmp_path / "saved/test")
    (tmp_path / "saved/dataset_dict.json").write_text('{"splits": ["test"]}')
    rows = [row["image"] for row in loaded["test"].cast_column("image", datasets.Image(decode=False))]
    cells = [{"bytes": Path(row["path"]).read_bytes(), "path": row["path"]} for row in rows]
    (tmp_path / "shards").mkdir()
    parquet.write_table(arrow.table({"image": cells, "label": [1, 1]}), tmp_path / "shards/test.parquet")
    expected = find_image_set(str(root)).splits["test"]
    found = find_image_set(str(tmp_path / "saved"), partial=True)
    assert found.classes == ("cat", "dog")
    same(found.splits["test"], expected)
    shards = find_image_set(str(tmp_path / "shards"), partial=True)
    assert shards.classes == ("0", "1")
    assert shards.splits["test"].content == expected.content
    texts = datasets.DatasetDict(test=datasets.Dataset.from_dict({"image": [png(1), png(2)], "label": ["b", "b"]}))
    texts.save_to_disk(tmp_path / "texts")
    assert find_image_set(str(tmp_path / "texts"), partial=True).classes == ("b",)
    with pytest.raises(ValueError, match="has images of test, but none of train"):
        find_image_set(str(tmp_path / "saved"))
