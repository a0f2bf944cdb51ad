"""CIFAR from every form to the same splits; sets that are not the real one; the mean image; the command line."""

import logging
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslight import UsageError
from reslight.data import CIFAR, Split
from reslight.data.loading.cache import cache_folder

both_sets = pytest.mark.parametrize("small", ["cifar10", "cifar100"], indirect=True)


def other_order(labels):
    return [labels[i] for i in np.random.default_rng(2).permutation(len(labels))]


FORMS: dict[str, Callable] = {
    "archive": lambda small, root: small.write_archive(root),
    "archive's folder": lambda small, root: small.write_batches(root),
    "one PNG shard": lambda small, root: small.write_shards(root, names=small.metadata.labels),
    "WebP shards": lambda small, root: small.write_shards(root, shards=2, form="WEBP"),
    "shards with other numbers": lambda small, root: small.write_shards(root, names=other_order(small.metadata.labels)),
    "the Hub's columns": lambda small, root: small.write_shards(root / "data", shards=2, columns=("image", "fine_label")),
    "the Hub's folder": lambda small, root: small.write_shards(
        root / Path(small.metadata.shards["train"]).parent, names=small.metadata.labels
    ),
    "class folders": lambda small, root: small.write_class_folders(root),
    "class folders in superclasses": lambda small, root: small.write_class_folders(root, between=lambda label: f"group {label // 5}"),
}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
@both_sets
def test_every_form_gives_the_same_splits(small, write, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    write(small, root)
    data = small.data(root)
    for part in ("train", "test"):
        split = data.load_split(part)
        images, labels = small.tensors(part)
        assert torch.equal(split.images, images)
        assert torch.equal(split.labels, labels)
        assert split.fingerprint == small.metadata.fingerprints[part]


def test_two_labels_of_one_image_are_in_order(small):
    """The material has what the test above needs to see the order of ties."""
    rows = small.sorted_rows("train")
    alike = [(one[1], other[1]) for one, other in pairwise(rows) if one[0] == other[0]]
    assert len(alike) == 1
    assert alike[0][0] < alike[0][1]


@both_sets
def test_archive_itself_and_folder_itself_as_root(small, tmp_path):
    archive = small.write_archive(tmp_path)
    assert small.data(archive).load_split("train").fingerprint == small.metadata.fingerprints["train"]
    folder = small.write_batches(tmp_path / "unpacked").rename(tmp_path / "mine")
    assert small.data(folder).load_split("test").fingerprint == small.metadata.fingerprints["test"]


def test_a_folder_of_the_sets_name_comes_before_root(small, tmp_path):
    small.write_archive(tmp_path / "cifar10")
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    (tmp_path / "train" / "n01440764" / "1.png").write_bytes(small.picture(small.pixels["train"][0]))
    assert len(small.data(tmp_path).load_split("train")) == 30


def test_home_is_understood(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    small.write_archive(tmp_path / "sets")
    assert len(small.data(Path("~/sets")).load_split("train")) == 30


# What is another set


def test_other_set_is_refused(tmp_path, small, request):
    other = type(small)("cifar100")
    archive = other.write_archive(tmp_path)
    text = small.refusal(archive)
    assert text.startswith(f"{archive} is not the python archive of CIFAR-10: cifar-10-batches-py/data_batch_1, ")
    assert text.endswith("or set data.name.")
    other.write_shards(tmp_path / "named", names=other.metadata.labels)
    assert small.refusal(tmp_path / "named").endswith(
        "train-00000-of-00001.parquet has the class apple, which CIFAR-10 does not have. Set data.name or data.root."
    )
    other.write_shards(tmp_path / "unnamed", columns=("img", "fine_label"))
    assert "train-00000-of-00001.parquet has the label " in (text := small.refusal(tmp_path / "unnamed"))
    assert text.endswith("it must be 0 to 9. Set data.name or data.root.")
    other.write_class_folders(tmp_path / "folders")
    assert f"{tmp_path / 'folders' / 'train' / 'apple'} is not named after a class of CIFAR-10 (airplane, automobile, bird, " in (
        text := small.refusal(tmp_path / "folders")
    )
    assert text.endswith("truck). Rename the folder, or set data.root.")


@pytest.mark.parametrize("small", ["cifar100"], indirect=True)
def test_fewer_classes_than_expected(small, tmp_path):
    type(small)("cifar10").write_shards(tmp_path)
    text = small.refusal(tmp_path)
    assert text.startswith(
        f"the training images of the parquet files in {tmp_path} differ from CIFAR-100's: 3 bowl too few, 3 boy too few, "
    )
    assert text.count(" too few") == 10, "ten classes are named at most"
    assert " and 80 more. " in text
    assert text.endswith("set data.allow_modified to true.")


@both_sets
def test_modified_counts_are_told(small, tmp_path, caplog):
    folder = small.write_class_folders(tmp_path)
    (one, two), labels = small.metadata.labels[:2], small.labels["train"]
    files = [folder / "train" / one / f"{row:04d}.png" for row, label in enumerate(labels) if label == 0]
    files[0].unlink()
    files[1].unlink()
    Image.new("RGB", (32, 32)).save(folder / "train" / two / "more.png")
    told = f"the class folders in {folder / 'train'} differ from {small.metadata.title}'s: 2 {one} too few, 1 {two} too many"
    text = small.refusal(folder)
    assert told in text
    assert text.endswith("set data.allow_modified to true.")
    assert len(small.data(folder).load_split("test")) == len(small.labels["test"]), "the test images are as they were"
    with caplog.at_level(logging.WARNING):
        split = small.data(folder, allow_modified=True).load_split("train")
    assert len(split) == len(labels) - 1
    assert [record.getMessage() for record in caplog.records] == [f"the training images of {told}, as data.allow_modified allows"]


def repaint(small, root):
    image = small.pixels["test"][0]
    small.pixels["test"][0, 5, 5, 1] ^= 1
    small.write_archive(root)
    small.pixels["test"][0] = image


def relabel(small, root):
    labels = small.labels["test"]
    labels[0], labels[1] = labels[1], labels[0]
    small.write_archive(root)


@pytest.mark.parametrize("write", [repaint, relabel])
def test_modified_images_or_labels_are_told(small, write, tmp_path, caplog):
    write(small, tmp_path)
    text = small.refusal(tmp_path, "test")
    assert text.startswith(f"the test images of the archive {tmp_path / 'cifar-10-python.tar.gz'} differ from CIFAR-10's: each class has ")
    assert text.endswith("set data.allow_modified to true.")
    assert len(small.data(tmp_path, allow_modified=True).load_split("test")) == 10
    assert "as data.allow_modified allows" in caplog.text


def test_a_modified_set_stays_refused_when_it_is_cached(small, tmp_path):
    repaint(small, tmp_path)
    small.data(tmp_path, allow_modified=True).load_split("test")
    assert "images or labels are others" in small.refusal(tmp_path, "test")


def test_what_is_refused_is_not_kept(small, tmp_path):
    repaint(small, tmp_path)
    assert "images or labels are others" in small.refusal(tmp_path, "test")
    assert not cache_folder().exists()


def test_an_incomplete_form_does_not_hide_a_whole_one(small, tmp_path):
    folder = small.write_batches(tmp_path)
    (folder / "data_batch_3").unlink()
    text = f"{folder} is incomplete: data_batch_3 is missing. Unpack the archive again."
    assert small.refusal(tmp_path) == text
    small.write_shards(tmp_path)
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]
    (tmp_path / "train-00000-of-00001.parquet").rename(tmp_path / "train-00000-of-00002.parquet")
    assert small.refusal(tmp_path) == text, "of several, the first is told"


# The data module


def test_stages_need_no_more_than_their_images(small, tmp_path):
    small.write_class_folders(tmp_path)
    shutil.rmtree(tmp_path / "test")
    data = small.data(tmp_path, val_size=10)
    data.setup("fit")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "val": 10}
    assert data.splits["val"].labels.bincount().tolist() == [1] * 10
    with pytest.raises(UsageError, match=r"there are no test images of CIFAR-10 .* HF_HUB_OFFLINE is set"):
        data.setup("test")


