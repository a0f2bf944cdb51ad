"""End runs in every way that they end in, go on, and compare with a run that nothing happened to.

    python benchmarks/faults.py --out docs/faults.md      # everything; about ten minutes on two cores
    python benchmarks/faults.py 'SIGKILL*' '*two processes*'

Each case starts real processes of `reslight fit` on the smallest of networks and ends them as its name says: with the
signal itself, on a file system that is really full. Then it goes on with `--ckpt_path last` and compares everything
with the run that was not interrupted: metrics.csv row by row, and each tensor and number of last.ckpt.
"""

import argparse
import csv
import fnmatch
import hashlib
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback
from safetensors.torch import save

SETTINGS = {
    "seed_everything": 5,
    "trainer": {"max_epochs": 3, "log_every_n_steps": 1, "accelerator": "cpu", "enable_progress_bar": False},
    "model": {
        "net": {"depths": [1, 1], "widths": [8, 16], "stem": "small", "stem_width": 8, "drop_path": 0.2},
        "ema": 0.8,
        "optim": {"lr": 0.05, "nesterov": True},
        "schedule": {"warmup": 2},
    },
    "data": {
        "class_path": "Synthetic",
        "init_args": {
            "images": {"size": 8, "train_size": 96, "test_size": 40},
            "batch_size": 16,
            "val_size": 30,
            "augment": {"pad": 1, "flip": "random"},
        },
    },
}
STEPS = 12
EVERY_STEP = ("--checkpoint.every_n_train_steps", "1")
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
COUNTERS = ("batch_progress", "epoch_progress", "_batches_that_stepped")
"""Of Lightning's loops: some it counts otherwise after a resume, and nothing but `global_step` hangs on them."""


class Fault(Callback):
    """Does something to this very process at one moment of a run.

    Args:
        what: A signal's name, with `x2` behind it to send it twice; or `SIGKILL in writing`, `nan weight`, `nan gradient`.
        when: `start`, `batch`, `step`, `validation` or `batch of validation`.
        step: Optimizer steps done by then.
        rank: The process to do it to; all if None.
    """

    def __init__(self, what: str, when: str = "step", step: int = 0, rank: int | None = None) -> None:
        self.what, self.when, self.step, self.rank = what, when, step, rank

    def _now(self, when: str, trainer: Any) -> None:
        if (when, trainer.global_step) != (self.when, self.step) or self.rank not in (None, trainer.global_rank):
            return
        if self.what == "SIGKILL in writing":
            torch.save = _die_in_writing
        elif self.what.startswith("nan"):
            parameter = next(trainer.lightning_module.parameters())
            (parameter.data if self.what == "nan weight" else parameter.grad).fill_(float("nan"))
        else:
            name, _, twice = self.what.partition("x")
            for _ in range(2 if twice else 1):
                os.kill(os.getpid(), getattr(signal, name))

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._now("start", trainer)

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self._now("batch", trainer)

    def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
        self._now("step", trainer)

    def on_validation_start(self, trainer: Any, *_: Any) -> None:
        self._now("validation", trainer) if not trainer.sanity_checking else None

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        self._now("batch of validation", trainer) if not trainer.sanity_checking else None


def _die_in_writing(contents: Any, file: Any) -> None:
    """Write half of what there is to write."""
    file.write(b"PK" + bytes(20_000))
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


class Pixels(Callback):
    """Notes the sha256 of each sample's final pixels, by step, in `pixels-RANK.txt` beside the run."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with (self.folder / f"pixels-{trainer.global_rank}.txt").open("a") as file:
            for image, label, index in zip(*batch, strict=True):
                digest = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
                file.write(f"{trainer.global_step} {int(index)} {int(label)} {digest}\n")


class Frozen(Callback):
    """Keeps batch norm, and everything else, in eval mode while it is trained."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.eval()


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str
    seconds: float


