"""Settings of a wrong type in Python, where no parser converts them: one line that names the setting."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import reslight
from reslight.data import Digits
from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.messages import UsageError
from reslight.training import ImageClassifier, OptimConfig, ScheduleConfig

PREPROCESS = reslight.Preprocess(size=8, mean=(0.0,), std=(1.0,))


def save(**about: Any) -> None:
    net = reslight.create_model("resnet8", num_classes=2, in_channels=1)
    reslight.save(net, "out", **{"preprocess": PREPROCESS} | about)


@pytest.mark.parametrize(
    ("make", "settings", "line"),
    [
        (OptimConfig, {"lr": "0.1"}, "model.optim.lr is '0.1': it must be a number."),
        (OptimConfig, {"weight_decay": None}, "model.optim.weight_decay is None: it must be a number."),
        (OptimConfig, {"betas": 0.9}, "model.optim.betas is 0.9: it must be a list of numbers."),
        (OptimConfig, {"options": "x"}, "model.optim.options is 'x': it must be a mapping, such as {'momentum': 0.9}."),
        (OptimConfig, {"name": 3}, "model.optim.name is 3: it must be a name, such as sgd or torch.optim.Adam."),
        (ScheduleConfig, {"warmup": "1"}, "model.schedule.warmup is '1': it must be a number."),
        (ScheduleConfig, {"milestones": ("1",)}, "model.schedule.milestones is '1': it must be a number."),
        (ScheduleConfig, {"milestones": 5}, "model.schedule.milestones is 5: it must be a list of numbers."),
        (ScheduleConfig, {"warmup_until_error": "1"}, "model.schedule.warmup_until_error is '1': it must be a number."),
        (ImageClassifier, {"net": "resnet8", "ema": "1"}, "model.ema is '1': it must be a number."),
        (ImageClassifier, {"net": "resnet8", "label_smoothing": "1"}, "model.label_smoothing is '1': it must be a number."),
        (ImageClassifier, {"net": "resnet8", "teacher_weight": "1"}, "model.teacher_weight is '1': it must be a number."),
        (Digits, {"batch_size": "64"}, "data.batch_size is '64': it must be a whole number."),
        (Digits, {"batch_size": 64.5}, "data.batch_size is 64.5: it must be a whole number."),
        (Digits, {"val_size": "x"}, "data.val_size is 'x': it must be a whole number."),
        (Mix, {"mixup": "1"}, "data.mix.mixup is '1': it must be a number."),
        (Augment, {"pad": "1"}, "data.augment.pad is '1': it must be a number."),
        (save, {"metrics": "x"}, "metrics is 'x': it must be a list of reslight.weights.EvalResult."),
        (save, {"labels": "ab"}, "labels is 'ab': it must be a list, with a name for each class."),
        (save, {"labels": ["a", "a"]}, "labels has a more than once: each class must have a name of its own."),
    ],
)
def test_a_wrong_type_is_one_line(make: Callable[..., Any], settings: dict[str, Any], line: str):
    with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
        make(**settings)


def test_numbers_of_numpy_are_numbers():
    assert OptimConfig(lr=np.float32(0.5), betas=np.array([0.5, 0.75])).betas == (0.5, 0.75)
    assert Digits(batch_size=np.int64(32)).batch_size == 32
