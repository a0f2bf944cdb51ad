"""`reslight predict` on pictures of every kind, from every kind of argument, interrupted and resumed."""

import csv
import io
import json
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import reslight as package
from reslight.deploy.predict import predict as module
from reslight.deploy.predict.pictures import Pictures
from reslight.deploy.predict.progress import Progress

NET = "resnet8.digits"


@pytest.fixture
def pictures() -> list[str]:
    """Ten pictures in a folder, sorted."""
    Path("pics/inner").mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 256, (10, 9, 9), dtype=np.uint8)
    names = [f"pics/{number}.png" for number in range(6)] + [f"pics/inner/{number}.png" for number in range(4)]
    for name, value in zip(names, values, strict=True):
        Image.fromarray(value).save(name)
    return names


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_format_has_what_the_network_says(reslight, pictures):
    net = package.load(NET)
    for suffix in ("csv", "jsonl", "parquet"):
        answer = reslight("predict", NET, "pics", "-o", f"out.{suffix}", "--top", 2, "--embeddings", f"{suffix}.e.parquet", "--exact")
        assert answer.code == 0, answer.err
    found = {
        "csv": [(row["path"], row["label"], float(row["probability"]), row["label2"]) for row in rows("out.csv")],
        "jsonl": [
            (row["path"], row["classes"][0]["label"], row["classes"][0]["probability"], row["classes"][1]["label"])
            for row in map(json.loads, Path("out.jsonl").read_text().splitlines())
        ],
        "parquet": [(row["path"], row["label"], row["probability"], row["label2"]) for row in pq.read_table("out.parquet").to_pylist()],
    }
    embeddings = pq.read_table("csv.e.parquet").to_pylist()
    for number, name in enumerate(pictures):
        pixels = net.preprocess(Image.open(name))[None]
        with torch.inference_mode():
            best = (net(pixels)[0].double() / net.temperature).softmax(0).sort(descending=True)
            features = net.avgpool(net.forward_features(pixels)["layer3"]).flatten()
        for table in found.values():
            path, label, probability, second = table[number]
            assert (path, label, second) == (name, *map(str, best.indices[:2].tolist()))
            assert probability == pytest.approx(float(best.values[0]), abs=1e-5)
        assert embeddings[number]["path"] == name
        assert embeddings[number]["embedding"] == pytest.approx(features.tolist(), abs=1e-4)
    assert not list(Path().glob("*.unfinished.json")) + list(Path().glob("*.parts"))


