"""Run each of Lightning's features that a CPU has with a tiny network, and check its effect.

    python benchmarks/features.py --out docs/results/lightning.md

A feature works if it has the effect that its check names. It is refused if reslight ends with one line and exit code 2 before the first
checkpoint. Anything else is BROKEN, and the exit code is then 1.
"""

import argparse
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from feature_table import FEATURES, NOT_RUN, Feature, Outcome
from sandbox import SETTINGS

LIMIT = 120
"""Seconds that a feature may take: what waits for something that never comes is broken."""
ERROR = "reslight: error: "
IN_PYTHON = """
from lightning.pytorch import Trainer
from lightning.pytorch.tuner import Tuner
from reslight.data import Synthetic, SyntheticImages
from reslight.training import ImageClassifier
data = Synthetic(SyntheticImages(size=8, train_size=360, test_size=40), batch_size=16, val_size=30)
model = ImageClassifier({"depths": [1], "widths": [8], "stem": "small", "stem_width": 8}, num_classes=10)
trainer = Trainer(max_epochs=3, accelerator="cpu", enable_progress_bar=False, logger=False, enable_checkpointing=False)
%s
trainer.fit(model, data)
print("steps", trainer.global_step, "lr", trainer.optimizers[0].param_groups[0]["initial_lr"])
"""
Row = tuple[str, str, str]
"""Name, verdict and a note."""


def settings() -> dict[str, Any]:
    """Return the configuration that features are added to: 12 steps, 3 validations."""
    model: dict[str, Any] = dict(SETTINGS["model"])  # type: ignore[call-overload]  # the values of SETTINGS have several types
    model |= {"net": model["net"] | {"drop_path": 0.0}, "ema": None}
    return SETTINGS | {"model": model}


def run(feature: Feature, baseline: list[dict[str, str]]) -> Row:
    """Run the commands of a feature in a folder of their own."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        code, text = start(feature.commands, folder, alone=feature.alone)
        errors = [line.removeprefix(ERROR) for line in text.splitlines() if line.startswith(ERROR)]
        if code == 2 and len(errors) == 1 and not any(folder.glob("**/*.ckpt")):
            return feature.name, "refused", errors[0]
        if code:
            return feature.name, "BROKEN", errors[0] if errors else (text.strip().splitlines() or [f"exit {code}"])[-1]
        try:
            works = feature.check(Outcome(text, folder, baseline))
        except (OSError, KeyError, ValueError, IndexError) as error:
            return feature.name, "BROKEN", f"{type(error).__name__}: {error}"
        return feature.name, "works" if works else "BROKEN", feature.effect if works else f"expected: {feature.effect}"


def start(commands: str, folder: Path, *, alone: bool) -> tuple[int, str]:
    """Run commands in a folder; return the highest exit code and what was printed.

    Args:
        commands: As in `Feature`.
        folder: An empty folder.
        alone: Start a process for each command, in place of a fork of this one, which has imported everything already.
    """
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings()))
    if not alone:
        return _fork(commands, folder)
    output = ""
    for words in _commands(commands):
        line = [sys.executable, "-m", "reslight", *words]
        process = subprocess.Popen(line, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            output += process.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return 1, f"still running after {LIMIT} s"
        if process.returncode:
            return process.returncode, output
    return 0, output


def _commands(text: str) -> list[list[str]]:
    return [[command, "--config", "tiny.yaml", *rest] for command, *rest in (shlex.split(part) for part in text.split(";"))]


def _fork(commands: str, folder: Path) -> tuple[int, str]:
    output = folder / "output.txt"
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.chdir(folder)
            target = os.open(output, os.O_WRONLY | os.O_CREAT)
            os.dup2(target, 1)
            os.dup2(target, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            code = _call(commands)
        except BaseException as error:  # a fork ends here, whatever happens
            print(f"{ERROR}{type(error).__name__}: {error}")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + LIMIT
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return 1, f"still running after {LIMIT} s"
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1]), output.read_text(errors="replace")


def _call(commands: str) -> int:
    from reslight.cli.main import main

    if commands.startswith("python"):
        exec(compile(IN_PYTHON % commands.removeprefix("python"), "feature", "exec"), {})
        return 0
    return max(main(words) for words in _commands(commands))


def page(results: dict[str, list[Row]]) -> str:
    """Return the results as a page of the docs."""
    verdicts = [verdict for rows in results.values() for _, verdict, _ in rows]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "lightning"))
    lines = [
        "# Lightning's features",
        "",
        "Made by `python benchmarks/features.py --out docs/results/lightning.md` on a CPU "
        f"(Python {platform.python_version()}, {versions}): {verdicts.count('works')} features work, which means that the effect "
        f"beside them was checked, and {verdicts.count('refused')} are refused before the first step, with the line beside them.",
    ]
    for group, rows in results.items():
        lines += ["", f"## {group}", "", "| feature | | |", "|---|---|---|"]
        lines += [f"| `{name}` | {verdict} | {note.replace('|', chr(92) + '|')} |" for name, verdict, note in rows]
    needs = (f"| `{name}` | needs {need} |" for need, names in NOT_RUN.items() for name in names)
    return "\n".join([*lines, "", "## Not run here", "", "| feature | |", "|---|---|", *needs]) + "\n"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the features to run (default: all)")
    parser.add_argument("--out", type=Path, help="write the page there")
    options = parser.parse_args(words)
    import reslight.cli.trainer  # noqa: F401  # once, for all forks

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        code, text = start("fit", Path(place), alone=False)
        if code:
            parser.error(f"the run without any feature failed: {text}")
        baseline = Outcome(text, Path(place), []).rows()
    results: dict[str, list[Row]] = {}
    for group, features in FEATURES.items():
        for feature in features:
            if not options.only or feature.name in options.only:
                row = run(feature, baseline)
                results.setdefault(group, []).append(row)
                print(f"{row[1]:<8} {row[0]:<33} {row[2]}", flush=True)
    if options.out:
        options.out.write_text(page(results), encoding="utf-8")
    return int(any(verdict == "BROKEN" for rows in results.values() for _, verdict, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
