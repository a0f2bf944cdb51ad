"""Run the paper's experiments. Finished runs are reused; conditions without a run are left out of the table."""

import json
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout  # a dependency of torch

from reslight.analysis import read_run, save
from reslight.analysis.responses import Responses, image_batches, responses
from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.models import resolve_config
from reslight.paper.experiments import Budget, Condition, Experiment, find_experiment, select_conditions
from reslight.paper.results import Finished, directions, draw_results, layer_rows, summary, to_csv
from reslight.paper.schedule import recipe, steps_of
from reslight.runs import config_files, yaml_file
from reslight.runs.eval_results import eval_results_of
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.fork import fork_run
from reslight.runs.trained import load_with_data_info
from reslight.training.checkpoint_file import read_checkpoint
from reslight.training.optim import OptimConfig, ScheduleConfig, as_config
from reslight.weights import EvalResult

log = logging.getLogger(__name__)
RunCommand = Callable[[list[str]], object]
"""Runs a command line of the Trainer, such as `["fit", "--config", FILE]`."""

IMAGES = 1_000
"""Test images for the layer responses."""
CHECKPOINT_EVERY = 500
"""Iterations between checkpoints, which are the most that an interruption loses."""


@dataclass(frozen=True)
class Plan:
    """An experiment at a budget, and where its runs and its data are.

    Args:
        name: The name of the experiment.
        budget: How long networks are trained.
        root: The folder of the runs, `<root>/<condition>/<n>`, which experiments share.
        data: The folder of CIFAR-10.
    """

    name: str
    budget: Budget
    root: Path
    data: str

    @property
    def experiment(self) -> Experiment:
        """The experiment."""
        return find_experiment(self.name)

    def steps(self, condition: Condition) -> tuple[int, int]:
        """Return the iterations at which the training of a condition begins and ends."""
        return steps_of(condition, self.experiment, self.budget)

    def configuration(self, condition: Condition) -> Path:
        """Return the configuration of a condition, saved beside its runs, so that the user can repeat each run with one command."""
        return self.root / f"{condition.name}.yaml"

    def runs(self, condition: Condition) -> RunDirectory:
        """Return the runs of a condition."""
        return RunDirectory(self.root, condition.name)


def run_experiment(plan: Plan, seeds: int, names: Sequence[str] = (), *, run: RunCommand) -> list[str]:
    """Train and test every condition that has no finished run yet.

    Several processes may do so at the same time: each run is trained by one of them, and the others wait for it.

    Args:
        plan: What is run, and where.
        seeds: Each condition is trained with the seeds 1 to this number.
        names: The names of the conditions; all if empty.
        run: Runs a command line of the Trainer.

    Returns:
        A line for each run that diverged; runs that would start from it are left out.

    Raises:
        UsageError: an unknown name, or a saved configuration with other settings.
        OSError: missing data, or runs that cannot be written.
    """
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}: each network is trained with the seeds 1 to N. Use 1 or more.")
    conditions = select_conditions(plan.experiment, plan.budget, tuple(names))
    work = [(seed, condition) for seed in range(1, seeds + 1) for condition in conditions]
    for condition in conditions:
        _write_or_compare(plan.configuration(condition), _recipe(plan, condition))
    failures, failed = [], set()
    for number, (seed, condition) in enumerate(work, start=1):
        log.info("%s", f"[{number} of {len(work)}] {condition.label}, seed {seed}")
        if (condition.starts_from, seed) in failed:
            failed.add((condition.name, seed))
            continue
        try:
            with _lock(plan, condition, seed):
                _test(plan, condition, seed, _train(plan, condition, seed, run), run)
        except FloatingPointError as error:  # the other runs are of use without this one
            failed.add((condition.name, seed))
            failures.append(f"{condition.label}, seed {seed}: {error}")
    return failures


def find_finished(plan: Plan) -> list[Finished]:
    """Return every run of the experiment that was trained to its end and tested, by whichever command."""
    found = []
    for condition in plan.experiment.conditions:
        for seed, run in sorted(_runs_by_seed(plan, condition).items()):
            if run.step != plan.steps(condition)[1]:
                continue
            if test := next((result for result in eval_results_of(run) if isinstance(result, EvalResult) and result.split == "test"), None):
                known = _responses(plan, condition, run) if plan.experiment.figure == "responses" else None
                found.append(Finished(condition, seed, read_run(run), test.correct1, test.total, known))
    return found


def write_results(plan: Plan, finished: Sequence[Finished], output: Path) -> list[Path]:
    """Write the rows, the table and the figure: NAME.csv, NAME.json, NAME.png, and for responses NAME_layers.csv.

    Args:
        plan: The experiment.
        finished: Its runs.
        output: The folder to write to.

    Returns:
        The files.
    """
    header, rows = summary(plan.experiment, plan.budget, finished)
    report = {
        "experiment": plan.name,
        "title": plan.experiment.title,
        "data": plan.budget.data,
        "iterations_of_the_budget": plan.budget.steps,
        "table": [dict(zip(header, row, strict=True)) for row in rows],
        "directions": directions(plan.experiment, finished),
        "runs": [run.row(plan.budget) | {"environment": _environment(Run(run.history.folder))} for run in finished],
    }
    texts = {
        f"{plan.name}.csv": to_csv([run.row(plan.budget) for run in finished]),
        f"{plan.name}.json": json.dumps(report, indent=2) + "\n",
    }
    if layers := layer_rows(finished):
        texts[f"{plan.name}_layers.csv"] = to_csv(layers)
    write_files({output / name: text.encode() for name, text in texts.items()})
    figure = output / f"{plan.name}.png"
    save(draw_results(plan.experiment, plan.budget, finished), figure)
    return [*(output / name for name in texts), figure]


