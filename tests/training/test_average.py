"""The average of the weights is Lightning's to the bit, in files too, and on the device of the network."""

import itertools

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from reslight.lightning_private import averaged_model
from reslight.training import ImageClassifier
from reslight.training.average import WeightAverage

TINY = {"depths": [1, 1], "widths": [4, 8], "stem": "small", "stem_width": 4}


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def train(model: ImageClassifier) -> None:
    """Change parameters and buffers, integers included, as a step does."""
    model.net(torch.randn(4, 3, 8, 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def values(model: AveragedModel) -> list[torch.Tensor]:
    return [*itertools.chain(model.module.parameters(), model.module.buffers()), model.n_averaged]


def test_the_average_is_that_of_torch_to_the_bit(trainer):
    model = ImageClassifier(TINY)
    expected = AveragedModel(model, use_buffers=True, avg_fn=get_ema_avg_fn(0.9))
    callback = WeightAverage(0.9, torch.device("cpu"))
    callback.setup(trainer, model, "fit")
    for _ in range(4):
        train(model)
        expected.update_parameters(model)
        averaged_model(callback).update_parameters(model)
        assert all(torch.equal(*pair) for pair in zip(values(averaged_model(callback)), values(expected), strict=True))
    assert int(expected.n_averaged) == 4


def test_after_a_restart_the_first_update_averages_and_does_not_copy(trainer):
    model = ImageClassifier(TINY)
    first, second = (WeightAverage(0.9, torch.device("cpu")) for _ in range(2))
    first.setup(trainer, model, "fit")
    second.setup(trainer, model, "fit")
    train(model)
    averaged_model(first).update_parameters(model)
    checkpoint = {"state_dict": model.state_dict()}
    first.on_save_checkpoint(trainer, model, checkpoint)
    second.on_load_checkpoint(trainer, model, checkpoint)
    train(model)
    for callback in (first, second):
        averaged_model(callback).update_parameters(model)
    assert all(torch.equal(*pair) for pair in zip(values(averaged_model(first)), values(averaged_model(second)), strict=True))


def test_files_name_lightnings_callback(trainer):
    assert WeightAverage(0.9, torch.device("cpu")).state_key == EMAWeightAveraging().state_key


def test_the_average_is_on_the_device_of_the_trainer(trainer):
    callback = WeightAverage(0.9, torch.device("meta"))  # any device but the one that the network is on so far
    callback.setup(trainer, ImageClassifier(TINY), "fit")
    assert {value.device.type for value in averaged_model(callback).module.parameters()} == {"meta"}
