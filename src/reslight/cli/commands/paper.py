"""`reslight paper`: the experiments of He et al. 2015."""

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
        "Trains the networks of an experiment of He et al. 2015, measures them on the test images, draws the paper's figure again and "
        "prints a table. What was trained before is not trained again; after a stop the same command goes on."
    )
    parser = commands.add_parser("paper", help="run an experiment of the paper: networks, table, picture", description=about)
    parser.add_argument("name", metavar="NAME", choices=EXPERIMENTS, help=", ".join(EXPERIMENTS))
    parser.add_argument(
        "--budget", choices=BUDGETS, default="short", help="; ".join(f"{name}: {budget.about}" for name, budget in BUDGETS.items())
    )
    parser.add_argument("--iterations", type=int, metavar="N", help="another number of iterations than the budget's, the rest as it says")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each network with the seeds 1 to N (default: 1)")
    parser.add_argument("--nets", nargs="+", default=[], metavar="NET", help="only these of its networks")
    parser.add_argument("--data", default="data", metavar="ROOT", help="folder of CIFAR-10 (default: data)")
    parser.add_argument("--root", default="runs/paper", metavar="DIR", help="where runs and results are kept (default: runs/paper)")
    runs(parser, paper, trains=True)


def paper(name: str, budget: str, iterations: int | None, seeds: int, nets: Sequence[str], data: str, root: str) -> bool:
    """Run an experiment of the paper, write what came of it, and print its table.

    Args:
        name: Of the experiment.
        budget: `tiny`, `short` or `full`.
        iterations: Another number of them than the budget's.
        seeds: Each network is trained with the seeds 1 to this.
        nets: Names of the networks; all if empty.
        data: Folder of CIFAR-10.
        root: Where runs and results are kept: in `<root>/<budget>`, or `<root>/<budget>-<iterations>`. What other calls trained there
            is in the table, too.

    Returns:
        Whether no network diverged; each that did has its line on stderr.

    Raises:
        OSError: The data are not there, or something cannot be written.
        ValueError: An unknown name, or runs that are there were made with other settings.
    """
    from reslight.analysis.figure import new_figure
    from reslight.cli import trainer
    from reslight.paper.results import directions, summary
    from reslight.paper.runner import Plan, find_finished, run_experiment, write_results

    new_figure(1, 1)  # an evening is too long to learn that there is no matplotlib
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
