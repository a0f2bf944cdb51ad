"""`check`: every planted problem is found, and nothing else is reported."""

import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.miniature import LAYOUTS, image_file, write_miniature

from reslight.cli.commands.data import class_table
from reslight.data.check.check import Summary, check
from reslight.data.check.problems import KINDS, Problem
from reslight.data.check.truncation import has_end
from reslight.data.image_folder.splits import ImageSet, LabelledImages
from reslight.data.loading.decode import decode
from reslight.messages import UsageError

TENCH, CHURCH = "n01440764", "n03028079"
MISPLACED = "is not in the folder of a class and is ignored"
OTHER = "has no image extension and is ignored"
ACCENTS = (("train", "NFC"), ("val", "NFD"))
MISSING = "links to a missing file"
Found = tuple[str, str, str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound set of class folders."""
    return write_miniature(tmp_path / "set", train=2, val=1).root


def found(root: Path, **settings: object) -> list[Found]:
    """Kind, path and text of each problem, with paths relative to the root."""
    return [(one.kind, one.path.replace(f"{root}/", ""), one.text.replace(f"{root}/", "")) for one in check(str(root), **settings)]


def assert_found(root: Path, expected: Sequence[Found]) -> None:
    """The problems have these kinds and paths, and their texts these parts."""
    problems = found(root)
    assert [problem[:2] for problem in problems] == [problem[:2] for problem in expected]
    for (_, _, text), (_, _, part) in zip(problems, expected, strict=True):
        assert part in text
        assert "\n" not in text


def encoded(form: str, pixels: np.ndarray | None = None, mode: str = "RGB", **settings: object) -> bytes:
    if pixels is None:
        pixels = np.random.default_rng(2).integers(0, 256, (21, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **settings)
    return file.getvalue()


def animated(form: str) -> bytes:
    frames = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    return file.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG with another complete JPEG before its own pixels."""
    image, small = encoded("JPEG"), encoded("JPEG", np.zeros((8, 8, 3), np.uint8))
    return image[:2] + b"\xff\xe7" + (len(small) + 2).to_bytes(2) + small + image[2:]


FORMATS = {
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "restarts": encoded("JPEG", restart_marker_blocks=1),
    "cmyk": encoded("JPEG", mode="CMYK"),
    "grey": encoded("JPEG", mode="L"),
    "thumbnail": with_thumbnail(),
    "png": encoded("PNG"),
    "apng": animated("PNG"),
    "gif": encoded("GIF"),
    "animated gif": animated("GIF"),
    "webp": encoded("WEBP"),
    "lossless webp": encoded("WEBP", lossless=True),
    "animated webp": animated("WEBP"),
}
OTHERS = {form: encoded(form) for form in ("BMP", "TIFF", "PPM")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sound_set_has_no_problems(layout, tmp_path):
    write_miniature(tmp_path, layout=layout)
    summary, progress = Summary(), []
    assert found(tmp_path, summary=summary, progress=lambda now: progress.append(now.opened)) == []
    assert summary.splits == {"train": 30, "val": 20}
    assert (summary.images, summary.opened, summary.classes) == (50, 50, 10)
    assert summary.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.JPEG"))
    assert progress == [0, 30, 50, 50]


# images


@pytest.mark.parametrize("form", ["png", "apng", "gif", "animated gif"])
def test_a_file_without_its_end(form):
    content = FORMATS[form]
    assert has_end(bytearray(content))
    assert has_end(bytearray(content + bytes(100)))
    assert [length for length in range(20, len(content)) if has_end(bytearray(content[:length]))] == []


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("form", [form for form in (*FORMATS, *OTHERS) if "png" not in form and "gif" not in form])
def test_decoders_refuse_all_other_truncated_files(form):
    """The reason why `has_end` does not look at these formats."""
    content = (FORMATS | OTHERS)[form]
    for length in (*range(1, 40), *range(40, len(content), 9), *range(len(content) - 12, len(content))):
        with pytest.raises(UsageError):
            decode(bytearray(content[:length]), "image")


@pytest.mark.parametrize("form", [*FORMATS, *OTHERS])
def test_a_truncated_image_is_found(form, root):
    content = (FORMATS | OTHERS)[form]
    path = root / "train" / TENCH / "cut.jpg"
    path.write_bytes(content)
    assert found(root) == []
    for lost in (1, 2, 7, 12, 30, len(content) // 2):
        path.write_bytes(content[:-lost])
        ((kind, name, text),) = found(root)
        assert name == f"train/{TENCH}/cut.jpg"
        if "webp" in form:
            assert kind in ("unreadable", "truncated"), "the decoder does not say why it fails"
        else:
            assert (kind, text.partition(". ")[0]) == ("truncated", f"ends too early, after {len(content) - lost:,} bytes")


def test_a_download_that_stopped_in_a_file_of_full_length(root):
    content = bytearray(FORMATS["jpeg"])
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (root / "train" / TENCH / "cut.jpg").write_bytes(content)
    assert [kind for kind, _, _ in found(root)] == ["truncated"]


def test_bytes_between_blocks_do_not_matter():
    gif = FORMATS["gif"]
    assert has_end(bytearray(gif[:-1] + b"\0\0" + gif[-1:]))


def test_has_end_of_anything():
    numbers = np.random.default_rng(3)
    for form in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"):
        for length in range(60):
            assert has_end(bytearray(form + numbers.bytes(length))) in (True, False)


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        (b"", "empty", "is empty"),
        (b"<html>", "unreadable", "is not an image that Pillow can read"),
        (FORMATS["png"].replace(b"IDAT", b"IDAX"), "unreadable", "is not an image that Pillow can read"),
        (b"\xff\xd8\xff\xd9", "unreadable", "is not an image that Pillow can read"),
        (FORMATS["jpeg"].replace(b"\xff\xdb", b"\xff\xef"), "unreadable", "cannot be read: "),
    ],
)
def test_what_cannot_be_read(content, kind, text, root):
    (root / "val" / CHURCH / "bad.png").write_bytes(content)
    assert_found(root, [(kind, f"val/{CHURCH}/bad.png", text)])


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_bomb_is_not_decoded(form, root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    (root / "train" / TENCH / "big.jpg").write_bytes(encoded(form, np.zeros((90, 70, 3), np.uint8)))
    assert_found(root, [("bomb", f"train/{TENCH}/big.jpg", "6,000 pixels")])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (MemoryError(), "cannot be read: MemoryError"),
        (RuntimeError("some\nlines"), "cannot be read: RuntimeError some lines"),
    ],
)
def test_nothing_stops_a_check(error, text, root, monkeypatch):
    def fail(self: Path, *arguments: object, **settings: object) -> io.IOBase:
        if self.name == "n02105855_2933.JPEG":
            raise error
        return real(self, *arguments, **settings)

    real = Path.open
    monkeypatch.setattr(Path, "open", fail)
    assert_found(root, [("unreadable", "train/n02105855/n02105855_2933.JPEG", text)])


