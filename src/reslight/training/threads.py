"""The number of torch's threads in a run on the CPU: as the user or the checkpoint says, or the fastest on this network."""

import copy
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from reslight.cores import available_cores
from reslight.messages import UsageError
from reslight.models.cost import cost_of
from reslight.preprocess import Size, network_format, shape_of
from reslight.training.classifier import ImageClassifier
from reslight.training.loss import training_loss
from reslight.training.optim import build_optimizer

BUDGET = 0.8
"""Seconds in which numbers of threads are compared."""
LONGEST_STEP = 1e10
"""Floating-point operations of a step up to which numbers of threads are compared: above, all threads have enough to do."""
CLEAR_GAIN = 1.02
"""How many times as fast a step must be with more threads: less than that is not worth the cores, and may be chance."""
ALONE = 0.8
"""The share of a step's time in which a single thread must have a core, or other programs use all cores."""
_TIMED_STEPS = 2


class Threads(Callback):
    """Sets the number of torch's threads for a run, and restores the earlier number at its end.

    The first of these that there is: the setting; OMP_NUM_THREADS; with a resume, the number of the checkpoint, on which its last bits
    depend; the fastest number on this network, for a small network that is trained on the CPU and need not be deterministic; all cores
    that this process may use.

    Args:
        count: The setting; None leaves the choice to the rest of the list.

    Attributes:
        resumed: The environment of the checkpoint that training resumes from, see `resume.environment`; empty for a new run.
        chosen: The number and the reason for it, for the user; None before a run.

    Raises:
        UsageError: `count` is below 1.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise UsageError(f"threads is {count}: it must be at least 1. Use null to let reslight choose.")
        self.count = count
        self.resumed: Mapping[str, Any] = {}
        self.chosen: str | None = None
        self._is_users = "OMP_NUM_THREADS" in os.environ  # read here, because Lightning sets it when it launches processes
        self._before: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the number, the same in all processes, and set it."""
        self._before = torch.get_num_threads()
        choice = self._choose(trainer, pl_module, stage) if trainer.is_global_zero else (1, "")
        count, self.chosen = trainer.strategy.broadcast(choice)
        torch.set_num_threads(count)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the earlier number."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the earlier number."""
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            torch.set_num_threads(self._before)
            self._before = None

    def _choose(self, trainer: Trainer, module: LightningModule, stage: str) -> tuple[int, str]:
        """Return the number of threads, and the text that says why."""
        default = torch.get_num_threads()
        if self.count is not None:
            return self.count, f"{self.count}: as set"
        if self._is_users:
            return default, f"{default}: OMP_NUM_THREADS"
        cores = available_cores(max(trainer.num_devices, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        most = min(default, cores)  # torch counts the cores, which may be fewer than the threads that they run
        saved = self.resumed.get("threads", 0)
        if stage == "fit" and 0 < saved <= cores and self.resumed.get("devices") == trainer.world_size:
            return saved, f"{saved} of {cores}: as in the checkpoint"
        if most > 1 and stage == "fit" and isinstance(module, ImageClassifier) and _may_measure(trainer, module):
            batch, size = _images_per_step(trainer)
            if batch and 6 * batch * cost_of(module.config, size).macs <= LONGEST_STEP:
                count = fastest(training_step(trainer, module, batch, size), [*_powers_of_two(most), most])
                return count, f"{count} of {cores}: faster on this network"
        return most, f"{most} of {cores}"


def fastest(step: Callable[[], object], counts: Sequence[int], budget: float = BUDGET) -> int:
    """Return the number of threads with which steps take the least time; the steps of each are timed in turn.

    Args:
        step: The step.
        counts: Numbers of threads, rising from 1. A larger one wins where it is `CLEAR_GAIN` times as fast, both on average and in the
            median; none does where other programs take a part of the time of a single thread: then threads wait for each other.
        budget: Seconds; each number is measured at least once.
    """
    before = torch.get_num_threads()
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    end, order, cpu_time = time.monotonic() + budget, list(seconds), 0.0
    try:
        while True:
            for count in order:
                torch.set_num_threads(count)
                step()  # starts the threads and prepares kernels for their number
                for _ in range(_TIMED_STEPS):
                    start, cpu_start = time.perf_counter(), time.process_time()
                    step()
                    seconds[count].append(time.perf_counter() - start)
                    if count == counts[0]:
                        cpu_time += time.process_time() - cpu_start
            if time.monotonic() > end:
                is_alone = cpu_time > ALONE * sum(seconds[counts[0]])
                return _least_with_clear_gain(seconds) if is_alone else counts[0]
            order.reverse()
    finally:
        torch.set_num_threads(before)


def _least_with_clear_gain(seconds: Mapping[int, Sequence[float]]) -> int:
    """Return the number of threads, rising in `seconds`, to which no larger one is clearly superior."""
    best, *others = seconds
    for count in others:
        if all(of(seconds[count]) * CLEAR_GAIN <= of(seconds[best]) for of in (statistics.mean, statistics.median)):
            best = count
    return best


def training_step(trainer: Trainer, module: ImageClassifier, batch: int, size: Size) -> Callable[[], None]:
    """Return a training step of a copy of the network on random images: weights, statistics and random numbers of the run stay the same.

    Args:
        trainer: The trainer, for its precision.
        module: Its module.
        batch: Images of a step.
        size: Height and width of an image, in pixels: one number for a square, or both.
    """
    plugin = trainer.precision_plugin
    net = copy.deepcopy(module.net).train()
    plugin.convert_module(net)  # in place
    optimizer = build_optimizer(module.optim, net)
    generator = torch.Generator().manual_seed(0)
    dtype, layout = network_format(net)
    shape = (batch, module.config.in_channels, *shape_of(size))
    images = torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=layout)
    labels = torch.randint(module.config.num_classes, (batch,), generator=generator)

    def step() -> None:
        with torch.random.fork_rng(devices=()):  # stochastic depth draws from torch's own generator
            with plugin.forward_context():
                loss = training_loss(net(images), labels, module.loss, module.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not declare its type
            optimizer.step()

    return step


def _may_measure(trainer: Trainer, module: ImageClassifier) -> bool:
    """Return whether a measurement may decide: its result can differ from run to run, and it would take longer than a trial run."""
    is_on_cpu = trainer.strategy.root_device.type == "cpu"
    is_trial = bool(getattr(trainer, "fast_dev_run", False))
    return is_on_cpu and not is_trial and not module.compile_net and not torch.are_deterministic_algorithms_enabled()


def _images_per_step(trainer: Trainer) -> tuple[int, Size]:
    """Return the images of a batch on one device, and their height and width; 0 for a user's own data."""
    data = getattr(trainer, "datamodule", None)
    plan = getattr(data, "batch_plan", None)
    # The module's `data_info` is not there yet.
    return (plan.per_device, data.image_size) if plan and data else (0, 0)


def _powers_of_two(limit: int) -> list[int]:
    """Return 1, 2, 4 ... below a limit."""
    return [1 << power for power in range(limit.bit_length()) if 1 << power < limit]
