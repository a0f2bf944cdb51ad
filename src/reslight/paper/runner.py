"""Running the paper's experiments: what is done already is not done again, and what was not run has no number."""

import json
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout  # torch brings it

from reslight.analysis import read_run, save
from reslight.analysis.responses import Responses, image_batches, responses
from reslight.messages import UsageError
from reslight.models import resolve_config
from reslight.paper.experiments import Arm, Budget, Experiment, chosen, find_experiment
from reslight.paper.results import Finished, directions, draw_outcome, layer_rows, summary, to_csv
from reslight.paper.schedule import recipe, steps_of
from reslight.runs import config_files as recipes
from reslight.runs.eval_results import eval_results_of
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.fork import fork_run
from reslight.runs.trained import load_with_data_info
from reslight.training.optim import OptimConfig, ScheduleConfig, as_config
from reslight.training.resume import read_checkpoint

log = logging.getLogger(__name__)
RunCommand = Callable[[list[str]], None]

IMAGES = 1_000
"""Test images that responses are measured on."""
KEEP_EVERY = 500
"""Iterations between checkpoints: what a stop costs at most."""


@dataclass(frozen=True)
class Plan:
    """An experiment at a budget, and where its runs and its data are.

    Args:
        name: Of the experiment.
        budget: How much of it.
        root: Where runs are kept, each arm's in a folder of its own: `<root>/<arm>/<n>`. Experiments share them.
        data: Folder of CIFAR-10.
    """

    name: str
    budget: Budget
    root: Path
    data: str

    @property
    def experiment(self) -> Experiment:
        """The experiment."""
        return find_experiment(self.name)

    def arm(self, name: str) -> Arm:
        """An arm of the experiment."""
        return next(arm for arm in self.experiment.arms if arm.name == name)

    def end(self, arm: Arm) -> int:
        """The iteration at which an arm's training ends."""
        return steps_of(arm, self.experiment, self.budget)[1]

    def configuration(self, arm: Arm) -> Path:
        """An arm's configuration; it lies beside the runs, so that each of them is one command of a person's, too."""
        return self.root / f"{arm.name}.yaml"


def run_experiment(plan: Plan, seeds: int, names: Sequence[str] = (), *, run: RunCommand) -> list[str]:
    """Train every network that is wanted and was not trained yet, and measure it on the test images.

    Several processes may do so at once: each network is trained by one of them, and the others wait for it.

    Args:
        plan: What is run, and where.
        seeds: Each is trained with the seeds 1 to this.
        names: Of the networks; all if empty.
        run: Runs a command line of the Trainer's, such as `["fit", "--config", FILE]`.

    Returns:
        What diverged, one line each; what would start from it is left out.

    Raises:
        ValueError: An unknown name, or a configuration that is there has other settings.
        OSError: The data are not there, or runs cannot be written.
    """
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; it must be at least 1")
    arms = chosen(plan.experiment, plan.budget, tuple(names))
    work = [(seed, arm) for seed in range(1, seeds + 1) for arm in arms]
    for arm in arms:
        _write_or_compare(plan.configuration(arm), _recipe(plan, arm))
    failures, failed = [], set()
    for number, (seed, arm) in enumerate(work, start=1):
        log.info("%s", f"[{number} of {len(work)}] {arm.label}, seed {seed}")
        if (arm.start, seed) in failed:
            failed.add((arm.name, seed))
            continue
        try:
            with _alone(plan, arm, seed):
                _test(plan, arm, seed, _train(plan, arm, seed, run), run)
        except FloatingPointError as error:  # the others are worth something without it
            failed.add((arm.name, seed))
            failures.append(f"{arm.label}, seed {seed}: {error}")
    return failures


def gather(plan: Plan) -> list[Finished]:
    """Every run of the experiment that is done and measured, whoever made it."""
    found = []
    for arm in plan.experiment.arms:
        for seed, run in sorted(_runs(plan, arm).items()):
            tested = next((one for one in eval_results_of(run) if one.split == "test"), None)
            if tested and run.step == plan.end(arm):
                known = _responses(plan, arm, run) if plan.experiment.figure == "responses" else None
                found.append(Finished(arm, seed, read_run(run), tested.correct1, tested.total, known))
    return found


def write_outcome(plan: Plan, finished: Sequence[Finished], output: Path) -> list[Path]:
    """Write rows, table and picture beside each other: NAME.csv, NAME.json, NAME.png; for responses also each layer's.

    Returns:
        The files.
    """
    header, rows = summary(plan.experiment, plan.budget, finished)
    about = {
        "experiment": plan.name,
        "title": plan.experiment.title,
        "data": plan.budget.data,
        "iterations_of_the_budget": plan.budget.steps,
        "table": [dict(zip(header, row, strict=True)) for row in rows],
        "directions": directions(plan.experiment, finished),
        "runs": [one.row(plan.budget) | {"environment": _environment(Run(one.history.folder))} for one in finished],
    }
    output.mkdir(parents=True, exist_ok=True)
    lines = [one.row(plan.budget) for one in finished]
    texts = {f"{plan.name}.csv": to_csv(lines), f"{plan.name}.json": json.dumps(about, indent=2) + "\n"}
    if layers := layer_rows(finished):
        texts[f"{plan.name}_layers.csv"] = to_csv(layers)
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")
    picture = output / f"{plan.name}.png"
    save(draw_outcome(plan.experiment, plan.budget, finished), picture)
    return [*(output / name for name in texts), picture]


