"""Every benchmark runs, in its smallest form: what it measures is not looked at."""

import functools
import importlib
import json
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from reslight.data import Folder, Synthetic
from reslight.data.loading.loaders import EvalLoader
from reslight.data.synthetic import SyntheticImages
from reslight.preprocess import Preprocess
from reslight.training import ImageClassifier

FOLDER = Path(__file__).parents[1] / "benchmarks"
FEW = ("--images", "64", "--batch-size", "16")
RUNS = {
    "checkpoints": ("--net", "resnet8"),
    "leaderboard": ("--names", "resnet8.digits", "--batches", "1"),
    "inference": ("--nets", "resnet8.digits", "--batch", "2", "--batches", "2"),
    "predict": ("--net", "resnet8.digits", "--images", "40", "--side", "16", "--paths", "100", "200"),
    "input": (*FEW, "--batches", "2", "--peer-batches", "2"),
    "train": (*FEW, "--depth", "8", "--steps", "1", "--warm", "1", "--workers", "0"),
    "train --memory": (*FEW, "--memory", "--depth", "8", "--steps", "1", "--warm", "1"),
    "folders": (*FEW, "--workers", "1", "--per-round", "32"),
    "many_files": ("--files", "40", "--classes", "4"),
    "many_files --simulate": ("--simulate", "40", "--classes", "4"),
    "photos": ("--photos", "2", "--images", "4"),
    "overhead": (*FEW, "--steps", "5"),
    "packed": ("--photos", "4", "--width", "60", "--height", "40", "--size", "20"),
    "optimizers": ("--net", "resnet8", "--steps", "2", "--batch-size", "8"),
    "threads": (*FEW, "--steps", "5", "--warm", "2", "--conditions", "quota"),
    "speedups": (*FEW, "--only", "fused", "--depth", "8", "--steps", "4", "--infer", "resnet8", "--size", "32"),
    "serve": ("--sides", "reslight", "--clients", "2", "--seconds", "0.2", "--rounds", "1"),
    "stream": ("--images", "40", "--batch-size", "8"),
}
NIGHTLY = {
    "folders",
    "many_files",
    "many_files --simulate",
    "photos",
    "predict",
    "serve",
    "speedups",
    "stream",
    "threads",
    "train --memory",
}  # the longest
SHARED = ("both", "finetune", "first_minutes", "gpu", "harness", "images", "loops", "pictures", "progressive", "train", "transfer")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs a file of benchmarks/ as `python benchmarks/NAME.py` would, in this process."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in SHARED:  # whatever they import each other as is forgotten afterwards
        monkeypatch.delitem(sys.modules, name, raising=False)

    def run(name: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")

    yield run
    for name in SHARED:
        sys.modules.pop(name, None)


def test_every_benchmark_is_run_here():
    texts = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    written = {name for name, text in texts.items() if "from harness import" in text and "from harness import machine\n" not in text}
    assert written == {name.split()[0] for name in RUNS}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name for name in RUNS])
