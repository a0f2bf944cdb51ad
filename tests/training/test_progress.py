"""Progress: the images per second of anyone's data, by a clock that ticks once for each batch."""

import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from tests.training.test_classifier import tiny_data, tiny_model, trainer
from torch.utils.data import DataLoader, TensorDataset

from reslight.training import Progress, progress
from reslight.training.batches import images_in

IMAGES, LABELS = torch.zeros(50, 3, 8, 8), torch.arange(50) % 10


class Own(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16)


class OwnModule(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch["image"]).mean()

    def train_dataloader(self):
        return DataLoader([{"name": "a", "image": torch.zeros(8)}] * 21, batch_size=3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("module", "data", "settings", "speed"),
    [
        (tiny_model, Own, {}, "12 images/s"),  # 50 images in 4 batches
        (tiny_model, tiny_data, {"limit_val_batches": 0}, "16 images/s"),  # 64 images in 4 batches
        (tiny_model, tiny_data, {"limit_val_batches": 0, "accumulate_grad_batches": 2}, "8 images/s"),
        (OwnModule, lambda: None, {}, "3 images/s"),
    ],
)
def test_images_per_second(monkeypatch, capsys, module, data, settings, speed):
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    bar = {"enable_progress_bar": True, "callbacks": [Progress()]}
    trainer(**settings | bar).fit(module(), datamodule=data())
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r"\S+ images/s", line)[0] for line in lines if "images/s" in line] == [speed]


def test_images_of_batches_of_any_form():
    assert images_in((IMAGES, LABELS)) == images_in({"path": ["a"], "image": IMAGES}) == images_in([[IMAGES], None]) == 50
    assert images_in(torch.tensor(1.0)) == 1
    assert images_in(["a"]) == images_in(None) == images_in({}) == 0