class Lab:
    """A folder in which runs are made, ended and compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
        self._wholes: dict[tuple[str, ...], Path] = {}

    def command(self, root: str, words: Sequence[str] = (), fault: Fault | None = None, pixels: bool = False) -> list[str]:
        """The command line of a run, which a fault may happen to."""
        command = [sys.executable, "-m", "reslight", "fit", "--config", "tiny.yaml", "--trainer.default_root_dir", root, *words]
        if fault:
            command += ["--trainer.callbacks+=faults.Fault"]
            command += [f"--trainer.callbacks.{name}={value}" for name, value in vars(fault).items() if value is not None]
        if pixels:
            (self.folder / root).mkdir(exist_ok=True)
            command += ["--trainer.callbacks+=faults.Pixels", f"--trainer.callbacks.folder={root}"]
        return command

    def environment(self, **more: str) -> dict[str, str]:
        """One thread each, for several processes share two cores here."""
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more

    def run(self, *arguments: Any, **more: Any) -> Ended:
        """Run a command to its end; `environment` is added to the process's."""
        environment = self.environment(**more.pop("environment", {}))
        start = time.monotonic()
        command = self.command(*arguments, **more)
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
        return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def whole(self, words: Sequence[str], pixels: bool = False) -> Path:
        """The folder of the run that nothing happens to, under these settings; made once."""
        key = (*words, str(pixels))
        if key not in self._wholes:
            root = f"whole-{len(self._wholes)}"
            ended = self.run(root, words, pixels=pixels)
            if ended.code:
                raise RuntimeError(f"the run that nothing happens to failed: {ended.err}")
            self._wholes[key] = self.folder / root / "tiny" / "1"
        return self._wholes[key]

    def fresh(self, root: str = "part") -> Path:
        """An empty place for a run; returns the run's folder, which is not there yet."""
        shutil.rmtree(self.folder / root, ignore_errors=True)
        return self.folder / root / "tiny" / "1"

    def has_unfinished(self, run: Path) -> bool:
        """Whether a half-written checkpoint lies beside the others."""
        return any((run / "checkpoints").glob(".*.tmp"))


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without what depends on the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "images_per_second"} for row in csv.DictReader(file)]


def contents(run: Path, sections: Sequence[str] = ()) -> dict[str, Any]:
    """Everything in last.ckpt, or some sections: numbers and texts as they are, tensors as the sha256 of their bytes."""

    def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
        for key, inner in pairs:
            yield from flat(inner, f"{name}/{key}")
        if isinstance(value, torch.Tensor):
            yield name, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        elif not pairs:
            yield name, value

    loaded = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    everything = dict(flat({key: loaded[key] for key in sections or loaded}, ""))
    return {name: value for name, value in everything.items() if not any(counter in name for counter in COUNTERS)}


def step_of(run: Path) -> int:
    """Optimizer steps in last.ckpt; 0 where there is none."""
    path = run / "checkpoints" / "last.ckpt"
    return int(torch.load(path, weights_only=True)["global_step"]) if path.is_file() else 0


def weights(run: Path) -> str:
    """The beginning of the sha256 of all weights of last.ckpt as a safetensors file."""
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return hashlib.sha256(save({name: value.contiguous() for name, value in state.items()})).hexdigest()[:12]


@dataclass
class Outcome:
    """A row of the table, and whether it is as it should be."""

    happened: str
    good: bool


def said(ended: Ended) -> str:
    """The line in which reslight says why it stopped."""
    lines = [line for line in ended.err.splitlines() if line.startswith("reslight: ")]
    return lines[-1] if lines else "nothing"


def goes_on(lab: Lab, words: Sequence[str], fault: Fault, code: int, kept: int, **more: Any) -> Outcome:
    """The fault, and then a run that goes on and must be the whole one."""
    whole, part = lab.whole(words), lab.fresh()
    ended = lab.run("part", words, fault, **more)
    step, unfinished = step_of(part), lab.has_unfinished(part)
    again = lab.run("part", [*words, "--ckpt_path", "last"])
    same = again.code == 0 and rows(part) == rows(whole) and contents(part) == contents(whole)
    texts = [f"exit {ended.code}", f"{said(ended)!r}" if code >= 0 else "", "half a checkpoint beside the whole one" if unfinished else ""]
    texts += [f"kept step {step}", f"went on to step {step_of(part)}: {'the same run' if same else 'ANOTHER RUN'}, weights {weights(part)}"]
    clean = not lab.has_unfinished(part) and "Traceback" not in ended.err
    return Outcome("; ".join(filter(None, texts)), same and clean and (ended.code, step) == (code, kept))


def killed_at_random(lab: Lab, words: Sequence[str], times: int, seed: int) -> Outcome:
    """Killed several times on the way, at steps that a generator chooses."""
    whole, part = lab.whole(words), lab.fresh()
    steps = sorted(random.Random(seed).sample(range(1, STEPS), times))
    codes = []
    for number, step in enumerate(steps):
        codes.append(lab.run("part", [*words, *(["--ckpt_path", "last"] if number else [])], Fault("SIGKILL", step=step)).code)
    last = lab.run("part", [*words, "--ckpt_path", "last"])
    same = last.code == 0 and rows(part) == rows(whole) and contents(part) == contents(whole)
    when = ", ".join(str(step + 1) for step in steps)
    outcome = f"killed in steps {when}; {'the same run' if same else 'ANOTHER RUN'}, weights {weights(part)}"
    return Outcome(outcome, same and codes == [-signal.SIGKILL] * times)


