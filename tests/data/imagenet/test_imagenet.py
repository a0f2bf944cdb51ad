"""ImageNet in each of its layouts: the same images under the same labels, and one line for every mistake."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from tests.data.miniature import LAYOUTS, Miniature, image_file, write_labels, write_miniature
from torchvision.models import ResNet18_Weights

from reslight.data.image_folder.folder import Folder
from reslight.data.image_folder.splits import ImageSet
from reslight.data.imagenet.imagenet import ImageNet
from reslight.data.imagenet.synsets import known_synsets, names_of
from reslight.data.loading.encoded import EncodedSplit
from reslight.messages import UsageError
from reslight.preprocess import Preprocess

TINY = Preprocess(size=24, resize=28, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
LABELS = (
    *("tench", "sea lion", "English springer", "Shetland sheepdog", "cassette player"),
    *("chain saw", "church", "French horn", "garbage truck", "parachute"),
)
VAL = {
    "ILSVRC2012_val_00000293.JPEG": "French horn",
    "ILSVRC2012_val_00000294.JPEG": "church",
    "ILSVRC2012_val_00000295.JPEG": "sea lion",
    "ILSVRC2012_val_00000296.JPEG": "Shetland sheepdog",
    "ILSVRC2012_val_00000297.JPEG": "English springer",
    "ILSVRC2012_val_00000298.JPEG": "cassette player",
    "ILSVRC2012_val_00000299.JPEG": "tench",
    "ILSVRC2012_val_00000300.JPEG": "parachute",
    "ILSVRC2012_val_00000301.JPEG": "chain saw",
    "ILSVRC2012_val_00000302.JPEG": "garbage truck",
}
"""The validation images of a miniature with one for each class."""


def data(root: Path, **settings: object) -> ImageNet:
    return ImageNet(str(root), **{"preprocess": TINY, "val_size": 0, "threads": 2, **settings})


def loaded(root: Path, part: str, **settings: object) -> EncodedSplit:
    made = data(root, **settings)
    made.setup("test" if part == "test" else "fit")
    split = made.splits[part]
    assert isinstance(split, EncodedSplit)
    return split


def named(split: EncodedSplit) -> dict[str, str]:
    """The label name of each image by its file name."""
    numbers = zip(split.numbers.tolist(), split.labels.tolist(), strict=True)
    return {Path(split.images.name(number)).name: LABELS[label] for number, label in numbers}


def fingerprint(images: Mapping[str, str]) -> str:
    """Compute the fingerprint of sorted images by hand: the classes, then the class, name and size of each image."""
    lines = [
        "\0".join(sorted(set(images.values()))),
        *(f"{synset}/{name}\0{len(image_file(name, synset))}" for name, synset in images.items()),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def refusal(root: Path) -> str:
    with pytest.raises((UsageError, OSError), match=r".") as raised:
        data(root)
    text = str(raised.value)
    assert "\n" not in text
    return text


# names


def test_classes_are_those_of_timm_and_torchvision():
    synsets = files("timm").joinpath("data", "_info", "imagenet_synsets.txt").read_text().split()
    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert list(known_synsets().items()) == list(zip(synsets, names, strict=True))
    assert synsets == sorted(synsets)
    assert len(set(names)) == 1000


def test_names_of_classes(tmp_path):
    assert names_of(["n02012849", "n03126707", "n01440764"]) == ("crane bird", "crane", "tench")
    assert names_of(["n99999999", "my cat", "n01440764"]) == ("n99999999", "my cat", "tench")
    (tmp_path / "synset_words.txt").write_text("n99999999 cat, house cat\nn99999998 cat\nn99999997 tench\nn01440764 carp\nrubbish\n\n")
    synsets = ["n01440764", "n99999996", "n99999997", "n99999998", "n99999999"]
    expected = ("tench", "n99999996", "tench (n99999997)", "cat (n99999998)", "cat (n99999999)")
    assert names_of(synsets, tmp_path) == expected
    (tmp_path / "LOC_synset_mapping.txt").write_text("n99999999 dog, hound\n")
    assert names_of(["n99999999"], tmp_path) == ("dog",)


# layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_and_labels(layout, tmp_path):
    made = write_miniature(tmp_path, train=2, val=1, layout=layout)
    assert data(tmp_path).labels == LABELS
    test = loaded(tmp_path, "test")
    assert named(test) == VAL
    for number, (name, synset) in enumerate(made.val.items()):
        assert test.images.read(number) == image_file(name, synset)
    train = loaded(tmp_path, "train")
    assert named(train) == {name: LABELS[sorted(set(made.train.values())).index(synset)] for name, synset in made.train.items()}
    assert (len(train), len(test)) == (20, 10)
    assert train.fingerprint == fingerprint(made.train)
    assert test.fingerprint == fingerprint(made.val)


@pytest.mark.parametrize(
    ("layout", "file", "places"),
    [
        ("official", "ILSVRC2012_devkit_t12/data", ("devkit", "devkit/data", "val", ".")),
        ("tensorflow", "imagenet_2012_validation_synset_labels.txt", ("val", "devkit")),
        ("caffe", "val/val.txt", (".", "devkit/data")),
        ("kaggle", "LOC_val_solution.csv", ("devkit", "ILSVRC/Data/CLS-LOC/val")),
    ],
)
def test_other_folders_of_label_files(layout, file, places, tmp_path):
    write_miniature(tmp_path, train=1, val=1, layout=layout)
    moved = [path for path in ((tmp_path / file).iterdir() if (tmp_path / file).is_dir() else [tmp_path / file])]
    for place in places:
        (tmp_path / place).mkdir(exist_ok=True, parents=True)
        moved = [path.rename(tmp_path / place / path.name) for path in moved]
        assert named(loaded(tmp_path, "test")) == VAL


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("my_labels.txt", "{synset}"),
        ("my_labels.txt", "{name} {synset}"),
        ("val.txt", "{stem}\t{synset}"),
        ("val.txt", "some/folder/{name} {number}"),
        ("val.txt", "{name} {place}"),
        ("val.txt", "\N{BOM}{synset}\r\n"),
    ],
)
def test_other_forms_of_label_files(name, line, tmp_path):
    """Numbers are official ones, or number the training folders if they cover all of them."""
    made = write_miniature(tmp_path, train=1, val=1, layout="caffe")
    (tmp_path / "val" / "val.txt").unlink()
    (tmp_path / "synsets.txt").write_text("\n".join(known_synsets()))  # not a label file
    official, own = list(known_synsets()), sorted(set(made.train.values()))
    lines = [
        line.format(name=image, stem=image[:-5], synset=synset, number=official.index(synset), place=own.index(synset)).strip("\r\n")
        for image, synset in made.val.items()
    ]
    bom = lines[0].startswith("\N{BOM}")
    end = "\r\n" if bom else "\n"
    (tmp_path / name).write_bytes((end.join(text.lstrip("\N{BOM}") for text in lines) + end).encode("utf-8-sig" if bom else "utf-8"))
    assert named(loaded(tmp_path, "test")) == VAL


def test_the_first_classes_by_number(tmp_path):
    """Official numbers and those of the folders are the same."""
    for synset in list(known_synsets())[:3]:
        for part in ("train", "val") if synset == "n01440764" else ("train",):
            (tmp_path / part / synset).mkdir(parents=True)
            (tmp_path / part / synset / f"{synset}_1.JPEG").write_bytes(image_file("a", synset))
    shutil.move(tmp_path / "val" / "n01440764" / "n01440764_1.JPEG", tmp_path / "val")
    (tmp_path / "val" / "n01440764").rmdir()
    (tmp_path / "val.txt").write_text("n01440764_1.JPEG 0\n")
    assert loaded(tmp_path, "test").labels.tolist() == [0]
    (tmp_path / "val.txt").write_text("n01440764_1.JPEG 2\n")
    assert loaded(tmp_path, "test").labels.tolist() == [2]


def test_hub_shards_are_evaluated_on_validation(tmp_path, monkeypatch):
    write_miniature(tmp_path, train=1, val=1, layout="folders")
    parts = data(tmp_path)._image_set
    found = ImageSet(LABELS, {"train": parts.splits["train"], "val": parts.splits["test"], "test": parts.splits["train"]}, ("a warning",))
    monkeypatch.setattr(Folder, "find_image_set", lambda self: {"someone/imagenet": found}[self.root])
    made = ImageNet("someone/imagenet", preprocess=TINY, val_size=2)
    made.setup()
    assert {part: len(split) for part, split in made.splits.items()} == {"train": 8, "val": 2, "test": 10}
    assert made.labels == LABELS
    assert made._image_set.warnings == ("a warning",)


def test_validation_in_training_is_of_training_images(tmp_path):
    made = write_miniature(tmp_path, train=4, layout="official")
    module = data(tmp_path, val_size=10)
    module.setup()
    train, val, test = (named(module.splits[part]) for part in ("train", "val", "test"))
    assert sorted([*train, *val]) == sorted(made.train)
    assert sorted(val.values()) == sorted(LABELS)
    assert sorted(test) == sorted(made.val)
    assert not data(tmp_path).has_validation


def test_every_image_is_decoded_and_counted_once(tmp_path):
    made = write_miniature(tmp_path, train=2, val=3, layout="official")
    module = data(tmp_path, eval_batch_size=7)
    module.setup()
    seen = torch.cat([batch.indices for batch in module.test_dataloader()])
    assert seen.tolist() == list(range(30))
    for name in ("n02105855_2933.JPEG", "n02077923_14822.JPEG"):  # the PNG and the CMYK image
        train = module.splits["train"]
        at = list(made.train).index(name)
        image = next(iter(train.batches([torch.tensor([at])], 0))).images
        assert image.shape == (1, 3, 24, 24)
        assert image.float().std() > 10


def test_the_name_of_the_whole_set(tmp_path):
    root = tmp_path / "pictures"
    write_miniature(root, train=1, val=1)
    assert data(root).name == "pictures"
    for synset in known_synsets():
        (root / "train" / synset).mkdir(exist_ok=True)
        (root / "train" / synset / "1.jpg").touch()
    assert data(root).name == "imagenet"
    assert data(root).num_classes == 1000
    assert data(root).labels[517] == "crane"


def test_defaults(tmp_path):
    write_miniature(tmp_path, train=1, val=1)
    module = ImageNet(str(tmp_path), val_size=0)
    assert (module.batch_size, module.eval_batch_size, module.image_size) == (256, 500, 224)
    with pytest.raises(ValueError, match=r"^data.val_size is 10000: .* below 10"):
        ImageNet(str(tmp_path))


# mistakes


def without_labels(root: Path) -> None:
    (root / "val" / "val.txt").unlink()


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        path = root / "val" / "val.txt"
        path.write_text(path.read_text().replace(old, new, 1))

    return act


def extra_image(root: Path) -> None:
    (root / "val" / "ILSVRC2012_val_00000999.JPEG").write_bytes(b"x")


def other_text(root: Path) -> None:
    without_labels(root)
    (root / "labels.txt").write_text("n01440764\nn01440764\n")


def without_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "n03888257")


def empty_val(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()


def empty_train(root: Path) -> None:
    for path in (root / "train").rglob("*.JPEG"):
        path.unlink()


@pytest.mark.parametrize(
    ("mistake", "parts"),
    [
        (without_labels, ["ROOT/val has images that are not in folders of classes", "val.txt", "ROOT/devkit/data"]),
        (other_text, ["ROOT/val has images that are not in folders of classes", "(ROOT/labels.txt has 2 lines for 10 images)"]),
        (extra_image, ["ROOT/val/val.txt has 10 lines: ROOT/val has 11 images"]),
        (replaced("_00000294.JPEG", "_00000293.JPEG"), ["ROOT/val/val.txt has two lines for the image ILSVRC2012_val_00000293.JPEG"]),
        (
            replaced("_00000294.JPEG", "_00000094.JPEG"),
            ["ROOT/val/val.txt has a line for the image ILSVRC2012_val_00000094.JPEG", "missing in ROOT/val"],
        ),
        (replaced(" 701\n", " 700\n"), ["ROOT/val/val.txt has classes without a folder of training images: n03887697. "]),
        (without_class, ["ROOT/val/val.txt has classes without a folder of training images: n03888257. "]),
        (replaced(" 701\n", " 1000\n"), ["ROOT/val/val.txt has the class number 1000: it must be 0 to 999"]),
        (replaced(" 701\n", " n1\n"), ["line LINE of ROOT/val/val.txt is 'NAME n1': it must be an image and the number of its class"]),
        (empty_val, ["ROOT/val has no images"]),
        (empty_train, ["ROOT/train has no images in folders of classes"]),
    ],
)
def test_each_mistake_has_its_line(mistake, parts, tmp_path):
    made = write_miniature(tmp_path, train=1, val=1, layout="caffe")
    at, image = next((at, name) for at, (name, synset) in enumerate(made.val.items(), 1) if synset == "n03888257")
    mistake(tmp_path)
    text = refusal(tmp_path).replace(str(tmp_path), "ROOT")
    assert text.startswith(parts[0].replace("LINE", str(at)).replace("NAME", image))
    assert all(part in text for part in parts[1:])


def test_a_label_file_of_unknown_form(tmp_path):
    write_miniature(tmp_path, train=1, val=1, layout="caffe")
    (tmp_path / "val" / "val.txt").write_text("tench\n")
    text = refusal(tmp_path)
    assert text.startswith(f"line 1 of {tmp_path}/val/val.txt is 'tench': ")
    assert all(form in text for form in ("the devkit's number of a class", "a synset", "an image and its synset"))


def test_mistakes_with_the_devkit(tmp_path):
    write_miniature(tmp_path, train=1, val=1, layout="official")
    file, meta = (tmp_path / "ILSVRC2012_devkit_t12" / "data" / name for name in ("ILSVRC2012_validation_ground_truth.txt", "meta.mat"))
    file.write_text(file.read_text().replace("449\n", "1002\n"))
    assert refusal(tmp_path).startswith(f"{file} has the class number 1002: meta.mat")
    for content in (b"", b"no table", scipy_file({"other": 1}), scipy_file({"synsets": np.arange(3)}), meta.read_bytes()[:20000]):
        meta.write_bytes(content)
        assert refusal(tmp_path).startswith(f"{meta} cannot be read: ")
    meta.unlink()
    text = refusal(tmp_path)
    assert text.startswith(f"{file} has the devkit's class numbers: meta.mat")
    assert "missing" in text


def scipy_file(content: dict[str, object]) -> bytes:
    scipy.io.savemat("made.mat", content)
    return Path("made.mat").read_bytes()


def test_archives_that_are_not_unpacked(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    assert f"{tmp_path} has no images in folders of classes. " in refusal(tmp_path)
    (tmp_path / "ILSVRC2012_img_train.tar").touch()
    for _ in range(2):
        text = refusal(tmp_path)
        assert text.startswith(f"data.root is {tmp_path}: it has no images to train with. Unpack its archive: in {tmp_path}, ")
        assert "mkdir -p train && tar -xf ILSVRC2012_img_train.tar -C train" in text
        (tmp_path / "train").mkdir(exist_ok=True)
    (tmp_path / "train" / "n01440764.tar").touch()
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path / 'train'} has archives that are not unpacked: n01440764.tar. ")
    assert 'for f in n*.tar; do mkdir -p "${f%.tar}" && tar -xf "$f" -C "${f%.tar}"; done' in text
    write_miniature(tmp_path, train=1, val=1)  # archives beside the unpacked folders are allowed
    assert len(loaded(tmp_path, "train")) == 10
    (tmp_path / "train" / "n01443537.tar").touch()
    (tmp_path / "train" / "n01484850.tar").touch()
    assert "not unpacked: n01443537.tar and 1 more. " in refusal(tmp_path)


def test_without_validation_images(tmp_path):
    write_miniature(tmp_path, train=2)
    shutil.rmtree(tmp_path / "val")
    module = data(tmp_path, val_size=10)
    module.setup("fit")
    assert (len(module.splits["train"]), len(module.splits["val"])) == (10, 10)
    with pytest.raises(ValueError, match=f"^data.root is {tmp_path}: it has no validation images, .*val"):
        module.setup("test")
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    with pytest.raises(ValueError, match=f"Unpack its archive: in {tmp_path}, mkdir -p val && tar -xf ILSVRC2012_img_val.tar -C val$"):
        module.setup("test")


def test_a_missing_folder(tmp_path):
    assert refusal(tmp_path / "none").startswith(f"data.root is {tmp_path / 'none'}: there is no such folder. Set it to")


# the miniature itself


def test_the_odd_images(tmp_path):
    write_miniature(tmp_path, train=1, val=1)
    with Image.open(tmp_path / "train" / "n02105855" / "n02105855_2933.JPEG") as image:
        assert image.format == "PNG"
    with Image.open(tmp_path / "train" / "n02077923" / "n02077923_14822.JPEG") as image:
        assert (image.format, image.mode) == ("JPEG", "CMYK")


def test_there_is_something_to_learn(tmp_path):
    """A nearest-mean classifier on the mean and the std of the colors is right for most images."""

    def features(root: Path, names: Miniature, part: str) -> tuple[np.ndarray, np.ndarray]:
        rows, labels = [], []
        for name, synset in getattr(names, part).items():
            with Image.open(root / part / synset / name) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=np.float64).reshape(-1, 3)
            rows.append([*pixels.mean(0), *pixels.std(0)])
            labels.append(synset)
        return np.array(rows), np.array(labels)

    made = write_miniature(tmp_path, train=8, val=5)
    train, train_labels = features(tmp_path, made, "train")
    val, val_labels = features(tmp_path, made, "val")
    classes = np.unique(train_labels)
    means = np.stack([train[train_labels == name].mean(0) for name in classes])
    guesses = classes[np.linalg.norm(val[:, None] - means, axis=2).argmin(1)]
    assert (guesses == val_labels).mean() > 0.9


def test_label_files_are_written_alone(tmp_path):
    made = write_miniature(tmp_path, train=1, val=1, layout="caffe")
    before = (tmp_path / "val" / "val.txt").read_text()
    (tmp_path / "val" / "val.txt").unlink()
    write_labels(made, "caffe")
    assert (tmp_path / "val" / "val.txt").read_text() == before