def test_prepare_data_loads_for_setup(small, tmp_path, monkeypatch):
    small.write_archive(tmp_path)
    data = small.data(tmp_path)
    data.prepare_data()
    monkeypatch.setattr(CIFAR, "_load", lambda *_: pytest.fail("loaded again"))
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "test": 10}
    assert data.data_info()["splits"] == {
        part: {"size": size, "fingerprint": small.metadata.fingerprints[part]} for part, size in (("train", 30), ("test", 10))
    }


@both_sets
def test_pixel_mean_is_the_mean_training_image(small, tmp_path):
    small.write_archive(tmp_path)
    data = small.data(tmp_path, normalize="pixel_mean", val_size=small.metadata.per_class["train"])
    assert len(data.preprocess.mean) == 3
    data.setup("test")
    expected = small.pixels["train"].astype(np.float64).mean(axis=0).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(np.reshape(data.preprocess.mean, (3, 32, 32)), expected, rtol=0, atol=1e-12)
    assert data.preprocess.std == (1.0, 1.0, 1.0)
    assert data.data_info()["normalize"] == "pixel_mean"
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    images, _ = small.tensors("test")
    np.testing.assert_allclose(batch.images.numpy(), images.numpy() / 255 - expected, rtol=0, atol=1e-6)
    mean = data.preprocess.mean
    data.setup("fit")
    assert data.preprocess.mean is mean


