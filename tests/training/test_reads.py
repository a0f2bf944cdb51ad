"""What makes the host wait for a GPU: values that are read from tensors. A step reads none beyond those that are documented."""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.overrides import TorchFunctionMode

from reslight.data import Augment, Mix, Synthetic, SyntheticImages
from reslight.data.augment import mixup
from reslight.metrics import Evaluator, TrainingSums
from reslight.preprocess import Preprocess
from reslight.training import Checkpoints, ImageClassifier, Progress
from reslight.training.loss import is_correct, training_loss
from reslight.training.warmup import ErrorWarmup

TINY = {"depths": [1, 1], "widths": [4, 8], "stem": "small", "stem_width": 4, "drop_path": 0.1}
READS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "nonzero"}
NOT_OF_A_DEVICE = ("torch/optim/adam.py", "torch/optim/optimizer.py")
"""Optimizers of torch keep their counts of steps on the CPU."""


class Reads(TorchFunctionMode):
    """Counts the values that are read from tensors, by the file that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in READS:
            frame = sys._getframe(1)
            file = Path(frame.f_code.co_filename)
            if not any(part in file.as_posix() for part in NOT_OF_A_DEVICE):
                self.counts[f"{file.name} {frame.f_code.co_name} {name}"] += 1
        return func(*args, **(kwargs or {}))


def reads_of(steps: int, **settings: Any) -> Counter[str]:
    torch.manual_seed(0)
    model = ImageClassifier(TINY, num_classes=10, **settings)
    data = Synthetic(
        SyntheticImages(size=8, train_size=256, test_size=8),
        batch_size=16,
        val_size=0,
        seed=0,
        augment=Augment(pad=1, flip="random", cutout=2, random_erasing=0.5, pca=0.1),
        mix=Mix(mixup=0.2, cutmix=1.0),
    )
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_model_summary": False, "log_every_n_steps": 1000}
    trainer = Trainer(**quiet, max_steps=steps, callbacks=[Checkpoints(), Progress()])
    with Reads() as reads:
        trainer.fit(model, data)
    return reads.counts


@pytest.mark.parametrize(
    "settings",
    [{}, {"ema": 0.9}, {"optim": {"name": "adamw"}}, {"optim": {"name": "lamb"}}, {"optim": {"name": "muon"}}],
    ids=str,
)
def test_a_step_reads_the_loss_on_a_cpu_and_nothing_else(settings):
    more = reads_of(12, **settings) - reads_of(4, **settings)
    assert more == {"classifier.py training_step __float__": 8}, "which it does where the loss is on a CPU"


def test_the_count_sees_each_kind_of_read():
    value = torch.ones(())
    with Reads() as reads:
        _ = value.item(), value.tolist(), bool(value), float(value), int(value), range(int(value)), value.cpu(), value.numpy()
    assert reads.counts.total() == 8


@pytest.fixture
def fake_gpu():
    """Tensors on `cuda`, which have shapes and devices and no values: reading one is an error."""
    mixup._probabilities.cache_clear()
    with FakeTensorMode():
        yield torch.device("cuda", 0)
    mixup._probabilities.cache_clear()


def batch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images = torch.zeros(16, 3, 8, 8, dtype=torch.uint8, device=device)
    return images, torch.zeros(16, dtype=torch.int64, device=device), torch.arange(16, device=device)


def test_a_value_of_the_fake_gpu_cannot_be_read(fake_gpu):
    with pytest.raises(DataDependentOutputException):
        float(torch.ones((), device=fake_gpu))


def test_input_loss_and_sums_stay_on_the_gpu(fake_gpu):
    images, labels, indices = batch(fake_gpu)
    augment = Augment(pad=1, flip="random", cutout=2, random_erasing=0.5, pca=0.1)
    normalize = Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3).normalizer(fake_gpu)
    for layout in (torch.contiguous_format, torch.channels_last):
        inputs = normalize(augment(images.contiguous(memory_format=layout), indices, seed=1, epoch=2), torch.channels_last)
        mixed, mixed_labels = Mix(mixup=0.2, cutmix=1.0)(inputs, labels, indices, num_classes=10, seed=1, epoch=2)
    logits = mixed.mean(dim=(2, 3)).repeat(1, 4)[:, :10]
    sums, warmup = TrainingSums(), ErrorWarmup(0.8)
    for target in (labels, mixed_labels):
        loss = training_loss(logits, target, "cross_entropy", 0.1)
        correct = is_correct(logits, target)
        sums.update(loss, correct)
        warmup.update(correct)
    assert loss.device == fake_gpu
    assert sums._loss.device == sums._correct.device == warmup._correct.device == fake_gpu


@pytest.mark.parametrize("details", [False, True])
def test_an_evaluation_stays_on_the_gpu(fake_gpu, details):
    evaluator = Evaluator(10, fake_gpu, details=details)
    evaluator.update(torch.zeros(16, 10, device=fake_gpu), torch.zeros(16, dtype=torch.int64, device=fake_gpu))


def test_a_signal_is_shared_without_the_gpu(monkeypatch):
    """Processes tell each other about signals in each step: by a group of CPUs, so that no device is waited for."""
    shared: list[Any] = []
    monkeypatch.setattr("torch.distributed.new_group", lambda backend: f"group of {backend}")
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value, op, group: shared.append((value.device.type, group)))
    checkpoints = Checkpoints()
    monkeypatch.setattr(checkpoints, "_listen", lambda trainer: None)
    trainer: Any = SimpleNamespace(
        world_size=2,
        global_step=0,
        is_global_zero=True,
        log_dir=".",
        strategy=SimpleNamespace(root_device=torch.device("cuda", 0), broadcast=lambda value: value),
    )
    checkpoints.on_train_start(trainer, None)  # type: ignore[arg-type]
    assert checkpoints._received_by_any(trainer) == 0
    assert shared == [("cpu", "group of gloo")]
