"""Images per second of `reslight fit` on the CPU, with the number of threads that it chooses and with fixed numbers.

Three conditions: alone on the machine ("idle", which is for you to provide); beside two other processes that compute; and
with a quota of half of the cores, by a control group where one can be made, otherwise bound to that many cores. Every run
is a process of its own.

The default is a network of the size of the digits recipe. For ResNet-20 on CIFAR: --depth 20 --size 32 --batch-size 128 --precision bf16.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from harness import Rounds, alternate, introduce, keep, parser, show
from loops import PRECISIONS, Work, reslight_trainer, seconds_per_step

from reslight.cores import SPIN_COUNT, WAITING, available_cores, cpu_groups
from reslight.models import cifar_config
from reslight.training import Threads

CHOSEN = "chosen"
AIM = 0.95
OTHERS = 2
Start = Callable[[], None]
"""What a process does before its program begins."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.one:
        print(json.dumps(measure(options)))
        return
    introduce(f"Threads: ResNet-{options.depth}, {options.size} x {options.size}, batch {options.batch_size}, {options.precision}")
    results = {name: compare(name, options) for name in options.conditions}
    print(f"\nThe choice over the best fixed number (aim: at least {AIM})")
    for name, values in results.items():
        medians = {side: statistics.median(numbers) for side, numbers in values.items()}
        best = max((side for side in medians if side != CHOSEN), key=lambda side: medians[side])
        print(f"  {name:6}  {medians[CHOSEN] / medians[best]:.2f}  {medians[CHOSEN]:,.0f} images/s; {best}: {medians[best]:,.0f}")
    keep(options, results)


def compare(condition: str, options: argparse.Namespace) -> Rounds:
    """Measure all sides under one condition."""
    cores = available_cores()
    briefly, chosen = {"GOMP_SPINCOUNT": SPIN_COUNT}, []
    with CONDITIONS[condition]() as start:
        run = partial(run_process, options, start)
        sides = {
            CHOSEN: lambda: run(briefly, chosen),
            "1 thread": lambda: run(briefly | {"OMP_NUM_THREADS": "1"}),
            f"{cores} threads, soon asleep while they wait": lambda: run(briefly | {"OMP_NUM_THREADS": str(cores)}),
            f"{cores} threads, at once asleep": lambda: run({"GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": str(cores)}),
            f"{cores} threads, awake (torch's default)": lambda: run({"OMP_NUM_THREADS": str(cores)}),
        }
        values = alternate(sides, options.rounds)
    show(f"{condition}", "images/s", values, base="1 thread", notes={CHOSEN: "; ".join(dict.fromkeys(chosen))})
    return values


def run_process(options: argparse.Namespace, start: Start, variables: dict[str, str], chosen: list[str] | None = None) -> float:
    """Return the images per second of one run; add what its start line says to `chosen`."""
    passed = ("depth", "size", "batch_size", "images", "steps", "warm", "precision")
    words = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in passed]
    inherited = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *WAITING)}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", *words]
    done = subprocess.run(command, env=inherited | variables, preexec_fn=start, stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    if chosen is not None:
        chosen.append(answer["threads"])
    return float(answer["images/s"])


def measure(options: argparse.Namespace) -> dict[str, float | str | None]:
    """Run `reslight fit` in this process."""
    pad = 4 if options.size >= 32 else 1
    work = Work(
        cifar_config(options.depth), options.images, options.size, options.batch_size, pad, options.precision, options.warm, options.steps
    )
    trainer = reslight_trainer(work)
    threads = next(callback.chosen for callback in trainer.callbacks if isinstance(callback, Threads))
    return {"images/s": work.batch_size / seconds_per_step(trainer), "threads": threads}


@contextlib.contextmanager
def idle() -> Iterator[Start]:
    yield lambda: None


@contextlib.contextmanager
def busy() -> Iterator[Start]:
    """Beside processes that compute all the time."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(OTHERS)]
    try:
        yield lambda: None
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextlib.contextmanager
def quota() -> Iterator[Start]:
    """With half of the cores."""
    cores = max(1, available_cores() // 2)
    if group := _limited_group(cores):
        print(f"quota: a control group of {cores} cores")
        try:
            yield lambda: _write(group / "cgroup.procs", os.getpid())
        finally:
            group.rmdir()
    elif hasattr(os, "sched_getaffinity"):
        mine = sorted(os.sched_getaffinity(0))[:cores]
        print(f"quota: no control group can be made here; bound to {cores} cores instead")
        yield lambda: os.sched_setaffinity(0, mine)
    else:
        sys.exit("quota: this system has no control groups and binds no process to cores. Leave it out with --conditions idle busy")


CONDITIONS = {"idle": idle, "busy": busy, "quota": quota}


def _limited_group(cores: int) -> Path | None:
    """Make a control group with a quota below that of this process; None where that is not possible."""
    own = next(iter(cpu_groups()), None)
    if own is None:
        return None
    group = own / f"reslight-benchmark-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        if (group / "cpu.max").is_file():
            _write(group / "cpu.max", f"{cores * 100_000} 100000")
        else:
            _write(group / "cpu.cfs_quota_us", cores * 100_000)
    except OSError:
        group.rmdir()
        return None
    return group


def _write(file: Path, value: object) -> None:
    with file.open("r+", encoding="utf-8") as opened:  # a control file that is missing must not be made
        opened.write(f"{value}\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS), help="which ones (default: all)")
    made.add_argument("--depth", type=int, default=8, help="layers of the CIFAR net (default: 8)")
    made.add_argument("--size", type=int, default=8, help="height and width of an image (default: 8)")
    made.add_argument("--batch-size", type=int, default=64, help="images per batch (default: 64)")
    made.add_argument("--images", type=int, default=1500, help="images in the set (default: 1500)")
    made.add_argument("--precision", choices=list(PRECISIONS), default="fp32", help="default: fp32")
    made.add_argument("--steps", type=int, default=300, help="steps per round (default: 300)")
    made.add_argument("--warm", type=int, default=20, help="steps before the clock starts (default: 20)")
    made.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
