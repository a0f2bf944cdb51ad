"""The official python archive: what its pickles may hold, and the errors of a bad one."""

import builtins
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch


def test_material_is_pickled_as_python_2_did(small):
    content = small.pickled(small.batches()["data_batch_1"])
    used = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(content)]
    assert ("PROTO", 2) in used
    assert {name for name, _ in used} >= {"SHORT_BINSTRING", "BINSTRING", "BININT1", "GLOBAL", "REDUCE", "BUILD"}
    assert not {name for name, _ in used if "BYTES" in name or "UNICODE" in name}
    assert [argument for name, argument in used if name == "GLOBAL"] == [
        "numpy.core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
    ]


def test_other_ways_to_pickle_a_batch(small, tmp_path):
    """By columns, as some arrays of NumPy are; by Python 3, with its text and today's NumPy."""
    batches = small.batches()
    batches["data_batch_1"][b"data"] = np.asfortranarray(batches["data_batch_1"][b"data"])
    changed = {"data_batch_1": small.pickled(batches["data_batch_1"])}
    for protocol, name in enumerate(["data_batch_2", "data_batch_3"], start=3):
        changed[name] = pickle.dumps({key.decode(): value for key, value in batches[name].items()}, protocol)
    assert b"_reconstruct" in changed["data_batch_3"]
    small.write_batches(tmp_path, changed)
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]


# Hostile pickles

HOSTILE = [
    ("posix", "system", b"touch owned"),
    ("nt", "system", b"copy nul owned"),
    ("os", "system", b"touch owned"),
    ("subprocess", "check_output", [b"touch", b"owned"]),
    ("builtins", "eval", b"open('owned', 'w')"),
    ("__builtin__", "eval", b"open('owned', 'w')"),
    ("builtins", "open", "owned", "w"),
    ("numpy", "load", b"owned"),
    ("numpy", "ndarray.tofile", b"owned"),
    ("numpy", "os.system", b"touch owned"),
    ("numpy.core.multiarray", "_reconstruct.__globals__", b"owned"),
    ("numpy.core", "multiarray", b"owned"),
    ("numpy.testing", "runstring", b"open('owned', 'w')", {}),
    ("numpy.core.multiarray_", "_reconstruct", b"owned"),
    ("owned", "ndarray", b"owned"),
    ("copyreg", "_reconstructor", b"owned"),
]


@pytest.fixture
def watched(monkeypatch):
    """Names of the modules imported and the functions called that a hostile pickle asks for."""
    seen = []

    def watch(holder, name):
        real = getattr(holder, name)

        def call(*arguments, **settings):
            seen.append((name, arguments))
            return real(*arguments, **settings)

        monkeypatch.setattr(holder, name, call)

    watch(os, "system")
    watch(builtins, "eval")
    watch(np, "load")
    Path("owned.py").write_text("ndarray = print", encoding="utf-8")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    return seen


@pytest.mark.parametrize(("module", "name", "arguments"), [(module, name, words) for module, name, *words in HOSTILE])
def test_a_hostile_pickle_is_refused(small, module, name, arguments, tmp_path, watched):
    hostile = small.pickled({b"data": small.calling(module, name, *arguments), b"labels": [0]})
    folder = small.write_batches(tmp_path, {"data_batch_3": hostile})
    text = small.refusal(tmp_path, allow_modified=True)
    assert text == (
        f"{folder / 'data_batch_3'} is not a batch of CIFAR-10: it asks for {module}.{name}, which no batch of images needs. "
        "Download the archive again, or set data.name or data.root."
    )
    assert not watched
    assert not Path("owned").exists()
    assert "owned" not in sys.modules


def test_the_material_would_be_hostile(small):
    """The pickles of the test above do harm where nothing forbids it."""
    pickle.loads(small.pickled(small.calling("builtins", "exec", b"open('owned', 'w').close()")), encoding="bytes")
    assert Path("owned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cposix\nsystem\n(S'touch owned'\ntR.",
        b"(S'touch owned'\niposix\nsystem\n.",
        b"(cposix\nsystem\nS'touch owned'\no.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch owned\x85R.",
        b"\x80\x02Pposix\n.",
        b"\x80\x02\x82\x01.",
    ],
    ids=["GLOBAL", "INST", "OBJ", "STACK_GLOBAL", "PERSID", "EXT1"],
)
def test_every_opcode_that_imports_is_refused(small, content, tmp_path, watched):
    folder = small.write_batches(tmp_path, {"data_batch_1": content})
    assert small.refusal(tmp_path).startswith(f"{folder / 'data_batch_1'} is not a batch of CIFAR-10: ")
    assert not watched
    assert not Path("owned").exists()


