"""Decoded images in a file: mapped the next time, made again when anything is not as it was, never in the way."""

import errno
import json
import logging
import multiprocessing
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from reslight.data.loading import cache
from reslight.data.loading.cache import cache_folder, cached, stamp_of
from reslight.data.loading.split import Split

FORMS = {
    "archive": (lambda small, root: small.write_archive(root), "archive"),
    "folder": (lambda small, root: small.write_batches(root), "archive"),
    "shards": (lambda small, root: small.write_shards(root, shards=2), "parquet"),
    "class folders": (lambda small, root: small.write_class_folders(root), "class_folders"),
}


def kept_files() -> list[Path]:
    """All that is in the cache, whatever it is called."""
    return sorted(cache_folder().iterdir()) if cache_folder().is_dir() else []


class Maker:
    """Images of a file's bytes, counting how often they were made."""

    def __init__(self, *files: Path) -> None:
        self.files = files
        self.made = 0

    def __call__(self) -> Split:
        self.made += 1
        seed = sum(file.read_bytes()[0] for file in self.files)
        images = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        return Split.from_images(images, torch.arange(6) % 3)

    def cached(self) -> Split:
        return cached("some-train", self.files, self)

    def check(self, made: int) -> None:
        """What comes from the cache, made so many times until then, is what would be made."""
        split = self.cached()
        assert self.made == made
        fresh = self()
        self.made -= 1
        for name in ("images", "labels", "keys"):
            one, other = getattr(split, name), getattr(fresh, name)
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


@pytest.fixture
def maker(tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 100)
    return Maker(*files)


def test_made_once(maker):
    for _ in range(3):
        maker.check(made=1)
    (file,) = kept_files()
    assert file.name.startswith("some-train-")


@pytest.mark.parametrize(("write", "module"), FORMS.values(), ids=FORMS)
def test_a_second_start_decodes_nothing(small, write, module, tmp_path, monkeypatch):
    write(small, tmp_path)
    for part in ("train", "test"):
        small.data(tmp_path).load_split(part)
    monkeypatch.setattr(f"reslight.data.cifar.{module}._read", lambda *_: pytest.fail("decoded again"))
    for part in ("train", "test"):
        split = small.data(tmp_path).load_split(part)
        assert split.fingerprint == small.metadata.fingerprints[part]
        assert torch.equal(split.images, small.tensors(part)[0])


def mapping_of(images: torch.Tensor) -> str:
    """The line of the system's list of mappings that has the address of a tensor's memory."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= images.data_ptr() < int(end, 16):
            return line
    raise AssertionError("the tensor is nowhere in memory")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_second_start_maps_the_file(maker):
    maker.cached()
    images = maker.cached().images
    (file,) = kept_files()
    assert str(file) in mapping_of(images)
    assert str(file) not in mapping_of(images.clone())


def test_writing_to_mapped_images_leaves_the_file_alone(maker):
    maker.cached()
    maker.cached().images.zero_()
    maker.check(made=1)


# Stale


def touch(maker):
    state = maker.files[1].stat()
    os.utime(maker.files[1], ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def grow(maker):
    state = maker.files[0].stat()
    maker.files[0].write_bytes(b"\x09" * 101)
    os.utime(maker.files[0], ns=(state.st_atime_ns, state.st_mtime_ns))


def add(maker):
    (more := maker.files[0].with_name("three")).write_bytes(b"\x03")
    maker.files = (*maker.files, more)


def leave_out(maker):
    maker.files = maker.files[:1]


def rename(maker):
    maker.files = (maker.files[0], maker.files[1].rename(maker.files[1].with_name("renamed")))


@pytest.mark.parametrize("change", [touch, grow, add, leave_out, rename])
def test_made_again_when_a_source_changes(maker, change):
    maker.cached()
    change(maker)
    maker.check(made=2)
    maker.check(made=2)
    assert len(kept_files()) == 1


def test_made_again_when_the_format_changes(maker, monkeypatch):
    maker.cached()
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    maker.check(made=2)


def test_sets_and_places_do_not_displace_one_another(maker, tmp_path):
    maker.cached()
    cached("some-test", maker.files, maker)
    (tmp_path / "elsewhere").mkdir()
    moved = Maker(*[file.rename(tmp_path / "elsewhere" / file.name) for file in maker.files])
    moved.cached()
    assert len(kept_files()) == 3
    moved.check(made=1)


def test_a_stamp_does_not_depend_on_the_working_folder(maker, monkeypatch):
    stamp = stamp_of(maker.files)
    monkeypatch.chdir(maker.files[0].parent)
    assert stamp_of([Path(file.name) for file in maker.files]) == stamp


# Damaged


def test_made_again_when_truncated(maker):
    maker.cached()
    (file,) = kept_files()
    content = file.read_bytes()
    for made, kept in enumerate((0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1), start=2):
        file.write_bytes(content[:kept])
        maker.check(made=made)
        assert file.read_bytes()[8:] == content[8:] or len(file.read_bytes()) == len(content)  # metadata has no order


def test_made_again_when_longer(maker):
    maker.cached()
    (file,) = kept_files()
    file.write_bytes(file.read_bytes() + b"\x00")
    maker.check(made=2)


@pytest.mark.slow
@pytest.mark.parametrize("flip", [0x20, *(pytest.param(one, marks=pytest.mark.nightly) for one in (0x01, 0x04, 0xFF))])
def test_never_other_images_when_bytes_are_flipped(maker, flip, monkeypatch):
    """Each byte of the header, and some of each tensor."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of files
    maker.cached()
    (file,) = kept_files()
    content = file.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    padding = content[:header].endswith(b" ")
    for place in [*range(header), *range(header, len(content), 5)]:
        damaged = bytearray(content)
        damaged[place] ^= flip
        file.write_bytes(damaged)
        made = maker.made
        split = maker.cached()
        assert maker.made == made + 1 or (padding and place < header), f"byte {place} of {len(content)}"
        assert split.images.dtype == torch.uint8
        assert split.fingerprint == maker().fingerprint
    maker.check(made=maker.made)


