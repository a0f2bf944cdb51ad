"""Batches of other people's loaders: pairs, mappings, float images as they come; anything else is refused in one line."""

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from tests.training.test_classifier import TINY, tiny_model, trainer
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from reslight.messages import UsageError
from reslight.training import ImageClassifier
from reslight.training.batches import checked_images, checked_labels, parts_of

IMAGES = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 10


class Mappings(Dataset):
    def __len__(self):
        return 50

    def __getitem__(self, number):
        return {"img": IMAGES[number], "label": int(LABELS[number])}


def pairs(images=IMAGES, labels=LABELS, **settings: Any) -> DataLoader:
    return DataLoader(TensorDataset(images, labels), **{"batch_size": 16} | settings)


LOADERS = {
    "pairs": pairs,
    "int32": lambda: pairs(labels=LABELS.int()),
    "float64 images": lambda: pairs(IMAGES.double()),
    "mappings": lambda: DataLoader(Mappings(), batch_size=16),
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS.keys())
def test_fit_validate_test_and_predict_with_any_loader(loader):
    model, run = tiny_model(), trainer(max_epochs=2)
    run.fit(model, loader(), loader())
    assert run.global_step == 8
    assert {"train/loss", "train/acc1", "val/acc1"} <= model.recorded.keys()
    model.eval()
    with torch.no_grad():
        expected = model(IMAGES).softmax(dim=1)
    hits = int((expected.argmax(dim=1) == LABELS).sum())
    assert run.validate(model, loader(), verbose=False)[0]["val/acc1"] == pytest.approx(hits / 50)
    assert run.test(model, loader(), verbose=False)[0]["test/acc1"] == pytest.approx(hits / 50)
    indices, probabilities = (torch.cat(parts) for parts in zip(*run.predict(model, loader()), strict=True))
    assert indices.tolist() == list(range(50))
    torch.testing.assert_close(probabilities, expected)


def test_the_numbers_are_those_of_batches_with_indices():
    losses = []
    for tensors in ((IMAGES, LABELS), (IMAGES, LABELS, torch.arange(50))):
        model = tiny_model()
        trainer(max_epochs=2).fit(model, DataLoader(TensorDataset(*tensors), batch_size=16))
        losses.append(model.recorded["train/loss"])
    assert losses[0] == losses[1]


def test_torchvision_datasets_and_images_alone_for_predictions():
    data = DataLoader(FakeData(24, (3, 8, 8), 10, ToTensor()), batch_size=8)
    model, run = tiny_model(), trainer()
    run.fit(model, data, data)
    assert run.global_step == 3
    loaders = [DataLoader(TensorDataset(IMAGES), batch_size=20), DataLoader([{"image": image} for image in IMAGES], batch_size=20)]
    predictions = run.predict(model, [*loaders, DataLoader(IMAGES, batch_size=20), DataLoader(IMAGES[:5], batch_size=20)])
    of_lists, of_mappings, of_tensors = (torch.cat([part for _, part in one]) for one in predictions[:3])
    assert torch.equal(of_lists, of_tensors)
    assert torch.equal(of_mappings, of_tensors)
    assert [torch.cat([indices for indices, _ in one]).tolist() for one in predictions] == [list(range(50))] * 3 + [list(range(5))]


def test_probabilities_of_classes_in_training():
    soft = torch.nn.functional.one_hot(LABELS, 10).float()
    hard_model, soft_model = tiny_model(), tiny_model()
    trainer().fit(hard_model, pairs())
    trainer().fit(soft_model, pairs(labels=soft))
    assert soft_model.recorded["train/loss"] == pytest.approx(hard_model.recorded["train/loss"])


WRONG = [
    (lambda: pairs((IMAGES * 50).byte()), r"images are torch\.uint8: they must be floating point, and normalized"),
    (lambda: pairs(IMAGES[:, :1]), r"images have the shape \(16, 1, 8, 8\): the network takes \(N, 3, H, W\)"),
    (lambda: pairs(IMAGES.flatten(1)), r"images have the shape \(16, 192\)"),
    (lambda: pairs(labels=LABELS + 1), r"labels are from 1 to 10: they must be 0 to 9"),
    (lambda: pairs(labels=LABELS - 1), r"labels are from -1 to 8"),
    (lambda: pairs(labels=LABELS.float()), r"labels are torch\.float32 \(16,\) for 16 images: they must be class numbers \(N,\) or prob"),
    (lambda: pairs(labels=LABELS[:, None]), r"labels are torch\.int64 \(16, 1\) for 16 images"),
    (
        lambda: pairs(labels=torch.nn.functional.one_hot(LABELS, 10)),
        r"\(16, 10\) for 16 .* Use labels\.argmax\(1\) or labels\.float",
    ),
    (lambda: DataLoader(IMAGES, batch_size=16), r"a batch is a Tensor: it must be \(images, labels\)"),
    (lambda: DataLoader([{"x": 1, "labels": 2}]), r"a batch has the keys x, labels: it must be"),
    (lambda: {"a": pairs(), "b": pairs()}, r"a batch has the keys a, b: it must be"),
    (lambda: DataLoader(TensorDataset(IMAGES, LABELS, LABELS, LABELS)), r"a batch is a list of 4: it must be"),
]