def test_a_hostile_pickle_in_a_tarball_is_refused(small, tmp_path, watched):
    archive = small.write_archive(tmp_path, {"test_batch": small.pickled(small.calling("posix", "system", b"touch owned"))})
    text = small.refusal(tmp_path, "test")
    assert text.startswith(f"{archive}: cifar-10-batches-py/test_batch is not a batch of CIFAR-10: it asks for posix.system, ")
    assert not watched
    assert not Path("owned").exists()


# Damaged and foreign batches


def without(key):
    return lambda batch: {other: value for other, value in batch.items() if other != key}


def with_labels(change):
    return lambda batch: batch | {b"labels": change(batch[b"labels"])}


def with_data(change):
    return lambda batch: batch | {b"data": change(batch[b"data"])}


IMAGES = "its 'data' must be an array of bytes, 3072 for each image"
NUMBERS = "it has an array of 'i8', but images are bytes ('u1')"
LABELS = "its 'labels' must be a number from 0 to 9 for each of 6 images"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without(b"data"), IMAGES),
        (without(b"labels"), LABELS),
        (lambda batch: {key + b"\xff": value for key, value in batch.items()}, IMAGES),
        (lambda batch: [batch], IMAGES),
        (lambda batch: b"nothing", IMAGES),
        (with_data(lambda data: data[:, :-1]), IMAGES),
        (with_data(lambda data: data.reshape(-1, 3, 32, 32)), IMAGES),
        (with_data(lambda data: data.reshape(-1)), IMAGES),
        (with_data(lambda data: data.astype(np.int64)), NUMBERS),
        (with_data(lambda data: data.tolist()), IMAGES),
        (with_labels(lambda labels: [*labels[:-1], 10]), LABELS),
        (with_labels(lambda labels: [*labels[:-1], -1]), LABELS),
        (with_labels(lambda labels: [*labels[:-1], 2.0]), LABELS),
        (with_labels(lambda labels: [*labels[:-1], None]), LABELS),
        (with_labels(lambda labels: labels[:-1]), LABELS),
        (with_labels(lambda labels: [*labels, 1]), LABELS),
        (with_labels(lambda labels: bytes(labels)), LABELS),
        (with_labels(lambda labels: np.array(labels)), NUMBERS),
    ],
)
def test_a_foreign_batch_is_refused(small, change, why, tmp_path):
    content = small.pickled(change(small.batches()["data_batch_5"]))
    folder = small.write_batches(tmp_path, {"data_batch_5": content})
    assert small.refusal(tmp_path, allow_modified=True) == (
        f"{folder / 'data_batch_5'} is not a batch of CIFAR-10: {why}. Download the archive again, or set data.name or data.root."
    )


@pytest.mark.parametrize("kept", [0, 1, 2, 10, 100, 1000, 18000, -2, -1])
def test_a_truncated_batch_is_refused(small, kept, tmp_path):
    content = small.pickled(small.batches()["data_batch_2"])
    folder = small.write_batches(tmp_path, {"data_batch_2": content[:kept]})
    text = small.refusal(tmp_path)
    assert text.startswith(f"{folder / 'data_batch_2'} is not a batch of CIFAR-10: ")
    assert text.endswith(". Download the archive again, or set data.name or data.root.")


def test_a_folder_that_lacks_batches(small, tmp_path):
    folder = small.write_batches(tmp_path, {"data_batch_4": None, "test_batch": None})
    assert small.refusal(tmp_path) == f"{folder} is incomplete: data_batch_4 is missing. Unpack the archive again."
    assert small.refusal(tmp_path, "test") == f"{folder} is incomplete: test_batch is missing. Unpack the archive again."
    assert small.refusal(folder) == f"{folder} is incomplete: data_batch_4 is missing. Unpack the archive again."
    small.write_archive(tmp_path / "cifar10")
    assert len(small.data(tmp_path).load_split("train")) == 30


