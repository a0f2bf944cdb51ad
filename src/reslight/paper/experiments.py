"""The experiments of He et al. 2015 on CIFAR-10 as data: networks, training budgets and the paper's own numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from reslight.messages import UsageError, did_you_mean

PAPER_STEPS = 64_000
"""Iterations of section 4.2."""
MIN_STEPS = 8
"""The fewest iterations that leave room for two drops of the learning rate and for a network that is trained longer."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of an experiment: a network and how it is trained.

    Args:
        name: The name of the folder of its runs, and of its rows in published results.
        net: The name of the architecture.
        changes: Fields of the network that differ from the architecture of that name.
        label: The name in tables and figures.
        paper_error: The test error in the paper, in percent; None if the paper gives none.
        paper_text: The same as the paper words it, for the table.
        starts_from: The name of the condition whose run this one resumes, with the same network or a deeper one.
        compute: The length of its training, after that of `starts_from` if there is one. Each key is a network whose iterations are
            counted, each value a share of the budget's iterations; they are converted to iterations of `net` by multiplications.
    """

    name: str
    net: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    label: str
    paper_error: float | None = None
    paper_text: str = ""
    starts_from: str | None = None
    compute: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A claim of the paper, and the conditions that test it.

    Args:
        title: What is compared, and where in the paper.
        conditions: The conditions; one that another starts from comes before it.
        figure: The kind of figure: error curves side by side, errors over depth, layer responses, or error curves over compute.
    """

    title: str
    conditions: tuple[Condition, ...]
    figure: Literal["curves", "depth", "responses", "compute"]

    def condition(self, name: str) -> Condition:
        """Return the condition of that name."""
        return next(condition for condition in self.conditions if condition.name == name)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long networks are trained, and on which data.

    Args:
        about: What the budget is for, shown by --help.
        steps: Iterations, in place of the paper's 64,000.
        data: `cifar10`, or `digits`, which needs no download.
        precision: The trainer's precision; None for the recipe's.
        without: Networks that take too long for this budget.
    """

    about: str
    steps: int
    data: Literal["cifar10", "digits"]
    precision: str | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the number of iterations.

        Raises:
            UsageError: too few iterations for the schedule.
        """
        if self.steps < MIN_STEPS:
            raise UsageError(f"--iterations is {self.steps}: the schedule needs at least {MIN_STEPS}. Use a larger number.")


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "tiny": Budget(about="a minute, on digits, to check that everything works", steps=57, data="digits", without=("resnet1202",)),
        "short": Budget(about="an evening, a twentieth of the paper's iterations", steps=3_200, data="cifar10", precision="bf16-mixed"),
        "full": Budget(about="the paper's 64,000", steps=PAPER_STEPS, data="cifar10"),
    }
)


def _residual(depth: int, error: float, text: str) -> Condition:
    return Condition(name=f"resnet{depth}", net=f"resnet{depth}", label=f"ResNet-{depth}", paper_error=error, paper_text=text)


def _plain(depth: int, error: float) -> Condition:
    text = f"~{error:g} (read off figure 6)"
    return Condition(name=f"plain{depth}", net=f"plain{depth}", label=f"plain-{depth}", paper_error=error, paper_text=text)


_RESNETS = (
    _residual(20, 8.75, "8.75"),
    _residual(32, 7.51, "7.51"),
    _residual(44, 7.17, "7.17"),
    _residual(56, 6.97, "6.97"),
    _residual(110, 6.61, "6.61 ± 0.16 (n = 5)"),
)
_PLAIN = (_plain(20, 9.5), _plain(32, 10.0), _plain(44, 12.0), _plain(56, 13.5))


def _shortcuts(depth: int, error: float) -> tuple[Condition, ...]:
    net = f"resnet{depth}"
    option_a = Condition(name=net, net=net, label=f"ResNet-{depth}, A", paper_error=error, paper_text=f"{error:.2f}")
    others = (Condition(name=f"{net}_{one}", net=net, changes={"shortcut": one}, label=f"ResNet-{depth}, {one}") for one in "BC")
    return (option_a, *others)


_EXTRA = {"resnet56": 0.25}
"""How much longer the deepened network is trained; the others get the same compute."""
_IDENTITY = (
    Condition(name="resnet20", net="resnet20", label="ResNet-20"),
    Condition(name="deepened", net="resnet56", label="deepened to ResNet-56", starts_from="resnet20"),
    Condition(name="deepened_on", net="resnet56", label="deepened, trained on", starts_from="deepened", compute=_EXTRA),
    Condition(name="resnet20_on", net="resnet20", label="ResNet-20, trained on", starts_from="resnet20", compute=_EXTRA),
    # the runs and rows of published results have this name
    Condition(name="resnet56_anew", net="resnet56", label="ResNet-56 from scratch", compute={"resnet20": 1.0} | _EXTRA),
)

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "degradation": Experiment(
            title="Degradation: plain and residual nets by depth (figures 1 and 6)", conditions=_PLAIN + _RESNETS, figure="curves"
        ),
        "depth": Experiment(
            title="Test error of residual nets by depth (table 6)",
            conditions=(*_RESNETS, _residual(1202, 7.93, "7.93")),
            figure="depth",
        ),
        "shortcuts": Experiment(
            title="Shortcuts A, B and C, which the paper compares on ImageNet only (section 4.1, table 3)",
            conditions=_shortcuts(20, 8.75) + _shortcuts(56, 6.97),
            figure="curves",
        ),
        "responses": Experiment(
            title="Standard deviations of layer responses (figure 7)",
            conditions=(_PLAIN[0], _PLAIN[3], _RESNETS[0], _RESNETS[3], _RESNETS[4]),
            figure="responses",
        ),
        "identity": Experiment(
            title="Identity layers appended: the thought experiment of section 1, executed", conditions=_IDENTITY, figure="compute"
        ),
    }
)


def find_experiment(name: str) -> Experiment:
    """Return the experiment of that name.

    Raises:
        UsageError: an unknown name.
    """
    if name not in EXPERIMENTS:
        hint = did_you_mean(name, EXPERIMENTS, f"choose one of {', '.join(EXPERIMENTS)}.")
        raise UsageError(f"NAME is {name}: there is no such experiment; {hint}")
    return EXPERIMENTS[name]


def select_conditions(experiment: Experiment, budget: Budget, names: tuple[str, ...] = ()) -> tuple[Condition, ...]:
    """Return the conditions to run, with those that they start from.

    Args:
        experiment: The experiment.
        budget: The budget, which leaves out some networks.
        names: The names that the user asks for; all if empty.

    Raises:
        UsageError: a name that is not a condition of the experiment.
    """
    allowed = {one.name: one for one in experiment.conditions if one.net not in budget.without}
    if unknown := [name for name in names if name not in allowed]:
        raise UsageError(f"--nets is {unknown[0]}: this experiment at this budget has no such network. Choose from {', '.join(allowed)}.")
    wanted = set(names or allowed)
    for condition in reversed(experiment.conditions):
        if condition.name in wanted and condition.starts_from:
            wanted.add(condition.starts_from)
    return tuple(condition for condition in allowed.values() if condition.name in wanted)
