"""End runs in every way that they end in, resume them, and compare them with an uninterrupted run.

    python benchmarks/faults.py --out docs/results/faults.md      # everything; about ten minutes on two cores
    python benchmarks/faults.py 'SIGKILL*' '*two processes*'

Each case starts real processes of `reslight fit` on a tiny network and ends them as its name says: with the signal itself, or on a file
system that is really full. Then it resumes with `--ckpt_path last` and compares everything with the uninterrupted run.
"""

import argparse
import fcntl
import fnmatch
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from power_cuts import cut_everywhere, record
from sandbox import STEPS, Ended, Fault, Sandbox, contents, rows, seen_samples, step_of, weights

EVERY_STEP = ("--checkpoint.every_n_train_steps", "1")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


@dataclass
class Outcome:
    """A row of the table, and whether the outcome is correct."""

    happened: str
    good: bool


def message_of(ended: Ended) -> str:
    """Return the last message of reslight, which says why it stopped."""
    lines = [line for line in ended.err.splitlines() if line.startswith("reslight: ")]
    return lines[-1] if lines else "nothing"


def resumes(sandbox: Sandbox, words: Sequence[str], fault: Fault, code: int, kept: int, **more: Any) -> Outcome:
    """Cause a fault, resume the run, and compare it with the uninterrupted one."""
    expected, part = sandbox.uninterrupted(words), sandbox.next_run()
    ended = sandbox.run("part", words, fault, **more)
    step, unfinished = step_of(part), sandbox.has_unfinished(part)
    again = sandbox.run("part", [*words, "--ckpt_path", "last"])
    same = again.code == 0 and rows(part) == rows(expected) and contents(part) == contents(expected)
    texts = [
        f"exit {ended.code}",
        f"{message_of(ended)!r}" if code >= 0 else "",
        "half-written checkpoint beside the complete one" if unfinished else "",
    ]
    texts += [
        f"saved step {step}",
        f"resumed to step {step_of(part)}: {'the same run' if same else 'ANOTHER RUN'}, weights {weights(part)}",
    ]
    clean = not sandbox.has_unfinished(part) and "Traceback" not in ended.err
    return Outcome("; ".join(filter(None, texts)), same and clean and (ended.code, step) == (code, kept))


def killed_at_random(sandbox: Sandbox, words: Sequence[str], times: int, seed: int) -> Outcome:
    """Kill a run several times, at random steps, and resume it each time."""
    expected, part = sandbox.uninterrupted(words), sandbox.next_run()
    steps = sorted(random.Random(seed).sample(range(1, STEPS), times))
    codes = []
    for number, step in enumerate(steps):
        codes.append(sandbox.run("part", [*words, *(["--ckpt_path", "last"] if number else [])], Fault("SIGKILL", step=step)).code)
    last = sandbox.run("part", [*words, "--ckpt_path", "last"])
    same = last.code == 0 and rows(part) == rows(expected) and contents(part) == contents(expected)
    when = ", ".join(str(step + 1) for step in steps)
    outcome = f"killed in steps {when}; {'the same run' if same else 'ANOTHER RUN'}, weights {weights(part)}"
    return Outcome(outcome, same and codes == [-signal.SIGKILL] * times)


def before_training(sandbox: Sandbox, fault: Fault, code: int) -> Outcome:
    part = sandbox.next_run()
    ended = sandbox.run("part", (), fault)
    left = sorted(path.name for path in part.rglob("*")) if part.exists() else []
    return Outcome(
        f"exit {ended.code}; {message_of(ended)!r}; left behind: {', '.join(left) or 'nothing'}", ended.code == code and not left
    )


def full_disk(sandbox: Sandbox) -> Outcome:
    """Train on a file system with room for one checkpoint and not for two."""
    (sandbox.folder / "full").mkdir(exist_ok=True)
    part = sandbox.folder / "full/tiny-resnet8/1"  # runs of another network than the configuration's have its name
    words = ("--model.net", "resnet8", *EVERY_STEP)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(sandbox.folder / "full")], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return Outcome("not run: only root can mount a file system", good=True)
    try:
        ended = sandbox.run("full", words)
        step, unfinished = step_of(part), sandbox.has_unfinished(part)
        good = (ended.code, step, unfinished) == (2, 1, False) and "Traceback" not in ended.err
        return Outcome(f"exit {ended.code}; {message_of(ended)!r}; saved step {step}, complete", good)
    finally:
        subprocess.run(["umount", str(sandbox.folder / "full")], check=False)