def never_began(lab: Lab, fault: Fault, code: int) -> Outcome:
    part = lab.fresh()
    ended = lab.run("part", (), fault)
    left = sorted(path.name for path in part.rglob("*")) if part.exists() else []
    return Outcome(f"exit {ended.code}; {said(ended)!r}; left behind: {', '.join(left) or 'nothing'}", ended.code == code and not left)


def full_disk(lab: Lab) -> Outcome:
    """A file system of its own, with room for one checkpoint and not for two."""
    part = lab.fresh("full")
    (lab.folder / "full").mkdir()
    words = ("--model.net", "resnet8", *EVERY_STEP)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(lab.folder / "full")], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return Outcome("not run: mounting a file system takes root", good=True)
    try:
        ended = lab.run("full", words)
        step, unfinished = step_of(part), lab.has_unfinished(part)
        good = (ended.code, step, unfinished) == (2, 1, False) and "Traceback" not in ended.err
        return Outcome(f"exit {ended.code}; {said(ended)!r}; kept step {step}, whole", good)
    finally:
        subprocess.run(["umount", str(lab.folder / "full")], check=False)


def no_number(lab: Lab, fault: Fault) -> Outcome:
    part = lab.fresh()
    ended = lab.run("part", EVERY_STEP, fault)
    kept = torch.load(part / "checkpoints/last.ckpt", weights_only=True)
    finite = all(bool(torch.isfinite(value).all()) for value in kept["state_dict"].values())
    good = ended.code == 1 and finite and kept["global_step"] == 5
    return Outcome(f"exit {ended.code}; {said(ended)!r}; kept step {kept['global_step']}, {'finite' if finite else 'NOT FINITE'}", good)


def truncated(lab: Lab) -> Outcome:
    """What no process of ours does; a copy that was cut short."""
    part = lab.fresh()
    lab.run("part", EVERY_STEP)
    last = part / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    ended = lab.run("part", ["--ckpt_path", "last"])
    return Outcome(f"exit {ended.code}; {said(ended)!r}".replace(f"{lab.folder}/", ""), ended.code == 2 and "cut short" in said(ended))


def one_dies(lab: Lab, rank: int) -> Outcome:
    """One of two processes is killed: the other must not wait for it."""
    part = lab.fresh()
    words = (*TWO, *EVERY_STEP)
    ended = lab.run("part", words, Fault("SIGKILL", step=5, rank=rank))
    waiting = _others(lab)
    good = not waiting and ended.code in (1, -9) and step_of(part) == 5 and "Traceback" not in ended.err
    return Outcome(f"exit {ended.code} of the first; {said(ended)!r}; {'NONE ENDED' if waiting else 'no process left'}; kept step 5", good)


def _others(lab: Lab) -> bool:
    """Whether a process of a run is still there after twenty seconds."""
    for _ in range(200):
        found = subprocess.run(["pgrep", "-f", "reslight fit --config tiny.yaml"], capture_output=True, check=False)
        if found.returncode:
            return False
        time.sleep(0.1)
    return True


def other_devices(lab: Lab, before: Sequence[str], after: Sequence[str]) -> Outcome:
    """Stopped on so many processes, gone on with another number: the samples that come are those that were to come."""
    whole, part = lab.whole((), pixels=True), lab.fresh()
    ended = lab.run("part", before, Fault("SIGTERM", step=5), pixels=True)
    again = lab.run("part", [*after, "--ckpt_path", "last"], pixels=True)
    same = seen(part.parents[1]) == seen(whole.parents[1])
    good = same and (ended.code, again.code, step_of(part)) == (143, 0, STEPS)
    return Outcome(
        f"exit {ended.code}, kept step 6; then {'the very samples' if same else 'OTHER SAMPLES'} of the whole run, pixel by pixel", good
    )


def seen(root: Path) -> list[tuple[int, ...]]:
    """(step, index, label, pixels) of every sample that any process trained on."""
    lines = [line.split() for path in root.glob("pixels-*.txt") for line in path.read_text().splitlines()]
    return sorted((int(step), int(index), int(label), int(digest, 16)) for step, index, label, digest in lines)


def two_nodes(lab: Lab) -> Outcome:
    """Two torchrun agents with a process each; one is told to stop."""
    words = ("--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp")
    whole, part = lab.whole((), pixels=True), lab.fresh()

    def start(*more: str, fault: Fault | None = None) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        agents = []
        for node in range(2):
            command = lab.command("part", [*words, *more], fault, pixels=True)[1:]
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}"]
            torchrun += ["--master-addr=127.0.0.1", f"--master-port={port}"]
            log = (lab.folder / f"node-{node}.txt").open("w")
            agents.append(subprocess.Popen([*torchrun, *command], cwd=lab.folder, env=lab.environment(), stdout=log, stderr=log))
        return [agent.wait(timeout=300) for agent in agents]

    stopped = start(fault=Fault("SIGTERM", step=5, rank=1))
    kept = step_of(part)
    again = start("--ckpt_path", "last")
    same = seen(part.parents[1]) == seen(whole.parents[1])
    good = same and all(stopped) and kept == 6 and again == [0, 0] and step_of(part) == STEPS
    samples = "the very samples of one process" if same else "OTHER SAMPLES"
    return Outcome(f"agents' exits {stopped}, kept step {kept}; went on: exits {again}, {samples}", good)


