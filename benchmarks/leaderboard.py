"""Measure the published weights, and write a page with one row for each: accuracy, calibration, speed, size and training.

    cd docs/results
    python ../../benchmarks/leaderboard.py --data ROOT --threads 1 --cpu-time --json leaderboard.json --out leaderboard.md
    python ../../benchmarks/leaderboard.py --from leaderboard.json --out leaderboard.md    # the page only

The first command evaluates each file on the test images, and stops if it does not count as many correct as the card says. Then it
measures the speeds of all networks in alternating rounds. Everything else on the page is from the cards and the training logs.
With `--from FILE --speeds` only new files are evaluated, and all speeds are measured.
"""

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import add_cpu_time, alternate, introduce, keep, machine, parser, show, use_threads

from reslight.analysis.datasets import datamodule_of
from reslight.data.loading.loaders import EvalLoader
from reslight.metrics import Evaluator
from reslight.models import ResNet, cost_of
from reslight.weights import EvalResult, Record, list_weights, load
from reslight.weights.catalog import CATALOG, bundled
from reslight.weights.folder import MODEL, read_description

LOGS = Path(__file__).parents[1] / "docs" / "weights"
COLUMNS = ("name", "data", "parameters", "MACs (M)", "top-1", "ECE", "images/s", "size", "sha256", "recipe", "epochs", "hours")
MISSING = "not measured"
PAGE = """# Leaderboard

The weights that come with reslight, by data and accuracy. `python benchmarks/leaderboard.py` writes this page; do not edit it.

{table}

- top-1 is from the card: the weights of the last step in float32, on the test images once. `reslight verify NAME --data ROOT` counts again.
- ECE is the expected calibration error with 15 bins, of the same evaluation, repeated for this page. A temperature was fitted to images
  that a twin of the weights left out of its training, see the card.
- images/s: {speed}.
- cifar10-100 is CIFAR-10 and CIFAR-100 at once, which `python benchmarks/both.py` writes.
- sha256 is the beginning of the sum of `model.safetensors`; `config.json` has all of it.
- epochs are passes over the training images. All have one seed (n = 1).
- hours are those of the training epochs, without the start, on what the card names: one CPU core, or one NVIDIA H200 on which six or
  eight networks trained at once. They are the epochs times the median duration of one in the log, so that other work of the machine
  does not count; `not logged` means that the log is not kept.
- The recipes, and the numbers of others: [published weights](published-weights.md).
  Depth and accuracy: [The paper](../paper/index.md).
"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    record = json.loads(options.measured.read_text(encoding="utf-8")) if options.measured else None
    if record is None or options.speeds:
        use_threads(options.threads)
        introduce(f"Published weights: float32, channels_last, batch {options.batch_size}, {options.batches} batches a round")
        record = measure(options, record["results"] if record else {})
    text = page(record)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        print(f"written {options.out}")
    else:
        print(text)


def measure(options: argparse.Namespace, known: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate the weights that are not known yet, and measure the speeds of all; return what `--json` keeps."""
    names, results = list_weights(options.names), {}
    nets = {name: load(name).to(memory_format=torch.channels_last) for name in names}
    for name, net in nets.items():
        if known.get(name, {}).get("sha256") == CATALOG[name].sha256:
            results[name] = {key: known[name][key] for key in ("sha256", "ece")}
        else:
            results[name] = {"sha256": CATALOG[name].sha256, "ece": calibration(name, net, options.data)}
            print(f"{name}: as many correct as on the card, ECE {results[name]['ece']:.4f}", flush=True)
    clock = time.process_time if options.cpu_time else time.perf_counter
    speeds = alternate({name: _speed(net, options.batch_size, options.batches, clock) for name, net in nets.items()}, options.rounds)
    show("Inference", "images/s", speeds, base=names[0])
    for name, values in speeds.items():
        results[name]["images/s"] = values
    keep(options, results)
    return {"machine": machine(), "settings": vars(options), "results": results}


def calibration(name: str, net: ResNet, root: str) -> float:
    """Evaluate weights as their card says, and return their expected calibration error.

    Raises:
        SystemExit: other counts than those on the card.
    """
    record = read_description(bundled(name)).record
    claimed = tested(record)
    folder = Path(root, record.data["name"]) if "kind" in record.data else root  # a dataset that is none of reslight's, by its name
    data = datamodule_of(record.data, net.preprocess, str(folder))
    data.setup("test")
    evaluator, normalizer = Evaluator(net.config.num_classes, details=True), net.preprocess.normalizer("cpu", torch.float32)
    with torch.inference_mode():
        for images, labels, _ in EvalLoader(data.splits["test"], batch_size=claimed.batch_size, rank=0, devices=1):
            evaluator.update(net(normalizer(images, torch.channels_last)), labels)
    counts = evaluator.counts()
    if (counts.total, counts.correct1) != (claimed.total, claimed.correct1):
        sys.exit(f"{name} has {counts.correct1} of {counts.total} correct: the card says {claimed.correct1} of {claimed.total}.")
    return evaluator.details().ece


