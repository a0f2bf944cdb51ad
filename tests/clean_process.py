"""Measure what a call costs in a process that has just imported reslight, where no memory of earlier tests is reused."""

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """The error that ended a call, its type's name, the call's CPU seconds, and the bytes of memory that it added."""

    message: str | None
    error: str | None
    seconds: float
    nbytes: int


def cost_of_loading(folder: Path) -> Cost:
    """Measure `reslight.load`."""
    return _pool().submit(_load, folder.absolute()).result()


def cost_of_allocating(nbytes: int) -> Cost:
    """Measure an allocation of this size."""
    return _pool().submit(_allocate, nbytes).result()


@cache
def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reslight.weights.loading", "tests.clean_process"])
    return ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1)


def _load(folder: Path) -> Cost:
    import reslight

    return _measured(lambda: reslight.load(folder))


def _allocate(nbytes: int) -> Cost:
    import torch

    return _measured(lambda: torch.ones(nbytes, dtype=torch.uint8))


def _measured(call) -> Cost:
    before, start, error = _peak(), time.process_time(), None
    try:
        call()
    except Exception as raised:
        error = raised
    seconds = time.process_time() - start
    return Cost(None if error is None else str(error), error and type(error).__name__, seconds, _peak() - before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
