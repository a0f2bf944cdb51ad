"""The results of an experiment: a table to print, rows to save, and the paper's figure redrawn."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reslight.analysis.curves import Panel, draw_panels
from reslight.analysis.figure import COLORS, FONT, GRAY, LIGHT_GRAY, label_axes, new_figure
from reslight.analysis.responses import Responses, draw_responses
from reslight.models import resolve_config
from reslight.paper.experiments import PAPER_STEPS, Budget, Condition, Experiment
from reslight.paper.schedule import compute_of
from reslight.runs.history import Curve, History, average

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Finished:
    """A run that has been trained to its end and tested.

    Args:
        condition: The condition of the run.
        seed: The seed of the run.
        history: The error curves of the run.
        correct: Test images with a correct prediction.
        total: Test images.
        responses: The layer responses, in an experiment about them.
    """

    condition: Condition
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
        """The value that the experiment compares: the mean std of the layer responses if there are any, otherwise the test error."""
        return self.responses.mean if self.responses else self.error

    def row(self, budget: Budget) -> dict[str, Any]:
        """Return the row of the run for CSV and JSON."""
        training = self.history.training.errors
        row = {
            "name": self.condition.name,
            "label": self.condition.label,
            "net": self.condition.net,
            "shortcut": resolve_config(self.condition.net, **self.condition.changes).shortcut,
            "seed": self.seed,
            "iterations": self.history.steps,
            "test_correct": self.correct,
            "test_total": self.total,
            "test_error": round(self.error, 4),
            "train_error": round(training[-1], 4) if training else None,
            "data": budget.data,
            "paper": self.condition.paper_error if budget.data == "cifar10" else None,
            "run": self.history.folder.as_posix(),
        }
        return row | ({"mean_response_std": round(self.responses.mean, 6)} if self.responses else {})


def by_condition(finished: Sequence[Finished]) -> list[list[Finished]]:
    """Return the runs of each condition, in the order in which conditions first appear."""
    groups: dict[str, list[Finished]] = {}
    for run in finished:
        groups.setdefault(run.condition.name, []).append(run)
    return list(groups.values())


def summary(experiment: Experiment, budget: Budget, finished: Sequence[Finished]) -> tuple[list[str], list[list[str]]]:
    """Return the table to print: its header, and a row for each condition that has runs; empty columns are left out."""
    is_responses, is_compute = experiment.figure == "responses", experiment.figure == "compute"
    value = "mean std of responses" if is_responses else "test error (%)"
    header = ["net", "iterations", *(["compute"] if is_compute else []), "paper", value, "std", "n", "training error (%)"]
    rows = []
    for runs in by_condition(finished):
        condition, values, steps = runs[0].condition, [run.value for run in runs], runs[0].history.steps
        digits = 4 if is_responses else 2
        rows.append(
            [
                condition.label,
                f"{steps:,}",
                *([f"{_compute_at(steps, compute_of(condition, experiment, budget)) / budget.steps:.2f}"] if is_compute else []),
                "" if is_responses or budget.data != "cifar10" else condition.paper_text,
                f"{statistics.mean(values):.{digits}f}",
                f"{statistics.stdev(values):.{digits}f}" if len(values) > 1 else "",
                str(len(values)),
                _training_error(runs),
            ]
        )
    optional = {number for number, name in enumerate(header) if name in ("paper", "std")}
    kept = [number for number in range(len(header)) if number not in optional or any(row[number] for row in rows)]
    return [header[number] for number in kept], [[row[number] for number in kept] for row in rows]


def directions(experiment: Experiment, finished: Sequence[Finished]) -> list[str]:
    """Return a line for each panel that says how the errors change from its first to its last network: the paper's claims."""
    if experiment.figure not in ("curves", "depth"):
        return []
    lines = []
    for title, groups in _panels_of(by_condition(finished)).items():
        if len(groups) > 1:
            ends = groups[0], groups[-1]
            first, last = (runs[0].condition.label for runs in ends)
            training = " to ".join(_training_error(runs) for runs in ends)
            test = " to ".join(f"{statistics.mean(run.error for run in runs):.2f}" for runs in ends)
            lines.append(f"{title}: from {first} to {last} the training error goes from {training} %, the test error from {test} %")
    return lines


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def layer_rows(finished: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return a row for each layer of each run with layer responses."""
    return [
        {"name": run.condition.name, "seed": run.seed, "layer": number, "norm": layer, "std": round(std, 6)}
        for run in finished
        if run.responses
        for number, (layer, std) in enumerate(zip(run.responses.layers, run.responses.std, strict=True), start=1)
    ]


def draw_results(experiment: Experiment, budget: Budget, finished: Sequence[Finished]) -> "Figure":
    """Draw the paper's figure from our runs; several seeds are drawn as their mean.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    groups = by_condition(finished)
    if experiment.figure == "responses":
        return draw_responses([_mean_responses(runs) for runs in groups])
    if experiment.figure == "depth":
        return _draw_depth(groups, budget)
    if experiment.figure == "compute":
        return _draw_compute(groups, experiment, budget)
    panels = _panels_of(groups).items()
    return draw_panels(
        [Panel(title, [_mean(runs) for runs in inside], [runs[0].condition.label for runs in inside]) for title, inside in panels]
    )


def _panels_of(groups: Sequence[list[Finished]]) -> dict[str, list[list[Finished]]]:
    """Return the runs of each panel: plain and residual networks, or one panel for each depth if the shortcuts differ."""
    is_by_net = any(runs[0].condition.changes for runs in groups)
    panels: dict[str, list[list[Finished]]] = {}
    for runs in groups:
        condition = runs[0].condition
        title = condition.label.split(",")[0] if is_by_net else "plain" if condition.net.startswith("plain") else "ResNet"
        panels.setdefault(title, []).append(runs)
    return panels


def _mean(runs: Sequence[Finished]) -> History:
    return average([run.history for run in runs])


def _training_error(runs: Sequence[Finished]) -> str:
    """Return the mean training error of the last epoch, in percent."""
    errors = [run.history.training.errors[-1] for run in runs if run.history.training.errors]
    return f"{statistics.mean(errors):.2f}" if errors else ""


def _draw_compute(groups: Sequence[list[Finished]], experiment: Experiment, budget: Budget) -> "Figure":
    conditions = [runs[0].condition for runs in groups]
    begun_with = {condition.starts_from for condition in conditions}
    ends = [runs for runs in groups if runs[0].condition.name not in begun_with]  # their curves contain those of the others
    histories = [_over_compute(_mean(runs), compute_of(runs[0].condition, experiment, budget)) for runs in ends]
    figure = draw_panels([Panel("", histories, [runs[0].condition.label for runs in ends])], "iterations of ResNet-20")
    figure.axes[0].axvline(budget.steps, color=GRAY, linestyle=":", zorder=0)  # where runs are resumed or deepened
    return figure


def _draw_depth(groups: Sequence[Sequence[Finished]], budget: Budget) -> "Figure":
    figure = new_figure(7.2, 4.6)
    axes = figure.subplots()
    depths = [int(runs[0].condition.net.removeprefix("resnet")) for runs in groups]
    paper = [
        (depth, runs[0].condition.paper_error)
        for depth, runs in zip(depths, groups, strict=True)
        if runs[0].condition.paper_error is not None
    ]
    axes.plot(
        *zip(*paper, strict=True),
        linestyle="",
        marker="D",
        markersize=9,
        color=COLORS[1],
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
        color=COLORS[0],
        capsize=4,
        label=f"ours, {budget.steps:,} iterations",
    )
    axes.set_xscale("log")
    axes.set_xticks(depths, [str(depth) for depth in depths], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.1 * max([*means, *(error for _, error in paper)]))
    label_axes(axes, "layers", "test error (%)")
    axes.legend(fontsize=FONT, framealpha=0.9, edgecolor=LIGHT_GRAY)
    return figure


def _mean_responses(runs: Sequence[Finished]) -> Responses:
    """Return the mean layer responses of several seeds."""
    known = [run.responses for run in runs if run.responses]
    stds = zip(*(one.std for one in known), strict=True)
    return replace(known[0], name=runs[0].condition.label, std=tuple(statistics.mean(std) for std in stds))


def _compute_at(step: int, costs: Sequence[tuple[int, float]]) -> float:
    """Return the compute of a run up to a step, in iterations of ResNet-20."""
    total, begin = 0.0, 0
    for end, compute in costs:
        total += compute * max(0, min(step, end) - begin)
        begin = max(begin, end)
    return total


def _over_compute(history: History, costs: Sequence[tuple[int, float]]) -> History:
    """Return the error curves over compute instead of iterations."""
    curves = (Curve(tuple(round(_compute_at(step, costs)) for step in curve.steps), curve.errors) for curve in history.curves)
    training, validation, test = curves
    return replace(history, training=training, validation=validation, test=test)
