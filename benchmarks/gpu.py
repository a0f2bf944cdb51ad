"""Everything that is to be known of reslight on a GPU, in one command of at most nine minutes.

In this order: the tests that need a GPU; images per second and peak memory of training, in `reslight fit` and in a loop by hand;
the input alone; the seconds that a recipe takes to 94 % of the validation images, with --data.root; whether a killed run
resumes to the bit; and the speed of the compiled networks, which take the longest to start. What there is no time for is
left out, and the table says so. `--device cpu --smoke` tries the command itself, on a tiny network.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from harness import machine
from images import CLASSES, RandomImages
from lightning.pytorch import Callback
from loops import ALL_PRECISIONS, Work, bare_loop, reslight_trainer, run_quietly, seconds_per_step

from reslight.models import resolve_config

ROOT = Path(__file__).resolve().parents[1]
SPARE = 10
"""Seconds that are kept for the table and the file."""
RESUME = "tests/training/test_devices.py"


@dataclass(frozen=True)
class Size:
    """A network and the images that it is measured on."""

    net: str
    size: int
    batch: int

    def work(self, precision: str, options: argparse.Namespace) -> Work:
        config = resolve_config(self.net, num_classes=CLASSES)
        images = self.batch * (options.warm + options.steps + 2)  # the clock stops before the end of the first epoch, and its checkpoint
        return Work(config, images, self.size, self.batch, 4, precision, options.warm, options.steps)


SIZES = (Size("resnet20", 32, 512), Size("resnet18_cifar", 32, 512), Size("resnet50", 224, 128))
TINY = (Size("resnet8", 8, 8),)
Row = dict[str, Any]


class OutOfTimeError(Exception):
    """A part took all of the time that was left."""


class Report:
    """The rows of all parts, and the time that is left for more.

    Args:
        seconds: For all parts.
        is_strict: Leave out a part that needs more than is left; otherwise it begins, and may be cut short.
        only: Measure only the parts whose name holds this text.
    """

    def __init__(self, seconds: float, *, is_strict: bool = True, only: str = "") -> None:
        self._end, self.is_strict, self._only = time.monotonic() + seconds, is_strict, only
        self.rows: list[Row] = []

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def part(self, name: str, needs: float, measure: Callable[[float], Row]) -> None:
        """Measure one row, if as many seconds are left as it needs; a failure is a row, too."""
        if self._only not in name:
            return
        if self.left < (needs if self.is_strict else 0):
            row: Row = {"skipped": f"needs {needs:.0f} s, and {max(0.0, self.left):.0f} s are left"}
        else:
            begun = time.monotonic()
            try:
                with _at_most(self.left):
                    row = measure(self.left)
            except OutOfTimeError:
                row = {"skipped": "the time was over before it ended"}
            except Exception as error:  # one part must not end the others
                row = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
            row["seconds"] = round(time.monotonic() - begun, 1)
        self.rows.append({"part": name, **row})
        print(_line(self.rows[-1]), flush=True)


class Reached(Callback):
    """Ends training when an accuracy on the validation images is reached, and notes the seconds of training until then.

    Args:
        target: The accuracy, 0 to 1.
    """

    def __init__(self, target: float) -> None:
        self.target, self.best = target, 0.0
        self.seconds: float | None = None

    def on_train_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        accuracy = pl_module.recorded.get("val/acc1", 0.0)
        if trainer.sanity_checking or self.seconds is not None:
            return
        self.best = max(self.best, accuracy)
        if accuracy >= self.target:
            self.seconds, trainer.should_stop = time.perf_counter() - self._start, True


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu: this machine has no GPU that torch can use. Try the command itself with --device cpu --smoke.")
        return 2
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    report = Report(60 * options.minutes - SPARE, is_strict=not options.smoke, only=options.only)
    tests = ["tests/data/test_rng.py"] if options.smoke else ["tests", f"--ignore={RESUME}"]
    report.part("tests that need a GPU", 30, lambda left: run_tests(tests, min(left, 150)))
    for compiled in (False, True):
        for size in TINY if options.smoke else SIZES:
            for precision in ALL_PRECISIONS:
                name = f"{size.net}, {ALL_PRECISIONS[precision]}{', compiled' if compiled else ''}"
                work = size.work(precision, options)
                report.part(name, 60 if compiled else 10, lambda _, work=work, compiled=compiled: speed(work, compiled, options))
        if not compiled:
            report.part("input alone", 5, lambda _: input_speed(options))
            report.part(f"{options.target:.0%} with {options.recipe}, {options.net}", 30, lambda _: seconds_to_target(options))
            report.part("resumes to the bit", 60, lambda left: run_tests([RESUME, "-k", "resumes_exactly"], left))
    if options.out:
        record = {"machine": facts, "settings": {name: str(value) for name, value in vars(options).items()}, "rows": report.rows}
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 1 if any("failed" in row for row in report.rows) else 0


def run_tests(words: Sequence[str], seconds: float) -> Row:
    """Run the GPU's tests in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *words]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"skipped": f"not done after {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error|skipped)", lines[-1])}
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"failed": "; ".join(failed) or lines[-1]} if done.returncode else {"tests": counts}


