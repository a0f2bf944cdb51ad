"""The user's own images, and a miniature of ImageNet, from the command line to the classified image."""

import json
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.miniature import write_miniature

import reslight as package

SMALL = ["--data.preprocess.size", "32", "--data.preprocess.resize", "40"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Reddish and bluish images in folders with spaces, accents and parentheses in their names."""
    draw = np.random.default_rng(0)
    for channel, name in ((0, "Häuser am See"), (2, "my cats (2023)")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = draw.integers(0, 100, (30, 40, 3))
            pixels[..., channel] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / name / f"Foto {number} ü.jpg")
    return tmp_path / "pictures"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = package.create_model("resnet8", num_classes=7)
    package.save(net, tmp_path / "weights", preprocess=package.Preprocess(size=16, resize=20, mean=(0.4, 0.5, 0.6), std=(0.2,) * 3))
    return tmp_path / "weights"


@pytest.mark.slow
def test_fine_tuning_in_one_line(reslight, pictures: Path, weights: Path):
    line = ["--config", "finetune", "--data.root", pictures, "--model.init_from", weights, "--data.batch_size", 8]
    answer = reslight("fit", *line, "--trainer.max_epochs", 8)
    assert answer.code == 0, answer.err
    assert "next   reslight classify runs/finetune/1/weights IMAGE" in answer.out
    exported = Path("runs/finetune/1/weights")
    config = json.loads((exported / "config.json").read_text())["reslight"]
    assert config["preprocess"] | {"size": 16, "resize": 20, "mean": [0.4, 0.5, 0.6]} == config["preprocess"]
    assert config["labels"] == ["Häuser am See", "my cats (2023)"]
    assert config["recipe"]["init_from"] == str(weights)
    picture = pictures / "my cats (2023)" / "Foto 3 ü.jpg"
    answer = reslight("classify", exported, picture)
    assert answer.out.splitlines()[1].endswith("my cats (2023)")
    answer = reslight("verify", exported, "--data", pictures)
    assert answer.code == 0, answer.out + answer.err
    larger = reslight("validate", "--config", "runs/finetune/1", "--data.preprocess.size", 24, "--data.preprocess.resize", 30)
    assert "data.preprocess.size is 24: it was 16 when the checkpoint was written" in larger.err
    # The run's own configuration works without the weights of init_from.
    for path in weights.iterdir():
        path.unlink()
    weights.rmdir()
    assert reslight("validate", "--config", "runs/finetune/1").code == 0
    answer = reslight("fit", *line, "--trainer.max_epochs", 9, "--ckpt_path", "last")
    assert answer.code == 0, answer.err
    assert package.load(exported).config.num_classes == 2


@pytest.mark.slow
def test_a_label_file_trains_as_class_folders_do(reslight, pictures: Path, tmp_path: Path):
    rows = []
    (tmp_path / "flat").mkdir()
    for path in sorted(pictures.rglob("*.jpg"), key=lambda path: path.name):
        rows.append((path.name.replace("Foto", path.parent.name), path.parent.name, f"camera {len(rows) // 3}"))
        shutil.copy(path, pictures.parent / "flat" / rows[-1][0])
        path.rename(path.with_name(rows[-1][0]))
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(map(";".join, [("photo", "animal", "camera"), *rows])), encoding="utf-8")
    line = ["--config", "finetune", "--model.net", "resnet8", *SMALL, "--data.batch_size", 8, "--trainer.max_epochs", 1]
    columns = ["--data.labels_columns", '{"path": "photo", "label": "animal"}']
    assert reslight("fit", *line, "--data.root", pictures).code == 0
    answer = reslight("fit", *line, "--data.root", tmp_path / "flat", "--data.labels", labels, *columns)
    assert answer.code == 0, answer.err
    one, two = (torch.load(f"runs/finetune-resnet8/{n}/checkpoints/last.ckpt", weights_only=True) for n in (1, 2))
    assert one["reslight"]["data"]["splits"] == two["reslight"]["data"]["splits"]
    assert all(torch.equal(one["state_dict"][key], value) for key, value in two["state_dict"].items())
    # The card knows the columns and the fold, so that the same images are evaluated again.
    answer = reslight("fit", *line, "--data.root", tmp_path / "flat", "--data.labels", labels, *columns, "--data.fold", "2/3")
    assert "data   flat: 16 train, 8 val images" in answer.out
    answer = reslight("verify", "runs/finetune-resnet8/3/weights", "--data", tmp_path / "flat", "--labels", labels)
    assert answer.code == 0, answer.out + answer.err
    labels.write_text(labels.read_text(encoding="utf-8").replace(";my cats (2023)", ";Häuser am See", 1), encoding="utf-8")
    answer = reslight("fit", "--config", "runs/finetune-resnet8/3", "--trainer.max_epochs", 2, "--ckpt_path", "last")
    assert "warning: data.splits.train.fingerprint is" in answer.err
    answer = reslight("data", "check", tmp_path / "flat", "--labels", labels, "--columns", "path=photo", "label=animal", "group=camera")
    assert (answer.code, answer.out.splitlines()[-1]) == (0, "no problems")
    assert "--columns is kind: it must be KIND=NAME" in reslight("data", "check", pictures, "--columns", "kind").err


@pytest.mark.slow
def test_an_average_is_exported_with_its_own_results(reslight):
    answer = reslight("fit", "--config", "digits", "--trainer.max_epochs", 3, "--model.ema", 0.9, "--export", "true")
    assert answer.code == 0, answer.err
    at_the_end = json.loads(Path("runs/digits/1/validate.json").read_text())
    assert f"val: {at_the_end['counts']['correct1']} of 180 correct" in answer.out
    assert reslight("validate", "--config", "runs/digits/1").code == 0
    later = json.loads(Path("runs/digits/1/validate.json").read_text())
    assert (later["counts"], later["sha256"]) == (at_the_end["counts"], at_the_end["sha256"])
    assert reslight("verify", "runs/digits/1/weights").code == 0


@pytest.mark.slow
def test_a_resumed_fine_tuning_ends_as_one_that_was_not_interrupted(reslight, pictures: Path, weights: Path):
    line = ["--config", "finetune", "--data.root", pictures, "--model.init_from", weights, "--data.batch_size", 8, "--export", "false"]
    line += ["--model.schedule.name", "constant", "--model.schedule.warmup", 0, "--model.freeze", "layer1"]
    line += ["--data.mix.cutmix", 1.0, "--data.augment.policy", "trivialaugment"]
    assert reslight("fit", *line, "--trainer.max_steps", 6).code == 0
    assert reslight("fit", *line, "--trainer.max_steps", 3).code == 0
    answer = reslight("fit", *line, "--trainer.max_steps", 6, "--ckpt_path", "last")
    assert answer.code == 0, answer.err
    assert "init_from" not in answer.err, "init_from is not compared on a resume"
    one, two = (torch.load(f"runs/finetune/{n}/checkpoints/last.ckpt", weights_only=True) for n in (1, 2))
    assert one["global_step"] == two["global_step"] == 6
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
    assert two["hyper_parameters"]["init_from"] == str(weights)


@pytest.mark.slow
def test_images_that_cannot_be_read(reslight, pictures: Path, weights: Path):
    (pictures / "my cats (2023)" / "invoice.jpg").write_bytes(b"%PDF-1.7")
    line = ["--config", "finetune", "--data.root", pictures, "--model.init_from", weights, "--data.batch_size", 8]
    answer = reslight("fit", *line, "--trainer.max_epochs", 3)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("reslight: error: ")
    assert "invoice.jpg is not an image that Pillow can read. Replace or remove it. Run `reslight data check`" in answer.err
    answer = reslight("data", "check", pictures)
    assert answer.code == 1
    assert "1  unreadable" in answer.out
    answer = reslight("fit", *line, "--trainer.max_epochs", 3, "--data.on_bad_image", "skip")
    assert answer.code == 0, answer.err
    assert answer.err.count("invoice.jpg") == 1
    (pictures.parent / "split").mkdir()
    for part in ("train", "val"):
        shutil.copytree(pictures, pictures.parent / "split" / part)
    answer = reslight("fit", *line, "--data.root", pictures.parent / "split", "--trainer.max_epochs", 3, "--data.on_bad_image", "skip")
    assert "1 of the val images could not be read" in answer.out
    (pictures / "my cats (2023)" / "invoice.jpg").unlink()
    answer = reslight("data", "check", pictures)
    assert answer.code == 0
    assert "24 images (24 train) of 2 classes" in answer.out


@pytest.mark.slow
def test_imagenet_from_its_layout_to_a_classified_picture(reslight, tmp_path: Path):
    made = write_miniature(tmp_path / "imagenet", synsets=10, train=4, val=2, layout="official")
    line = ["--config", "imagenet/paper", "--model.net", "plain18", "--data.root", made.root, *SMALL, "--data.crop.short_side", "[36,60]"]
    line += ["--data.batch_size", 8, "--data.val_size", 10, "--trainer.max_steps", 6]
    answer = reslight("fit", *line)
    assert answer.code == 0, answer.err
    assert "30 train, 10 val images" in answer.out
    assert reslight("test", "--config", "runs/imagenet/paper-plain18/1").code == 0
    for views in ("ten_crop", "multi_scale"):
        answer = reslight("test", "--config", "runs/imagenet/paper-plain18/1", "--data.test_views", views, "--data.test_scales", "[32,40]")
        assert answer.code == 0, answer.err
        assert f"views  {views}" in answer.out
    answer = reslight("export", "runs/imagenet/paper-plain18/1", "out")
    right = json.loads(Path("runs/imagenet/paper-plain18/1/test.json").read_text())["counts"]["correct1"]
    assert f"test: {right} of 20 correct" in answer.out, "the card has the numbers of the center crop"
    assert reslight("verify", "out", "--data", made.root).code == 0
    answer = reslight("classify", "out", *(path for path in (made.root / "val").glob("*.JPEG")))
    assert answer.code == 0
    assert answer.out.count("tench") + answer.out.count("English springer") > 0


def test_a_missing_root(reslight):
    answer = reslight("fit", "--data", "Folder", "--data.root", "nowhere", "--model.net", "resnet8")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("reslight: error: data.root is nowhere: there is no such folder. ")


@pytest.fixture
def three_classes(tmp_path: Path) -> Path:
    """A training and a test split of three classes, one of which has an accent that is composed (NFC)."""
    return fill(tmp_path / "three", train=["ant", "bee", normalize("NFC", "bär")], test=["ant", "bee", normalize("NFC", "bär")])


def fill(root: Path, **splits: list[str]) -> Path:
    for split, names in splits.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.mark.slow
def test_a_test_root_with_other_classes_than_training(reslight, three_classes: Path, tmp_path: Path):
    sizes = ["--data.preprocess.size", 16, "--data.preprocess.resize", 20, "--data.batch_size", 4, "--data.val_size", 0]
    answer = reslight("fit", "--data", "Folder", "--data.root", three_classes, "--model.net", "resnet8", *sizes, "--trainer.max_steps", 1)
    assert answer.code == 0, answer.err
    # Another root is matched by the names of its test classes, and the evaluation goes beside the run's own.
    for name, classes in {"few": ["ant", normalize("NFD", "bär")], "other": ["ant", "bee", "cat", "dog"]}.items():
        answer = reslight("test", "--config", "runs/custom/1", "--data.root", fill(tmp_path / name, train=classes, test=["ant"]))
        assert answer.code == 0, answer.err
        assert f"{name} has no test images of 2 of the network's 3 classes: bee, bär" in answer.err
        assert json.loads(Path(f"runs/custom/1/test.{name}.json").read_text())["counts"]["total"] == 3
    assert not Path("runs/custom/1/test.json").exists()
    # A test split with some of the classes of training is no mistake, whichever way its accents are written.
    shutil.rmtree(three_classes / "test")
    fill(three_classes, test=["bee", normalize("NFD", "bär")])
    answer = reslight("test", "--config", "runs/custom/1")
    assert answer.code == 0, answer.err
    assert "has no images of ant" in answer.err
    assert json.loads(Path("runs/custom/1/test.json").read_text())["counts"]["total"] == 6
    fill(three_classes, test=["cat"])
    answer = reslight("test", "--config", "runs/custom/1")
    assert answer.code == 2
    assert "classes that are missing in" in answer.err.splitlines()[-1]
    assert "train: cat. " in answer.err.splitlines()[-1]