# folders


def misplaced(root: Path) -> None:
    (root / "train" / "loose.png").write_bytes(b"never opened")
    (root / "loose.JPG").write_bytes(b"never opened")


def others(root: Path) -> None:
    (root / "train" / TENCH / "notes.txt").touch()
    (root / "val" / "list.csv").touch()
    (root / "README.md").touch()  # any file is allowed beside the splits
    (root / "train" / TENCH / ".hidden").touch()
    (root / "train" / TENCH / "Thumbs.db").touch()


def pipe(root: Path) -> None:
    os.mkfifo(root / "train" / TENCH / "pipe.jpg")


def device(root: Path) -> None:
    (root / "train" / TENCH / "zero.jpg").symlink_to("/dev/zero")


def links(root: Path) -> None:
    (root / "train" / TENCH / "a.jpg").symlink_to("nothing.jpg")
    (root / "train" / TENCH / "round").symlink_to("round")
    (root / "train" / "n99999999").symlink_to(root / "nowhere")
    (root / "train" / TENCH / "again").symlink_to(root / "train" / TENCH)
    (root / "train" / TENCH / "z.jpg").symlink_to(root / "train" / TENCH / "n01440764_10026.JPEG")


def classes(root: Path) -> None:
    (root / "train" / "n00000001").mkdir()
    (root / "val" / "n00000002").mkdir()
    (root / "val" / "n00000002" / "a.jpg").write_bytes(image_file("a", "n00000002"))
    shutil.rmtree(root / "val" / "n03888257")
    for path in (root / "val" / "n03417042").iterdir():
        path.unlink()


def copies(root: Path) -> None:
    train, val = root / "train", root / "val"
    shutil.copy(train / TENCH / "n01440764_10026.JPEG", train / TENCH / "n01440764_99.JPEG")  # same split and class: no problem
    shutil.copy(train / TENCH / "n01440764_10026.JPEG", train / CHURCH / "b.jpg")
    shutil.copy(train / TENCH / "n01440764_10026.JPEG", val / CHURCH / "c.jpg")
    shutil.copy(train / CHURCH / "n03028079_10026.JPEG", val / CHURCH / "d.jpg")
    for name in ("e.jpg", "f.jpg"):
        (train / CHURCH / name).write_bytes(b"the same")
    shutil.copytree(val, root / "test")
    for path in root.glob("test/*/ILSVRC*"):
        path.write_bytes(image_file(f"{path.name} of the test set", path.parent.name))


