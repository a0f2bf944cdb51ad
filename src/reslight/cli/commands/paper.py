"""`reslight paper`: run the experiments of He et al. 2015."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reslight.cli.parser import Commands, runs
from reslight.cli.table import table
from reslight.paper.experiments import BUDGETS, EXPERIMENTS, PAPER_STEPS


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file."""
    about = (
        "Train the networks of an experiment of He et al. 2015, evaluate them on the test images, draw the paper's figure with the "
        "results and print a table. Finished runs are reused; after an interruption, the same command resumes."
    )
    parser = commands.add_parser("paper", help="run an experiment of the paper and draw its results", description=about)
    parser.add_argument("name", metavar="NAME", choices=EXPERIMENTS, help=", ".join(EXPERIMENTS))
    parser.add_argument(
        "--budget", choices=BUDGETS, default="short", help="; ".join(f"{name}: {budget.about}" for name, budget in BUDGETS.items())
    )
    parser.add_argument("--iterations", type=int, metavar="N", help="number of training iterations, in place of the budget's")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each network with the seeds 1 to N (default: 1)")
    parser.add_argument("--nets", nargs="+", default=[], metavar="NET", help="run only these networks of the experiment")
    parser.add_argument("--data", default="data", metavar="ROOT", help="folder of CIFAR-10 (default: data)")
    parser.add_argument("--root", default="runs/paper", metavar="DIR", help="folder of the runs and results (default: runs/paper)")
    runs(parser, paper, trains=True)


def paper(name: str, budget: str, iterations: int | None, seeds: int, nets: Sequence[str], data: str, root: str) -> bool:
    """Run an experiment of the paper, write its results, and print its table.

    Args:
        name: Name of the experiment.
        budget: `tiny`, `short` or `full`.
        iterations: Number of training iterations; the budget's if None.
        seeds: Number of seeds: each network is trained with the seeds 1 to this number.
        nets: Names of the networks; all if empty.
        data: The folder of CIFAR-10.
        root: Parent of the folder of runs and results, `<root>/<budget>` or `<root>/<budget>-<iterations>`. Earlier runs in
            that folder are in the table, too.

    Returns:
        False if a network diverged; stderr gets a line for each.

    Raises:
        OSError: missing images, or a file that cannot be written.
        UsageError: an unknown name, or earlier runs with other settings.
        MissingPackageError: matplotlib is not installed.
    """
    from reslight.analysis.figure import new_figure
    from reslight.cli import trainer
    from reslight.paper.results import directions, summary
    from reslight.paper.runner import Plan, find_finished, run_experiment, write_results

    new_figure(1, 1)  # a missing matplotlib is reported before the training, not after it
    chosen = BUDGETS[budget] if iterations is None else replace(BUDGETS[budget], steps=iterations)
    plan = Plan(name, chosen, Path(root).expanduser() / (budget if iterations is None else f"{budget}-{iterations}"), data)
    failures = run_experiment(plan, seeds, nets, run=trainer.run)
    for line in failures:
        print(f"reslight: stopped: {line}", file=sys.stderr)
    finished = find_finished(plan)
    if not finished:
        return False
    written = write_results(plan, finished, plan.root)
    print(f"\n{plan.experiment.title}")
    print(f"here {plan.budget.data}, {plan.budget.steps:,} iterations; in the paper CIFAR-10, {PAPER_STEPS:,} iterations\n")
    print(table(*summary(plan.experiment, plan.budget, finished)))
    print("\n".join(["", *directions(plan.experiment, finished), *(f"written {path}" for path in written)]))
    return not failures