def test_channels_are_normalised_as_known(small, tmp_path):
    small.write_archive(tmp_path)
    data = small.data(tmp_path)
    data.setup("test")
    assert (data.preprocess.mean, data.preprocess.std) == (small.metadata.mean, small.metadata.std)


def test_construction_reads_nothing(monkeypatch):
    monkeypatch.setattr(CIFAR, "_load", lambda *_: pytest.fail("read"))
    data = CIFAR("cifar100", root="nowhere")
    assert (data.num_classes, data.in_channels, data.image_size, data.val_size) == (100, 3, 32, 5000)
    assert data.labels[0] == "apple"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cifar11"}, "data.name is 'cifar11': .*cifar10 or cifar100"),
        ({"normalize": "pixels"}, "data.normalize is 'pixels': .*channel or pixel_mean"),
        ({"val_size": 50000}, r"data.val_size is 50000: .*below 50000"),
        ({"root": None}, "data.root is None: .*folder of the images"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        CIFAR(**settings)


def test_splits_are_usable_as_training_changes_nothing_of_the_cache(small, tmp_path):
    """The mapped images are shared with a file: what writes to them must not write there."""
    small.write_archive(tmp_path)
    small.data(tmp_path).load_split("train")
    small.data(tmp_path).load_split("train").images.zero_()
    assert isinstance(split := small.data(tmp_path).load_split("train"), Split)
    assert split.fingerprint == small.metadata.fingerprints["train"]
    assert torch.equal(split.images, small.tensors("train")[0])


# The command line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "",
            "error: data.root is nowhere: there are no training images of CIFAR-10 in it or in nowhere/cifar10, and nothing was downloaded "
            "because HF_HUB_OFFLINE is set. Put ",
        ),
        ("--data.name cifar11", "data.name is cifar11: it must be cifar10 or cifar100"),
        (
            "--data.val_size 50000",
            "data.val_size is 50000: it must be below 50000, the number of training images. Set it to 5000, or to 0 for no validation.",
        ),
        ("--data.normalize pixel", "data.normalize is pixel: it must be channel or pixel_mean"),
    ],
)
def test_mistakes_in_a_command(reslight, words, says):
    answer = reslight("fit", "--config", "cifar10/fast", "--data.root", "nowhere", *words.split())
    assert answer.code == 2
    lines = [line for line in answer.err.splitlines() if line.startswith("reslight: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in answer.err
    assert not Path("nowhere").exists()
    assert not Path("runs").exists()