def subfolders(root: Path) -> None:
    (root / "train" / TENCH / "more" / "deep").mkdir(parents=True)
    (root / "train" / TENCH / "more" / "deep" / "bad.jpg").write_bytes(b"")
    (root / "train" / TENCH / "more" / "good.jpg").write_bytes(image_file("good", TENCH))


FIRST = f"train/{TENCH}/n01440764_10026.JPEG"
PLANTED: dict[Callable[[Path], None], list[Found]] = {
    copies: [
        ("unreadable", f"train/{CHURCH}/e.jpg", "is not an image that Pillow can read"),
        ("unreadable", f"train/{CHURCH}/f.jpg", "is not an image that Pillow can read"),
        ("contradiction", f"train/{CHURCH}/b.jpg", f"is a copy of {FIRST}, which is in class {TENCH}"),
        ("leak", f"val/{CHURCH}/c.jpg", f"is a copy of {FIRST}, an image of train"),
        ("contradiction", f"val/{CHURCH}/c.jpg", f"is a copy of {FIRST}, which is in class {TENCH}"),
        ("leak", f"val/{CHURCH}/d.jpg", f"is a copy of train/{CHURCH}/n03028079_10026.JPEG, an image of train"),
        ("leak", f"test/{CHURCH}/c.jpg", f"is a copy of {FIRST}, an image of train"),
        ("contradiction", f"test/{CHURCH}/c.jpg", f"is a copy of {FIRST}, which is in class {TENCH}"),
        ("leak", f"test/{CHURCH}/d.jpg", f"is a copy of train/{CHURCH}/n03028079_10026.JPEG, an image of train"),
    ],
    misplaced: [("misplaced", "loose.JPG", MISPLACED), ("misplaced", "train/loose.png", MISPLACED)],
    others: [("other", f"train/{TENCH}/notes.txt", OTHER), ("other", "val/list.csv", OTHER)],
    pipe: [("special", f"train/{TENCH}/pipe.jpg", "is neither a file nor a folder")],
    device: [("special", f"train/{TENCH}/zero.jpg", "is neither a file nor a folder")],
    links: [
        ("link", f"train/{TENCH}/a.jpg", MISSING),
        ("link", f"train/{TENCH}/round", MISSING),
        ("link", "train/n99999999", MISSING),
    ],
    classes: [
        ("empty class", "train/n00000001", "has no images"),
        ("empty class", "val/n00000001", "is missing, but train/n00000001 exists"),
        ("unknown class", "val/n00000002", "is a class that is missing in train"),
        ("empty class", "val/n03417042", "has no images"),
        ("empty class", "val/n03888257", "is missing, but train/n03888257 exists"),
    ],
    subfolders: [("empty", f"train/{TENCH}/more/deep/bad.jpg", "is empty")],
}


@pytest.mark.parametrize("plant", PLANTED)
def test_each_planted_problem_is_found_and_nothing_else(plant, root):
    plant(root)
    assert_found(root, PLANTED[plant])


def test_all_planted_problems_at_once(root):
    """The problems and their order are the same for any number of threads."""
    for plant in PLANTED:
        plant(root)
    cut = FORMATS["jpeg"][:-3]
    (root / "val" / "n02105855" / "cut.jpg").write_bytes(cut)
    alone = [(kind, path) for problems in PLANTED.values() for kind, path, _ in problems]
    alone += [("truncated", "val/n02105855/cut.jpg"), ("empty class", "test/n00000001")]
    summary = Summary()
    together = found(root, threads=1, summary=summary)
    assert sorted((kind, path) for kind, path, _ in together) == sorted(alone)
    assert together == found(root, threads=5)
    assert summary.kinds == Counter(kind for kind, _, _ in together)
    assert summary.kinds.keys() == KINDS.keys() - {"layout", "folder", "labels", "unlisted", "group", "bomb", "name"}


def test_a_folder_that_cannot_be_opened(root, monkeypatch):
    def scan(folder: str | Path) -> Iterator[os.DirEntry]:
        if Path(folder).name == TENCH:
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scan)
    assert_found(root, [("folder", f"{split}/{TENCH}", "cannot be opened: Permission denied") for split in ("train", "val")])


