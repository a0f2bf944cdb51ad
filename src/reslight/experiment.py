"""Running the paper's experiments: what is done already is not done again, and what was not run has no number."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from reslight import recipes, trainer_cli
from reslight.analysis import read_run, save
from reslight.analysis.outcome import Finished, directions, draw_outcome, layer_rows, summary, to_csv
from reslight.analysis.paper import Arm, Budget, Experiment, chosen, find_experiment, recipe, steps_of
from reslight.analysis.responses import Responses, responses, test_batches
from reslight.training.deepen import fork_run
from reslight.training.export import described_net
from reslight.training.resume import read_checkpoint

log = logging.getLogger(__name__)

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


def run_experiment(plan: Plan, seeds: int, names: Sequence[str] = ()) -> list[Finished]:
    """Run every network that is wanted and was not run yet, and measure it on the test images.

    Args:
        plan: What is run, and where.
        seeds: Each is trained with the seeds 1 to this.
        names: Of the networks; all if empty.

    Raises:
        ValueError: An unknown name, or runs that are there were made with other settings.
        OSError: The data are not there, or runs cannot be written.
    """
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; it must be at least 1")
    arms = chosen(plan.experiment, plan.budget, tuple(names))
    work = [(seed, arm) for seed in range(1, seeds + 1) for arm in arms]
    for path, content in [_configuration(plan, arm) for arm in arms]:
        _write_or_compare(path, content)
    finished = []
    for number, (seed, arm) in enumerate(work, start=1):
        log.info("%s", f"[{number} of {len(work)}] {arm.label}, seed {seed}")
        run = _trained(plan, arm, seed)
        one = _tested(plan, arm, seed, run)
        finished.append(replace(one, responses=_responses(plan, arm, run)) if plan.experiment.figure == "responses" else one)
    return sorted(finished, key=lambda one: arms.index(one.arm))


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
        "runs": [one.row() | {"environment": _environment(one.history.folder)} for one in finished],
    }
    output.mkdir(parents=True, exist_ok=True)
    texts = {f"{plan.name}.csv": to_csv([one.row() for one in finished]), f"{plan.name}.json": json.dumps(about, indent=2) + "\n"}
    if layers := layer_rows(finished):
        texts[f"{plan.name}_layers.csv"] = to_csv(layers)
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")
    picture = output / f"{plan.name}.png"
    save(draw_outcome(plan.experiment, plan.budget, finished), picture)
    return [*(output / name for name in texts), picture]


def _configuration(plan: Plan, arm: Arm) -> tuple[Path, dict[str, Any]]:
    """An arm's configuration and its place; it lies beside the runs, so that each of them is one command of a person's, too."""
    paper = yaml.safe_load((recipes.packaged() / "cifar10" / f"paper_{arm.net}.yaml").read_text(encoding="utf-8"))
    return plan.root / f"{arm.name}.yaml", recipe(arm, plan.experiment, plan.budget, paper)


def _write_or_compare(path: Path, content: dict[str, Any]) -> None:
    if path.is_file():
        if yaml.safe_load(path.read_text(encoding="utf-8")) != content:
            raise ValueError(
                f"{path} has other settings than this experiment; its runs are no part of it. Give another --root, or move them"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _trained(plan: Plan, arm: Arm, seed: int) -> Path:
    """The folder of an arm's run with this seed, trained to its end: now, or before."""
    end = steps_of(arm, plan.experiment, plan.budget)[1]
    run = _find(plan.root / arm.name, seed)
    if run is None and arm.start:
        run = _free(plan.root / arm.name)
        base = _find(plan.root / arm.start, seed)
        assert base is not None, f"{arm.start} comes before {arm.name}"
        fork_run(base, run, arm.net if arm.net != _net_of(plan, arm.start) else None)
    if run is None:
        return _fit(plan, arm, seed, [])
    if (done := _step_of(run)) < end:
        log.info("%s", f"goes on with {run} at iteration {done:,}")
        return _fit(plan, arm, seed, ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    log.info("%s", f"is done   {run}")
    return run


def _fit(plan: Plan, arm: Arm, seed: int, more: list[str]) -> Path:
    words = ["fit", "--config", str(plan.root / f"{arm.name}.yaml"), "--trainer.default_root_dir", str(plan.root)]
    words += ["--seed_everything", str(seed), "--checkpoint.every_n_train_steps", str(KEEP_EVERY), *_root(plan), *more]
    log.info("%s", f"reslight {' '.join(words)}")
    trainer_cli.run(words, "train a network")
    run = _find(plan.root / arm.name, seed)
    assert run is not None
    return run


def _tested(plan: Plan, arm: Arm, seed: int, run: Path) -> Finished:
    """What a run's network gets right on the test images: measured now, or before."""
    step, path = _step_of(run), run / "test.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if report.get("step") != step:
        words = [
            "test",
            "--config",
            str(plan.root / f"{arm.name}.yaml"),
            "--ckpt_path",
            str(run),
            "--seed_everything",
            str(seed),
            *_root(plan),
        ]
        log.info("%s", f"reslight {' '.join(words)}")
        trainer_cli.run(words, "measure a network")
        report = json.loads(path.read_text(encoding="utf-8"))
    return Finished(arm, seed, read_run(run), report["counts"]["correct1"], report["counts"]["total"])


def _responses(plan: Plan, arm: Arm, run: Path) -> Responses:
    net, data, _ = described_net(str(run))
    return responses(net, test_batches(net, data, plan.data, IMAGES), arm.label)


def _root(plan: Plan) -> list[str]:
    return ["--data.root", plan.data] if plan.budget.data == "cifar10" else []


def _find(folder: Path, seed: int) -> Path | None:
    """The run with this seed that has something to go on from, the newest of them."""
    found = None
    for run in sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name)):
        config = run / "config.yaml"
        if (run / "checkpoints" / "last.ckpt").is_file() and config.is_file():
            found = run if yaml.safe_load(config.read_text(encoding="utf-8")).get("seed_everything") == seed else found
    return found


def _free(folder: Path) -> Path:
    """The folder of the next run."""
    return folder / str(max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0) + 1)


def _step_of(run: Path) -> int:
    return int(read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"])


def _net_of(plan: Plan, name: str) -> str:
    return next(arm.net for arm in plan.experiment.arms if arm.name == name)


def _environment(run: Path) -> dict[str, Any]:
    contents = read_checkpoint(run / "checkpoints" / "last.ckpt")["reslight"]
    return {**contents.get("environment", {}), "precision": contents.get("precision")}
