"""Whether freed memory stays with the process, as the system counts it."""

import subprocess
import sys
from pathlib import Path

import pytest

import reslight.cli.allocator

COUNT = """
import ctypes, resource, runpy, sys
keep_freed_blocks = runpy.run_path(sys.argv[1])["keep_freed_blocks"]
if len(sys.argv) > 2:
    assert keep_freed_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size, before = 64 * 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / size)
"""


def passes(*words: str) -> float:
    """How many times the pages of a block that is made, filled and freed 8 times were asked of the system."""
    file = str(Path(reslight.cli.allocator.__file__))
    return float(subprocess.run([sys.executable, "-c", COUNT, file, *words], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone")
def test_pages_are_asked_of_the_system_once():
    assert passes() > 4 * passes("kept")  # 8 times, but for what else is allocated; huge pages are fewer, in both


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("touched"))
    assert not reslight.cli.allocator.keep_freed_blocks()


@pytest.mark.parametrize(("command", "calls"), [("fit", 0), ("test", 1), ("validate", 1), ("predict", 1)])
def test_the_commands_that_measure_use_it(reslight, command, calls, monkeypatch):
    base = ["--config", "digits", "--config", "overlays/smoke", "--trainer.accelerator", "cpu"]
    called = []
    monkeypatch.setattr("reslight.cli.trainer.keep_freed_blocks", lambda: called.append(command))
    assert reslight("fit", *base).code == 0
    assert not called
    assert reslight(command, *base).code == 0
    assert len(called) == calls