def test_classes_alone(root):
    """Without folders of splits."""
    (root / "train" / "notes.txt").touch()
    (root / "train" / "loose.jpg").touch()
    train = root / "train"
    assert_found(train, [("misplaced", "loose.jpg", MISPLACED), ("other", "notes.txt", OTHER)])


def test_a_folder_without_images(tmp_path):
    assert_found(tmp_path, [("layout", str(tmp_path), "has no images in folders of classes")])
    (tmp_path / "cat").mkdir()
    assert_found(tmp_path, [("empty class", "cat", "has no images")])


def test_what_the_command_prints(reslight, root):
    Path("void").mkdir()
    answer = reslight("data", "check", "void")
    title = KINDS["layout"]
    assert answer.code == 1
    assert answer.out.splitlines() == [
        f"{title}: void has no images in folders of classes. Put CLASS/IMAGE there.",
        f"     1  {title}",
        "1 problem",
    ]
    (root / "train" / TENCH / "0.jpg").touch()
    answer = reslight("data", "check", root)
    title = KINDS["empty"]
    table = [line for line in answer.out.splitlines() if line.startswith(("class ", "n0"))]
    assert table[:2] == ["class      train  val", f"{TENCH}      3    1"]
    assert len(table) == 11
    assert [line.partition(":")[0].split("  ")[-1] for line in answer.out.splitlines() if line not in table] == [
        title,
        next(line for line in answer.out.splitlines() if " images (" in line),
        title,
        "1 problem",
    ]


def test_the_images_of_each_class_are_counted():
    counts = {"train": Counter(cat=1200, dog=7, elk=0), "val": Counter(dog=3)}
    assert class_table(counts) == ["class  train  val", "cat    1,200    0", "dog        7    3", "elk        0    0"]
    assert class_table({}) == []
    many = {"train": Counter({f"class {number:02}": number + 1 for number in range(50)})}
    table = class_table(many)
    assert len(table) == 22
    assert table[1:3] == ["class 00      1", "class 01      2"]
    assert table[11] == "... 30 more classes, between the rarest and the most frequent ones"
    assert table[12] == "class 40     41"
    assert table[-1] == "class 49     50"


def test_classes_are_counted_where_there_are_labels(root):
    summary = Summary()
    for _ in check(str(root), summary=summary):
        pass
    assert {split: dict(counts) for split, counts in summary.per_class.items()} == {
        split: {path.name: len(list(path.iterdir())) for path in sorted((root / split).iterdir())} for split in ("train", "val")
    }


def test_several_sets_of_shards_are_one_problem(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train-0.parquet").touch()
    ((_, path, text),) = [(one.kind, one.path, one.text) for one in check(str(tmp_path))]
    assert (path, text) == (str(tmp_path), f"has several sets of shards. Give one of {tmp_path / 'one'}, {tmp_path / 'two'}.")


def test_a_split_without_folders_of_classes(root):
    (root / "test").mkdir()
    assert_found(root, [("layout", "test", "has no folders of classes")])


def test_accents_of_folders_may_be_composed_or_not(root):
    for split, form in ACCENTS:
        (root / split / normalize(form, "Bär")).mkdir()
    assert_found(root, [("empty class", f"{split}/{normalize(form, 'Bär')}", "has no images") for split, form in ACCENTS])
    for split in ("train", "val"):
        next((root / split).glob("B*")).joinpath("1.jpg").write_bytes(image_file(split, TENCH))
    assert found(root) == []


@pytest.mark.parametrize("split", ["", "train"])
def test_chunks_are_not_called_files_to_remove(tmp_path, split):
    (tmp_path / split).mkdir(exist_ok=True)
    for name in ("index.json", "chunk-0-0.bin"):
        (tmp_path / split / name).write_bytes(b"")
    with pytest.raises(UsageError, match="it has chunks of litdata, which are not checked"):
        check(str(tmp_path))


def test_a_missing_dataset(tmp_path):
    (file := tmp_path / "file.jpg").touch()
    for path in (tmp_path / "none", file):
        with pytest.raises(OSError, match=f"^ROOT is {path}: there is no such folder"):
            check(str(path))
    with pytest.raises(ValueError, match=r"^--threads is 0: it must be at least 1"):
        check(str(tmp_path), threads=0)


# ImageNet as it is published


def test_label_files_are_no_problem_and_the_test_split_needs_none(tmp_path):
    made = write_miniature(tmp_path, train=1, val=1, layout="official")
    for path in (tmp_path / "ILSVRC2012_devkit_t12" / "data").iterdir():
        path.rename(tmp_path / "val" / path.name)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(image_file("a", TENCH))
    name = next(name for name, synset in made.val.items() if synset == CHURCH)
    shutil.copy(tmp_path / "train" / TENCH / "n01440764_10026.JPEG", tmp_path / "val" / name)
    (tmp_path / "val" / "more.txt").touch()
    copy = f"is a copy of {FIRST}, "
    expected = [
        ("other", "val/more.txt", OTHER),
        ("leak", f"val/{name}", f"{copy}an image of train"),
        ("contradiction", f"val/{name}", f"{copy}which is in class {TENCH}"),
    ]
    assert_found(tmp_path, expected)


def test_a_label_file_that_does_not_fit(tmp_path):
    write_miniature(tmp_path, train=1, val=1, layout="caffe")
    (tmp_path / "val" / "ILSVRC2012_val_00000999.JPEG").write_bytes(b"")
    text = "has images without a class: val/val.txt has 10 lines"
    assert_found(tmp_path, [("labels", "val", text), ("empty", "val/ILSVRC2012_val_00000999.JPEG", "is empty")])


# shards


@dataclass(frozen=True)
class Rows:
    """Images in one file."""

    cells: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.cells)

    def read(self, number: int) -> bytearray:
        return bytearray(self.cells[number])

    def name(self, number: int) -> str:
        return f"the image in row {number} of a.parquet"


