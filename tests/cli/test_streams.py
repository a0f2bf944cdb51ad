"""A run outlives the reader of its output; other errors of stdout name it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sandbox import SETTINGS

from reslight.cli.streams import Output

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_output_without_a_reader_is_dropped():
    descriptor = closed_pipe()
    raw = Output(descriptor, "stdout")
    raw.needs_reader = False
    stream = io.TextIOWrapper(io.BufferedWriter(raw), write_through=True)
    for _ in range(3):
        print("a line", file=stream, flush=True)
    os.write(descriptor, b"what another library prints")
    os.close(descriptor)


def test_a_command_that_only_prints_ends_with_its_reader():
    descriptor = closed_pipe()
    stream = io.TextIOWrapper(io.BufferedWriter(Output(descriptor, "stdout")))
    with pytest.raises(BrokenPipeError):
        print("a line", file=stream, flush=True)
    stream.flush()  # as Python does at its end
    os.close(descriptor)


@needs_full
@pytest.mark.parametrize("interpreter", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_a_full_disk_below_stdout_is_named(interpreter: list[str]):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, *interpreter, "-m", "reslight", "configs"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "reslight: error: stdout: No space left on device\n")


def test_without_stdout_a_command_runs():
    done = subprocess.run([sys.executable, "-m", "reslight", "configs"], stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_run_goes_on_without_a_reader_and_with_warnings_as_errors():
    Path("tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    command = [sys.executable, "-W", "error", "-m", "reslight", "fit", "--config", "tiny.yaml"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout
    assert run.stderr
    assert run.stdout.readline().startswith("net ")
    run.stdout.close()
    assert (run.stderr.read(), run.wait(60)) == ("", 0)
    assert Path("runs/tiny/1/summary.json").exists()