def test_a_benchmark_runs(name: str, benchmark: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    benchmark(name.split()[0], "--rounds", "1", "--threads", "1", *RUNS[name], "--json", str(tmp_path / "out.json"))
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["machine"]["threads"] == 1
    assert record["results"]
    assert "n = 1 alternating rounds" in capsys.readouterr().out


def test_without_a_gpu_its_benchmark_says_so_in_a_line(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        benchmark("gpu")
    assert stop.value.code == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "no GPU" in line


@pytest.mark.slow
@pytest.mark.nightly
def test_the_benchmark_of_a_gpu_measures_every_part(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    with pytest.raises(SystemExit) as stop:
        benchmark("gpu", "--device", "cpu", "--smoke", "--out", str(tmp_path / "out.json"))
    rows = {row.pop("part"): row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert stop.value.code == 0
    assert not [name for name, row in rows.items() if "skipped" in row]
    speeds = [row for name, row in rows.items() if name.startswith("resnet8, ")]
    assert len(speeds) == 6
    assert all(row["ratio"] == pytest.approx(row["fit images/s"] / row["bare images/s"]) for row in speeds)
    assert rows["input alone"]["images/s"] > 0
    assert rows["1% with digits, resnet8"]["seconds to target"] > 0
    assert rows["resumes to the bit"]["tests"]["skipped"] == 3, "without a GPU"


@pytest.mark.parametrize(
    ("seconds", "needs", "measure", "row"),
    [
        (100, 200, lambda left: pytest.fail("no time for it"), {"skipped": "needs 200 s, and 100 s are left"}),
        (1, 0, lambda left: time.sleep(30), {"skipped": "the time was over before it ended"}),
        (100, 0, lambda left: {}["x"], {"failed": "KeyError: 'x'"}),
        (100, 0, lambda left: {"images/s": 2.0}, {"images/s": 2.0}),
    ],
)
@pytest.mark.usefixtures("benchmark")
def test_a_part_ends_with_the_time_and_ends_no_other(seconds, needs, measure, row):
    report = importlib.import_module("gpu").Report(seconds)
    report.part("one", needs, measure)
    report.part("two", 0, lambda left: {"images/s": 1.0})
    one, two = report.rows
    assert {key: value for key, value in one.items() if key not in ("part", "seconds")} == row
    assert two["part"] == "two"


@pytest.mark.parametrize("name", ["checkpoints", "folders", "input", "train", "optimizers", "overhead", "speedups", "threads"])
def test_help_says_what_is_measured(name: str, benchmark: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        benchmark(name, "--help")
    assert stop.value.code == 0
    assert "--rounds" in capsys.readouterr().out


@pytest.mark.usefixtures("benchmark")
def test_the_first_minutes_are_sums_of_what_a_user_types(monkeypatch, tmp_path):
    first_minutes = importlib.import_module("first_minutes")
    typed: list[str] = []

    def one_second(command: str, folder: Path, environment: Path) -> float:
        assert (folder / "mine.jpg").exists() or folder.name == "copy"
        typed.append(command)
        return 1.0

    monkeypatch.setattr(first_minutes, "_seconds", one_second)
    first_minutes.main(["--pip=-v", "--more=--trainer.max_epochs=1", "--json", str(tmp_path / "out.json")])
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["totals"] == {"a first prediction": 4, "a trained network": 4, "fine-tuned on 60 pictures": 5}
    assert typed[2] == "pip install ./copy --quiet -v"
    assert typed[4] == "reslight fit --config configs/digits.yaml --trainer.max_epochs=1"
    first_minutes.draw_pictures(tmp_path)
    assert sorted((folder.name, len(list(folder.iterdir()))) for folder in (tmp_path / "PHOTOS").iterdir()) == [
        ("circle", 20),
        ("square", 20),
        ("triangle", 20),
    ]


@pytest.mark.usefixtures("benchmark")
def test_training_images_are_small_first():
    progressive = importlib.import_module("progressive")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    data = Synthetic(SyntheticImages(train_size=96, test_size=16), val_size=16, batch_size=8)
    module, seen = ImageClassifier("resnet8"), []
    module.net.conv1.register_forward_pre_hook(lambda conv, inputs: seen.append((module.training, inputs[0].shape[-1])))
    callbacks = [progressive.SmallFirst(sides=(20, 26), until=(0.4, 0.7))]
    Trainer(max_epochs=1, num_sanity_val_steps=0, accelerator="cpu", callbacks=callbacks, **quiet).fit(module, data)
    assert seen == [(True, 20)] * 4 + [(True, 26)] * 3 + [(True, 32)] * 3 + [(False, 32)] * 2


@pytest.mark.usefixtures("benchmark")
@pytest.mark.parametrize(("name", "classes"), [("digits", 10), ("letters", 26), ("shapes", 10), ("faces", 2), ("photographs", 10)])
def test_datasets_for_transfer_share_no_image_between_train_and_test(name, classes, monkeypatch):
    if name in ("faces", "photographs"):
        pytest.importorskip("skimage", reason="scikit-image is not installed")
    transfer = importlib.import_module("transfer")
    monkeypatch.setattr(transfer, "TRAIN", 5)
    monkeypatch.setattr(transfer, "TEST", 4)
    train, test = (list(transfer.SETS[name](split)) for split in ("train", "test"))
    assert {label for label, _ in train} == {label for label, _ in test}
    assert len(train) == 5 * classes
    assert len({label for label, _ in train}) == classes
    pixels = [{image.convert("RGB").tobytes() for _, image in split} for split in (train, test)]
    assert not pixels[0] & pixels[1]


@pytest.mark.usefixtures("benchmark")
def test_an_interrupted_run_is_not_taken_for_a_seed(monkeypatch, tmp_path):
    finetune = importlib.import_module("finetune")

    def run(command: str, *words: str) -> None:
        if command == "fit":
            (tmp_path / "finetune-resnet8" / str(1 + len(list(tmp_path.glob("*/*"))))).mkdir(parents=True)
        else:
            (Path(words[-1]) / "test.json").write_text('{"counts": {"correct1": 3, "total": 4}}')

    monkeypatch.setattr(finetune, "_reslight", run)
    assert [finetune.accuracy(tmp_path, [], seed) for seed in (1, 2, 2)] == [0.75] * 3
    (tmp_path / "finetune-resnet8" / "3").mkdir()
    with pytest.raises(SystemExit, match="3 was interrupted: remove it"):
        finetune.accuracy(tmp_path, [], 3)


@pytest.mark.usefixtures("benchmark")
def test_both_datasets_become_one_with_the_same_pixels(monkeypatch, tmp_path):
    both = importlib.import_module("both")
    images = torch.randint(256, (2, 2, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    class Two:
        def __init__(self, name: str, root: str, val_size: int) -> None:
            self.number = both.SETS.index(name)
            self.labels = [f"{name} {label}" for label in "ab"]

        def load_split(self, split: str) -> SimpleNamespace:
            return SimpleNamespace(images=images[self.number, ("train", "test").index(split)], labels=torch.tensor([0, 1, 1, 0]))

    monkeypatch.setattr(both, "CIFAR", Two)
    both.main([str(tmp_path / "out")])
    data = Folder(str(tmp_path / "out"), preprocess=Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3), val_size=0)
    data.setup("fit")
    data.setup("test")
    assert list(data.labels) == ["cifar10 a", "cifar10 b", "cifar100 a", "cifar100 b"]
    for number, split in enumerate(("train", "test")):
        pixels, labels, _ = next(iter(EvalLoader(data.splits[split], batch_size=8, rank=0, devices=1)))
        assert labels.tolist() == [0, 1, 1, 0, 2, 3, 3, 2]
        assert split == "train" or torch.equal(pixels, images[:, number].flatten(0, 1)), "training images are cropped"
