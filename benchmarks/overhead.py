"""Milliseconds per step of everything around a network, on a network so small that little else is measured.

Every side is compared with a handwritten loop (data, forward, backward, optimizer). `reslight fit` has its loss, top-1, schedule,
progress bar, logger and checkpoints on. All sides share the data pipeline.
"""

import argparse
import statistics
from collections.abc import Sequence

from harness import add_cpu_time, alternate, introduce, keep, parser, show, use_threads
from loops import Work, bare_loop, empty_fit, reslight_fit, stock_fit, tiny_net

BASE = "bare loop"
TARGET_MS = 0.8


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    introduce(f"Overhead: a net of one block and 4 channels, 8 x 8 images, batch {options.batch_size}, fp32, {options.steps} steps a round")
    work = Work(
        tiny_net(),
        options.images,
        size=8,
        batch_size=options.batch_size,
        pad=1,
        precision="fp32",
        warm=options.steps // 10 + 1,
        steps=options.steps,
        cpu_time=options.cpu_time,
    )
    sides = {
        BASE: lambda: bare_loop(work, sums=False),
        "bare loop + loss and top-1 sums": lambda: bare_loop(work, sums=True),
        "Lightning, all off": lambda: empty_fit(work, work.data()),
        "reslight fit": lambda: reslight_fit(work),
        "Lightning, defaults": lambda: stock_fit(work, work.data()),
    }
    seconds = alternate(sides, options.rounds)
    values = {name: [1000 * one for one in numbers] for name, numbers in seconds.items()}
    show("One step", "ms", values, base=BASE, digits=3)
    print(f"\nOver the bare loop, ms per step, medians of the rounds (target: reslight at most {TARGET_MS})")
    over = {name: [one - base for one, base in zip(values[name], values[BASE], strict=True)] for name in sides if name != BASE}
    for name, numbers in over.items():
        print(f"  {name:{max(map(len, sides))}}  {statistics.median(numbers):>6.3f}  {min(numbers):.3f} - {max(numbers):.3f}")
    keep(options, {"ms": values, "over": over})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    made.add_argument("--steps", type=int, default=1000, help="steps per round (default: 1000)")
    made.add_argument("--images", type=int, default=50_000, help="images in the set (default: 50000)")
    made.add_argument("--batch-size", type=int, default=32, help="images per batch (default: 32)")
    add_cpu_time(made)
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