@pytest.mark.parametrize(("loader", "message"), WRONG, ids=[message[:50] for _, message in WRONG])
def test_other_batches_are_refused_in_one_line(loader, message):
    model = tiny_model()
    with pytest.raises(UsageError, match=message) as error:
        trainer().fit(model, loader())
    assert "\n" not in str(error.value)


def test_evaluation_takes_no_probabilities():
    with pytest.raises(
        UsageError, match=r"labels are torch\.float32 \(16, 10\) .* must be class numbers \(N,\)\. Use labels\.argmax\(1\)\.$"
    ):
        trainer().validate(tiny_model(), pairs(labels=torch.nn.functional.one_hot(LABELS, 10).float()), verbose=False)


def test_collections_in_place_of_tensors_are_refused():
    with pytest.raises(UsageError, match="the images of a batch are a list: they must be a tensor"):
        checked_images([IMAGES[0]], 3, torch.float32)
    with pytest.raises(UsageError, match="the labels of a batch are a list: they must be a tensor"):
        checked_labels([1, 2], IMAGES[:2], 10, probabilities=False, reads=True)
    assert parts_of([IMAGES, LABELS]).indices is None


def test_on_a_device_labels_are_read_in_the_first_batch_only():
    module = tiny_model()
    stub = SimpleNamespace(multi_label=False, config=module.config, device=torch.device("cuda"), _checked_images=module._checked_images)
    batch = (IMAGES[:2], LABELS[:2] + 20)
    with pytest.raises(UsageError, match="labels are from 20 to 21"):
        ImageClassifier._checked(stub, batch, 0)
    assert ImageClassifier._checked(stub, batch, 1).labels.tolist() == [20, 21]


# -- data modules of users


class Own(LightningDataModule):
    """A data module without any information about itself."""

    def __init__(self, *validation: DataLoader) -> None:
        super().__init__()
        self.validation = validation

    def train_dataloader(self):
        return pairs()

    def test_dataloader(self):
        return pairs()


class WithValidation(Own):
    def val_dataloader(self):
        return list(self.validation)


def test_a_data_module_without_validation_or_information():
    model, run = tiny_model(), trainer()
    run.fit(model, datamodule=Own())
    assert run.global_step == 4
    assert "test/acc1" in run.test(model, datamodule=Own(), verbose=False)[0]


@pytest.mark.parametrize("sanity", [0, 2])
def test_several_validation_loaders_are_refused_in_one_line(sanity):
    trainer(num_sanity_val_steps=sanity).fit(tiny_model(), datamodule=WithValidation(pairs()))
    with pytest.raises(UsageError, match="there are 2 validation loaders: an ImageClassifier evaluates one"):
        trainer(num_sanity_val_steps=sanity).fit(tiny_model(), datamodule=WithValidation(pairs(), pairs()))
    with pytest.raises(UsageError, match="there are 2 test loaders"):
        trainer().test(tiny_model(), [pairs(), pairs()], verbose=False)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield IMAGES[0], int(LABELS[0])


def test_data_without_a_length_train_for_max_steps():
    model, run = tiny_model(), trainer(max_steps=5, max_epochs=-1)
    run.fit(model, DataLoader(Endless(), batch_size=4))
    assert run.global_step == 5


TWO_PROCESSES = """
    import logging, sys, torch
    from lightning.pytorch import Trainer
    from torch.utils.data import DataLoader, TensorDataset
    from reslight.training import ImageClassifier

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(51, 3, 8, 8), torch.arange(51) % 10), batch_size=8)
    model = ImageClassifier({net}, num_classes=10, schedule={{"name": "constant"}})
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(model, data, data)
    trainer.validate(model, data, verbose=False)
    indices = torch.cat([indices for indices, _ in trainer.predict(model, data)])
    torch.save(indices, f"indices.{{trainer.global_rank}}")
"""


@pytest.mark.nightly
@pytest.mark.slow
def test_two_processes_predict_every_image_once_and_warn_of_counts_once(tmp_path):
    Path("train.py").write_text(textwrap.dedent(TWO_PROCESSES.format(net=TINY)))
    result = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert sorted(torch.cat([torch.load(f"indices.{rank}") for rank in range(2)]).tolist()) == list(range(51))
    assert result.stderr.count("counts are not exact") == 1
