"""Images elsewhere than those of training: classes by name, roots without training images, loose images to predict."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.data.image_folder.test_folder import PREPROCESS, fill

from reslight.data import Folder
from reslight.data.check.check import Summary, check
from reslight.data.image_folder.other_images import EvaluationFolder, Pictures
from reslight.data.image_folder.pictures import UNLABELLED, find_pictures
from reslight.data.imagenet.other_images import ImageNetEvaluation
from reslight.messages import UsageError

CLASSES = ("cat", "ant", "bee")
"""Of the network, in an order of its own."""


def evaluated(root: Path, stage: str = "test", **settings: object) -> EvaluationFolder:
    data = EvaluationFolder(str(root), CLASSES, preprocess=PREPROCESS, **settings)
    data.setup(stage)
    return data


def by_name(data: Folder, split: str) -> list[tuple[str, str]]:
    """The folder and the label of each image."""
    of_split = data.splits[split]
    paths = [Path(of_split.images.name(number)).parent.name for number in of_split.numbers.tolist()]
    return list(zip(paths, [data.labels[label] for label in of_split.labels.tolist()], strict=True))


@pytest.mark.parametrize("folder", ["test", ""])
def test_classes_are_found_by_name(tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "set" / folder, ant=2, cat=3)
    data = evaluated(tmp_path / "set", trained_on="other images")
    assert data.labels == CLASSES
    assert by_name(data, "test") == [("ant", "ant")] * 2 + [("cat", "cat")] * 3
    assert caplog.messages == [f"{tmp_path / 'set'} has no test images of 1 of the network's 3 classes: bee"]
    assert data.data_info()["root"] == str(tmp_path / "set")


def test_a_label_file_of_test_images_alone(tmp_path: Path):
    fill(tmp_path / "set", x=3)
    (tmp_path / "set" / "labels.csv").write_text("file,label,split\nx/00.png,bee,test\nx/01.png,cat,test\nx/02.png,bee,test\n")
    data = evaluated(tmp_path / "set", labels="labels.csv")
    assert sorted(data.splits["test"].labels.tolist()) == [0, 2, 2]


def test_several_labels_of_an_image(tmp_path: Path):
    fill(tmp_path / "set", x=2)
    (tmp_path / "set" / "labels.jsonl").write_text(
        '{"file": "x/00.png", "label": ["bee", "cat"], "split": "test"}\n{"file": "x/01.png", "label": [], "split": "test"}\n'
    )
    data = evaluated(tmp_path / "set", labels="labels.jsonl")
    assert sorted(data.splits["test"].labels.tolist()) == [[0, 0, 0], [1, 0, 1]]


def test_unknown_ones_of_several_labels_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "set", x=3)
    rows = (["ant", "dog"], ["bee", "cat"], ["dog"])
    lines = [json.dumps({"file": f"x/{number:02}.png", "label": row, "split": "test"}) for number, row in enumerate(rows)]
    (tmp_path / "set" / "labels.jsonl").write_text("\n".join(lines))
    data = evaluated(tmp_path / "set", labels="labels.jsonl", on_unknown_class="skip")
    assert sorted(data.splits["test"].labels.tolist()) == [[0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert caplog.messages == [f"{tmp_path / 'set'} has 2 of 3 test images of 1 class that the network does not know: dog"]


def test_unknown_classes_are_refused_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "set" / "test", ant=1, dog=2, bee=1, cat=1)
    with pytest.raises(UsageError, match=r"^data\.root is .*set: it has 1 class that the network does not know: dog\. Remove"):
        evaluated(tmp_path / "set")
    data = evaluated(tmp_path / "set", on_unknown_class="skip")
    assert by_name(data, "test") == [("ant", "ant"), ("bee", "bee"), ("cat", "cat")]
    assert caplog.messages == [f"{tmp_path / 'set'} has 2 of 5 test images of 1 class that the network does not know: dog"]
    fill(tmp_path / "other" / "test", dog=2, eel=1)
    for choice in ("raise", "skip"):
        with pytest.raises(UsageError, match=r"other: its classes are dog, eel, and the network knows cat, ant, bee\. "):
            evaluated(tmp_path / "other", on_unknown_class=choice)


def test_a_test_class_that_training_lacks_can_be_skipped(tmp_path: Path):
    fill(tmp_path / "set" / "train", ant=3, bee=3)
    fill(tmp_path / "set" / "test", ant=1, dog=1)
    with pytest.raises(UsageError, match="dog"):
        Folder(str(tmp_path / "set"), PREPROCESS)
    data = Folder(str(tmp_path / "set"), PREPROCESS, on_unknown_class="skip")
    data.setup("test")
    assert (data.labels, by_name(data, "test")) == (("ant", "bee"), [("ant", "ant")])


@pytest.mark.parametrize(("folder", "stage"), [("test", "validate"), ("val", "test")])
def test_no_images_of_the_stage(tmp_path: Path, folder: str, stage: str):
    fill(tmp_path / "set" / folder, ant=1, bee=1)
    with pytest.raises(UsageError, match=r"^data\.root is .*set: it has no (validation|test) images\. Add the folder"):
        evaluated(tmp_path / "set", stage)


def test_a_copy_of_the_training_images_is_split_as_in_training(tmp_path: Path):
    for name in ("set", "copy"):
        fill(tmp_path / name, ant=8, bee=8, cat=8)
    trained = Folder(str(tmp_path / "set"), PREPROCESS, val_size=0.25)
    trained.setup("fit")
    content = trained.data_info()["splits"]["train"]["content"]
    copy = evaluated(tmp_path / "copy", "validate", trained_on=content, val_size=0.25)
    paths = [sorted(Path(one.images.name(n)).name for n in one.numbers.tolist()) for one in (trained.splits["val"], copy.splits["val"])]
    assert paths[0] == paths[1]
    with pytest.raises(UsageError, match="copy: it has no test images"):
        evaluated(tmp_path / "copy", trained_on=content, val_size=0.25)
    fill(tmp_path / "more", ant=9, bee=8, cat=8)
    for stage, split in (("test", "test"), ("validate", "val")):
        assert len(evaluated(tmp_path / "more", stage, trained_on=content, val_size=500, fold="1/3").splits[split]) == 25


def test_synsets(tmp_path: Path):
    fill(tmp_path / "set" / "val", n01443537=2, n01440764=1)
    names = ("goldfish", "great white shark", "tench")
    data = ImageNetEvaluation(str(tmp_path / "set"), names, preprocess=PREPROCESS)
    data.setup("test")
    assert [data.labels[label] for label in data.splits["test"].labels.tolist()] == ["tench", "goldfish", "goldfish"]


def test_pictures_at_any_depth_and_files(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "p", **{"b/ant/x": 1, "a": 1, ".": 1})
    (tmp_path / "p" / "notes.txt").write_text("no image")
    (tmp_path / "p" / "a" / "broken.png").write_bytes(b"no image")
    (tmp_path / "one").write_bytes((tmp_path / "p" / "00.png").read_bytes())  # a file needs no extension
    with caplog.at_level(logging.INFO):
        data = Pictures([tmp_path / "p", tmp_path / "one"], CLASSES, preprocess=PREPROCESS)
    assert caplog.messages == ["left out: 1 file without an image extension"]
    data.setup("predict")
    batches = list(data.predict_dataloader())
    paths = [data.path_of(number) for batch in batches for number in batch.indices.tolist()]
    assert paths == [tmp_path / name for name in ("p/00.png", "p/a/00.png", "p/b/ant/x/00.png", "one")]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [UNLABELLED, UNLABELLED, 1, UNLABELLED]
    assert caplog.messages[1].startswith(f"skipped: {tmp_path / 'p/a/broken.png'} is not an image")


@pytest.mark.parametrize(
    ("make", "says"),
    [(lambda _: None, r"p is missing\. Give image files"), (Path.mkdir, r"p has no images\. Give image files, or folders of images\.")],
)
def test_no_pictures(tmp_path: Path, make: Callable[[Path], object], says: str):
    make(tmp_path / "p")
    with pytest.raises((UsageError, FileNotFoundError), match=says):
        find_pictures([tmp_path / "p"])


@pytest.mark.parametrize("nested", ["", "batch 1"])
def test_test_images_without_labels_are_only_predicted(tmp_path: Path, nested: str, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "set" / "train", ant=4, bee=4)
    fill(tmp_path / "set" / "test", **{nested or ".": 3})
    data = Folder(str(tmp_path / "set"), PREPROCESS)
    data.setup("fit")
    assert not data.has_test
    assert caplog.messages == [f"{tmp_path / 'set'} has 3 images without labels in test, which only `reslight predict` uses"]
    with pytest.raises(UsageError, match=r"its test images have no labels\. Use `reslight validate` or `reslight predict`"):
        data.setup("test")
    data.setup("predict")
    assert [data.path_of(number) for number in range(3)] == [tmp_path / "set" / "test" / nested / f"{n:02}.png" for n in range(3)]


def test_images_without_a_row_in_the_folder_test_are_predicted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "set", train=4, test=2, rest=1)
    rows = "".join(f"train/{number:02}.png,{'ab'[number % 2]}\n" for number in range(4))
    (tmp_path / "set" / "train.csv").write_text(f"id,label\n{rows}")
    data = Folder(str(tmp_path / "set"), PREPROCESS, labels="train.csv")
    data.setup("fit")
    assert [message.rpartition(", which")[0].rpartition(" has ")[2] for message in caplog.messages] == [
        f"images without a row in {tmp_path / 'set' / 'train.csv'}",
        "2 images without labels in test",
    ]
    data.setup("predict")
    assert len(data.splits["predict"]) == 2


def test_a_label_file_in_the_root_may_be_relative_to_the_folder_train(tmp_path: Path):
    fill(tmp_path / "set", train=4, test=2)
    (tmp_path / "set" / "train.csv").write_text("id,label\n00,a\n01,b\n02,a\n03,b\n")
    data = Folder(str(tmp_path / "set"), PREPROCESS, labels="train.csv", val_size=0)
    data.setup("fit")
    assert len(data.splits["train"]) == 4
    data.setup("predict")
    assert len(data.splits["predict"]) == 2


@pytest.mark.parametrize("labels", [None, "train.csv"])
def test_test_images_without_labels_are_no_problem(tmp_path: Path, labels: str | None):
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / "set" / "train" / name / "1.png")
    (tmp_path / "set" / "test").mkdir()
    Image.new("RGB", (9, 9), (0, 200, 0)).save(tmp_path / "set" / "test" / "1.png")
    (tmp_path / "set" / "test" / "2.png").write_bytes(b"")
    if labels:
        (tmp_path / "set" / labels).write_text("id,label\ntrain/ant/1.png,ant\ntrain/bee/1.png,bee\n")
        labels = str(tmp_path / "set" / labels)
    summary = Summary()
    problems = list(check(str(tmp_path / "set"), 1, summary, labels=labels))
    assert [(problem.kind, Path(problem.path).name) for problem in problems] == [("empty", "2.png")]
    assert summary.splits == {"train": 2, "test": 2}
    assert summary.per_class == {"train": {"ant": 1, "bee": 1}}


def test_images_that_pillow_does_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = fill(tmp_path / "set", ant=2, bee=2)
    (root / "ant" / "IMG_1.HEIC").write_bytes(b"no JPEG")
    Folder(str(root), PREPROCESS, val_size=0).setup("fit")
    assert caplog.messages == [f"{root} has 1 image in formats that Pillow does not read: IMG_1.HEIC. Convert them to JPEG"]
    problem = next(check(str(root), 1))
    assert problem.text == "has a format that Pillow does not read, and is ignored. Convert it to JPEG."
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(UsageError, match=r"set has 1 image in formats that Pillow does not read: IMG_1\.HEIC\. Convert them to JPEG\.$"):
        Folder(str(root), PREPROCESS)


def test_a_table_beside_the_images_may_have_the_labels(tmp_path: Path):
    root = fill(tmp_path / "set", scans=2)
    (root / "labels.csv").write_text("file,label\nscans/00.png,a\nscans/01.png,b\n")
    with pytest.raises(UsageError, match=r"has one class, scans: .* or set data\.labels, such as to labels\.csv\.$"):
        Folder(str(root), PREPROCESS)
    problem = next(check(str(root), 1))
    assert problem.text.startswith(f"is no image and is ignored. If it has the labels, give --labels {root / 'labels.csv'}")
