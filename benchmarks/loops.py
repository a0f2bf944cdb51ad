"""Three ways to train the same network on the same images: reslight, stock Lightning, and a loop by hand.

Each returns the seconds that one step took, on average over a stretch of steps that begins after a warm-up and ends
before the end of the run. So starting, checkpoints at the end of an epoch and the end of the run are not in it;
everything that is done per step, and now and then between steps, is.
"""

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
import yaml
from images import CLASSES, RandomImages
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from reslight.cli.trainer import run
from reslight.metrics import TrainingSums
from reslight.models import ResNet, ResNetConfig
from reslight.training import OptimConfig
from reslight.training.loss import is_correct
from reslight.training.optim import build_optimizer

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
ALL_PRECISIONS = PRECISIONS | {"fp16": "16-mixed"}
"""With the one that is for GPUs."""


@dataclass(frozen=True)
class Work:
    """What is trained, and for how long."""

    net: ResNetConfig
    images: int = 50_000
    size: int = 32
    batch_size: int = 128
    pad: int = 4
    precision: str = "bf16"
    warm: int = 10
    """Steps before the clock starts."""
    steps: int = 50
    """Steps that are timed."""
    cpu_time: bool = False
    """Count CPU seconds of the process, which other processes hardly change. For one thread alone: those of several add up."""

    def clock(self) -> "Clock":
        return Clock(self.warm, self.steps, self.cpu_time)

    def data(self) -> RandomImages:
        return RandomImages(self.images, self.size, self.batch_size, self.pad)


class Clock(Callback):
    """Stops the time from the end of step `warm` to the end of step `warm + steps`."""

    def __init__(self, warm: int, steps: int, cpu_time: bool = False) -> None:
        self.warm, self.steps, self.cpu_time = warm, steps, cpu_time
        self.done = 0
        self.start = self.end = 0.0

    def now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.process_time() if self.cpu_time else time.perf_counter()

    def tick(self) -> None:
        self.done += 1
        if self.done == self.warm:
            self.start = self.now()
        elif self.done == self.warm + self.steps:
            self.end = self.now()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.tick()

    @property
    def seconds_per_step(self) -> float:
        return (self.end - self.start) / self.steps


class Screen(io.StringIO):
    """A terminal for progress bars to draw on: nothing is shown, everything is drawn."""

    def isatty(self) -> bool:
        return True


def reslight_fit(work: Work, **trainer: Any) -> float:
    """Seconds per step of `reslight_trainer`."""
    return seconds_per_step(reslight_trainer(work, **trainer))


def reslight_trainer(work: Work, model: Mapping[str, Any] | None = None, **trainer: Any) -> Trainer:
    """Run `reslight fit` as it is typed, with its progress bar, its logger and its checkpoints; return its trainer.

    Args:
        work: What to do.
        model: Settings of the model beside its network.
        trainer: Settings of the trainer that differ from `reslight fit`'s own.
    """
    timed = {"warm": work.warm, "steps": work.steps, "cpu_time": work.cpu_time}
    with _in_own_folder() as folder:
        config = {
            "trainer": {
                "max_steps": work.warm + work.steps + 1,
                "precision": ALL_PRECISIONS[work.precision],
                "callbacks": [{"class_path": "loops.Clock", "init_args": timed}],
                **trainer,
            },
            "model": {"net": work.net.to_dict(), **(model or {})},
            "data": {
                "class_path": "images.RandomImages",
                "init_args": {"count": work.images, "size": work.size, "batch_size": work.batch_size, "pad": work.pad},
            },
        }
        path = folder / "bench.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return run(["fit", "--config", str(path)])


class Stock(LightningModule):
    """A classifier as tutorials write it: loss and accuracy logged at every step."""

    def __init__(self, net: ResNetConfig, *, is_logging: bool = True) -> None:
        super().__init__()
        self.net, self.is_logging = ResNet(net), is_logging
        self.accuracy = MulticlassAccuracy(net.num_classes, average="micro")

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        images, labels = batch[:2]
        logits = self.net(images)
        loss = F.cross_entropy(logits, labels)
        if self.is_logging:
            self.log("train/loss", loss, prog_bar=True)
            self.accuracy(logits, labels)
            self.log("train/acc", self.accuracy, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 120])}