def test_a_bad_picture_is_a_row_with_its_reason(reslight, pictures):
    Path("pics/empty.png").touch()
    Path("pics/text.jpg").write_text("no image")
    Path("pics/broken.png").symlink_to("nowhere")
    os.mkfifo("pics/pipe.png")
    Path("pics/folder.png").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save("pics/folder.png/in.png")
    Image.new("1", (1, 1)).save("pics/bomb.png")
    data = bytearray(Path("pics/bomb.png").read_bytes())
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    Path("pics/bomb.png").write_bytes(data)
    answer = reslight("predict", NET, "pics", "vanished.png", "-o", "out.csv")
    assert answer.code == 1
    errors = {row["path"]: row["error"] for row in rows("out.csv") if row["error"]}
    assert {path: error.partition(": ")[0] for path, error in errors.items()} == {
        "pics/empty.png": "pics/empty.png is empty. Replace or remove it.",
        "pics/text.jpg": "pics/text.jpg is not an image that Pillow can read. Replace or remove it.",
        "pics/broken.png": "pics/broken.png is missing. Give the path of an image file.",
        "pics/pipe.png": "pics/pipe.png is a pipe",
        "pics/bomb.png": "pics/bomb.png has more than 178,956,970 pixels",
        "vanished.png": "vanished.png is missing. Give the path of an image file.",
    }
    assert {row["path"] for row in rows("out.csv") if row["label"]} == {*pictures, "pics/folder.png/in.png"}
    assert "written out.csv: 17 pictures; 6 could not be read, see the column error;" in answer.err


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_interrupted_command_resumes_where_it_was(reslight, pictures, monkeypatch, suffix):
    classifier = package.Classifier(NET)
    monkeypatch.setattr(package.Classifier, "__init__", lambda self, *_, **__: vars(self).update(vars(classifier), batch=2))
    words = ["predict", NET, "pics", "-o", f"out.{suffix}", "--embeddings", "e.parquet"]
    whole = ["predict", NET, "pics", "-o", f"whole.{suffix}"]
    assert reslight(*whole).code == 0
    real = module.classified

    def interrupted(*given):
        for number, batch in enumerate(real(*given)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(module, "classified", interrupted)
    stopped = reslight(*words)
    assert stopped.code == 130
    assert f"not finished: out.{suffix}. The same command resumes it.\n" in stopped.err
    if suffix == "csv":
        assert [row["path"] for row in rows("out.csv")] == pictures[:6]
        with Path("out.csv").open("a") as file:
            file.write("pics/inner/0.png,cut by a cr")
    monkeypatch.setattr(module, "classified", real)
    refused = reslight(*words, "--top", 3)
    assert (refused.code, refused.err.splitlines()[-1]) == (
        2,
        f"reslight: error: out.{suffix} was begun with top 5, not 3: only the same command resumes it. "
        f"Repeat that one, or remove out.{suffix}.unfinished.json and the file.",
    )
    Path("pics/2.png").rename("kept.png")
    assert f"out.{suffix} was begun with other pictures: picture 3 is pics/3.png now" in reslight(*words).err
    Path("kept.png").rename("pics/2.png")
    answer = reslight(*words)
    assert answer.code == 0, answer.err
    assert f"written out.{suffix}: 10 pictures, 6 of them by an interrupted command;" in answer.err
    read = (lambda path: pq.read_table(path).to_pylist()) if suffix == "parquet" else lambda path: Path(path).read_text()
    assert read(f"out.{suffix}") == read(f"whole.{suffix}")
    assert pq.read_table("e.parquet")["path"].to_pylist() == pictures
    again = reslight(*words)
    assert (again.code, "exists: predictions replace no file" in again.err) == (2, True)


@pytest.fixture
def unfinished(reslight, pictures, monkeypatch) -> dict[str, bytes]:
    """What a finished command would have written, by suffix, beside the state of one that wrote nothing yet."""
    whole = {}
    for suffix in ("csv", "jsonl"):
        assert reslight("predict", NET, "pics", "-o", f"whole.{suffix}").code == 0
        whole[suffix] = Path(f"whole.{suffix}").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "classified", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert reslight("predict", NET, "pics", "-o", "out.csv").code == 130
    return whole


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_that_was_cut_or_damaged_anywhere_resumes(reslight, unfinished, suffix):
    whole, state = unfinished[suffix], Path("out.csv.unfinished.json").read_bytes()
    behind = whole.index(b"\n", len(whole) // 2) + 1
    cuts = [whole[:length] for length in (0, 9, 30, behind, behind + 1, len(whole) - 1, len(whole))]
    for left in (*cuts, whole[:behind] + bytes(50), whole[:behind] + b"\xff\x00\n" + whole[behind:], whole[:behind] + b"\n"):
        Path(f"out.{suffix}").write_bytes(left)
        Path(f"out.{suffix}.unfinished.json").write_bytes(state)
        answer = reslight("predict", NET, "pics", "-o", f"out.{suffix}")
        assert answer.code == 0, answer.err
        assert Path(f"out.{suffix}").read_bytes() == whole, left


def test_a_crash_while_parts_are_removed_leaves_the_first_rows(reslight, pictures, monkeypatch):
    monkeypatch.setattr("reslight.deploy.predict.output._ROWS", 2)
    classifier = package.Classifier(NET)
    monkeypatch.setattr(package.Classifier, "__init__", lambda self, *_, **__: vars(self).update(vars(classifier), batch=2))
    real, removed = Path.unlink, []

    def unlink(path, *given, **options):
        removed.append(path.name)
        if len(removed) == 3:
            raise KeyboardInterrupt
        real(path, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, *a, **k: (unlink if path.name.startswith("0") else real)(path, *a, **k))
        assert reslight("predict", NET, "pics", "-o", "out.parquet").code == 130
    assert [path.name for path in sorted(Path("out.parquet.parts").iterdir())] == [f"{number:08}.parquet" for number in range(3)]
    answer = reslight("predict", NET, "pics", "-o", "out.parquet")
    assert "10 pictures, 6 of them by an interrupted command" in answer.err
    assert pq.read_table("out.parquet")["path"].to_pylist() == pictures


def test_a_full_disk_is_one_line_and_the_command_resumes(reslight, unfinished):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(unfinished["csv"]) // 2, limits[1]))
    try:
        answer = reslight("predict", NET, "pics", "-o", "out.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = "reslight: error: out.csv cannot be written: File too large. Make room, then repeat the command: it resumes."
    assert (answer.code, answer.err.splitlines()[-1]) == (2, message)
    assert reslight("predict", NET, "pics", "-o", "out.csv").code == 0
    assert Path("out.csv").read_bytes() == unfinished["csv"]


def test_the_number_of_threads_changes_no_row(reslight, pictures):
    Path("pics/7.png").write_text("no image")
    Path("list").write_text("".join(f"{name}\n" for name in [*pictures, "pics/7.png"] * 20))  # seven batches
    for threads in (1, 3):
        answer = reslight("predict", NET, "--list", "list", "-o", f"{threads}.csv", "--threads", threads)
        assert (answer.code, f", {threads} thread" in answer.err) == (1, True)
    assert Path("1.csv").read_bytes() == Path("3.csv").read_bytes()
    assert sum(bool(row["error"]) for row in rows("1.csv")) == 20


def test_one_of_two_commands_writes_a_file(pictures):
    settings = {"weights": "a"}
    with module._state(Path("out.csv"), None, settings) as is_begun:
        assert not is_begun
        with (
            pytest.raises(package.UsageError, match=r"out\.csv is being written by another process"),
            module._state(Path("out.csv"), None, settings),
        ):
            pass
    assert not Path("out.csv.unfinished.json").exists()


def test_a_folder_that_cannot_be_opened_is_a_row_with_its_reason(reslight, pictures, monkeypatch):
    Path("pics/closed").mkdir()
    real = os.scandir

    def scandir(path="."):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert reslight("predict", NET, "pics", "-o", "out.csv").code == 1
    assert [row["error"] for row in rows("out.csv") if row["error"]] == ["pics/closed: Permission denied"]


def test_pictures_may_be_behind_options(reslight, pictures):
    Path("-d.png").write_bytes(Path("pics/0.png").read_bytes())
    Path("list").write_text("pics/1.png")
    assert reslight("predict", NET, "-o", "a.csv", "pics/inner", "--top", 1, "pics/0.png", "--list", "list", "--", "-d.png").code == 0
    assert [row["path"] for row in rows("a.csv")] == [*pictures[6:], "pics/0.png", "-d.png", "pics/1.png"]
    answer = reslight("predict", NET, "pics", "--tops", "3")
    assert (answer.code, "reslight predict has no argument --tops." in answer.err) == (2, True)


@pytest.mark.parametrize("pattern", ["pics/**", "pics/**/", "pics/**/*", "./pics/**", "**/pics", "pics/**/[0-5i]*"])
def test_a_pattern_with_folders_of_any_depth_names_no_picture_twice(pictures, pattern):
    assert sorted(os.path.relpath(path) for path in Pictures([pattern])) == sorted(pictures)


def test_pictures_come_from_patterns_lists_and_standard_input(reslight, pictures, monkeypatch):
    Path("list.txt").write_text("\ufeff" + "\r\n".join(pictures[:3]) + "\n\n", encoding="utf-8")  # as Notepad writes it
    Path("zeros").write_bytes(b"\0".join(name.encode() for name in pictures[3:5]))
    assert list(Pictures(["pics/**/[01].png"])) == ["pics/0.png", "pics/1.png", "pics/inner/0.png", "pics/inner/1.png"]
    assert list(Pictures(["@list.txt", "pics/inner"], ["zeros"])) == [*pictures[6:], *pictures[:3], *pictures[3:5]]
    with Path("list.txt").open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        answer = reslight("predict", NET, "-", "--top", 1)
    lines = answer.out.splitlines()
    assert lines[0] == "path,label,probability,error"
    assert [line.split(",")[0] for line in lines[1:]] == pictures[:3]


def test_paths_that_a_reader_would_trip_over(reslight):
    for name in ("a\nb.png", 'q",.png', "b\\n\udcff.png", "c\\d.png"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(name)
    assert reslight("predict", NET, ".", "-o", "out.csv").code == 0
    assert [row["path"] for row in rows("out.csv")] == [r"./a\nb.png", r"./b\n\xff.png", r"./c\d.png", './q",.png']


def test_several_labels_are_those_above_the_threshold(reslight, pictures):
    net = package.load(NET)
    net.multi_label = True
    package.save(net, "several")
    assert reslight("predict", "several", "pics", "-o", "half.jsonl", "--exact").code == 0
    assert reslight("predict", "several", "pics", "-o", "most.jsonl", "--exact", "--threshold", 0.9, "--top", 10).code == 0
    for name, half, most in zip(
        pictures, *(map(json.loads, Path(f"{one}.jsonl").read_text().splitlines()) for one in ("half", "most")), strict=True
    ):
        with torch.inference_mode():
            values = net(net.preprocess(Image.open(name))[None])[0].double().sigmoid()
        assert [one["label"] for one in half["classes"]] == [
            str(one) for one in values.argsort(descending=True)[:5].tolist() if values[one] > 0.5
        ]
        assert len(most["classes"]) == int((values > 0.9).sum())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png"], "nothing.png missing. Give image files, or folders of images."),
        (["*.png"], "*.png matches no file. Check the pattern, or give a folder."),
        ([], "PICTURES is missing: give files, folders, patterns in quotes, @LIST, or - to read paths from standard input."),
        ([".", "-o", "x.csv"], "PICTURES have no images. Give image files, or folders of images."),
        ([".", "-o", "x.txt"], "--output is x.txt: its name must end with .csv or .jsonl or .parquet. Rename it."),
        ([".", "--top", "0"], "--top is 0: it must be at least 1. Use 5, for example."),
        ([".", "--threshold", "2"], "--threshold is 2: it must be 0 to 1, a probability. Use 0.5."),
        (
            [".", "--embeddings", "e.parquet"],
            "--embeddings needs a file of its own for the classes. Add --output predictions.csv, for example.",
        ),
        (["--list", "no.txt"], "the list no.txt is missing. Give a text file with a path on each line."),
        ([".", "--threads", "0"], "--threads is 0: it must be at least 1. Leave it out for all cores."),
    ],
)
def test_mistakes_are_one_line(reslight, words, message):
    answer = reslight("predict", NET, *words)
    assert (answer.code, answer.err.splitlines()[-1]) == (2, f"reslight: error: {message}")
    assert not list(Path().iterdir())


def test_help_tells_of_both_forms(reslight):
    out = " ".join(reslight("predict", "--help").out.split())
    assert "reslight predict WEIGHTS|RUN|FILE PICTURES" in out
    assert "this is Lightning's predict" in out


def test_progress_tells_the_time_that_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    plain, terminal = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    shown = [Progress(1000, 100, stream) for stream in (plain, terminal)]
    for _ in range(4):
        now[0] += 10
        for one in shown:
            one.advance(100)
    for one in shown:
        one.close()
    assert plain.getvalue() == "400 of 1,000 images (40%), 10/s, 60 s left\n"
    assert terminal.getvalue().split("\r")[1].strip() == "200 of 1,000 images (20%), 10/s, 80 s left"
    assert terminal.getvalue().endswith("\r")


def test_progress_fits_a_narrow_terminal(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((20, 9)))
    terminal = io.StringIO()
    terminal.isatty, terminal.fileno = (lambda: True), (lambda: 2)
    shown = Progress(1000, 0, terminal)
    now[0] = 1.0
    shown.advance(100)
    assert terminal.getvalue() == "\r100 of 1,000 images"


def test_weights_with_other_names_of_classes_are_others():
    one, other = (package.load(NET) for _ in range(2))
    other.labels = tuple("abcdefghij")
    assert package.Classifier(one).sha256 == package.Classifier(NET, exact=True).sha256 != package.Classifier(other).sha256


def test_images_of_phones_that_pillow_does_not_read_are_rows_too(tmp_path):
    for name in ("a.jpg", "b.HEIC", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [Path(name).name for name in Pictures([str(tmp_path)])] == ["a.jpg", "b.HEIC"]