@pytest.mark.parametrize(("name", "was", "becomes"), [("images", "U8", "I8"), ("keys", "U8", "I8"), ("labels", "I64", "U64")])
def test_made_again_when_a_dtype_is_another(maker, name, was, becomes):
    """The bytes are the same: only what they are called differs."""
    maker.cached()
    (file,) = kept_files()
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    assert header[name]["dtype"] == was
    header[name]["dtype"] = becomes
    changed = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + size :])
    maker.check(made=2)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_made_again_when_it_is_no_file(maker, make):
    maker.cached()
    (file,) = kept_files()
    file.unlink()
    make(file)
    split = maker.cached()
    assert maker.made == 2
    assert split.fingerprint == maker().fingerprint


# Left over


def test_what_killed_processes_left_is_removed(maker):
    maker.cached()
    (file,) = kept_files()
    left = file.with_name(f".{file.name}.0123abcd.tmp")
    left.write_bytes(bytes(100))
    with cache.writing_to(left.parent):
        maker.check(made=1)
        assert left.exists(), "another process may still write it"
    maker.check(made=1)
    assert kept_files() == [file]


def test_without_locks_only_old_files_are_left_over(maker, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    maker.cached()
    (file,) = kept_files()
    for name, age in {"new": 60, "old": 100_000}.items():
        left = file.with_name(f".{name}.0.tmp")
        left.touch()
        os.utime(left, (time.time() - age,) * 2)
    maker.check(made=1)
    assert [path.name for path in kept_files()] == [".new.0.tmp", file.name]


# Where nothing can be kept


def works_with_a_warning(maker, caplog, folder):
    caplog.clear()
    for made in (1, 2):
        maker.check(made=made)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all(text.startswith(str(folder)) and " cannot be written: " in text for text in warnings)
    assert all("RESLIGHT_CACHE" in text and "\n" not in text for text in warnings)


@pytest.mark.parametrize("within", [".", "deeper/still"])
def test_a_folder_that_is_a_file(maker, within, tmp_path, monkeypatch, caplog):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    monkeypatch.setenv("RESLIGHT_CACHE", str(tmp_path / "taken" / within))
    works_with_a_warning(maker, caplog, tmp_path / "taken" / within)
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, in which nobody may write, not even root")
def test_a_read_only_place(maker, monkeypatch, caplog):
    monkeypatch.setenv("RESLIGHT_CACHE", "/proc/sys")
    works_with_a_warning(maker, caplog, "/proc/sys")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(maker, tmp_path, monkeypatch, caplog):
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("RESLIGHT_CACHE", str(tmp_path / "locked"))
    works_with_a_warning(maker, caplog, tmp_path / "locked")


def test_a_full_disk(maker, caplog):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # bytes in a file, as if no more fitted on the disk
    try:
        works_with_a_warning(maker, caplog, cache_folder())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept_files() == []


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("RESLIGHT_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("RESLIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "reslight"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "reslight"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_a_name_that_is_no_text(small, tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    root.mkdir()
    small.write_batches(root)
    for _ in range(2):
        assert len(small.data(root).load_split("train")) == 30
    assert len(kept_files()) == 1


# Two processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="copies this process")
def test_two_processes_at_once(small, tmp_path, monkeypatch):
    """Both find no cache, decode, and store at the same moment."""
    small.write_shards(tmp_path / "data")
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(2, timeout=200), context.SimpleQueue()
    store = cache.store

    def store_together(*arguments: Any) -> None:
        barrier.wait()
        store(*arguments)

    def load() -> None:
        cache.store, cache.log.warning = store_together, pytest.fail  # a warning says that the cache cannot be written
        found.put(small.data(tmp_path / "data").load_split("train").fingerprint)

    both = [context.Process(target=load) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    assert [found.get(), found.get()] == [small.metadata.fingerprints["train"]] * 2
    assert [file.name.rpartition("-")[0] for file in kept_files()] == ["cifar10-train"]
    monkeypatch.setattr("reslight.data.cifar.parquet._read", lambda *_: pytest.fail("decoded again"))
    assert small.data(tmp_path / "data").load_split("train").fingerprint == small.metadata.fingerprints["train"]
