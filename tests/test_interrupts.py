"""Ctrl-C while modules are imported, and after the end of a command."""

import io
import signal
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from reslight.interrupts import ending_at_once

IMPORTING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["reslight", *{words!r}]
from reslight.__main__ import run
sys.exit(run())
"""
AT_EXIT = """
import atexit, os, signal, sys
from reslight.__main__ import run
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.argv = ["reslight", "--version"]
sys.exit(run())
"""


@pytest.mark.parametrize(("module", "words"), [("argparse", ["configs"]), ("torch", ["fit"])])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_import_is_interrupted_with_one_line_of_the_first_process(module: str, words: list[str], rank: str, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", rank)
    done = subprocess.run([sys.executable, "-c", IMPORTING.format(module=module, words=words)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nreslight: interrupted\n" if rank == "0" else "")


def test_a_command_that_is_done_keeps_its_exit_code():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("reslight ")


def test_the_handler_is_restored_and_that_of_a_program_is_kept():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ImportError), ending_at_once():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    own = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_at_once():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, own)


class Interrupted(io.BytesIO):
    def write(self, data):
        if self.tell():
            raise KeyboardInterrupt
        return super().write(data)


def test_an_interrupted_write_is_an_interrupt(reslight, monkeypatch):
    monkeypatch.setattr(import_module("reslight.cli.main"), "_run", lambda *_: torch.save({"x": torch.zeros(1000)}, Interrupted()))
    answer = reslight("fit")
    assert (answer.code, answer.err) == (130, "\nreslight: interrupted\n")