def tested(record: Record) -> EvalResult:
    """Return the result on the test split."""
    return next(one for one in record.metrics if isinstance(one, EvalResult) and one.split == "test")


def _speed(net: ResNet, batch: int, batches: int, clock: Callable[[], float]) -> Callable[[], float]:
    """Return a function that measures the images/s of a network."""
    images = torch.randn(batch, net.config.in_channels, *net.preprocess.shape).to(memory_format=torch.channels_last)

    def run() -> float:
        with torch.inference_mode():
            net(images)  # brings the weights back into the caches
            begin = clock()
            for _ in range(batches):
                net(images)
        return batch * batches / (clock() - begin)

    return run


def page(record: Mapping[str, Any]) -> str:
    """Return the page as Markdown, from the cards, the logs and what was measured."""
    rows = [row(name, record["results"].get(name)) for name in in_order()]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    facts, settings = record["machine"], record["settings"]
    clock = "CPU time, as other programs ran beside it" if settings["cpu_time"] else "wall time"
    speed = (
        f"float32, channels_last, batches of {settings['batch_size']} normalized images, {facts['threads']} thread of an {facts['cpu']}, "
        f"Python {facts['python']}, torch {facts['torch']}; median of {settings['rounds']} alternating rounds in one process, {clock}"
    )
    return PAGE.format(table="\n".join(f"| {' | '.join(line)} |" for line in lines), speed=speed)


def in_order() -> list[str]:
    """Return the published weights that come with the package: by data in the catalog's order, the best first."""
    here = [name for name in CATALOG if CATALOG[name].repository is None]
    data = [name.split(".")[1] for name in here]
    return sorted(here, key=lambda name: (data.index(name.split(".")[1]), -CATALOG[name].accuracy))


def row(name: str, measured: Mapping[str, Any] | None) -> list[str]:
    """Return the cells of one row; measurements of another file than the catalog's do not count."""
    record, file = read_description(bundled(name)).record, bundled(name) / MODEL
    cost, result = cost_of(record.net, record.preprocess.shape), tested(record)
    known = measured if measured and measured["sha256"] == CATALOG[name].sha256 else None
    return [
        f"`{name}`",
        str(record.data["name"]),
        f"{cost.parameters:,}",
        f"{cost.macs / 1e6:.1f}",
        f"{100 * result.correct1 / result.total:.2f} % ({result.correct1:,} of {result.total:,})",
        f"{known['ece']:.4f}{_with_temperature(record)}" if known else MISSING,
        f"{sorted(known['images/s'])[len(known['images/s']) // 2]:,.0f}" if known else MISSING,
        f"{file.stat().st_size / 1e6:.2f} MB",
        f"`{CATALOG[name].sha256[:8]}`",
        f"{record.recipe['optim']['name']}, batch {record.recipe['batch_size']}",
        str(epochs(record)),
        hours(name, record),
    ]


def _with_temperature(record: Record) -> str:
    """Return the calibration error with the temperature of the weights, if they have one of a twin."""
    found = record.calibration.test_ece if record.calibration else None
    return "" if found is None else f"; {found:.4f} with its temperature"


def epochs(record: Record) -> int:
    """Return the number of passes over the training images, whose last partial batch is left out."""
    return int(record.run["steps"] // (record.data["splits"]["train"]["size"] // record.recipe["batch_size"]))


def hours(name: str, record: Record) -> str:
    """Return the duration of the training epochs according to the log."""
    log = LOGS / name / "metrics.csv"
    if not log.is_file():
        return "not logged"
    with log.open(newline="", encoding="utf-8") as file:
        speeds = [float(line["images_per_second"]) for line in csv.DictReader(file) if line["images_per_second"]]
    size, batch = record.data["splits"]["train"]["size"], record.recipe["batch_size"]
    duration = len(speeds) * (size // batch * batch) / statistics.median(speeds) / 3600
    is_gpu = not str(record.run["device"]).startswith("cpu")
    return f"{duration:.2f} {'GPU' if is_gpu else 'core'}-hours" if is_gpu or record.run["threads"] == 1 else f"{duration:.2f} hours"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    made.add_argument("--names", default="*", help="names of weights to measure, with wildcards (default: all)")
    made.add_argument("--data", default="data", metavar="ROOT", help="folder of the images (default: data)")
    made.add_argument("--batch-size", type=int, default=128, help="images per batch of the speed (default: 128)")
    made.add_argument("--batches", type=int, default=2, help="batches per round of the speed (default: 2)")
    made.add_argument("--from", dest="measured", type=Path, metavar="FILE", help="measure nothing: take an earlier --json")
    made.add_argument("--speeds", action="store_true", help="with --from: measure the speeds again")
    made.add_argument("--out", type=Path, metavar="FILE", help="the page to write (default: print it)")
    add_cpu_time(made)
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