def stock_fit(work: Work, data: "RandomImages | DataLoader[tuple[Tensor, int]]", **trainer: Any) -> float:
    """A default Trainer: progress bar, logger and checkpoints on. The bar is tqdm, as where rich is not installed."""
    with _in_own_folder():
        return _fit(work, Stock(work.net), data, callbacks=[TQDMProgressBar()], **trainer)


def empty_fit(work: Work, data: RandomImages) -> float:
    """What Lightning's loop costs by itself: nothing is logged, shown or kept."""
    with _in_own_folder():
        off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return _fit(work, Stock(work.net, is_logging=False), data, **off)


def bare_loop(
    work: Work,
    *,
    sums: bool,
    layout: torch.memory_format = torch.channels_last,
    compile: bool = False,
    optimizer: Mapping[str, Any] | None = None,
    first: list[float] | None = None,
    device: str | None = None,
) -> float:
    """The same work by hand, on the same data road.

    Args:
        work: What to do.
        sums: Count the epoch's loss and correct answers, too.
        layout: Memory format of images and weights.
        compile: Compile the network.
        optimizer: Settings of torch's SGD beside reslight's.
        first: Gets the seconds that the first step took: with `compile`, most of it is compiling.
        device: A GPU, if there is one, where nothing is said.
    """
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    data = work.data()
    data.setup("fit")
    net = ResNet(work.net).to(on).to(memory_format=layout).train()
    if compile:
        net.compile()
    groups = build_optimizer(OptimConfig(), net).param_groups
    stepper = torch.optim.SGD(
        [{key: group[key] for key in ("params", "weight_decay")} for group in groups], lr=0.1, momentum=0.9, **(optimizer or {})
    )
    batches, normalize = data.train_dataloader(), data.preprocess.normalizer(on)
    batches.split = batches.split.to(on)
    dtype = torch.float16 if work.precision == "fp16" else torch.bfloat16
    scaler = torch.amp.GradScaler(on.type, enabled=work.precision == "fp16")
    counted, clock = TrainingSums(), work.clock()
    begun = clock.now()
    for images, labels, indices in chain.from_iterable(repeat(batches)):
        inputs = normalize(data.augment(images, indices, seed=0, epoch=0), layout)
        with torch.autocast(on.type, dtype, enabled=work.precision != "fp32"):
            logits = net(inputs)
            loss = F.cross_entropy(logits, labels)
        stepper.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(stepper)
        scaler.update()
        if sums:
            counted.update(loss, is_correct(logits, labels))
        clock.tick()
        if first is not None and clock.done == 1:
            first.append(clock.now() - begun)
        if clock.end:
            break
    return clock.seconds_per_step


def tiny_net() -> ResNetConfig:
    """So small that a step is a fraction of a millisecond: what is left is what surrounds it."""
    return ResNetConfig(depths=(1,), widths=(4,), stem="small", stem_width=4, shortcut="A", num_classes=CLASSES)


def _fit(work: Work, model: Stock, data: "RandomImages | DataLoader[tuple[Tensor, int]]", **trainer: Any) -> float:
    callbacks = [work.clock(), *trainer.pop("callbacks", [])]
    settings = {"max_steps": work.warm + work.steps + 1, "max_epochs": -1, "precision": PRECISIONS[work.precision]}
    fitter = Trainer(**(settings | trainer), callbacks=callbacks)
    if isinstance(data, RandomImages):
        fitter.fit(model, datamodule=data)
    else:
        fitter.fit(model, data)
    return seconds_per_step(fitter)


def seconds_per_step(trainer: Trainer) -> float:
    """What the clock of a trainer has measured."""
    return next(callback.seconds_per_step for callback in trainer.callbacks if isinstance(callback, Clock))


def run_quietly(words: list[str]) -> Trainer:
    """Run a command of the Trainer in a folder that is removed afterwards, without its output."""
    with _in_own_folder():
        return run(words)


@contextlib.contextmanager
def _in_own_folder() -> Iterator[Path]:
    """What a run writes is thrown away, and what it says goes to a screen that nobody sees."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    screen = Screen()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(screen),
        contextlib.redirect_stderr(screen),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield Path(folder)