def _recipe(plan: Plan, condition: Condition) -> dict[str, Any]:
    return recipe(condition, plan.experiment, plan.budget, config_files.recipe_settings("cifar10/paper", condition.net))


def _write_or_compare(path: Path, content: dict[str, Any]) -> None:
    if path.is_file():
        if yaml_file.read(path) != content:
            raise UsageError(f"{path} has other settings than this experiment, so its runs do not belong to it. Give another --root.")
        return
    write_files({path: yaml.safe_dump(content, sort_keys=False).encode()})  # whole: another process may compare it right now


@contextmanager
def _lock(plan: Plan, condition: Condition, seed: int) -> Iterator[None]:
    """Keep other processes from training or testing this condition with this seed; the system ends the lock with the process."""
    lock = FileLock(plan.root / f".{condition.name}.{seed}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that trains this network")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _train(plan: Plan, condition: Condition, seed: int, run_command: RunCommand) -> Run:
    """Return the run of a condition with this seed, trained to its end: a finished run, or one that is started or resumed now."""
    run = _runs_by_seed(plan, condition).get(seed)
    if run is None and condition.starts_from:
        start = plan.experiment.condition(condition.starts_from)
        run = Run(plan.runs(condition).next_folder())
        fork_run(_runs_by_seed(plan, start)[seed], run.folder, condition.net if condition.net != start.net else None)
    if run and run.step == plan.steps(condition)[1]:
        log.info("%s", f"finished  {run.folder}")
        return run
    words = ["fit", "--config", str(plan.configuration(condition)), "--trainer.default_root_dir", str(plan.root)]
    words += ["--seed_everything", str(seed), "--checkpoint.every_n_train_steps", str(CHECKPOINT_EVERY), *_data(plan)]
    if run:
        log.info("%s", f"resuming  {run.folder} at iteration {run.step:,}")
        words += ["--ckpt_path", str(run.checkpoint())]
    log.info("%s", f"reslight {shlex.join(words)}")
    run_command(words)
    return _runs_by_seed(plan, condition)[seed]


def _test(plan: Plan, condition: Condition, seed: int, run: Run, run_command: RunCommand) -> None:
    """Evaluate the last weights of a run on the test images, unless that was done."""
    if any(result.split == "test" for result in eval_results_of(run)):
        return
    config, checkpoint = str(plan.configuration(condition)), str(run.folder)
    words = ["test", "--config", config, "--ckpt_path", checkpoint, "--seed_everything", str(seed), *_data(plan)]
    log.info("%s", f"reslight {shlex.join(words)}")
    run_command(words)


def _responses(plan: Plan, condition: Condition, run: Run) -> Responses:
    net, data, _ = load_with_data_info(str(run.folder))
    return responses(net, image_batches(net, data, plan.data, IMAGES), condition.label)


def _data(plan: Plan) -> list[str]:
    return ["--data.root", plan.data] if plan.budget.data == "cifar10" else []


def _runs_by_seed(plan: Plan, condition: Condition) -> dict[int, Run]:
    """Return the runs with the settings of a condition and not beyond its end; of several with one seed the longest."""
    found: dict[int, tuple[int, Run]] = {}
    settings, (begin, end) = _recipe(plan, condition)["model"], plan.steps(condition)
    for run in plan.runs(condition).runs():
        if not (run.checkpoint().is_file() and run.config.is_file()):
            continue
        step, seed = run.step, run.seed
        is_fork = bool(condition.starts_from) and step == begin  # it still has the schedule of the run that it was forked from
        if seed is None or step > end or not _has_settings(run.settings, settings, schedule=not is_fork):
            log.info("%s", f"left out  {run.folder}: its settings differ from {plan.configuration(condition)}")
        elif seed not in found or step > found[seed][0]:
            found[seed] = (step, run)
    return {seed: run for seed, (_, run) in found.items()}


def _has_settings(settings: Mapping[str, Any], expected: Mapping[str, Any], *, schedule: bool) -> bool:
    """Return whether a run has the settings of a recipe; classes and channels of the network come from the data.

    Args:
        settings: The settings of the run's model.
        expected: The settings of the recipe's model.
        schedule: Compare the schedules, too.
    """
    net = settings["net"]
    stated = {"name": expected["net"]} if isinstance(expected["net"], str) else dict(expected["net"])
    expected_net = resolve_config(stated.pop("name"), **stated, **{key: net[key] for key in ("num_classes", "in_channels")})
    kinds = {"optim": OptimConfig, "schedule": ScheduleConfig} if schedule else {"optim": OptimConfig}
    is_same = all(as_config(kind, settings[part]) == as_config(kind, expected[part]) for part, kind in kinds.items())
    changed = any(settings.get(name) for name in ("label_smoothing", "ema", "init_from", "freeze", "teacher"))
    return is_same and expected_net.to_dict() == net and not changed


def _environment(run: Run) -> dict[str, Any]:
    """Return the versions, the device and the precision that a run was trained with."""
    state = read_checkpoint(run.checkpoint())["reslight"]
    return {**state.get("environment", {}), "precision": state.get("precision")}
