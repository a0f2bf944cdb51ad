"""Images per second of training ResNet-20 on CIFAR-shaped images, end to end through Trainer.fit; and its memory.

reslight as its command line builds it, against a stock Lightning set-up (Pillow images in a DataLoader, fp32, default
Trainer, loss and accuracy logged at every step) and against a loop by hand that does reslight's work.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness import alternate, introduce, keep, parser, show, use_threads
from images import CLASSES, PilImages, loader, random_split
from loops import PRECISIONS, Work, bare_loop, reslight_fit, stock_fit

from reslight.models import cifar_config

BASE = "stock Lightning, fp32"
MEMORY_TARGET_GB = 2.5


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    work = Work(cifar_config(options.depth), options.images, batch_size=options.batch_size, warm=options.warm, steps=options.steps)
    if options.peak:
        reslight_fit(replace(work, precision=options.peak))
        print(json.dumps(peak_bytes()))
        return
    introduce(f"Training: ResNet-{options.depth}, batch {work.batch_size}, {work.images:,} images, {work.steps} steps a round")
    results = {}
    if options.memory:
        results["peak RSS, GB"] = measure_memory(options)
    else:
        results["images/s"] = measure_speed(work, options)
    keep(options, results)


def measure_speed(work: Work, options: argparse.Namespace) -> dict[str, list[float]]:
    single = replace(work, precision="fp32")
    pil = loader(PilImages(random_split(work.images, work.size)), work.batch_size, options.workers)
    steps: dict[str, Callable[[], float]] = {
        "reslight fit, bf16": partial(reslight_fit, work),
        "bare loop, bf16": partial(bare_loop, work, sums=True),
        "reslight fit, fp32": partial(reslight_fit, single),
        "bare loop, fp32": partial(bare_loop, single, sums=True),
        BASE: partial(stock_fit, single, pil),
    }

    def rate(step: Callable[[], float]) -> float:
        return work.batch_size / step()

    values = alternate({name: partial(rate, step) for name, step in steps.items()}, options.rounds)
    show("Training", "images/s", values, base=BASE)
    return values


def measure_memory(options: argparse.Namespace) -> dict[str, list[float]]:
    """Each run in a process of its own: a peak cannot be taken back."""

    def peak(precision: str) -> float:
        passed = ("depth", "images", "batch_size", "warm", "steps", "threads")
        words = [f"--{name.replace('_', '-')}={value}" for name in passed if (value := getattr(options, name)) is not None]
        command = [sys.executable, str(Path(__file__).resolve()), f"--peak={precision}", *words]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(answer.stdout.splitlines()[-1]) / 1e9

    values = alternate({name: partial(peak, name) for name in PRECISIONS}, options.rounds)
    show(f"Peak RSS of `reslight fit` (aim: below {MEMORY_TARGET_GB})", "GB", values, base="fp32", digits=2)
    return values


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the one counts bytes, the others kilobytes


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.add_argument("--steps", type=int, default=50, help="steps per round (default: 50)")
    made.add_argument("--warm", type=int, default=8, help="steps before the clock starts (default: 8)")
    made.add_argument("--images", type=int, default=50_000, help="images in the set (default: 50000)")
    made.add_argument("--batch-size", type=int, default=128, help="images per batch (default: 128)")
    made.add_argument("--depth", type=int, default=20, help=f"layers of the CIFAR net, with {CLASSES} classes (default: 20)")
    made.add_argument("--workers", type=int, default=2, help="workers of the stock set-up's loader (default: 2)")
    made.add_argument("--memory", action="store_true", help="measure peak memory instead of speed")
    made.add_argument("--peak", choices=list(PRECISIONS), help=argparse.SUPPRESS)
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