CASES: dict[str, Callable[[Lab], Outcome]] = {
    "SIGKILL at four random steps": lambda lab: killed_at_random(lab, EVERY_STEP, 4, seed=1),
    "SIGKILL at four random steps, bf16-mixed": lambda lab: killed_at_random(
        lab, (*EVERY_STEP, "--trainer.precision", "bf16-mixed"), 4, seed=2
    ),
    "SIGKILL at four random steps, checkpoints every third": lambda lab: killed_at_random(
        lab, ("--checkpoint.every_n_train_steps", "3"), 4, seed=3
    ),
    "SIGKILL in a validation": lambda lab: goes_on(lab, EVERY_STEP, Fault("SIGKILL", "batch of validation", 8), -9, 8),
    "SIGKILL while last.ckpt is written, TMPDIR on another file system": lambda lab: goes_on(
        lab, EVERY_STEP, Fault("SIGKILL in writing", step=6), -9, 6, environment={"TMPDIR": "/dev/shm" if Path("/dev/shm").is_dir() else ""}
    ),
    "SIGTERM in a step": lambda lab: goes_on(lab, (), Fault("SIGTERM", step=5), 143, 6),
    "SIGTERM in the last step of an epoch": lambda lab: goes_on(lab, (), Fault("SIGTERM", step=3), 143, 4),
    "SIGTERM in a validation": lambda lab: goes_on(lab, (), Fault("SIGTERM", "batch of validation", 8), 143, 8),
    "SIGTERM twice in a row": lambda lab: goes_on(lab, (), Fault("SIGTERMx2", step=5), 143, 6),
    "SIGTERM while it starts": lambda lab: never_began(lab, Fault("SIGTERM", "start"), 143),
    "SIGUSR1 in a step": lambda lab: goes_on(lab, (), Fault("SIGUSR1", step=5), 138, 6),
    "Ctrl-C in a step": lambda lab: goes_on(lab, (), Fault("SIGINT", step=5), 130, 6),
    "SIGTERM to the first of two processes": lambda lab: goes_on(lab, TWO, Fault("SIGTERM", step=5, rank=0), 143, 6),
    "SIGTERM to the second of two processes": lambda lab: goes_on(lab, TWO, Fault("SIGTERM", step=5, rank=1), 143, 6),
    "SIGTERM to two processes in a validation": lambda lab: goes_on(lab, TWO, Fault("SIGTERM", "validation", 8), 143, 8),
    "SIGKILL to the second of two processes": lambda lab: one_dies(lab, 1),
    "SIGKILL to the first of two processes": lambda lab: one_dies(lab, 0),
    "SIGTERM on two processes, gone on with one": lambda lab: other_devices(lab, TWO, ()),
    "SIGTERM on one process, gone on with two": lambda lab: other_devices(lab, (), TWO),
    "SIGTERM to one of two nodes (torchrun)": two_nodes,
    "the disk is full": full_disk,
    "the loss is no number": lambda lab: no_number(lab, Fault("nan weight", "batch", 5)),
    "a gradient is no number": lambda lab: no_number(lab, Fault("nan gradient", step=5)),
    "last.ckpt cut short by somebody": truncated,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of cases with wildcards (default: all)")
    parser.add_argument("--out", type=Path, help="write the table to this file, too")
    options = parser.parse_args()
    chosen = [name for name in CASES if any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)]
    if not chosen:
        parser.error(f"no case matches {' '.join(options.patterns)}; there are: {'; '.join(CASES)}")
    lines, bad = ["| fault | what happened | |", "|---|---|---|"], 0
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        for name in chosen:
            outcome = CASES[name](lab)
            bad += not outcome.good
            lines.append(f"| {name} | {outcome.happened.replace('|', '/')} | {'as it should' if outcome.good else '**WRONG**'} |")
            print(lines[-1], flush=True)
    if options.out:
        machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"
        command = " ".join(["python benchmarks/faults.py", *(f"'{pattern}'" for pattern in options.patterns if pattern != "*")])
        head = f"Made by `{command}` ({machine}, lightning {version('lightning')}; n = 1 each).\n\n"
        options.out.write_text(f"# Every fault that was tried\n\n{head}" + "\n".join(lines) + "\n", encoding="utf-8")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
