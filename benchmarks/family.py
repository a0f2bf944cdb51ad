"""Depth and accuracy of the published CIFAR family: the tables of docs/paper/index.md, and its figures.

    python benchmarks/family.py --out docs/paper                  # from the cards, the logs and earlier responses
    python benchmarks/family.py --out docs/paper --data ROOT      # computes the layer responses again

A network that joins the catalog, with its log in docs/weights, joins the tables and the figures.
"""

import argparse
import csv
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from reslight.analysis.figure import COLORS, FONT, label_axes, new_figure, save
from reslight.analysis.responses import Responses, draw_responses, image_batches, responses
from reslight.models.cost import count_parameters
from reslight.weights import EvalResult, load
from reslight.weights.catalog import CATALOG, bundled
from reslight.weights.folder import read_description

LOGS = Path(__file__).parents[1] / "docs" / "weights"
RESPONSES = "family_responses.csv"
SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
OTHERS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "cifar10": {
        "the paper": {
            "plain20": 9.5,
            "plain56": 13.5,
            "resnet20": 8.75,
            "resnet32": 7.51,
            "resnet44": 7.17,
            "resnet56": 6.97,
            "resnet110": 6.43,
        },
        "akamaster": {"resnet20": 8.27, "resnet32": 7.37, "resnet44": 6.90, "resnet56": 6.61, "resnet110": 6.32},
        "chenyaofo": {"resnet20": 7.40, "resnet32": 6.47, "resnet44": 5.99, "resnet56": 5.63},
    },
    "cifar100": {"chenyaofo": {"resnet20": 31.17, "resnet32": 29.84, "resnet44": 28.37, "resnet56": 27.37}},
}
"""Test errors of others in percent; docs/paper/index.md names the sources. Those of plain networks are read off the paper's figure 6."""
OPTIMIZERS = {"muon": "Muon", "sgd": "SGD"}
KINDS = {"resnet": ("", "-"), "plain": (", plain", "--")}
"""By the beginning of a network's name: what the legend adds, and the line's style."""


@dataclass(frozen=True)
class Member:
    """A published network of the family."""

    name: str
    net: str
    depth: int
    parameters: int
    epochs: int
    batch: int
    optimizer: str
    training: tuple[float, ...]
    """Training error of each epoch, in percent."""
    correct: int
    total: int

    @property
    def error(self) -> float:
        """Test error, in percent."""
        return 100 * (self.total - self.correct) / self.total

    @property
    def kind(self) -> str:
        """What its name begins with: resnet or plain."""
        return self.net.removesuffix(str(self.depth))


def members(data: str) -> list[Member]:
    """Return the published networks of the paper that were trained on a dataset, plain ones first, by depth."""
    found = [re.fullmatch(rf"((?:resnet|plain)(\d+))\.{data}", name) for name in CATALOG]
    return sorted((_member(one[0], one[1], int(one[2])) for one in found if one), key=lambda one: (one.kind, one.depth))


def _member(name: str, net: str, depth: int) -> Member:
    record = read_description(bundled(name)).record
    result = next(one for one in record.metrics if isinstance(one, EvalResult) and one.split == "test")
    with (LOGS / name / "metrics.csv").open(newline="", encoding="utf-8") as file:
        errors = tuple(100 * (1 - float(row["train/acc1"])) for row in csv.DictReader(file) if row["train/acc1"])
    optimizer, batch = record.recipe["optim"]["name"], record.recipe["batch_size"]
    return Member(name, net, depth, count_parameters(record.net), len(errors), batch, optimizer, errors, result.correct1, result.total)


def depth_table(data: str) -> str:
    """Return the test errors of a dataset by depth, ours and others', as Markdown."""
    others = OTHERS[data]
    lines = [["net", "parameters", "trained", "test error, ours", "training error", *others]]
    lines.append(["---"] * len(lines[0]))
    for one in members(data):
        style = "about {:.1f} %" if one.kind == "plain" else "{:.2f} %"
        theirs = [style.format(values[one.net]) if one.net in values else "" for values in others.values()]
        lines.append([one.net, *_cells(one), *theirs])
    return _markdown(lines)


def _cells(one: Member) -> list[str]:
    trained = f"{one.epochs} epochs of {OPTIMIZERS[one.optimizer]}, batch {one.batch}"
    test = f"**{one.error:.2f} %** ({one.total - one.correct:,} of {one.total:,})"
    return [f"{one.parameters:,}", trained, test, f"{one.training[-1]:.2f} %"]


