"""Seconds and memory until a data set of very many files is ready: reslight's Folder against torchvision's ImageFolder.

The files are hard links to a few (they are made once, and kept for the next time), so that millions take no room; each side starts in a
process of its own, and counts from after its imports. Names and sizes are in the system's cache, so that the disk is not measured. A first
start of reslight finds no index of its own; torchvision knows no sizes, fingerprint or validation images, which reslight's numbers include.

With `--simulate 14000000` there are no files: folders that exist in memory only are listed, and sizes are made up. The part of the system,
which lists folders and asks for sizes, is not measured then.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import add_cpu_time, alternate, introduce, keep, parser, show

_LINKS = 60_000
"""Links to one file; ext4 allows 65,000."""
_START = """
import sys, time
{imports}
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1e3
before, clock = resident(), time.process_time if {cpu_time} else time.perf_counter
start = clock()
{work}
print(clock() - start, resident() - before)
"""
FIRST, LATER, TORCHVISION = "reslight, first start", "reslight, later start", "torchvision ImageFolder"
_FOLDER = ("from reslight.data import Folder", "data = Folder(sys.argv[1])\ndata.setup('fit')\nassert len(data.splits['train'])")
_SIDES = {
    FIRST: _FOLDER,
    LATER: _FOLDER,
    TORCHVISION: ("from torchvision.datasets import ImageFolder", "data = ImageFolder(sys.argv[1] + '/train')\nassert len(data)"),
}


_SIMULATION = """
import os, sys, tempfile, time
from array import array
from pathlib import Path
from unittest import mock
import numpy as np
from reslight.data.image_folder import class_tree, tree_index
from reslight.data.image_folder.splits import LabelledImages
files, classes = int(sys.argv[1]), int(sys.argv[2])
def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) / 1e3
class Entry:
    def __init__(self, name):
        self.name = name
def listing(folder, report=None):
    if folder == root:
        return [Entry(f"n{number * 7919:08}") for number in range(classes)], []
    number = int(folder.name[1:]) // 7919
    return [], [Entry(f"{folder.name}_{image}.JPEG") for image in range(len(range(number, files, classes)))]
root, before, clock = Path("/simulated/train"), memory("VmRSS"), time.process_time
with mock.patch.object(class_tree, "list_folder", listing), tempfile.TemporaryDirectory() as cache:
    start = clock()
    tree = class_tree.read_tree(root)
    listed = clock()
    assert len(tree.paths) == files
    tree.paths._sizes = np.full(files, 100_000)
    images = LabelledImages.from_tree(tree, tree.classes)
    identified, held = clock(), memory("VmRSS") - before
    states = np.zeros((len(tree.folders), 2), np.int64)
    index = Path(cache) / "index.safetensors"
    tree_index._store(index, tree, states)
    stored, size = clock(), index.stat().st_size
    with mock.patch.object(tree_index, "_states", lambda *_: states):
        assert len(tree_index._load(index, root).paths) == files
    loaded = clock()
print(listed - start, identified - listed, stored - identified, loaded - stored, held, memory("VmHWM") - before, size / 1e6)
"""
_SIMULATED = ("list", "fingerprint", "write the index", "read the index")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.simulate:
        _simulate(options)
        return
    folder = options.folder or Path(tempfile.gettempdir()) / f"reslight-files-{options.files}-{options.classes}"
    make_files(folder, options.files, options.classes)
    introduce(f"Many files: {options.files:,} files of {options.classes:,} classes")
    memory: dict[str, list[float]] = {name: [] for name in _SIDES}
    with tempfile.TemporaryDirectory() as cache:
        sides = {name: _starting(name, folder, options.cpu_time, Path(cache), memory[name]) for name in _SIDES}
        sides[LATER]()  # writes the index
        memory[LATER].clear()
        values = alternate(sides, options.rounds)
    show("Start", "CPU seconds" if options.cpu_time else "seconds", values, base=TORCHVISION, digits=2)
    show("Memory", "MB that the process grows by", memory, base=TORCHVISION)
    keep(options, {"seconds": values, "MB": memory})


def _simulate(options: argparse.Namespace) -> None:
    files = options.simulate
    introduce(f"Many files: {files:,} names of {options.classes:,} classes, without files")
    line = [sys.executable, "-W", "ignore", "-c", _SIMULATION, str(files), str(options.classes)]
    rounds = [subprocess.run(line, capture_output=True, text=True, check=True).stdout.split() for _ in range(options.rounds)]
    *seconds, held, most, size = ([float(value) for value in values] for values in zip(*rounds, strict=True))
    show("Steps", "CPU seconds", dict(zip(_SIMULATED, seconds, strict=True)), base=_SIMULATED[0], digits=2)
    megabytes = {"paths, labels and sizes in memory": held, "largest memory, when the index is written": most, "index": size}
    base = next(iter(megabytes))
    show("Memory", "MB", megabytes, base=base)
    of_a_file = {name: [value * 1e6 / files for value in values] for name, values in megabytes.items()}
    show("Memory of a file", "bytes", of_a_file, base=base)
    keep(options, {"seconds": dict(zip(_SIMULATED, seconds, strict=True)), "MB": megabytes})


def make_files(folder: Path, files: int, classes: int) -> None:
    """Make `folder/train/CLASS/NUMBER.JPEG`, unless they are there: names as long as ImageNet's, and a few sizes."""
    if (done := folder / "done").exists():
        return
    (folder / "content").mkdir(parents=True)
    targets = [folder / "content" / str(number) for number in range(max(7, -(-files // _LINKS)))]
    for number, target in enumerate(targets):
        target.write_bytes(bytes(100_000 + number))
    for number in range(classes):
        name = f"n{number * 7919:08}"
        (folder / "train" / name).mkdir(parents=True)
        for image in range(number, files, classes):
            os.link(targets[image % len(targets)], folder / "train" / name / f"{name}_{image // classes}.JPEG")
    done.touch()


def _starting(name: str, folder: Path, cpu_time: bool, cache: Path, memory: list[float]) -> Callable[[], float]:
    imports, work = _SIDES[name]
    script = _START.format(imports=imports, work=work, cpu_time=cpu_time)

    def measure() -> float:
        with tempfile.TemporaryDirectory() as empty:
            environment = os.environ | {"RESLIGHT_CACHE": empty if name == FIRST else str(cache)}
            line = [sys.executable, "-W", "ignore", "-c", script, str(folder)]
            done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
        seconds, megabytes = map(float, done.stdout.split())
        memory.append(megabytes)
        return seconds

    return measure


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    add_cpu_time(made)
    made.add_argument("--folder", type=Path, help="where the files are, or are made (default: a temporary folder)")
    made.add_argument("--files", type=int, default=200_000, help="files to make (default: 200,000)")
    made.add_argument("--classes", type=int, default=1000, help="classes to make (default: 1,000)")
    made.add_argument("--simulate", type=int, metavar="N", help="measure with N names of files that do not exist")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