def _recipe(plan: Plan, arm: Arm) -> dict[str, Any]:
    paper = yaml.safe_load((recipes.packaged() / "cifar10" / f"paper_{arm.net}.yaml").read_text(encoding="utf-8"))
    return recipe(arm, plan.experiment, plan.budget, paper)


def _write_or_compare(path: Path, content: dict[str, Any]) -> None:
    if path.is_file():
        if yaml.safe_load(path.read_text(encoding="utf-8")) != content:
            raise UsageError(
                f"{path} has other settings than this experiment; its runs are no part of it. Give another --root, or move them"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@contextmanager
def _alone(plan: Plan, arm: Arm, seed: int) -> Iterator[None]:
    """Inside, no other process trains or tests this arm with this seed; the lock ends with the process, however that ends."""
    lock = FileLock(plan.root / f".{arm.name}.{seed}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is at it: waiting for that")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _train(plan: Plan, arm: Arm, seed: int, run_command: RunCommand) -> Run:
    """The folder of an arm's run with this seed, trained to its end: now, or before."""
    run = _runs(plan, arm).get(seed)
    if run is None and arm.start:
        base = _runs(plan, plan.arm(arm.start))[seed]
        run = Run(RunDirectory(plan.root, arm.name).next_folder())
        fork_run(base, run.folder, arm.net if arm.net != plan.arm(arm.start).net else None)
    if run and run.step == plan.end(arm):
        log.info("%s", f"is done   {run.folder}")
        return run
    words = ["fit", "--config", str(plan.configuration(arm)), "--trainer.default_root_dir", str(plan.root)]
    words += ["--seed_everything", str(seed), "--checkpoint.every_n_train_steps", str(KEEP_EVERY), *_data(plan)]
    if run:
        log.info("%s", f"goes on with {run.folder} at iteration {run.step:,}")
        words += ["--ckpt_path", str(run.checkpoint())]
    log.info("%s", f"reslight {shlex.join(words)}")
    run_command(words)
    return _runs(plan, arm)[seed]


def _test(plan: Plan, arm: Arm, seed: int, run: Run, run_command: RunCommand) -> None:
    """Measure a run's last weights on the test images, unless that was done."""
    if any(one.split == "test" for one in eval_results_of(run)):
        return
    words = ["test", "--config", str(plan.configuration(arm)), "--ckpt_path", str(run.folder), "--seed_everything", str(seed), *_data(plan)]
    log.info("%s", f"reslight {shlex.join(words)}")
    run_command(words)


def _responses(plan: Plan, arm: Arm, run: Run) -> Responses:
    net, data, _ = load_with_data_info(str(run.folder))
    return responses(net, image_batches(net, data, plan.data, IMAGES), arm.label)


def _data(plan: Plan) -> list[str]:
    return ["--data.root", plan.data] if plan.budget.data == "cifar10" else []


def _runs(plan: Plan, arm: Arm) -> dict[int, Run]:
    """The runs that are this arm's, by seed: of its recipe and not beyond its end; of several the one that is furthest."""
    found: dict[int, tuple[int, Run]] = {}
    meant = _recipe(plan, arm)["model"]
    for run in RunDirectory(plan.root, arm.name).runs():
        if not (run.checkpoint().is_file() and run.config.is_file()):
            continue
        step, seed = run.step, run.seed
        is_fork = bool(arm.start) and step == steps_of(arm, plan.experiment, plan.budget)[0]  # its schedule is still the other's
        if seed is None or not _is_of(run.settings, meant, schedule=not is_fork) or step > plan.end(arm):
            log.info("%s", f"{run.folder} has other settings than {plan.configuration(arm)}: it does not count")
        elif step > found.get(seed, (-1, run))[0]:
            found[seed] = (step, run)
    return {seed: run for seed, (_, run) in found.items()}


def _is_of(settings: Mapping[str, Any], meant: Mapping[str, Any], *, schedule: bool) -> bool:
    """Whether a run's settings are those of a recipe; the data decide about the network's two ends."""
    there = settings["net"]
    stated = {"name": meant["net"]} if isinstance(meant["net"], str) else dict(meant["net"])
    net = resolve_config(stated.pop("name"), **stated, **{key: there[key] for key in ("num_classes", "in_channels")})
    kinds = {"optim": OptimConfig, "schedule": ScheduleConfig} if schedule else {"optim": OptimConfig}
    same = all(as_config(kind, settings[part]) == as_config(kind, meant[part]) for part, kind in kinds.items())
    return same and net.to_dict() == there and not any(settings.get(name) for name in ("label_smoothing", "ema", "init_from", "freeze"))


def _environment(run: Run) -> dict[str, Any]:
    state = read_checkpoint(run.checkpoint())["reslight"]
    return {**state.get("environment", {}), "precision": state.get("precision")}
