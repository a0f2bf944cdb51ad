"""Runs of `reslight fit` in processes of their own, which can be ended at any moment and compared with one another.

`benchmarks/faults.py` and the tests of training use them. Two runs are the same if metrics.csv is the same row by row, and each tensor
and number of last.ckpt is the same.
"""

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
COUNTERS = ("batch_progress", "epoch_progress", "_batches_that_stepped")
"""Counters of Lightning's loops that differ after a resume; nothing but `global_step` depends on them."""


class Fault(Callback):
    """Ends this process, or spoils its numbers, at one moment of a run.

    Args:
        what: A signal's name, with the suffix `x2` to send it twice; or `SIGKILL in writing`, `nan weight`, `nan gradient`.
        when: `start`, `batch`, `step`, `validation` or `batch of validation`.
        step: Optimizer steps done at that moment.
        rank: The process it happens to; all if None.
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
    """Write half of a file, and kill the process."""
    file.write(b"PK" + bytes(20_000))
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


class Pixels(Callback):
    """Writes the sha256 of each sample's final pixels, by step, to `pixels-RANK.txt` in a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with (self.folder / f"pixels-{trainer.global_rank}.txt").open("a") as file:
            for image, label, index in zip(*batch, strict=True):
                digest = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
                file.write(f"{trainer.global_step} {int(index)} {int(label)} {digest}\n")


class Frozen(Callback):
    """Keeps the network in eval mode in training, so that batch norm uses its running statistics."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.eval()


@dataclass
class Ended:
    """The exit code, the output and the duration of a process."""

    code: int
    out: str
    err: str
    seconds: float


class Sandbox:
    """A folder in which runs are started, ended and compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
        self._uninterrupted: dict[tuple[str, ...], Path] = {}

    def command(self, root: str, words: Sequence[str] = (), fault: Fault | None = None, pixels: bool = False) -> list[str]:
        """Return the command line of a run, with a fault if there is one."""
        command = [sys.executable, "-m", "reslight", "fit", "--config", "tiny.yaml", "--trainer.default_root_dir", root, *words]
        if fault:
            command += ["--trainer.callbacks+=sandbox.Fault"]
            command += [f"--trainer.callbacks.{name}={value}" for name, value in vars(fault).items() if value is not None]
        if pixels:
            (self.folder / root).mkdir(exist_ok=True)
            command += ["--trainer.callbacks+=sandbox.Pixels", f"--trainer.callbacks.folder={root}"]
        return command

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process: one thread each, since several processes share the cores."""
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more

    def run(self, *arguments: Any, **more: Any) -> Ended:
        """Run a command to its end; `environment` adds variables."""
        environment = self.environment(**more.pop("environment", {}))
        start = time.monotonic()
        command = self.command(*arguments, **more)
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
        return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def uninterrupted(self, words: Sequence[str], pixels: bool = False) -> Path:
        """Return the folder of the uninterrupted run with these settings, which is trained once."""
        key = (*words, str(pixels))
        if key not in self._uninterrupted:
            root = f"uninterrupted-{len(self._uninterrupted)}"
            ended = self.run(root, words, pixels=pixels)
            if ended.code:
                raise RuntimeError(f"the uninterrupted run failed: {ended.err}")
            self._uninterrupted[key] = self.folder / root / "tiny" / "1"
        return self._uninterrupted[key]

    def next_run(self, root: str = "part") -> Path:
        """Remove the runs in a folder; return the folder of the next run, which does not exist yet."""
        shutil.rmtree(self.folder / root, ignore_errors=True)
        return self.folder / root / "tiny" / "1"

    def has_unfinished(self, run: Path) -> bool:
        """Return whether there is a half-written checkpoint beside the others."""
        return any((run / "checkpoints").glob(".*.tmp"))


def rows(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without the column that depends on the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "images_per_second"} for row in csv.DictReader(file)]


def contents(run: Path, sections: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything in last.ckpt, or some sections of it: numbers and texts, and tensors as the sha256 of their bytes."""

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
    """Return the optimizer steps done in last.ckpt; 0 without a checkpoint."""
    path = run / "checkpoints" / "last.ckpt"
    return int(torch.load(path, weights_only=True)["global_step"]) if path.is_file() else 0


def weights(run: Path) -> str:
    """Return the start of the sha256 of the weights of last.ckpt as a safetensors file."""
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return hashlib.sha256(save({name: value.contiguous() for name, value in state.items()})).hexdigest()[:12]


def seen_samples(root: Path) -> list[tuple[int, ...]]:
    """Return (step, index, label, pixels) of each sample that any process trained on."""
    lines = [line.split() for path in root.glob("pixels-*.txt") for line in path.read_text().splitlines()]
    return sorted((int(step), int(index), int(label), int(digest, 16)) for step, index, label, digest in lines)