def speed(work: Work, compiled: bool, options: argparse.Namespace) -> Row:
    """Images per second of `reslight fit` and of a loop by hand, and the peak memory of each."""
    is_gpu = options.device == "cuda"
    trainer = {"accelerator": "gpu" if is_gpu else "cpu", "devices": 1}

    def peak(measure: Callable[[], float]) -> tuple[float, float | None]:
        if is_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = measure()
        return work.batch_size / seconds, torch.cuda.max_memory_allocated() / 1e9 if is_gpu else None

    bare, bare_memory = peak(lambda: bare_loop(work, sums=True, compile=compiled, device=options.device))
    fit, memory = peak(lambda: seconds_per_step(reslight_trainer(work, {"compile": compiled}, **trainer)))
    return {"fit images/s": fit, "bare images/s": bare, "ratio": fit / bare, "fit GB": memory, "bare GB": bare_memory}


def input_speed(options: argparse.Namespace) -> Row:
    """Images per second from a split on the device to normalized batches."""
    count, size, batch = (64, 8, 16) if options.smoke else (51_200, 32, 512)
    device = torch.device(options.device)
    data = RandomImages(count, size, batch)
    data.setup("fit")
    loader, normalize = data.train_dataloader(), data.preprocess.normalizer(device)
    loader.split = loader.split.to(device)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            for images, _labels, indices in loader:
                yield normalize(data.augment(images, indices, seed=0, epoch=0), torch.channels_last)

    road, number = batches(), 4 * len(loader)
    for _ in islice(road, len(loader)):
        pass
    _wait(device)
    start = time.perf_counter()
    for _ in islice(road, number):
        pass
    _wait(device)
    return {"images/s": number * batch / (time.perf_counter() - start)}


def seconds_to_target(options: argparse.Namespace) -> Row:
    """Seconds of training until the accuracy on the validation images is reached."""
    if options.data_root is None and not options.smoke:
        return {"skipped": "give --data.root DIR, the folder of CIFAR-10"}
    words = ["fit", "--config", options.recipe, "--model.net", options.net, "--trainer.max_epochs", str(options.epochs)]
    words += ["--trainer.accelerator", "gpu" if options.device == "cuda" else "cpu", "--trainer.devices", "1"]
    words += ["--trainer.callbacks+=gpu.Reached", f"--trainer.callbacks.target={options.target}"]
    words += [] if options.data_root is None else ["--data.root", str(options.data_root.resolve()), "--data.val_size", "5000"]
    trainer = run_quietly(words)
    reached = next(callback for callback in trainer.callbacks if type(callback).__name__ == "Reached")  # of the imported module
    if reached.seconds is None:
        return {"failed": f"not reached after {options.epochs} epochs: {reached.best:.2%}"}
    return {"seconds to target": reached.seconds, "epochs": trainer.current_epoch, "val/acc1": reached.best}


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError after some seconds."""

    def stop(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _line(row: Row) -> str:
    """One line of the table."""
    values = [f"{name} {_number(value)}" for name, value in row.items() if name not in ("part", "seconds") and value is not None]
    return f"  {row['part']:44}  {'   '.join(values)}" + (f"   ({row['seconds']} s)" if "seconds" in row else "")


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {word}" for word, count in value.items())
    return f"{value:,.0f}" if isinstance(value, float) and value >= 100 else f"{value:.3g}" if isinstance(value, float) else str(value)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=9, help="time for everything (default: 9)")
    made.add_argument("--only", default="", metavar="TEXT", help="measure only the parts whose name holds this text, such as resnet20")
    made.add_argument("--out", type=Path, help="write machine, settings and all rows to this file as JSON")
    made.add_argument("--data.root", dest="data_root", type=Path, metavar="DIR", help="folder of CIFAR-10, for the seconds to 94 %%")
    made.add_argument("--recipe", default="cifar10/fast", help="configuration that is trained to the target (default: cifar10/fast)")
    made.add_argument("--net", default="resnet18_cifar", help="its network (default: resnet18_cifar)")
    made.add_argument("--epochs", type=int, default=16, help="its epochs (default: 16)")
    made.add_argument("--target", type=float, default=0.94, help="its accuracy (default: 0.94)")
    made.add_argument("--steps", type=int, default=50, help="steps that are timed (default: 50)")
    made.add_argument("--warm", type=int, default=10, help="steps before the clock starts (default: 10)")
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: cuda")
    made.add_argument("--smoke", action="store_true", help="try the command itself: a tiny network, digits and few steps")
    options = made.parse_args(arguments)
    if options.smoke:
        options.recipe, options.net, options.epochs, options.target = "digits", "resnet8", 3, 0.01
        options.steps, options.warm = 2, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
