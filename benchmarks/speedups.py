"""Each way to be faster that PyTorch and the C library offer, on training and on inference: speed and peak memory.

Every measurement is a process of its own, for a peak cannot be taken back and malloc's settings hold for a process.
The sides differ from the first one, which is what `reslight fit` does in bf16, in what their name says.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import add_cpu_time, alternate, introduce, keep, parser, show, use_threads
from loops import Work, bare_loop
from torch import nn
from train import peak_bytes

from reslight.cli.allocator import keep_freed_blocks
from reslight.models import cifar_config, create_model

HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}


@dataclass(frozen=True)
class Lead:
    """What one process does otherwise."""

    precision: str = "bf16"
    layout: str = "channels_last"
    compile: bool = False
    optimizer: str = ""
    """`fused` or `foreach`; else what torch does by itself."""
    malloc: bool = False
    """Have glibc's malloc keep large freed blocks; what `reslight test`, `validate` and `predict` do on the CPU."""
    huge_pages: bool = False
    """Let torch ask for huge pages (its THP_MEM_ALLOC_ENABLE)."""


LEADS = {
    "bf16, channels_last": Lead(),
    "bf16, contiguous": Lead(layout="contiguous"),
    "fp32, channels_last": Lead(precision="fp32"),
    "fp32, contiguous": Lead(precision="fp32", layout="contiguous"),
    "bf16, channels_last, malloc": Lead(malloc=True),
    "fp32, channels_last, malloc": Lead(precision="fp32", malloc=True),
    "bf16, channels_last, huge pages": Lead(huge_pages=True),
    "bf16, channels_last, malloc + huge pages": Lead(malloc=True, huge_pages=True),
    "bf16, channels_last, fused SGD": Lead(optimizer="fused"),
    "bf16, channels_last, foreach SGD": Lead(optimizer="foreach"),
    "bf16, channels_last, compiled": Lead(compile=True),
    "fp32, channels_last, compiled": Lead(precision="fp32", compile=True),
}
BASE = next(iter(LEADS))


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    if options.child:
        print(json.dumps(_measure(options, Lead(**json.loads(options.child)))))
        return
    introduce(f"Leads: training a {options.depth}-layer CIFAR net, batch {options.batch_size}; inference of {options.infer}, batch 32")
    print(f"  C++ compiler for torch.compile on the CPU: {shutil.which(os.environ.get('CXX', 'g++')) or 'none, compiled sides will fail'}")
    results = {task: _compare(task, options) for task in options.tasks}
    keep(options, results)


def _compare(task: str, options: argparse.Namespace) -> dict[str, Any]:
    chosen = {name: lead for name, lead in LEADS.items() if options.only is None or name == BASE or options.only in name}
    if task == "infer":
        chosen = {name: lead for name, lead in chosen.items() if not lead.optimizer}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    failed: dict[str, str] = {}

    def speed(name: str) -> float:
        answer = _in_process(task, chosen[name], options)
        answers[name].append(answer)
        return float(answer["images/s"])

    # The first time shows what cannot run here, and leaves compiled code in the cache, so that it is not compiled again
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for name in chosen:
            if chosen[name].compile:
                try:
                    speed(name)
                except subprocess.CalledProcessError as error:
                    failed[name] = error.stderr.strip().splitlines()[-1]
        sides: dict[str, Callable[[], float]] = {name: partial(speed, name) for name in chosen if name not in failed}
        values = alternate(sides, options.rounds)
    notes = {name: f"{statistics.median(one['GB'] for one in answers[name]):.2f} GB" for name in values}
    for name in values:
        if chosen[name].compile:
            notes[name] += f", first step {answers[name][0]['first step, s']:.0f} s, {answers[name][-1]['first step, s']:.0f} s cached"
    show(f"{task}, and median peak RSS", "images/s", values, base=BASE, notes=notes)
    for name, reason in failed.items():
        print(f"  {name}: did not run: {reason}")
    return {"answers": answers, "failed": failed}


def _in_process(task: str, lead: Lead, options: argparse.Namespace) -> dict[str, Any]:
    passed = ("steps", "images", "batch_size", "depth", "infer", "size", "threads")
    words = [f"--{name.replace('_', '-')}={value}" for name in passed if (value := getattr(options, name)) is not None]
    words += ["--cpu-time"] if options.cpu_time else []
    command = [sys.executable, str(Path(__file__).resolve()), f"--child={json.dumps(asdict(lead))}", f"--tasks={task}", *words]
    environment = os.environ | (HUGE_PAGES if lead.huge_pages else {})
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def _measure(options: argparse.Namespace, lead: Lead) -> dict[str, Any]:
    if lead.malloc and not keep_freed_blocks():
        raise SystemExit("the C library is not glibc")
    task = _train if options.tasks == ["train"] else _infer
    first, rate = task(options, lead)
    return {"images/s": rate, "GB": peak_bytes() / 1e9, "first step, s": first}


def _train(options: argparse.Namespace, lead: Lead) -> tuple[float, float]:
    work = Work(
        cifar_config(options.depth),
        options.images,
        batch_size=options.batch_size,
        precision=lead.precision,
        warm=3,
        steps=options.steps,
        cpu_time=options.cpu_time,
    )
    first: list[float] = []
    settings = {lead.optimizer: True} if lead.optimizer else {}
    seconds = bare_loop(work, sums=True, layout=_layout(lead), compile=lead.compile, optimizer=settings, first=first)
    return first[0], work.batch_size / seconds


@torch.no_grad()
def _infer(options: argparse.Namespace, lead: Lead) -> tuple[float, float]:
    net: nn.Module = create_model(options.infer).eval().to(memory_format=_layout(lead))
    if lead.compile:
        net.compile()
    images = torch.randn(32, 3, options.size, options.size).to(memory_format=_layout(lead))
    now = time.process_time if options.cpu_time else time.perf_counter
    times = [now()]
    for _ in range(2 + options.steps // 4):
        with torch.autocast("cpu", torch.bfloat16, enabled=lead.precision == "bf16"):
            net(images)
        times.append(now())
    return times[1] - times[0], 32 * (len(times) - 3) / (times[-1] - times[2])


def _layout(lead: Lead) -> torch.memory_format:
    return torch.channels_last if lead.layout == "channels_last" else torch.contiguous_format


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=3)
    made.add_argument("--tasks", nargs="+", choices=("train", "infer"), default=["train", "infer"], help="what to measure (default: both)")
    made.add_argument("--only", help="only leads whose name has this in it, and the first")
    made.add_argument("--steps", type=int, default=40, help="training steps per round; inference takes a quarter (default: 40)")
    made.add_argument("--images", type=int, default=10_000, help="images in the training set (default: 10000)")
    made.add_argument("--batch-size", type=int, default=128, help="training batch (default: 128)")
    made.add_argument("--depth", type=int, default=20, help="layers of the CIFAR net that is trained (default: 20)")
    made.add_argument("--infer", default="resnet50", help="the net of the inference (default: resnet50)")
    made.add_argument("--size", type=int, default=224, help="height and width of its images (default: 224)")
    add_cpu_time(made)
    made.add_argument("--child", help=argparse.SUPPRESS)
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