@pytest.mark.parametrize("small", ["cifar100"], indirect=True)
def test_a_folder_of_cifar100_that_lacks_its_images(small, tmp_path):
    folder = small.write_batches(tmp_path, {"train": None})
    assert small.refusal(tmp_path) == f"{folder} is incomplete: train is missing. Unpack the archive again."
    assert len(small.data(tmp_path).load_split("test")) == 100


# Damaged archives


def test_an_archive_that_lacks_a_batch(small, tmp_path):
    archive = small.write_archive(tmp_path, {"data_batch_2": None, "data_batch_4": None})
    text = small.refusal(tmp_path)
    assert text.startswith(f"{archive} is not the python archive of CIFAR-10: ")
    assert "cifar-10-batches-py/data_batch_2, cifar-10-batches-py/data_batch_4 is missing" in text
    assert text.endswith("or set data.name.")
    assert len(small.data(tmp_path).load_split("test")) == 10


@pytest.mark.parametrize("kept", [0, 1, 5, 20, 200, 1000, 0.5, 0.9])
def test_a_truncated_archive_is_refused(small, kept, tmp_path):
    archive = small.write_archive(tmp_path)
    content = archive.read_bytes()
    archive.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    text = small.refusal(tmp_path)
    assert text.startswith(f"{archive} cannot be read as an archive: ")
    assert text.endswith("). Download it again, or set data.root to a folder of images.")
    assert "- method" not in text, "not each compression that it is not"


@pytest.mark.parametrize("content", [b"<html>\n<body>404</body>\n</html>\n" * 100, b"\x1f\x8b\x08\x00" + bytes(1000)])
def test_what_is_no_archive_is_refused(small, content, tmp_path):
    (file := tmp_path / "some.file").write_bytes(content)
    assert small.refusal(file).startswith(f"{file} cannot be read as an archive: ")


def test_a_damaged_archive_is_refused(small, tmp_path):
    archive = small.write_archive(tmp_path)
    content = bytearray(archive.read_bytes())
    for place in range(len(content) // 4, len(content) // 4 + 8):
        content[place] ^= 0xFF
    archive.write_bytes(content)
    small.refusal(tmp_path)


def test_names_and_kinds_within_an_archive(small, tmp_path):
    """`./` in front is harmless; a link is no batch, wherever it leads."""
    folder = small.write_batches(tmp_path / "source")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, f"./{folder.name}")
    assert small.data(tmp_path).load_split("train").fingerprint == small.metadata.fingerprints["train"]
    for target in ("nowhere", "/etc/passwd", "data_batch_1"):
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
            for name in ("data_batch_1", "data_batch_3", "data_batch_4", "data_batch_5"):
                archive.add(folder / name, f"{folder.name}/{name}")
            link = tarfile.TarInfo(f"{folder.name}/data_batch_2")
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        assert "cifar-10-batches-py/data_batch_2 is missing" in small.refusal(tmp_path)


def test_images_are_copies(small, tmp_path):
    """NumPy's arrays out of a pickle may not be written to; a tensor must be."""
    small.write_batches(tmp_path)
    split = small.data(tmp_path).load_split("train")
    assert split.images.is_contiguous()
    assert torch.equal(split.images.add_(1).sub_(1), small.tensors("train")[0])


def of_pointers(flags: int) -> bytes:
    """A pickle of an array of objects whose pointers stand in the file: NumPy's own classes follow them, and crash."""

    def text(value: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    kind = b"cnumpy\ndtype\n(" + text(b"O8") + b"\x89\x88tR"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(flags) + b"tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"tC\x01btR"
    return b"\x80\x02" + empty + b"(" + number(1) + b"(" + number(1) + b"t" + kind + b"\x89" + b"C\x08" + b"A" * 8 + b"tb."


@pytest.mark.slow
def test_an_array_of_pointers_is_refused_before_numpy_sees_it(small, tmp_path):
    """In another process, which numpy would end."""
    last = small.metadata.batches["train"][-1]
    folders = [small.write_batches(tmp_path / str(flags), {last: of_pointers(flags)}) for flags in (0, 1)]
    code = (
        "import sys; from reslight.data import CIFAR\n"
        "for folder in sys.argv[2:]:\n"
        "    try: CIFAR(sys.argv[1], folder).load_split('train')\n"
        "    except ValueError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code, small.name, *folders], capture_output=True, text=True)
    assert answer.returncode == 0, answer
    assert answer.stdout.count("it has an array of 'O8', but images are bytes") == 2
