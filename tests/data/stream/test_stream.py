"""Datasets in litdata's chunks: what is read, in which order, and each mistake in one line."""

import io
import json
import os
import shutil
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.test_trainer import Recorder, SaveAt, make_trainer, same

pytest.importorskip("litdata")
from litdata import StreamingDataset
from litdata.streaming import Cache

from reslight.data import Augment, Crop, Folder, Stream
from reslight.data.loading.loaders import BatchPlan, EvalLoader, Position, TrainLoader
from reslight.data.stream import chunk_store
from reslight.data.stream.chunk_index import parse_index
from reslight.data.stream.chunk_store import DOWNLOADS, ChunkStore, make_room, stream_cache
from reslight.data.stream.write import write_chunks
from reslight.messages import MissingPackageError, UsageError
from reslight.preprocess import Preprocess

PREPROCESS = Preprocess(size=8, resize=10, mean=(0.5,) * 3, std=(0.25,) * 3)


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(number)).save(file, "PNG")
    return file.getvalue()


def jpeg(number: int) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(pixels(number)).save(file, "JPEG")
    return Image.open(io.BytesIO(file.getvalue()))


def write(folder: Path, items: list, chunk_size: int = 5, **options) -> Path:
    """Write items with litdata alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache = Cache(str(folder), chunk_size=chunk_size, **options)
        for number, item in enumerate(items):
            cache[number] = item
        cache.done()
        cache.merge()
    return folder


def make_set(root: Path, train: int = 43, val: int = 7) -> Path:
    for split, count in (("train", train), ("val", val), ("test", val)):
        write(root / split, [{"image": png(number), "label": number % 3} for number in range(count)])
    return root


def make(root: Path, **settings) -> Stream:
    return Stream(
        str(root), **({"preprocess": PREPROCESS, "classes": 3, "batch_size": 8, "seed": 3, "shuffle_chunks": 3, "threads": 1} | settings)
    )


FORMS = {
    "a dictionary": lambda number: {"image": png(number), "label": number % 3},
    "a pair": lambda number: (png(number), number % 3),
    "JPEG of Pillow": lambda number: {"label": number % 3, "jpg": jpeg(number), "extra": {"pickled", number}},
    "pixels of Pillow": lambda number: {"image": Image.fromarray(pixels(number)), "label": number % 3},
    "gray of Pillow": lambda number: {"image": Image.fromarray(pixels(number)).convert("L"), "label": number % 3},
    "transparency": lambda number: {"image": Image.fromarray(pixels(number)).convert("RGBA"), "label": number % 3},
    "an array": lambda number: {"image": pixels(number), "label": number % 3},
    "a tensor": lambda number: [torch.from_numpy(pixels(number)).permute(2, 0, 1).contiguous(), torch.tensor(number % 3)],
    "names": lambda number: {"image": png(number), "label": "abc"[number % 3]},
}


@pytest.mark.parametrize("form", FORMS)
def test_items_are_those_that_litdata_reads(tmp_path: Path, form: str):
    write(tmp_path / "set", [FORMS[form](number) for number in range(12)])
    data = make(tmp_path / "set", classes=["a", "b", "c"], crop=Crop(kind="center"))
    data.setup("fit")
    split = data.splits["train"]
    batch = next(iter(split.batches([torch.arange(12)], epoch=0)))
    assert batch.labels.tolist() == [number % 3 for number in range(12)]
    reference = StreamingDataset(str(tmp_path / "set"))
    for number in range(12):
        item = reference[number]
        image = item[0] if isinstance(item, list | tuple) else item["jpg" if "jpg" in item else "image"]
        if isinstance(image, bytes | memoryview):
            assert split.images.read(number) == image
            continue
        if isinstance(image, Image.Image):
            image = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        image = torch.as_tensor(image)
        image = image.permute(2, 0, 1) if image.shape[-1] == 3 else image
        crop = split.geometry(image, torch.empty(0))
        assert torch.equal(batch.images[number], crop), number


def test_with_one_window_the_run_is_that_of_class_folders(tmp_path: Path):
    for split, count in (("train", 40), ("val", 9)):
        for number in range(count):
            folder = tmp_path / "folders" / split / "abc"[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:02}.png").write_bytes(png(number))
    settings = {"preprocess": PREPROCESS, "batch_size": 8, "seed": 3, "augment": Augment(flip="random", pad=1), "crop": Crop()}
    folder = Folder(str(tmp_path / "folders"), **settings)
    folder.setup("fit")
    for split, images in folder.splits.items():
        write(tmp_path / "set" / split, [(bytes(images.images.read(n)), int(images.labels[n])) for n in range(len(images))])
    stream = make(tmp_path / "set", **settings, shuffle_chunks=8)
    seen = []
    for data in (folder, stream):
        torch.manual_seed(0)
        module = Recorder()
        make_trainer().fit(module, data)
        seen.append((module.seen["train"], module.seen["val"], module.state_dict()))
    (a, b, net), (c, d, other) = seen
    assert same(a, c)
    assert same(b, d)
    assert all(torch.equal(net[key], other[key]) for key in net)


def test_an_epoch_has_each_image_once_and_few_chunks_at_a_time(tmp_path: Path):
    data = make(make_set(tmp_path / "set", train=45), batch_size=1)
    data.setup("fit")
    split = data.splits["train"]
    orders = [split.order(3, epoch) for epoch in (0, 1)]
    assert not torch.equal(*orders)
    assert torch.equal(orders[0], split.order(3, 0))
    for order in orders:
        assert order.sort().values.tolist() == list(range(45))
        chunks = (order // 5).tolist()
        assert [len(set(chunks[start : start + 15])) for start in (0, 15, 30)] == [3, 3, 3]
    store = split.images.store
    most = 0
    for _ in data.train_dataloader():
        most = max(most, len(store._chunks))
    assert most <= 2 * 3
    assert not store._chunks


def test_devices_share_the_batches_and_count_each_image_once(tmp_path: Path):
    data = make(make_set(tmp_path / "set"))
    data.setup("fit")
    train, val = data.splits["train"], data.splits["val"]

    def batches(devices: int, rank: int, done: int = 0) -> list:
        plan = BatchPlan(8, devices, 1)
        return list(TrainLoader(train, plan, rank=rank, seed=3, position=lambda: Position(1, done)))

    whole, first, second = batches(1, 0), batches(2, 0), batches(2, 1)
    assert len(whole) == 5
    for one, a, b in zip(whole, first, second, strict=True):
        assert torch.equal(one.images, torch.cat([a.images, b.images]))
        assert one.labels.tolist() == [*a.labels.tolist(), *b.labels.tolist()]
    # After a resume, the rest of the epoch is the same.
    assert [batch.indices.tolist() for batch in batches(1, 0, done=3)] == [batch.indices.tolist() for batch in whole[3:]]
    for devices in (1, 2, 3, 10):
        loaders = [EvalLoader(val, batch_size=4, rank=rank, devices=devices) for rank in range(devices)]
        assert sorted(number for loader in loaders for batch in loader for number in batch.indices.tolist()) == list(range(7))


def test_a_resume_in_an_epoch_gives_the_same_weights(tmp_path: Path):
    make_set(tmp_path / "set")

    def run(checkpoint: Path | None = None, **settings) -> Recorder:
        torch.manual_seed(0)
        module = Recorder()
        make_trainer(**settings).fit(module, make(tmp_path / "set"), ckpt_path=checkpoint)
        return module

    saved = tmp_path / "saved.ckpt"
    whole = run(callbacks=[SaveAt("on_train_batch_end", 7, saved)])
    rest = run(saved)
    assert same(whole.seen["train"][7:], rest.seen["train"])
    assert all(torch.equal(value, rest.state_dict()[key]) for key, value in whole.state_dict().items())


def test_what_is_written_has_classes_counts_and_the_fingerprint_of_its_source(tmp_path: Path):
    for number in range(30):
        folder = tmp_path / "folders" / ("train" if number < 20 else "test") / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(png(number))
    folder = Folder(str(tmp_path / "folders"), PREPROCESS, val_size=0)
    done: list[int] = []
    write_chunks(folder.labels, folder._image_set.splits, tmp_path / "set", chunk_bytes=3000, report=done.append)
    assert done == list(range(1, 31))
    data = make(tmp_path / "set", classes=None, class_weights="balanced", batch_size=4)
    data.setup()
    folder.setup()
    assert data.labels == ("a", "b", "c")
    assert data.data_info()["class_weights"] == folder.data_info()["class_weights"] or data.class_counts().tolist() == [7, 7, 6]
    for split in ("train", "test"):
        one, other = data.splits[split], folder.splits[split]
        assert one.fingerprint == other.fingerprint
        batch = next(iter(one.batches([torch.arange(len(one))], 0)))
        files = {(bytes(one.images.read(n)), int(batch.labels[n])) for n in range(len(one))}
        assert files == {(bytes(other.images.read(n)), int(other.labels[n])) for n in range(len(other))}
    # Validation and test images keep their order, and litdata reads all of it.
    assert [StreamingDataset(str(tmp_path / "set/test"))[n][0] for n in range(10)] == [bytes(other.images.read(n)) for n in range(10)]
    with pytest.raises(UsageError, match="it has other files"):
        write_chunks(folder.labels, folder._image_set.splits, tmp_path / "set")


@pytest.mark.slow
def test_pack(tmp_path: Path, reslight):
    for number in range(12):
        folder = tmp_path / "folders" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(png(number) if number else b"no image")
    answer = reslight("data", "pack", tmp_path / "folders", tmp_path / "kept", "--format", "litdata")
    assert (answer.code, answer.err) == (0, "")
    assert "has all 12 images" in answer.out
    assert f"--data Stream --data.root {tmp_path / 'kept'}" in answer.out
    answer = reslight("data", "pack", tmp_path / "folders", tmp_path / "small", "--format", "litdata", "--size", 6)
    assert f"kept as it is: {tmp_path / 'folders/a/00.png'} is not an image" in answer.out
    whole = Folder(str(tmp_path / "folders"), PREPROCESS, val_size=0)
    kept, small = (make(tmp_path / name, classes=None, batch_size=12, on_bad_image="skip") for name in ("kept", "small"))
    whole.setup("fit")
    found = []
    for data in (kept, small):
        data.setup("fit")
        assert len(next(iter(data.train_dataloader())).labels) == 11
        found.append([bytes(data.splits["train"].images.read(number)) for number in range(12)])
    assert set(found[0]) == {path.read_bytes() for path in (tmp_path / "folders").rglob("*.png")}
    assert [Image.open(io.BytesIO(data)).size for data in found[1] if data != b"no image"] == [(8, 6)] * 11
    settings = ["--data", "Stream", "--data.root", tmp_path / "kept", "--data.on_bad_image", "skip", "--data.batch_size", 12]
    answer = reslight("data", "show", *settings, "-o", tmp_path / "sheet.png")
    assert (answer.code, "11 of 12 training images, and 2 classes" in answer.out) == (0, True)
    fingerprints = [data.splits["train"].fingerprint for data in (whole, kept, small)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_pickled_fields_are_never_read(tmp_path: Path):
    class Hostile:
        def __reduce__(self):
            return (pytest.fail, ("the code of a pickle ran",))

    write(tmp_path / "set", [{"image": png(number), "label": number % 3, "note": Hostile()} for number in range(6)])
    data = make(tmp_path / "set", batch_size=6)
    data.setup("fit")
    assert sorted(next(iter(data.train_dataloader())).labels.tolist()) == [0, 0, 1, 1, 2, 2]
    write(tmp_path / "other", [{"image": png(number), "label": Hostile()} for number in range(6)])
    with pytest.raises(UsageError, match=r"data.label_field is label: .* image \(bytes\), label \(pickle\), and labels must be int"):
        make(tmp_path / "other")


def config(**values):
    return change_index(lambda content: content["config"].update(values))


def item_type(name: str):
    """Change the type of the items. Of a defaultdict, litdata imports the module that the index names."""

    def change(content):
        version, tree = json.loads(content["config"]["data_spec"])
        context = json.dumps({"default_factory_module": "antigravity", "default_factory_name": "fly", "dict_context": ["image", "label"]})
        content["config"]["data_spec"] = json.dumps([version, tree | {"type": name, "context": context}])

    return change_index(change)


def change_index(change):
    def apply(root: Path):
        path = root / "train/index.json"
        content = json.loads(path.read_bytes())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def cut(root: Path):
    path = root / "train/chunk-0-0.bin"
    path.write_bytes(path.read_bytes()[:-10])


def overwrite(root: Path):
    path = root / "train/chunk-0-0.bin"
    path.write_bytes(b"\xff" * path.stat().st_size)


MISTAKES = {
    "no folder": ({"root": "nowhere"}, None, "data.root is .*nowhere: there is no such folder"),
    "another store": ({"root": "gs://bucket/set"}, None, "data.root is gs://bucket/set: it must be a folder, or s3://BUCKET/PATH"),
    "no bucket": ({"root": "s3://"}, None, "data.root is s3:.*: it must be s3://BUCKET/PATH"),
    "no index": ({}, lambda root: shutil.rmtree(root / "train"), "it has .*, but no train"),
    "no classes": ({"classes": None}, None, "data.classes is null: .*has no reslight.json that names them"),
    "one class": ({"classes": 1}, None, "data.classes is 1: it must be two different names or more"),
    "a line break": ({"classes": ["a", "b\nc"]}, None, r"data.classes has b\\nc: the name of a class must be one line"),
    "too few classes": ({"classes": 2}, None, r"item \d of .*chunk-0-\d.bin has the label 2: it must be 0 to 1. Change data.classes"),
    "no such field": (
        {"image_field": "photo"},
        None,
        r"data.image_field is photo: it must be one of .*, image \(bytes\), label",
    ),
    "a wrong field": ({"image_field": "label"}, None, "data.image_field is label: .* images must be jpeg, "),
    "val_size": ({"val_size": 0.2}, None, "data.val_size is 0.2: a stream has validation images in a split of its own"),
    "balanced": ({"sampling": "balanced"}, None, "data.sampling is balanced: a stream is read chunk by chunk"),
    "class_weights": ({"class_weights": "balanced"}, None, "has no reslight.json with the number of images of each class"),
    "shuffle_chunks": ({"shuffle_chunks": 0}, None, "data.shuffle_chunks is 0: it must be at least 1"),
    "cache_gb": ({"cache_gb": 0}, None, "data.cache_gb is 0: it must be above 0"),
    "no JSON": ({}, lambda root: (root / "train/index.json").write_text("{"), "train/index.json is not an index of litdata"),
    "no chunks": ({}, change_index(lambda content: content.pop("chunks")), "is not an index of litdata .no 'chunks'."),
    "a chunk elsewhere": ({}, change_index(lambda content: content["chunks"][0].update(filename="../x")), "is not an index of litdata"),
    "a type of its own": ({}, item_type("collections.defaultdict"), "is not an index of litdata .its items are neither dictionaries nor"),
    "an empty index": ({}, change_index(lambda content: content["chunks"].clear()), "train/index.json has no images"),
    "compressed": (
        {},
        config(compression="zstd"),
        "has the compression zstd: it must be none",
    ),
    "encrypted": (
        {},
        config(encryption={"a": 1}),
        "has the encryption .*: it must be none",
    ),
    "parquet": ({}, config(item_loader="ParquetLoader"), "it must be PyTreeLoader"),
    "too many images": ({}, change_index(lambda content: content["chunks"][0].update(chunk_size=10**30)), "is not an index of litdata"),
    "a deep index": ({}, lambda root: (root / "train/index.json").write_text("[" * 100_000), "is not an index of litdata"),
    "bad counts": (
        {},
        lambda root: (root / "reslight.json").write_text(
            '{"classes": ["a", "b", "c"], "splits": {"train": {"counts": ["x"], "fingerprint": null, "checksums": {}}}}'
        ),
        "reslight.json is damaged .a split has other values than counts, a fingerprint and checksums",
    ),
    "bad description": ({}, lambda root: (root / "reslight.json").write_text("[]"), "reslight.json is damaged"),
    "a missing chunk": ({}, lambda root: (root / "train/chunk-0-0.bin").unlink(), "chunk-0-0.bin is missing. Copy the whole dataset"),
    "a short chunk": ({}, cut, "chunk-0-0.bin is cut short: it has .* of .* bytes. Delete it, and get it again"),
    "a damaged chunk": ({}, overwrite, "chunk-0-0.bin is damaged .*Delete it, and get it again"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(tmp_path: Path, mistake: str):
    settings, change, message = MISTAKES[mistake]
    root = make_set(tmp_path / "set", train=10, val=2)
    if change:
        change(root)
    # An image is never skipped because its chunk cannot be read.
    settings = {"on_bad_image": "skip", "val_size": 0} | settings

    def use() -> None:
        data = make(settings.pop("root", root), **settings)
        data.setup("fit")
        data.data_info()
        list(data.train_dataloader())

    with pytest.raises((UsageError, FileNotFoundError), match=message) as raised:
        use()
    assert "\n" not in str(raised.value)


def test_without_litdata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "litdata"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(MissingPackageError, match=r"Stream needs the package litdata, .* Run `pip install 'reslight\[stream\]'`"):
        make(tmp_path)


def test_chunks_that_were_used_longest_ago_are_deleted_first(tmp_path: Path):
    folder = stream_cache() / "set"
    folder.mkdir(parents=True)
    for number in range(4):
        path = folder / f"{number}.chunk"
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    make_room(100, 350)
    assert sorted(path.name for path in folder.iterdir()) == ["2.chunk", "3.chunk"]
    make_room(100, 300)
    assert len(list(folder.iterdir())) == 2


def test_a_reader_that_ends_takes_no_chunk_from_another(tmp_path: Path):
    write(tmp_path, [(png(number), number % 3) for number in range(5)])
    store = ChunkStore(parse_index((tmp_path / "index.json").read_bytes(), "index"), tmp_path)
    for _ in range(DOWNLOADS):
        store._slots.acquire()
    future = store._wanted(0)
    with ThreadPoolExecutor(1) as pool:
        items = pool.submit(store.items, 0)
        time.sleep(0.1)  # it waits for the future now
        store.close(0)  # as the end of another reader does
        assert not future.done()
        for _ in range(DOWNLOADS):
            store._slots.release()
        assert items.result(10).labels == [number % 3 for number in range(5)]


@pytest.mark.parametrize("times", [2, 9])
def test_a_chunk_that_another_process_deletes_is_downloaded_again(tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch):
    class Copies:
        url = "s3://bucket/set"
        downloads = 0

        def download(self, name, file):
            self.downloads += 1
            file.write((tmp_path / name).read_bytes())

    def read_items(path, *rest):
        if bucket.downloads <= times:
            path.unlink()
        return read(path, *rest)

    write(tmp_path, [(png(number), number % 3) for number in range(5)])
    bucket, read = Copies(), chunk_store.read_items
    monkeypatch.setattr(chunk_store, "read_items", read_items)
    store = ChunkStore(parse_index((tmp_path / "index.json").read_bytes(), "index"), stream_cache() / "set", bucket)
    if times < 5:
        assert len(store.items(0).labels) == 5
        assert bucket.downloads == times + 1
    else:
        with pytest.raises(
            OSError, match=r"chunk-0-0.bin.chunk was deleted 5 times before it was read\. Make room, or increase data.cache"
        ):
            store.items(0)
