"""Kill runs at random moments, resume them until they end, and compare each with its uninterrupted run.

    python benchmarks/soak.py                  # 1,000 kills, fifty in each of 20 configurations
    python benchmarks/soak.py --minutes 15     # as many as there is time for

A process is killed (SIGKILL) at a moment drawn from its whole duration. Then metrics.csv must have every step up to last.ckpt, and at its
end the run must be the uninterrupted one: row by row, and each tensor and number of last.ckpt. Processes are forked from one that has
trained a run already, so that kills hit training, not imports. It needs a machine without a GPU, whose threads no fork survives.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from sandbox import SETTINGS, contents, rows, step_of

from reslight.cli.main import main as reslight

EVERY_STEP = ("--checkpoint.every_n_train_steps", "1")
CONFIGURATIONS = {
    "checkpoints every step": "",
    "checkpoints every third step": "--checkpoint.every_n_train_steps 3",
    "checkpoints every epoch": "--checkpoint.every_n_train_steps null",
    "bf16-mixed": "--trainer.precision bf16-mixed",
    "no average": "--model.ema null",
    "adamw": "--model.optim.name adamw --model.optim.nesterov false",
    "lamb": "--model.optim.name lamb --model.optim.nesterov false",
    "muon": "--model.optim.name muon",
    "accumulation": "--trainer.accumulate_grad_batches 2",
    "frequent validation": "--trainer.val_check_interval 2",
    "rare validation": "--trainer.check_val_every_n_epoch 2",
    "no validation": "--data.val_size 0",
    "an end within an epoch": "--trainer.max_steps 7",
    "plateau": "--model.schedule.name plateau --model.schedule.patience 0 --model.schedule.gamma 0.5 --trainer.val_check_interval 2",
    "warm-up by error": "--model.schedule.name multistep --model.schedule.milestones [5,9] --model.schedule.warmup 0 "
    "--model.schedule.warmup_start 0.1 --model.schedule.warmup_until_error 0.95",
    "mixup": "--data.mix.mixup 0.2 --data.mix.cutmix 1.0",
    "label smoothing": "--model.label_smoothing 0.1",
    "erasing": "--data.augment.random_erasing 0.5",
    "gradient clipping": "--trainer.gradient_clip_val 1.0",
    "a frozen backbone": "--model.freeze backbone",
}
MOST_KILLS = 8
"""Kills of one run; then it is left to end."""


class Soak:
    """Runs of one configuration in a folder, which are killed and resumed.

    Args:
        folder: The folder.
        words: The settings on top of sandbox.SETTINGS.
        draws: Random numbers for the moments.
    """

    def __init__(self, folder: Path, words: Sequence[str], draws: random.Random) -> None:
        self.folder, self.words, self.draws = folder, words, draws
        self.kills = self.runs = 0
        self.problems: list[str] = []
        begin = time.monotonic()
        if code := self._wait(self._start("whole")):
            raise RuntimeError(f"the uninterrupted run failed with exit code {code}: {self._log()}")
        self._seconds = time.monotonic() - begin
        whole = folder / "whole/tiny/1"
        self._expected = rows(whole), contents(whole)

    def run_once(self, most: int) -> None:
        """Train one run, kill it at most so many times, and compare it."""
        shutil.rmtree(self.folder / "part", ignore_errors=True)
        part, killed = self.folder / "part/tiny/1", 0
        for _ in range(2 * MOST_KILLS):
            is_last = killed >= min(most, MOST_KILLS)
            code = self._wait(self._start("part"), None if is_last else self.draws.uniform(0, self._seconds))
            if code != -signal.SIGKILL:
                break
            killed += 1
            self._check(part)
        self.kills, self.runs = self.kills + killed, self.runs + 1
        if code == -signal.SIGKILL:
            code = self._wait(self._start("part"))
        if code:
            self.problems.append(f"exit code {code}: {self._log()}")
        elif (rows(part), contents(part)) != self._expected:
            self.problems.append(f"another run after {killed} kills")

    def _check(self, part: Path) -> None:
        step = step_of(part)
        logged = [int(row["step"]) for row in rows(part) if (row["step"] or "").isdecimal()] if step else []
        if logged[:step] != list(range(1, step + 1)):
            self.problems.append(f"metrics.csv has the steps {logged} with last.ckpt of step {step}")

    def _start(self, root: str) -> int:
        """Fork a process that trains, or resumes where there is a checkpoint; return its number."""
        last = self.folder / root / "tiny/1/checkpoints/last.ckpt"
        resume = ("--ckpt_path", "last") if last.is_file() else ()
        if not resume:
            shutil.rmtree(self.folder / root, ignore_errors=True)
        process = os.fork()
        if process:
            return process
        os.chdir(self.folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os._exit(reslight(["fit", "--config", "tiny.yaml", "--trainer.default_root_dir", root, *EVERY_STEP, *self.words, *resume]))

    def _wait(self, process: int, seconds: float | None = None) -> int:
        """Return the exit code of a process, which is killed after some seconds if it has not ended."""
        if seconds is not None:
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def _log(self) -> str:
        return (self.folder / "log.txt").read_text()[-2000:]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="kills in total (default: 1000)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so many minutes, with fewer kills")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    begin, draws = time.monotonic(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as root:
        soaks: dict[str, Soak] = {}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.chdir(root):
            Path("tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
            reslight(["fit", "--config", "tiny.yaml"])
        for number, (name, words) in enumerate(CONFIGURATIONS.items()):
            folder = Path(root, str(number))
            folder.mkdir()
            (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
            soaks[name] = Soak(folder, words.split(), draws)
        for soak in _in_turn(list(soaks.values()), options.kills, begin + 60 * options.minutes):
            soak.run_once(options.kills - sum(one.kills for one in soaks.values()))
    problems = [f"{name}: {problem}" for name, soak in soaks.items() for problem in soak.problems]
    kills, runs = sum(one.kills for one in soaks.values()), sum(one.runs for one in soaks.values())
    print(
        f"{kills:,} kills of {runs} runs in {len(soaks)} configurations, {time.monotonic() - begin:.0f} s: "
        f"{len(problems) or 'no'} differences from the uninterrupted runs",
        *problems,
        sep="\n",
    )
    return int(bool(problems))


def _in_turn(soaks: list[Soak], kills: int, end: float) -> Iterator[Soak]:
    """Yield one after the other, again and again, until there were enough kills or the time is over."""
    while True:
        for soak in soaks:
            if sum(one.kills for one in soaks) >= kills or time.monotonic() > end:
                return
            yield soak


if __name__ == "__main__":
    sys.exit(main())
