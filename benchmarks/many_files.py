"""Seconds and memory until a data set of very many files is ready: reslight's Folder against torchvision's ImageFolder.

The files are hard links to a few (they are made once, and kept for the next time), so that millions take no room; each side starts in a
process of its own, and counts from after its imports. Names and sizes are in the system's cache, so that the disk is not measured. A first
start of reslight finds no index of its own; torchvision knows no sizes, fingerprint or validation images, which reslight's numbers include.
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


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
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
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
