"""What pages take for granted: folders of pictures, runs, a Hub."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.miniature import write_miniature

CLASSES = ("cat", "dog", "horse")


def photos(request: pytest.FixtureRequest) -> None:
    """PHOTOS: 20 photos of each class in a folder of its name."""
    for name in CLASSES:
        for number in range(20):
            _draw(Path("PHOTOS", name, f"{name} {number:02}.jpg"), name, number)


def one_photo(request: pytest.FixtureRequest) -> None:
    """photo.jpg."""
    _draw(Path("photo.jpg"), "cat", 100)


def others(request: pytest.FixtureRequest) -> None:
    """OTHER: photos of cats and dogs; ZOO: of deer, too."""
    for folder, names in {"OTHER": ("cat", "dog"), "ZOO": ("cat", "dog", "deer")}.items():
        for name in names:
            for number in range(200, 205):
                _draw(Path(folder, name, f"{number}.jpg"), name, number)


def labelled(request: pytest.FixtureRequest) -> None:
    """SCANS: photos in one folder, and labels.csv with classes, patients, and patients for the test."""
    rows = [("file_name", "label", "split", "patient_id")]
    for name in ("healthy", "ill"):
        for number in range(15):
            patient = f"{name[0]}{number // 3}"
            rows.append((f"{name[0]} {number:02}.png", name, "test" if number >= 12 else "train", patient))
            _draw(Path("SCANS", rows[-1][0]), name, number)
    with Path("SCANS/labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def pairs(request: pytest.FixtureRequest) -> None:
    """PAIRS: photos of one or two animals, named in metadata.csv with `|` between."""
    rows = [("file_name", "labels", "split")]
    for number in range(45):
        left, right = CLASSES[number % 3], CLASSES[number // 3 % 3]
        path = Path("PAIRS", f"{number:02}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate([_pixels(left, number), _pixels(right, number + 50)], axis=1)).save(path)
        rows.append((path.name, "|".join(sorted({left, right})), ("train", "val", "test")[number % 5 // 2]))
    with Path("PAIRS/metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def tiles(request: pytest.FixtureRequest) -> None:
    """TILES: pictures of four channels (PNG, the last one is its alpha)."""
    for name in ("field", "forest"):
        for number in range(12):
            path = Path("TILES", name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            near_infrared = np.random.default_rng(number).integers(100, 256, (48, 64, 1), dtype=np.uint8)
            Image.fromarray(np.concatenate([_pixels(name, number), near_infrared], axis=2), "RGBA").save(path)


def imagenet(request: pytest.FixtureRequest) -> None:
    """IMAGENET: a miniature of it."""
    write_miniature(Path("IMAGENET"), synsets=10, train=4, val=2)


def hub(request: pytest.FixtureRequest) -> None:
    """The Hub is a server on this machine."""
    request.getfixturevalue("hub")


def digits_run(request: pytest.FixtureRequest) -> None:
    """runs/digits/1: a short run, which was tested."""
    from reslight.cli.main import main

    assert main(["fit", "--config", "digits", "--trainer.max_epochs", "2", "--model.schedule.warmup", "0.5"]) == 0
    assert main(["test", "--config", "digits"]) == 0


def fine_tuned(request: pytest.FixtureRequest) -> None:
    """runs/finetune/1: resnet20.cifar100, fine-tuned on PHOTOS for a few steps."""
    from reslight.cli.main import main

    if not Path("PHOTOS").exists():
        photos(request)
    assert (
        main(
            ["fit", "--config", "finetune", "--data.root", "PHOTOS", "--model.init_from", "resnet20.cifar100", "--trainer.max_epochs", "2"]
        )
        == 0
    )


def broken(request: pytest.FixtureRequest) -> None:
    """PHOTOS with a file that is no image, an empty one, and a copy in another class."""
    if not Path("PHOTOS").exists():
        photos(request)
    Path("PHOTOS/dog/invoice.jpg").write_bytes(b"%PDF-1.7")
    Path("PHOTOS/dog/empty.jpg").touch()
    shutil.copy("PHOTOS/cat/cat 03.jpg", "PHOTOS/dog/dog 77.jpg")


SETUPS: dict[str, Callable[[pytest.FixtureRequest], None]] = {
    made.__name__: made for made in (photos, one_photo, others, labelled, pairs, tiles, imagenet, hub, digits_run, fine_tuned, broken)
}


def _pixels(name: str, number: int) -> np.ndarray:
    """Return a picture of 64 x 48 pixels whose colors tell its class."""
    of_class, of_image = np.random.default_rng(list(name.encode())), np.random.default_rng(number)
    return (of_class.integers(40, 200, 3) + of_image.integers(-40, 56, (48, 64, 3))).astype(np.uint8)


def _draw(path: Path, name: str, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(name, number)).save(path)