def not_finite(sandbox: Sandbox, fault: Fault) -> Outcome:
    part = sandbox.next_run()
    ended = sandbox.run("part", EVERY_STEP, fault)
    kept = torch.load(part / "checkpoints/last.ckpt", weights_only=True)
    finite = all(bool(torch.isfinite(value).all()) for value in kept["state_dict"].values())
    good = ended.code == 1 and finite and kept["global_step"] == 5
    return Outcome(
        f"exit {ended.code}; {message_of(ended)!r}; saved step {kept['global_step']}, {'finite' if finite else 'NOT FINITE'}", good
    )


def truncated(sandbox: Sandbox) -> Outcome:
    """Cut last.ckpt short, as an interrupted copy does."""
    part = sandbox.next_run()
    sandbox.run("part", EVERY_STEP)
    last = part / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    ended = sandbox.run("part", ["--ckpt_path", "last"])
    return Outcome(
        f"exit {ended.code}; {message_of(ended)!r}".replace(f"{sandbox.folder}/", ""), ended.code == 2 and "cut short" in message_of(ended)
    )


def one_dies(sandbox: Sandbox, rank: int) -> Outcome:
    """Kill one of two processes: the other must not wait for it."""
    part = sandbox.next_run()
    words = (*TWO, *EVERY_STEP)
    ended = sandbox.run("part", words, Fault("SIGKILL", step=5, rank=rank))
    waiting = _is_running()
    good = not waiting and ended.code in (1, -9) and step_of(part) == 5 and "Traceback" not in ended.err
    return Outcome(
        f"exit {ended.code} of the first; {message_of(ended)!r}; {'NONE ENDED' if waiting else 'no process left'}; saved step 5", good
    )


def _is_running() -> bool:
    """Return whether a process of a run is still running after twenty seconds."""
    for _ in range(200):
        found = subprocess.run(["pgrep", "-f", "reslight fit --config tiny.yaml"], capture_output=True, check=False)
        if found.returncode:
            return False
        time.sleep(0.1)
    return True


def other_devices(sandbox: Sandbox, before: Sequence[str], after: Sequence[str]) -> Outcome:
    """Stop a run, and resume it with another number of processes: the samples are those of the uninterrupted run."""
    expected, part = sandbox.uninterrupted((), pixels=True), sandbox.next_run()
    ended = sandbox.run("part", before, Fault("SIGTERM", step=5), pixels=True)
    again = sandbox.run("part", [*after, "--ckpt_path", "last"], pixels=True)
    same = seen_samples(part.parents[1]) == seen_samples(expected.parents[1])
    good = same and (ended.code, again.code, step_of(part)) == (143, 0, STEPS)
    return Outcome(
        f"exit {ended.code}, saved step 6; then {'the same samples' if same else 'OTHER SAMPLES'}, pixel by pixel",
        good,
    )


def two_nodes(sandbox: Sandbox) -> Outcome:
    """Run two torchrun agents with a process each, and stop one of them."""
    words = ("--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp")
    expected, part = sandbox.uninterrupted((), pixels=True), sandbox.next_run()

    def start(*more: str, fault: Fault | None = None) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        agents = []
        for node in range(2):
            command = sandbox.command("part", [*words, *more], fault, pixels=True)[1:]
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}"]
            torchrun += ["--master-addr=127.0.0.1", f"--master-port={port}"]
            log = (sandbox.folder / f"node-{node}.txt").open("w")
            agents.append(subprocess.Popen([*torchrun, *command], cwd=sandbox.folder, env=sandbox.environment(), stdout=log, stderr=log))
        return [agent.wait(timeout=600) for agent in agents]

    stopped = start(fault=Fault("SIGTERM", step=5, rank=1))
    kept = step_of(part)
    again = start("--ckpt_path", "last")
    same = seen_samples(part.parents[1]) == seen_samples(expected.parents[1])
    good = same and all(stopped) and kept == 6 and again == [0, 0] and step_of(part) == STEPS
    samples = "the same samples as one process" if same else "OTHER SAMPLES"
    return Outcome(f"agents' exits {stopped}, saved step {kept}; resumed: exits {again}, {samples}", good)


