"""Parquet files as on the Hub: which are taken, how labels are numbered, and the errors of bad ones."""

import json
import shutil

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

TRAIN = "train-00000-of-00001.parquet"


def cells(small, rows=30):
    return [{"bytes": small.picture(image), "path": None} for image in small.pixels["train"][:rows]]


def test_missing_shard_is_named(small, tmp_path):
    small.write_shards(tmp_path, shards=2)
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    assert small.refusal(tmp_path).startswith(f"{tmp_path} is incomplete: train-00001-of-00002 is missing")
    assert len(small.data(tmp_path).load_split("test")) == 10


def test_numbers_of_any_width(small, tmp_path):
    small.write_shards(tmp_path, shards=2)
    for number in range(2):
        (tmp_path / f"train-{number:05d}-of-00002.parquet").rename(tmp_path / f"train-{number}-of-2.parquet")
    assert len(small.data(tmp_path).load_split("train")) == 30


@pytest.mark.parametrize("name", ["train.parquet", "train/0000.parquet", "train-00000-of-00001-0123456789abcdef.parquet"])
def test_other_names(small, name, tmp_path):
    small.write_shards(tmp_path / "from")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.move(tmp_path / "from" / TRAIN, tmp_path / name)
    assert len(small.data(tmp_path).load_split("train")) == 30


def test_images_as_bytes_alone(small, tmp_path):
    content = [small.picture(image) for image in small.pixels["train"]]
    small.write_parquet(tmp_path / TRAIN, {"img": content, "label": small.labels["train"]})
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]


@pytest.mark.parametrize("small", ["cifar100"], indirect=True)
def test_coarse_labels_are_not_taken_for_the_classes(small, tmp_path):
    labels = small.labels["train"]
    columns = {"img": cells(small, 300), "coarse_label": [label // 5 for label in labels], "fine_label": labels}
    small.write_parquet(tmp_path / TRAIN, columns)
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]


@pytest.mark.parametrize("small", ["cifar100"], indirect=True)
def test_other_spellings_of_classes(small, tmp_path):
    names = [label.replace("_", " ").title() for label in small.metadata.labels]
    assert "Lawn Mower" in names
    small.write_parquet(tmp_path / TRAIN, {"img": cells(small, 300), "fine_label": small.labels["train"]}, names)
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]


# Bad files


@pytest.mark.parametrize("kept", [0, 3, 4, 100, 0.5, -5, -1])
def test_a_truncated_file_is_refused(small, kept, tmp_path):
    small.write_shards(tmp_path)
    content = (tmp_path / TRAIN).read_bytes()
    (tmp_path / TRAIN).write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    text = small.refusal(tmp_path)
    assert text.startswith(f"{tmp_path / TRAIN} is damaged or cut short (")
    assert text.endswith("). Delete it, and download it again.")


@pytest.mark.slow
def test_damage_never_passes(small, tmp_path):
    small.write_shards(tmp_path, names=small.metadata.labels)
    content = (tmp_path / TRAIN).read_bytes()
    places = np.random.default_rng(3).integers(0, len(content), 30).tolist()
    refused = 0
    for place in [*places, *range(len(content) - 40, len(content), 4)]:
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        (tmp_path / TRAIN).write_bytes(damaged)
        refused += small.is_refused(tmp_path)
    assert refused > 20, "some bytes mean nothing, such as the paths of the images"


def test_a_broken_image_is_named(small, tmp_path):
    columns = {"img": cells(small), "label": small.labels["train"]}
    columns["img"][17] |= {"bytes": columns["img"][17]["bytes"][:1000]}
    small.write_parquet(tmp_path / TRAIN, columns)
    text = small.refusal(tmp_path)
    assert text.startswith(f"the image in row 17 of {tmp_path / TRAIN} cannot be read as an image (")
    assert text.endswith("). Replace it by a sound copy.")


@pytest.mark.parametrize("cell", [b"", b"GIF", b"no image at all", None, {"bytes": None, "path": "1.png"}, {"path": "1.png"}, "1.png"])
def test_what_is_no_image_is_named(small, cell, tmp_path):
    small.write_parquet(tmp_path / TRAIN, {"img": [cell], "label": [0]})
    assert small.refusal(tmp_path) == (
        f"the image in row 0 of {tmp_path / TRAIN} cannot be read as an image (unknown format). Replace it by a sound copy."
    )


@pytest.mark.parametrize("shape", [(32, 31), (33, 32), (28, 28), (64, 64)])
def test_an_image_of_another_size_is_named(small, shape, tmp_path):
    columns = {"img": cells(small), "label": small.labels["train"]}
    columns["img"][1] = {"bytes": small.picture(np.zeros((*shape, 3), np.uint8)), "path": None}
    small.write_parquet(tmp_path / TRAIN, columns)
    assert small.refusal(tmp_path) == (
        f"the image in row 1 of {tmp_path / TRAIN} has {shape[1]} x {shape[0]} pixels: it must have 32 x 32. Replace it by the original."
    )


def test_a_class_that_does_not_exist_is_named(small, tmp_path):
    names = ["zebra" if name == "horse" else name for name in small.metadata.labels]
    small.write_parquet(tmp_path / TRAIN, {"img": cells(small), "label": small.labels["train"]}, names)
    text = small.refusal(tmp_path)
    assert text == f"{tmp_path / TRAIN} has the class zebra, which CIFAR-10 does not have. Set data.name or data.root."


@pytest.mark.parametrize("names", [None, ["airplane", "cat"]])
@pytest.mark.parametrize("label", [10, -1, None, 1.5, "cat", [3]])
def test_a_label_that_does_not_exist_is_named(small, label, names, tmp_path):
    small.write_parquet(tmp_path / TRAIN, {"img": cells(small, 1), "label": [label]}, names)
    text = small.refusal(tmp_path, allow_modified=True)
    assert text == f"{tmp_path / TRAIN} has the label {label}: it must be 0 to {9 if names is None else 1}. Set data.name or data.root."


@pytest.mark.parametrize(
    ("columns", "said"),
    [(("picture", "label"), "img or image"), (("img", "coarse_label"), "fine_label or label or labels")],
)
def test_other_columns_are_refused(small, columns, said, tmp_path):
    small.write_shards(tmp_path, columns=columns)
    text = small.refusal(tmp_path)
    assert text == f"{tmp_path / TRAIN} has the columns {', '.join(columns)}: one of them must be named {said}. Rename it."


def test_a_file_without_images_is_refused(small, tmp_path):
    schema = arrow.schema({"img": arrow.binary(), "label": arrow.int64()})
    parquet.write_table(schema.empty_table(), tmp_path / TRAIN)
    assert small.refusal(tmp_path, allow_modified=True) == f"{tmp_path / TRAIN} has no images. Download it again."


@pytest.mark.parametrize(
    "said",
    [b"{", b"[]", b"\xff", b'"text"', json.dumps({"info": {"features": {"label": []}}}).encode()],
)
def test_a_schema_that_cannot_be_read_is_refused(small, said, tmp_path):
    small.write_shards(tmp_path)
    table = parquet.read_table(tmp_path / TRAIN).replace_schema_metadata({b"huggingface": said})
    parquet.write_table(table, tmp_path / TRAIN)
    text = small.refusal(tmp_path)
    assert text.startswith(f"{tmp_path / TRAIN} has a schema whose class names cannot be read (")
    assert text.endswith("). Download it again.")
