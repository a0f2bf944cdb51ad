"""`reslight predict`: its speed beside decoding alone and the network alone, and its memory for 10,000 and 1,000,000 paths.

Threads decode and compute on the same cores, so the best that both together can reach is one image in the sum of both times. The
memory is that of a list with one path many times, whose image is decoded and computed once: what remains is the command itself. Each side
is a process of its own.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import alternate, introduce, keep, parser, show, use_threads
from PIL import Image

_SPEED = """
import sys, time
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
import torch
from reslight import Classifier
from reslight.deploy.predict.pictures import Pictures
from reslight.deploy.predict.predict import predict
what, net, root, out, threads = sys.argv[1:]
classifier = Classifier(net, threads=1, workers=int(threads))
paths = list(Pictures([root]))
pixels = [classifier.decode(path).pixels for path in paths[:32]]
classifier.compute(pixels)
start = time.perf_counter()
if what == "decoding":
    with ThreadPoolExecutor(classifier.workers) as pool:
        list(pool.map(lambda path: classifier.decode(path).steps, paths, chunksize=32))
elif what == "network":
    with ThreadPoolExecutor(classifier.workers) as pool:
        list(pool.map(lambda _: classifier.compute(pixels), range(0, len(paths), 32)))
else:
    predict(classifier, Pictures([root]), Path(out), top=5, threshold=0)
print(len(paths) / (time.perf_counter() - start))
"""
_MEMORY = """
import sys
from pathlib import Path
from reslight import Classifier
from reslight.deploy.predict.pictures import Pictures
from reslight.deploy.predict.predict import predict
net, listed, out = sys.argv[1:]
classifier = Classifier(net, threads=1)
image = classifier.decode(Path(listed).read_text().partition("\\n")[0])
probabilities = classifier.compute([image.pixels])[0].expand(classifier.batch, -1)
classifier.decode, classifier.compute = (lambda path: image), (lambda pixels: (probabilities[: len(pixels)], None))
predict(classifier, Pictures([], [listed]), Path(out), top=5, threshold=0)
print(Path("/proc/self/status").read_text())
"""


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--net", default="resnet20.cifar10", help="weights (default: resnet20.cifar10)")
    made.add_argument("--images", type=int, default=2000, help="JPEG files to classify (default: 2,000)")
    made.add_argument("--side", type=int, default=256, help="their height and width in pixels (default: 256)")
    made.add_argument(
        "--paths", type=int, nargs="+", default=[10_000, 1_000_000], help="lengths of the lists (default: 10,000 and 1,000,000)"
    )
    options = made.parse_args()
    use_threads(options.threads)
    introduce("reslight predict")
    import torch

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        root.mkdir()
        _write(root, options.images, options.side)
        files = (str(Path(folder, f"{number}.csv")) for number in range(10**6))
        sides = {
            name: lambda name=name: float(_run(_SPEED, name, options.net, str(root), next(files), str(torch.get_num_threads())))
            for name in ("decoding", "network", "both")
        }
        values = alternate(sides, options.rounds)
        values["best of both"] = [1 / (1 / one + 1 / other) for one, other in zip(values["decoding"], values["network"], strict=True)]
        show(
            f"{options.images} JPEG files of {options.side} x {options.side}, {options.net}",
            "images per second",
            values,
            base="best of both",
        )
        memory = {}
        for count in options.paths:
            listed = Path(folder, "list.txt")
            listed.write_text(f"{next(root.iterdir())}\n" * count)
            memory[f"{count:,} paths"] = [_peak(_run(_MEMORY, options.net, str(listed), next(files)))]
    show("memory at its peak", "MB", memory, base=next(iter(memory)), notes={"": ""})
    keep(options, {"speed": values, "memory": memory})


def _write(root: Path, count: int, side: int) -> None:
    """Write JPEG files; links to a few, since only their decoding matters."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, side // 8, side // 8, 3), dtype=np.uint8)
    for number in range(count):
        path = root / f"{number:07}.jpg"
        if number < len(coarse):
            Image.fromarray(coarse[number]).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
        else:
            path.hardlink_to(root / f"{number % len(coarse):07}.jpg")


def _run(code: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def _peak(status: str) -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e3


if __name__ == "__main__":
    main()
