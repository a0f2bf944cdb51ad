"""Measure sides in alternating rounds, and say on what machine: what every benchmark here shares.

A machine is never quiet. Sides that take turns within one run meet the same noise, so their ratios mean something where
their numbers, taken apart, would not. Every second round runs in reverse order, so that no side always
follows the same neighbor.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Rounds = dict[str, list[float]]
"""The values of each side, one a round."""

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics")


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A command line with what all benchmarks take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help=f"times that every side is measured (default: {rounds})")
    made.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    made.add_argument("--json", type=Path, help="write machine, settings and every measured value to this file, too")
    return made


def add_cpu_time(made: argparse.ArgumentParser) -> None:
    made.add_argument("--cpu-time", action="store_true", help="count CPU seconds, on a busy machine; with --threads 1 only")


def use_threads(count: int | None) -> None:
    if count:
        torch.set_num_threads(count)


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """Measure every side once a round."""
    values: Rounds = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            values[name].append(sides[name]())
    return values


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    facts: dict[str, Any] = {"cpu": _cpu(), "cores": _cores(), "threads": torch.get_num_threads(), "capability": _capability()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    facts["system"] = f"{platform.system()} {platform.libc_ver()[0]} {platform.libc_ver()[1]}".strip()
    facts["python"] = platform.python_version()
    return facts | {name: _version(name) for name in PACKAGES}


def show(title: str, unit: str, values: Rounds, *, base: str, digits: int = 0, notes: Mapping[str, str] | None = None) -> None:
    """Print medians, ranges and the ratio of the medians to that of the side `base`."""
    width = max(len(name) for name in values)
    print(f"\n{title}: {unit}, n = {len(values[base])} alternating rounds")
    print(f"  {'':{width}}  {'median':>10}  {'range':>19}  {'ratio':>6}")
    reference = statistics.median(values[base])
    for name, numbers in values.items():
        median, low, high = statistics.median(numbers), min(numbers), max(numbers)
        span = f"{low:,.{digits}f} - {high:,.{digits}f}"
        note = (notes or {}).get(name, "")
        print(f"  {name:{width}}  {median:>10,.{digits}f}  {span:>19}  {median / reference:>6.2f}  {note}".rstrip())


def introduce(title: str) -> None:
    """Print what is measured and on what."""
    print(title)
    facts = machine()
    print("  " + ", ".join(f"{name} {value}" for name, value in facts.items() if name not in PACKAGES))
    print("  " + ", ".join(f"{name} {facts[name]}" for name in PACKAGES))


def keep(options: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Write everything to the file of `--json`, where one was asked for."""
    if options.json:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        record = {"machine": machine(), "settings": settings, "results": results}
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _cores() -> int | str:
    """Cores of the machine, and of how many this process may use where that is fewer."""
    cores = os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return cores if mine == cores else f"{mine} of {cores}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if ":" in line)
        known = {key.strip(): value.strip() for key, value in fields.items()}
        # Virtual machines hide the model's name, not its number
        numbers = "/".join(known.get(key, "?") for key in ("cpu family", "model", "stepping"))
        return f"{known.get('model name', platform.machine())} (family/model/stepping {numbers})"
    return platform.processor() or platform.machine()


def _capability() -> str:
    """The widest vector instructions that torch uses, and whether the CPU multiplies bfloat16 matrices by itself."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    extra = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *extra])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
