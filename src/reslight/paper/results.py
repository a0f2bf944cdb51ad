"""What came of an experiment's runs: rows for people and for programs, and the paper's figure drawn again."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reslight.analysis.curves import Panel, draw_panels
from reslight.analysis.figure import COLOURS, FONT, GREY, PALE, dress, new_figure
from reslight.analysis.responses import Responses, draw_responses
from reslight.models import resolve_config
from reslight.paper.experiments import PAPER_STEPS, Arm, Budget, Experiment
from reslight.paper.schedule import compute_of
from reslight.runs.history import Curve, History, average

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Finished:
    """A run that is done and tested.

    Args:
        arm: What was run.
        seed: Its seed.
        history: Its errors.
        correct: Test images that it gets right.
        total: Test images.
        responses: Its layer responses, where they were measured.
    """

    arm: Arm
    seed: int
    history: History
    correct: int
    total: int
    responses: Responses | None = None

    @property
    def error(self) -> float:
        """Test error in percent."""
        return 100 * (1 - self.correct / self.total)

    @property
    def value(self) -> float:
        """What the experiment is about: the responses if they were measured, else the test error."""
        return self.responses.mean if self.responses else self.error

    def row(self, budget: Budget) -> dict[str, Any]:
        """For CSV and JSON."""
        training = self.history.training.errors
        found = {
            "name": self.arm.name,
            "label": self.arm.label,
            "net": self.arm.net,
            "shortcut": resolve_config(self.arm.net, **self.arm.change).shortcut,
            "seed": self.seed,
            "iterations": self.history.steps,
            "test_correct": self.correct,
            "test_total": self.total,
            "test_error": round(self.error, 4),
            "train_error": round(training[-1], 4) if training else None,
            "data": budget.data,
            "paper": self.arm.paper if budget.data == "cifar10" else None,
            "run": self.history.folder.as_posix(),
        }
        return found | ({"mean_response_std": round(self.responses.mean, 6)} if self.responses else {})


def by_arm(finished: Sequence[Finished]) -> list[list[Finished]]:
    """The runs of each arm, in the order in which arms first appear."""
    groups: dict[str, list[Finished]] = {}
    for one in finished:
        groups.setdefault(one.arm.name, []).append(one)
    return list(groups.values())


def summary(experiment: Experiment, budget: Budget, finished: Sequence[Finished]) -> tuple[list[str], list[list[str]]]:
    """The table for people: its header, and a row for each arm that was run."""
    is_responses = experiment.figure == "responses"
    measure = "mean std of responses" if is_responses else "test error (%)"
    header = [
        "net",
        "iterations",
        *(["compute"] if experiment.figure == "compute" else []),
        "paper",
        measure,
        "std",
        "n",
        "training error (%)",
    ]
    rows = []
    for runs in by_arm(finished):
        arm, values = runs[0].arm, [run.value for run in runs]
        row = [arm.label, f"{runs[0].history.steps:,}"]
        if experiment.figure == "compute":
            row.append(f"{_compute_at(runs[0].history.steps, compute_of(arm, experiment, budget)) / budget.steps:.2f}")
        digits = 4 if is_responses else 2
        row += ["" if is_responses or budget.data != "cifar10" else arm.said, f"{statistics.mean(values):.{digits}f}"]
        row += [f"{statistics.stdev(values):.{digits}f}" if len(values) > 1 else "", str(len(values))]
        rows.append([*row, _training(runs)])
    empty = {number for number, name in enumerate(header) if name in ("paper", "std") and not any(row[number] for row in rows)}
    return [name for n, name in enumerate(header) if n not in empty], [
        [cell for n, cell in enumerate(row) if n not in empty] for row in rows
    ]


def directions(experiment: Experiment, finished: Sequence[Finished]) -> list[str]:
    """Which way errors go from the first to the last network of each panel: what the paper's claims are about."""
    if experiment.figure not in ("curves", "depth"):
        return []
    said = []
    for title, groups in _families(by_arm(finished)).items():
        if len(groups) > 1:
            ends = groups[0], groups[-1]
            first, last = (runs[0].arm.label for runs in ends)
            training = " to ".join(_training(runs) for runs in ends)
            test = " to ".join(f"{statistics.mean(run.error for run in runs):.2f}" for runs in ends)
            said.append(f"{title}: from {first} to {last} the training error goes from {training} %, the test error from {test} %")
    return said


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def layer_rows(finished: Sequence[Finished]) -> list[dict[str, Any]]:
    """The responses of each layer of each run."""
    return [
        {"name": run.arm.name, "seed": run.seed, "layer": number, "norm": layer, "std": round(std, 6)}
        for run in finished
        if run.responses
        for number, (layer, std) in enumerate(zip(run.responses.layers, run.responses.std, strict=True), start=1)
    ]


