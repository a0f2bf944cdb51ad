"""Cut the power at each moment of a run, an evaluation, a resume and two exports, and check what is left.

`benchmarks/faults.py` has this as a case. Nothing is switched off: crash_model.py records what reslight does to its files, and makes each
state that a file system may be left in.
"""

import contextlib
import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from crash_model import Contents, Op, Recorder, survivors, uncut
from sandbox import SETTINGS

import reslight
from reslight.cli.main import main
from reslight.data.loading import cache
from reslight.data.loading.split import Split
from reslight.runs.metrics_table import MetricsTable
from reslight.training import AtomicCheckpointIO

RUN = "tiny/1"
METRICS = f"{RUN}/metrics.csv"


@dataclass
class Saved:
    """A checkpoint when it had been saved, and metrics.csv when that began."""

    path: str
    step: int
    content: bytes
    metrics: bytes


@dataclass
class Tally:
    """What was checked, and the first promise that was broken."""

    moments: int = 0
    states: int = 0
    broken: str = ""


def record(folder: Path) -> Recorder:
    """Train, test, resume and export twice, and store a decoded split, in a folder that is recorded.

    A mark follows each checkpoint once it is saved.
    """
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    root = folder / "runs"
    root.mkdir()
    recorder = Recorder(root, ignored=("events.",))
    save = AtomicCheckpointIO.save_checkpoint

    def marked(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        metrics = (root / METRICS).read_bytes()
        save(self, checkpoint, path, storage_options)
        name = str(Path(path).resolve().relative_to(root.resolve()))
        recorder.mark(Saved(name, checkpoint["global_step"], Path(path).read_bytes(), metrics))

    def command(*words: str) -> None:
        code = main([words[0], "--config", "tiny.yaml", "--trainer.default_root_dir", "runs", *words[1:]])
        assert code == 0, f"exit code {code} of {words}"

    with (
        contextlib.chdir(folder),
        mock.patch.object(AtomicCheckpointIO, "save_checkpoint", marked),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        recorder.recording(),
    ):
        fit = ("fit", "--checkpoint.every_n_train_steps", "3", "--export", "true")
        command(*fit, "--trainer.max_epochs", "2")
        command("test")
        with (root / METRICS).open("ab") as file:
            file.write(b"3,9,0.")  # what a power cut left in an earlier process
        command(*fit, "--ckpt_path", "last")
        split = Split(images=torch.zeros(4, 1, 2, 2, dtype=torch.uint8), labels=torch.arange(4), keys=torch.arange(4))
        cache.store(root / "decoded.safetensors", "stamp", split)
    recorder.check()
    return recorder


def cut_everywhere(ops: list[Op], *, ordered: bool) -> Tally:
    """Check every state that a power cut can leave; see crash_model.py for `ordered`."""
    promises = Promises(ops)
    tally, before = Tally(), set[int]()
    for moment in range(len(ops) + 1):
        tally.moments += 1
        if moment and not _adds_states(ops[:moment]):
            continue
        for state in survivors(ops[:moment], ordered=ordered):
            key = hash((tuple(sorted(state.items())), promises.saved_before(moment)))
            if key in before:
                continue
            before.add(key)
            tally.states += 1
            if (broken := promises.broken(state, moment)) and not tally.broken:
                tally.broken = f"after {moment} of {len(ops)} operations: {broken}"
    return tally


def _adds_states(ops: list[Op]) -> bool:
    """Return whether the last operation allows new states, or promises more; flushing only excludes states."""
    last = ops[-1]
    if last.kind in ("write", "size"):
        return any(inode == last.inode for op in ops for name, inode in op.names.items() if not _is_hidden(name))
    return last.kind == "mark" or not all(map(_is_hidden, last.names))


def _is_hidden(name: str) -> bool:
    return Path(name).name.startswith(".")


class Promises:
    """What holds for the files of a run whenever the power fails."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.marks = [(number, op.mark) for number, op in enumerate(ops) if op.mark]
        self.whole = _whole_contents(list(ops))
        self.final = _rows(uncut(list(ops))[METRICS])
        self._known: dict[tuple[bytes, bytes], str] = {}

    def saved_before(self, moment: int) -> int:
        """Return the number of checkpoints that had been saved."""
        return sum(number < moment for number, _ in self.marks)

    def broken(self, state: Contents, moment: int) -> str:
        """Return the promise that a state breaks; an empty text if it breaks none."""
        for name, content in state.items():
            if name != METRICS and content not in self.whole[name]:
                return f"{name} is not whole"
        for name in {mark.path for _, mark in self.marks}:
            saved = [mark.content for _, mark in self.marks if mark.path == name]
            done = sum(number < moment and mark.path == name for number, mark in self.marks)
            if done and state.get(name) not in saved[done - 1 :]:
                return f"{name} is older than the checkpoint that was saved last"
            if name in state and (why := self._metrics_of(state, name)):
                return why
        return self._weights(state)

    def _metrics_of(self, state: Contents, name: str) -> str:
        """Return what is wrong with metrics.csv once a resume from a checkpoint has removed later rows."""
        saved = next(mark for _, mark in self.marks if mark.content == state[name])
        if f"{RUN}/config.yaml" not in state:
            return f"{name} is there without config.yaml"
        summary = state.get(f"{RUN}/summary.json")
        if summary and name.endswith("last.ckpt") and json.loads(summary)["steps"] != saved.step:
            return f"summary.json is of another step than {name}"
        key = (state[name], state.get(METRICS, b""))
        if key not in self._known:
            self._known[key] = self._compared(saved, key[1])
        return self._known[key]

    def _compared(self, saved: Saved, metrics: bytes) -> str:
        with tempfile.TemporaryDirectory() as folder:
            table = MetricsTable(Path(folder, "metrics.csv"))
            table.path.write_bytes(metrics)
            table.cut(saved.step)
            rows = _rows(table.path.read_bytes())
        if list(rows) != list(range(1, saved.step + 1)):  # each step is logged
            return f"metrics.csv has the steps {list(rows)} with {saved.path} of step {saved.step}"
        for step, row in _rows(saved.metrics).items():
            if step <= saved.step and not row.items() <= rows[step].items() <= self.final[step].items():
                return f"metrics.csv has other values of step {step} than when {saved.path} of step {saved.step} was saved"
        return ""

    def _weights(self, state: Contents) -> str:
        """Return what is wrong with exported weights: they load as they were exported, or are refused."""
        files = {Path(name).name: content for name, content in state.items() if Path(name).parent.name == "weights"}
        if "config.json" not in files:
            return ""
        key = (files["config.json"], hashlib.sha256(b"".join(files[name] for name in sorted(files))).digest())
        if key not in self._known:
            self._known[key] = ""
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    Path(folder, name).write_bytes(content)
                with contextlib.suppress(OSError, reslight.UsageError):
                    reslight.load(folder)
                    told = json.loads(files["config.json"])["reslight"]["sha256"]["model.safetensors"]
                    if told != hashlib.sha256(files["model.safetensors"]).hexdigest():
                        self._known[key] = "weights load with the config.json of others"
        return self._known[key]


def _rows(table: bytes) -> dict[int, dict[str, str]]:
    """Return the values of each step."""
    rows = csv.DictReader(io.StringIO(table.decode(), newline=""))
    return {int(row["step"]): {name: value for name, value in row.items() if value} for row in rows}


def _whole_contents(ops: list[Op]) -> dict[str, set[bytes]]:
    """Return what each file holds when a rename puts it in place; of a file that nothing is renamed to, what it holds in the end."""
    whole: dict[str, set[bytes]] = {name: {content} for name, content in uncut(ops).items()}
    for number, op in enumerate(ops):
        if len(op.names) > 1:
            before = uncut(ops[: number + 1])
            for name in op.names:
                if name in before:
                    whole.setdefault(name, set()).add(before[name])
    return whole
