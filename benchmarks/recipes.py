"""Train every CIFAR recipe for some steps on the real images: does the loss go down, and is it a number throughout?

    python benchmarks/recipes.py --root data 'cifar10/*' 'cifar100/paper' --nets resnet20 plain20

Each recipe and network is a `reslight fit` of its own. A recipe whose length is in epochs is shortened: its whole schedule,
with its warm-up, takes place in these steps. What is in the table of `--out` already is not run again.
"""

import argparse
import csv
import fnmatch
import itertools
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from reslight.runs.config_files import names, packaged, run_name
from reslight.runs.yaml_file import read

COLUMNS = ["recipe", "batch", "steps", "first_loss", "last_loss", "verdict", "seconds", "threads", "options"]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["cifar10*/*"], help="names of recipes with wildcards (default: all of CIFAR)")
    parser.add_argument("--nets", nargs="+", metavar="NET", default=[None], help="networks to train with each (default: the recipe's own)")
    parser.add_argument("--root", default="data", help="where the images are (default: data)")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each (default: 200)")
    parser.add_argument("--batch-size", type=int, default=128, help="images per step (default: 128, the recipes' own)")
    parser.add_argument("--out", type=Path, default=Path("recipes"), help="folder of the table and the runs (default: recipes)")
    options, more = parser.parse_known_args(words)
    table = options.out / "recipes.csv"
    recipes = [name for name in names() if any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns)]
    if not recipes:
        parser.error(f"no recipe matches {' '.join(options.patterns)}; there are {', '.join(names())}")
    done = {row["recipe"]: row for row in _rows(table)}
    verdicts = []
    for recipe, net in itertools.product(recipes, options.nets):
        run = run_name(packaged() / f"{recipe}.yaml", net)
        if run not in done:
            done[run] = _train(recipe, net, run, options, more)
            _append(table, done[run])
        verdicts.append(done[run]["verdict"])
        print("  ".join(f"{column} {done[run][column]}" for column in COLUMNS), flush=True)
    return int(any(verdict != "down" for verdict in verdicts))


def _train(recipe: str, net: str | None, run: str, options: argparse.Namespace, more: list[str]) -> dict[str, str]:
    """Train one network with one recipe; further options are for `reslight fit`."""
    length = ["--trainer.max_steps", options.steps]
    if "max_epochs" in read(packaged() / f"{recipe}.yaml")["trainer"]:
        length = ["--trainer.max_epochs", 1, "--trainer.limit_train_batches", options.steps, "--model.schedule.warmup", 0.5]
    command = [sys.executable, "-m", "reslight", "fit", "--config", recipe, *(["--model.net", net] if net else []), *length, *more]
    command += ["--data.root", options.root, "--data.batch_size", options.batch_size]
    command += ["--trainer.limit_val_batches", 0, "--trainer.log_every_n_steps", 1, "--trainer.default_root_dir", options.out]
    start = time.perf_counter()
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    losses = _losses(options.out / run) if finished.returncode == 0 else []
    share = max(1, len(losses) // 10)
    first, last = (statistics.fmean(part) if part else math.nan for part in (losses[:share], losses[-share:]))
    verdict = "down" if last < first else f"failed: {finished.stderr.strip()[-200:]}" if finished.returncode else "NOT DOWN"
    values = [run, options.batch_size, len(losses), f"{first:.3f}", f"{last:.3f}", verdict, f"{seconds:.0f}"]
    return dict(zip(COLUMNS, map(str, [*values, os.environ.get("OMP_NUM_THREADS", os.cpu_count()), " ".join(more)]), strict=True))


def _losses(runs: Path) -> list[float]:
    """The loss of every step of the newest run."""
    newest = max(runs.iterdir(), key=lambda folder: int(folder.name))
    return [float(row["train/loss_step"]) for row in _rows(newest / "metrics.csv") if row["train/loss_step"]]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, row: dict[str, str]) -> None:
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)  # a first command that failed has not made it
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    sys.exit(main())