def resumed_twice(sandbox: Sandbox, first: Sequence[str], second: Sequence[str]) -> Outcome:
    """Resume a run while a resume of it is training, then kill the first one and resume again."""
    expected, part = sandbox.uninterrupted(first), sandbox.next_run()
    sandbox.run("part", [*first, *EVERY_STEP], Fault("SIGKILL", step=3))
    words = [*first, *EVERY_STEP, "--ckpt_path", "last"]
    command = sandbox.command("part", words, Fault("SIGSTOP", step=5, rank=0))
    owner = subprocess.Popen(
        command, cwd=sandbox.folder, env=sandbox.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        os.waitid(os.P_PID, owner.pid, os.WSTOPPED | os.WNOWAIT)
        before = {path: path.read_bytes() for path in part.rglob("*") if path.is_file()}
        refused = sandbox.run("part", [*second, "--ckpt_path", "last"])
        unchanged = before == {path: path.read_bytes() for path in part.rglob("*") if path.is_file()}
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.wait()
    again = sandbox.run("part", words)
    same = again.code == 0 and rows(part) == rows(expected) and contents(part) == contents(expected)
    message = message_of(refused).replace(f"process {owner.pid} on {platform.node()}", "process N on HOST")
    good = same and unchanged and refused.code == 2 and "process N on HOST" in message and refused.err.count("\n") == 1
    return Outcome(
        f"exit {refused.code}; {message!r}; {'nothing changed' if unchanged else 'FILES CHANGED'}; after kill -9 of the first resumed to "
        f"step {step_of(part)}: {'the same run' if same else 'ANOTHER RUN'}, weights {weights(part)}",
        good,
    )


def power_cut(sandbox: Sandbox) -> Outcome:
    """Make every state of the files that a power cut can leave, and check them."""
    with tempfile.TemporaryDirectory(dir=sandbox.folder) as folder:
        ops = record(Path(folder)).ops
    ordered, strict = (cut_everywhere(ops, ordered=one) for one in (True, False))
    broken = "; ".join(f"BROKEN {one.broken}" for one in (ordered, strict) if one.broken)
    states = f"{ordered.states} different states of the files as ext4 leaves them, {strict.states} as the strictest POSIX allows"
    outcome = broken or "each file whole or absent, metrics.csv complete up to each checkpoint"
    return Outcome(f"{ordered.moments} moments; {states}; {outcome}", not broken)


def closed_terminal(sandbox: Sandbox) -> Outcome:
    """Close the terminal of a run, as a lost connection does: the system sends SIGHUP, and printing is an error from then on."""
    expected, part = sandbox.uninterrupted(()), sandbox.next_run()
    terminal, inner = os.openpty()
    run = subprocess.Popen(
        sandbox.command("part", (), Fault("SIGSTOP", step=5)),
        cwd=sandbox.folder,
        env=sandbox.environment(),
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inner)
    os.waitid(os.P_PID, run.pid, os.WSTOPPED | os.WNOWAIT)
    os.close(terminal)  # the system continues the process, too
    code, step = run.wait(timeout=600), step_of(part)
    again = sandbox.run("part", ["--ckpt_path", "last"])
    same = again.code == 0 and rows(part) == rows(expected) and contents(part) == contents(expected)
    outcome = "the same run" if same else "ANOTHER RUN"
    return Outcome(
        f"exit {code}; saved step {step}; resumed to step {step_of(part)}: {outcome}, weights {weights(part)}",
        same and (code, step) == (129, 6),
    )


CASES: dict[str, Callable[[Sandbox], Outcome]] = {
    "SIGKILL at four random steps": lambda sandbox: killed_at_random(sandbox, EVERY_STEP, 4, seed=1),
    "SIGKILL at four random steps, bf16-mixed": lambda sandbox: killed_at_random(
        sandbox, (*EVERY_STEP, "--trainer.precision", "bf16-mixed"), 4, seed=2
    ),
    "SIGKILL at four random steps, checkpoints every third": lambda sandbox: killed_at_random(
        sandbox, ("--checkpoint.every_n_train_steps", "3"), 4, seed=3
    ),
    "SIGKILL in a validation": lambda sandbox: resumes(sandbox, EVERY_STEP, Fault("SIGKILL", "batch of validation", 8), -9, 8),
    "SIGKILL while last.ckpt is written, TMPDIR on another file system": lambda sandbox: resumes(
        sandbox,
        EVERY_STEP,
        Fault("SIGKILL in writing", step=6),
        -9,
        6,
        environment={"TMPDIR": "/dev/shm" if Path("/dev/shm").is_dir() else ""},
    ),
    "SIGTERM in a step": lambda sandbox: resumes(sandbox, (), Fault("SIGTERM", step=5), 143, 6),
    "SIGTERM in the last step of an epoch": lambda sandbox: resumes(sandbox, (), Fault("SIGTERM", step=3), 143, 4),
    "SIGTERM in a validation": lambda sandbox: resumes(sandbox, (), Fault("SIGTERM", "batch of validation", 8), 143, 8),
    "SIGTERM twice in a row": lambda sandbox: resumes(sandbox, (), Fault("SIGTERMx2", step=5), 143, 6),
    "SIGTERM while it starts": lambda sandbox: before_training(sandbox, Fault("SIGTERM", "start"), 143),
    "the terminal is closed (SIGHUP)": closed_terminal,
    "SIGUSR1 in a step": lambda sandbox: resumes(sandbox, (), Fault("SIGUSR1", step=5), 138, 6),
    "Ctrl-C in a step": lambda sandbox: resumes(sandbox, (), Fault("SIGINT", step=5), 130, 6),
    "SIGTERM to the first of two processes": lambda sandbox: resumes(sandbox, TWO, Fault("SIGTERM", step=5, rank=0), 143, 6),
    "SIGTERM to the second of two processes": lambda sandbox: resumes(sandbox, TWO, Fault("SIGTERM", step=5, rank=1), 143, 6),
    "SIGTERM to two processes in a validation": lambda sandbox: resumes(sandbox, TWO, Fault("SIGTERM", "validation", 8), 143, 8),
    "SIGKILL to the second of two processes": lambda sandbox: one_dies(sandbox, 1),
    "SIGKILL to the first of two processes": lambda sandbox: one_dies(sandbox, 0),
    "SIGTERM on two processes, resumed with one": lambda sandbox: other_devices(sandbox, TWO, ()),
    "SIGTERM on one process, resumed with two": lambda sandbox: other_devices(sandbox, (), TWO),
    "SIGTERM to one of two nodes (torchrun)": two_nodes,
    "a second resume while the first is training": lambda sandbox: resumed_twice(sandbox, (), ()),
    "a second resume of two processes while the first is training": lambda sandbox: resumed_twice(sandbox, TWO, TWO),
    "the disk is full": full_disk,
    "the loss is not finite": lambda sandbox: not_finite(sandbox, Fault("nan weight", "batch", 5)),
    "a gradient is not finite": lambda sandbox: not_finite(sandbox, Fault("nan gradient", step=5)),
    "last.ckpt is cut short": truncated,
    "the power fails at each moment of a run, an evaluation, a resume and two exports": power_cut,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of cases with wildcards (default: all)")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    chosen = [name for name in CASES if any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)]
    if not chosen:
        parser.error(f"no case matches {' '.join(options.patterns)}: the cases are {'; '.join(CASES)}")
    lines, bad = ["| fault | what happened | |", "|---|---|---|"], 0
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder))
        for name in chosen:
            outcome = CASES[name](sandbox)
            bad += not outcome.good
            lines.append(f"| {name} | {outcome.happened.replace('|', '/')} | {'correct' if outcome.good else '**WRONG**'} |")
            print(lines[-1], flush=True)
    if options.out:
        machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"
        command = " ".join(["python benchmarks/faults.py", *(f"'{pattern}'" for pattern in options.patterns if pattern != "*")])
        head = f"Measured by `{command}` ({machine}, lightning {version('lightning')}; n = 1 each).\n\n"
        options.out.write_text(f"# Faults\n\n{head}" + "\n".join(lines) + "\n", encoding="utf-8")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