def draw_outcome(experiment: Experiment, budget: Budget, finished: Sequence[Finished]) -> "Figure":
    """The paper's figure from our runs; of several seeds the mean.

    Raises:
        ValueError: There is no matplotlib to draw with.
    """
    groups = by_arm(finished)
    if experiment.figure == "responses":
        return draw_responses([_mean_responses(runs) for runs in groups])
    if experiment.figure == "depth":
        return _draw_depth(groups, budget)
    if experiment.figure == "compute":
        arms = [runs[0].arm for runs in groups]
        ends = [runs for runs in groups if not any(arm.start == runs[0].arm.name for arm in arms)]  # the others are their beginnings
        histories = [_over_compute(_mean(runs), compute_of(runs[0].arm, experiment, budget)) for runs in ends]
        figure = draw_panels([Panel("", histories, [runs[0].arm.label for runs in ends])], "iterations of ResNet-20")
        figure.axes[0].axvline(budget.steps, color=GREY, linestyle=":", zorder=0)  # where runs go on, or deeper
        return figure
    families = _families(groups).items()
    return draw_panels(
        [Panel(title, [_mean(runs) for runs in inside], [runs[0].arm.label for runs in inside]) for title, inside in families]
    )


def _families(groups: Sequence[list[Finished]]) -> dict[str, list[list[Finished]]]:
    """Plain nets and residual ones; or a depth each, where the shortcuts are what differs."""
    by_net = any(runs[0].arm.change for runs in groups)
    families: dict[str, list[list[Finished]]] = {}
    for runs in groups:
        arm = runs[0].arm
        title = arm.label.split(",")[0] if by_net else "plain" if arm.net.startswith("plain") else "ResNet"
        families.setdefault(title, []).append(runs)
    return families


def _mean(runs: Sequence[Finished]) -> History:
    return average([run.history for run in runs])


def _training(runs: Sequence[Finished]) -> str:
    """The mean training error at the end, in percent."""
    errors = [run.history.training.errors[-1] for run in runs if run.history.training.errors]
    return f"{statistics.mean(errors):.2f}" if errors else ""


def _draw_depth(groups: Sequence[Sequence[Finished]], budget: Budget) -> "Figure":
    figure = new_figure(7.2, 4.6)
    axes = figure.subplots()
    depths = [int(runs[0].arm.net.removeprefix("resnet")) for runs in groups]
    paper = [(depth, runs[0].arm.paper) for depth, runs in zip(depths, groups, strict=True) if runs[0].arm.paper is not None]
    axes.plot(
        *zip(*paper, strict=True),
        linestyle="",
        marker="D",
        markersize=9,
        color=COLOURS[1],
        fillstyle="none",
        label=f"paper, {PAPER_STEPS:,} iterations",
    )
    means = [statistics.mean(run.error for run in runs) for runs in groups]
    spread = [statistics.stdev(run.error for run in runs) if len(runs) > 1 else 0.0 for runs in groups]
    axes.errorbar(
        depths,
        means,
        yerr=spread if any(spread) else None,
        marker="o",
        markersize=8,
        color=COLOURS[0],
        capsize=4,
        label=f"ours, {budget.steps:,} iterations",
    )
    axes.set_xscale("log")
    axes.set_xticks(depths, [str(depth) for depth in depths], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.1 * max([*means, *(error for _, error in paper)]))
    dress(axes, "layers", "test error (%)")
    axes.legend(fontsize=FONT, framealpha=0.9, edgecolor=PALE)
    return figure


def _mean_responses(runs: Sequence[Finished]) -> Responses:
    """Of several seeds, layer by layer."""
    measured = [run.responses for run in runs if run.responses]
    stds = zip(*(one.std for one in measured), strict=True)
    return replace(measured[0], name=runs[0].arm.label, std=tuple(statistics.mean(std) for std in stds))


def _compute_at(step: int, costs: Sequence[tuple[int, float]]) -> float:
    """What a run cost up to a step, in iterations of ResNet-20."""
    total, begin = 0.0, 0
    for end, cost in costs:
        total += cost * max(0, min(step, end) - begin)
        begin = max(begin, end)
    return total


def _over_compute(history: History, costs: Sequence[tuple[int, float]]) -> History:
    """The same errors over what they cost in place of over iterations."""
    curves = (Curve(tuple(round(_compute_at(step, costs)) for step in curve.steps), curve.errors) for curve in history.curves)
    training, validation, test = curves
    return replace(history, training=training, validation=validation, test=test)