def test_shards_are_opened_row_by_row(tmp_path, monkeypatch):
    images = [image_file(name, TENCH) for name in "abc"]
    rows = {"train": ([images[0], images[1], b"", images[1]], [0, 0, 1, 1]), "test": ([images[2], images[0]], [1, -1])}
    splits = {split: LabelledImages(Rows(cells), torch.tensor(labels), "") for split, (cells, labels) in rows.items()}
    monkeypatch.setattr("reslight.data.check.survey.find_image_set", lambda root: ImageSet(("cat", "dog"), splits))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").touch()
    expected = [
        ("empty", "the image in row 2 of a.parquet", "is empty"),
        (
            "contradiction",
            "the image in row 3 of a.parquet",
            "is a copy of the image in row 1 of a.parquet, which is in class cat",
        ),
        (
            "leak",
            "the image in row 1 of a.parquet",
            "is a copy of the image in row 0 of a.parquet, an image of train",
        ),
    ]
    assert_found(tmp_path, expected)
    assert [one.kind for one in check("someone/pets")] == ["empty", "contradiction", "leak"]


def test_shards_that_cannot_be_used(tmp_path, monkeypatch):
    def fail(root: str) -> None:
        raise UsageError("a.parquet is damaged; get it again")

    monkeypatch.setattr("reslight.data.check.survey.find_image_set", fail)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.parquet").touch()
    assert_found(tmp_path, [("layout", str(tmp_path), "cannot be used: a.parquet is damaged")])
    with pytest.raises(UsageError, match=r"^a.parquet is damaged"):
        check("someone/pets")


# the rest


def test_images_are_opened_while_problems_are_iterated(root, monkeypatch):
    for number in range(60):
        (root / "train" / TENCH / f"{number:03d}.jpg").write_bytes(b"")
    monkeypatch.setattr("reslight.data.check.check._CHUNK", 1)
    summary = Summary()
    problems = check(str(root), threads=2, summary=summary)
    assert len(list(islice(problems, 3))) == 3
    assert summary.opened == 3
    problems.close()


def test_memory_is_bounded(root, monkeypatch):
    opened = []
    monkeypatch.setattr("reslight.data.check.check._CHUNK", 1)
    monkeypatch.setattr("reslight.data.check.check.decode", lambda data, name: opened.append(name))
    (root / "train" / TENCH / "0.jpg").write_bytes(b"")
    problems = check(str(root), threads=1)
    assert next(problems).kind == "empty"
    problems.close()
    assert len(opened) <= 6


def test_a_problem_is_printed_in_one_line():
    assert str(Problem("empty", "a\nb\udc80.jpg", "is empty")) == "a\\nb\\udc80.jpg is empty"
    assert str(Problem("empty", "größe.jpg", "is empty")) == "größe.jpg is empty"


def test_images_of_many_channels_are_checked_with_their_number(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.random.default_rng(ord(name) + len(split)).integers(0, 256, (9, 12, 5), dtype=np.uint8)
            tifffile.imwrite(tmp_path / split / name / "1.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert list(check(str(tmp_path), channels=5)) == []
    assert {problem.text[:15] for problem in check(str(tmp_path))} == {"has 5 channels:"}
    with pytest.raises(ValueError, match="--channels is 0: it must be at least 1"):
        check(str(tmp_path), channels=0)