def response_table(found: Sequence[Responses]) -> str:
    """Return the means of layer responses as Markdown."""
    lines = [["weights", "layers", "mean", "median", "first of a block", "second of a block", "smallest", "largest"]]
    lines.append(["---"] * len(lines[0]))
    for one in found:
        first, second = ([s for layer, s in zip(one.layers, one.std, strict=True) if layer.endswith(f".bn{k}")] for k in (1, 2))
        values = [one.mean, statistics.median(one.std), statistics.mean(first), statistics.mean(second), min(one.std), max(one.std)]
        lines.append([f"`{one.name}`", str(len(one.std)), *(f"{value:.3f}" for value in values)])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_depth() -> Figure:
    """Draw test error by depth above, ours and others', and training error by epoch below."""
    figure = new_figure(11, 8.4)
    axes = figure.subplots(2, 2)
    for column, (data, title) in enumerate(SETS.items()):
        _draw_test(axes[0, column], data)
        _draw_training(axes[1, column], data)
        axes[0, column].set_title(title, fontsize=FONT)
    return figure


def _draw_test(axes: Axes, data: str) -> None:
    family = members(data)
    for kind, (words, line) in KINDS.items():
        for who, errors in OTHERS[data].items():
            number = 1 + list(OTHERS["cifar10"]).index(who)  # the same color on both sides
            look: dict[str, Any] = {"color": COLORS[number], "marker": "s^D"[number - 1], "linestyle": line, "linewidth": 1.2}
            known = {int(net.removeprefix(kind)): error for net, error in errors.items() if net.startswith(kind)}
            if known:
                axes.plot(list(known), list(known.values()), label=who + words, **look)
        if ours := [one for one in family if one.kind == kind]:
            look = {"color": COLORS[0], "marker": "o", "linestyle": line, "linewidth": 2.6}
            axes.plot([one.depth for one in ours], [one.error for one in ours], label=f"ours{words}", **look)
    label_axes(axes, "layers", "test error (%)")
    axes.set_xticks(sorted({one.depth for one in family}))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.legend(fontsize=FONT - 2)


def _draw_training(axes: Axes, data: str) -> None:
    family = members(data)
    depths = sorted({one.depth for one in family})
    for one in family:
        color = COLORS[depths.index(one.depth) % len(COLORS)]
        name = f"{'plain' if one.kind == 'plain' else 'ResNet'}-{one.depth}"
        look: dict[str, Any] = {"label": name, "color": color, "linestyle": KINDS[one.kind][1], "linewidth": 1.8}
        axes.plot(range(1, one.epochs + 1), one.training, **look)
    label_axes(axes, "epoch", "training error (%)")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(fontsize=FONT - 2)


def compute(root: str, images: int) -> list[Responses]:
    """Compute the layer responses of the family."""
    found = []
    for one in (one for data in SETS for one in members(data)):
        net, data = load(one.name), read_description(bundled(one.name)).record.data
        found.append(responses(net, image_batches(net, data, root, images), one.name))
        print(f"{one.name}: mean std {found[-1].mean:.4f} on {found[-1].images:,} images", flush=True)
    return found


def read_responses(file: Path) -> list[Responses]:
    """Read the layer responses of a table that `write_responses` wrote."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    return [_responses(name, [row for row in rows if row["weights"] == name]) for name in dict.fromkeys(row["weights"] for row in rows)]


def _responses(name: str, rows: Sequence[Mapping[str, str]]) -> Responses:
    std = tuple(float(row["std"]) for row in rows)
    return Responses(name, tuple(row["layer"] for row in rows), std, int(rows[0]["images"]), name.startswith("plain"))


def write_responses(found: Sequence[Responses], file: Path) -> None:
    """Write one row for each layer."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened, lineterminator="\n")
        table.writerow(["weights", "images", "layer", "std"])
        for one in found:
            table.writerows([one.name, one.images, layer, f"{std:.6f}"] for layer, std in zip(one.layers, one.std, strict=True))


def tables(found: Sequence[Responses]) -> Iterator[str]:
    """Yield the tables of docs/paper/index.md."""
    yield from map(depth_table, SETS)
    yield response_table(found)


def main(arguments: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the figures and of the table of responses")
    made.add_argument("--data", metavar="ROOT", help="compute the layer responses again, on the images in this folder")
    made.add_argument("--images", type=int, default=1000, metavar="N", help="test images for the responses (default: 1000)")
    options = made.parse_args(arguments)
    file = options.out / RESPONSES
    if options.data:
        write_responses(compute(options.data, options.images), file)
    found = read_responses(file)
    save(draw_depth(), options.out / "family.png")
    for data in SETS:
        save(draw_responses([one for one in found if one.name.endswith(f".{data}")]), options.out / f"family_responses-{data}.png")
    print("\n\n".join(tables(found)))


if __name__ == "__main__":
    main()
