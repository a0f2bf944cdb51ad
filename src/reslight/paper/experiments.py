"""The experiments of He et al. 2015 on CIFAR-10 as data: which networks, how long, and what the paper says of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from reslight.messages import UsageError

PAPER_STEPS = 64_000
"""Iterations of section 4.2."""


LEAST_STEPS = 8
"""Fewer have no room for two drops of the rate, and for a part that is trained on."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One network of an experiment, and how it is trained.

    Args:
        name: Of the folder of its runs.
        net: Name of the architecture; its recipe is `cifar10/paper_<net>`.
        change: Fields of the network that differ from the architecture of that name.
        label: What tables and pictures call it.
        paper: Its test error in the paper, in percent; None where the paper gives none.
        said: How the paper says that, for people.
        start: The arm whose run it goes on from: with the same network, or deepened.
        compute: How long it is trained, behind `start` if there is one: shares of the budget's iterations, each of the network of that
            name; an iteration of another network counts as many iterations of this one as its multiplications do.
    """

    name: str
    net: str
    change: Mapping[str, Any] = field(default_factory=dict)
    label: str
    paper: float | None = None
    said: str = ""
    start: str | None = None
    compute: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A claim of the paper.

    Args:
        title: What it shows, and where in the paper.
        arms: Its networks; one that another starts from comes before it.
        figure: How it is drawn: error curves beside each other, errors over depth, layer responses, or error curves over compute.
    """

    title: str
    arms: tuple[Arm, ...]
    figure: Literal["curves", "depth", "responses", "compute"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of the paper's training is done.

    Args:
        about: What it is for, in the help.
        steps: Iterations, where the paper has 64,000.
        data: `cifar10`, or `digits`, which takes no download.
        precision: Of the arithmetic; None as the recipe has it.
        without: Networks that it has no time for.
    """

    about: str
    steps: int
    data: Literal["cifar10", "digits"]
    precision: str | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the number of iterations.

        Raises:
            ValueError: It leaves no room for the schedule.
        """
        if self.steps < LEAST_STEPS:
            raise UsageError(f"--iterations is {self.steps}; it must be at least {LEAST_STEPS}")


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "tiny": Budget(about="a minute, on digits, to see that everything works", steps=57, data="digits", without=("resnet1202",)),
        "short": Budget(about="an evening, a twentieth of the paper's iterations", steps=3_200, data="cifar10", precision="bf16-mixed"),
        "full": Budget(about="the paper's 64,000", steps=PAPER_STEPS, data="cifar10"),
    }
)


def _residual(depth: int, paper: float, said: str) -> Arm:
    return Arm(name=f"resnet{depth}", net=f"resnet{depth}", label=f"ResNet-{depth}", paper=paper, said=said)


def _plain(depth: int, paper: float) -> Arm:
    return Arm(name=f"plain{depth}", net=f"plain{depth}", label=f"plain-{depth}", paper=paper, said=f"~{paper:g} (read off figure 6)")


_RESNETS = (
    _residual(20, 8.75, "8.75"),
    _residual(32, 7.51, "7.51"),
    _residual(44, 7.17, "7.17"),
    _residual(56, 6.97, "6.97"),
    _residual(110, 6.61, "6.61 ± 0.16 (n = 5)"),
)
_PLAIN = (_plain(20, 9.5), _plain(32, 10.0), _plain(44, 12.0), _plain(56, 13.5))


def _shortcuts(depth: int, paper: float) -> tuple[Arm, ...]:
    net = f"resnet{depth}"
    option_a = Arm(name=net, net=net, label=f"ResNet-{depth}, A", paper=paper, said=f"{paper:.2f}")
    others = (Arm(name=f"{net}_{one}", net=net, change={"shortcut": one}, label=f"ResNet-{depth}, {one}") for one in "BC")
    return (option_a, *others)


_MORE = {"resnet56": 0.25}
"""How long the deepened network is trained on; the others get the same compute."""
_IDENTITY = (
    Arm(name="resnet20", net="resnet20", label="ResNet-20"),
    Arm(name="deepened", net="resnet56", label="deepened to ResNet-56", start="resnet20"),
    Arm(name="deepened_on", net="resnet56", label="deepened, trained on", start="deepened", compute=_MORE),
    Arm(name="resnet20_on", net="resnet20", label="ResNet-20, trained on", start="resnet20", compute=_MORE),
    Arm(name="resnet56_anew", net="resnet56", label="ResNet-56 from scratch", compute={"resnet20": 1.0} | _MORE),
)

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "degradation": Experiment(
            title="Degradation: plain and residual nets by depth (figures 1 and 6)", arms=_PLAIN + _RESNETS, figure="curves"
        ),
        "depth": Experiment(
            title="Test error of residual nets by depth (table 6)",
            arms=(*_RESNETS, _residual(1202, 7.93, "7.93")),
            figure="depth",
        ),
        "shortcuts": Experiment(
            title="Shortcuts A, B and C, which the paper compares on ImageNet alone (section 4.1, table 3)",
            arms=_shortcuts(20, 8.75) + _shortcuts(56, 6.97),
            figure="curves",
        ),
        "responses": Experiment(
            title="Standard deviations of layer responses (figure 7)",
            arms=(_PLAIN[0], _PLAIN[3], _RESNETS[0], _RESNETS[3], _RESNETS[4]),
            figure="responses",
        ),
        "identity": Experiment(
            title="Identity layers appended: the thought experiment of section 1, executed", arms=_IDENTITY, figure="compute"
        ),
    }
)


def find_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"there is no experiment {name}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def chosen(experiment: Experiment, budget: Budget, names: tuple[str, ...] = ()) -> tuple[Arm, ...]:
    """The arms that are to be run, with those that they start from.

    Args:
        experiment: The experiment.
        budget: What leaves some out.
        names: Those that a person wants; all if empty.

    Raises:
        ValueError: A name is none of the experiment's.
    """
    arms = {arm.name: arm for arm in experiment.arms if arm.net not in budget.without}
    if unknown := [name for name in names if name not in arms]:
        raise UsageError(f"--nets has {unknown[0]}, which this experiment or this budget has not; it has {', '.join(arms)}")
    wanted = set(names or arms)
    for arm in reversed(experiment.arms):
        if arm.name in wanted and arm.start:
            wanted.add(arm.start)
    return tuple(arm for arm in arms.values() if arm.name in wanted)
