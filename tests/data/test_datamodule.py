"""The data module by itself: settings, splits, what it tells others, and what it refuses."""

import json
import logging
import pickle

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from tests.data.test_trainer import make_trainer
from torch import nn

from reslight.data import CIFAR, Augment, Batch, Digits, Mix, Split, Synthetic, SyntheticImages
from reslight.data.augment.augment import flip
from reslight.data.augment.views import Views
from reslight.messages import UsageError
from reslight.preprocess import Preprocess, network_format

SMALL = SyntheticImages(size=8, in_channels=3, num_classes=4, train_size=100, test_size=30)


def small(**settings):
    return Synthetic(SMALL, **({"batch_size": 20, "val_size": 20} | settings))


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("fit", {"train", "val"}),
        ("validate", {"train", "val"}),
        ("test", {"test"}),
        ("predict", {"test"}),
        (None, {"train", "val", "test"}),
    ],
)
def test_a_stage_loads_what_it_needs(stage, parts):
    data = small()
    assert data.splits == {}
    data.setup(stage)
    assert set(data.splits) == parts


def test_setup_again_keeps_what_is_loaded(monkeypatch):
    data = small()
    data.setup()
    before = data.splits
    monkeypatch.setattr(Synthetic, "load_split", lambda *_: pytest.fail("loaded again"))
    for stage in ("fit", "validate", "test", "predict", None):
        data.setup(stage)
    assert all(data.splits[part] is split for part, split in before.items())


def test_validation_images_are_the_same_in_every_run():
    one, other = small(seed=1), small(seed=2)
    one.setup("fit")
    other.setup("validate")
    assert one.splits["val"].fingerprint == other.splits["val"].fingerprint
    assert one.splits["val"].labels.bincount().tolist() == [5] * 4
    whole = small(val_size=0)
    whole.setup("fit")
    assert set(whole.splits) == {"train"}
    parts = torch.cat([one.splits["train"].keys, one.splits["val"].keys])
    assert torch.equal(parts.unique(dim=0), whole.splits["train"].keys.unique(dim=0))


def test_data_info_is_plain_json():
    data = small(augment=Augment(pad=2, fill=(1, 2, 3)), seed=5)
    assert data.data_info()["splits"] == {}
    data.setup("fit")
    description = data.data_info()
    assert json.loads(json.dumps(description)) == description
    assert description["splits"] == {
        part: {"size": size, "fingerprint": data.splits[part].fingerprint} for part, size in (("train", 80), ("val", 20))
    }
    assert Preprocess.from_dict(description["preprocess"]) == data.preprocess
    assert description["augment"] | {"pad": 2, "pad_mode": "constant", "fill": [1, 2, 3], "flip": "none"} == description["augment"]
    assert (description["mix"]["mixup"], description["mix"]["until_epoch"], description["repeated_augmentation"]) == (0.0, None, 1)
    assert {key: description[key] for key in ("name", "num_classes", "in_channels", "image_size", "labels", "seed")} == {
        "name": "synthetic",
        "num_classes": 4,
        "in_channels": 3,
        "image_size": 8,
        "labels": ["class 0", "class 1", "class 2", "class 3"],
        "seed": 5,
    }


class Unbalanced(Synthetic):
    """80 images of class 0 and 4 to 16 of the others."""

    def load_split(self, split):
        whole = super().load_split(split)
        rows = [(whole.labels == label).nonzero().flatten()[:count] for label, count in enumerate((80, 4, 8, 16))]
        return whole.subset(torch.cat(rows).sort().values) if split == "train" else whole


def unbalanced(**settings):
    return Unbalanced(SyntheticImages(size=8, num_classes=4, train_size=400, test_size=30), **{"batch_size": 20, "val_size": 0} | settings)


def test_class_weights_are_in_the_information_about_the_data():
    data = unbalanced(class_weights="balanced")
    assert data.data_info()["class_weights"] == "balanced", "the training images are not loaded"
    data.setup("fit")
    assert data.data_info()["class_weights"] == pytest.approx([108 / 4 / count for count in (80, 4, 8, 16)], rel=1e-5)
    assert unbalanced(class_weights={"class 1": 3}).data_info()["class_weights"] == [1, 3, 1, 1]
    assert unbalanced().data_info()["class_weights"] == "none"
    assert unbalanced(sampling="balanced").data_info()["sampling"] == "balanced"
    with pytest.raises(UsageError, match=r"data.sampling is even: it must be uniform or balanced. Use uniform, the default\."):
        unbalanced(sampling="even")
    with pytest.raises(UsageError, match=r"data.class_weights has the class class 9: the dataset has no such class\. Did you mean class"):
        unbalanced(class_weights={"class 9": 3})


def test_imbalance_is_reported_when_training_starts(caplog):
    caplog.set_level(logging.INFO, "reslight")
    text = "training images of a class: 4 (class 1) to 80 (class 0)"
    for settings, says in (
        ({}, f"{text}. To train for all classes equally, set data.class_weights or data.sampling to balanced."),
        ({"sampling": "balanced"}, text),
        ({"class_weights": {"class 1": 2.0}}, text),
    ):
        data = unbalanced(**settings)
        data.setup("fit")
        caplog.clear()
        data.train_dataloader()
        assert [record.getMessage() for record in caplog.records] == [says]
    caplog.clear()
    even = small()
    even.setup("fit")
    even.train_dataloader()
    assert not caplog.records


def test_a_balanced_epoch_has_as_many_images_of_every_class():
    data = unbalanced(sampling="balanced", seed=5)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert torch.cat([batch.labels for batch in batches]).bincount().tolist() == [25] * 4
    assert all(torch.equal(batch.labels, data.splits["train"].labels[batch.indices % 108]) for batch in batches)


def test_seed_is_the_runs_unless_given(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert small().seed == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert small().seed == 17
    assert small(seed=0).seed == 0


def test_without_a_trainer_the_loaders_show_epoch_0():
    data = small()
    data.setup()
    assert str(data.batch_plan) == "batch 20 = 1 device x 1 accumulation step x 20"
    train = list(data.train_dataloader())
    assert [len(batch.indices) for batch in train] == [20] * 4
    for loader, size in ((data.val_dataloader(), 20), (data.test_dataloader(), 30), (data.predict_dataloader(), 30)):
        assert torch.equal(torch.cat([batch.indices for batch in loader]), torch.arange(size))
    finished = data.on_after_batch_transfer(train[0], 0)
    assert torch.equal(finished.images, data.preprocess(train[0].images))


class Keeper(LightningModule):
    """Keeps its batches."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4)
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, _):
        self.seen["train"].append(batch)
        return nn.functional.cross_entropy(self.net(batch[0].mean((2, 3))), batch[1])

    def validation_step(self, batch, _):
        self.seen["val"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_training_images_are_augmented_then_normalised_then_mixed():
    data = small(seed=3, mix=Mix(mixup=1.0, cutmix=1.0, until_epoch=2), augment=Augment(pad=1, flip="random"))
    module = Keeper()
    make_trainer(max_epochs=3).fit(module, data)
    images, classes = data.splits["train"].images, data.splits["train"].labels
    assert len(module.seen["train"]) == 12
    for step, (pixels, labels, indices) in enumerate(module.seen["train"]):
        expected = data.preprocess.normalize(data.augment(images[indices], indices, seed=3, epoch=step // 4))
        of_class = classes[indices]
        if step < 8:
            expected, of_class = data.mix(expected, of_class, indices, num_classes=4, seed=3, epoch=step // 4)
            assert ((labels > 0).sum(dim=1) == 2).any(), "images of two classes"
        assert torch.equal(pixels, expected), step
        assert labels.dtype == of_class.dtype
        assert torch.equal(labels, of_class), step
    validation = data.splits["val"]
    for pixels, labels, indices in module.seen["val"]:
        assert torch.equal(pixels, data.preprocess.normalize(validation.images[indices]))
        assert torch.equal(labels, validation.labels[indices])


def test_every_view_is_normalised():
    data = small()
    draw = torch.Generator().manual_seed(0)
    views = [
        Views(torch.randint(0, 256, (len(owners), 3, *shape), dtype=torch.uint8, generator=draw), torch.tensor(owners))
        for shape, owners in (((8, 8), [0, 0, 1]), ((8, 12), [1]))
    ]
    got = data.on_after_batch_transfer(Batch(views, torch.tensor([3, 1]), torch.tensor([5, 6])), 0)
    assert (got.labels.tolist(), got.indices.tolist()) == ([3, 1], [5, 6])
    for one, before in zip(got.images, views, strict=True):
        assert torch.equal(one.images, data.preprocess.normalize(before.images))
        assert torch.equal(one.owners, before.owners)
    nothing = torch.empty(0, dtype=torch.int64)
    assert data.on_after_batch_transfer(Batch([], nothing, nothing), 0).images == []


@pytest.mark.parametrize("shape", [(7, 3, 9, 5), (7, 1, 9, 5), (1, 3, 4, 4), (4, 3, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flips_of_a_batch_in_a_decoders_layout(shape, layout):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
    before = images.clone()
    for is_flipped in (
        torch.arange(len(images)) % 2,
        torch.zeros(len(images), dtype=torch.int64),
        torch.ones(len(images), dtype=torch.int64),
    ):
        got = flip(images, is_flipped)
        for mirrored, image, there in zip(is_flipped.tolist(), before, got, strict=True):
            assert torch.equal(there, torch.from_numpy(image.numpy()[..., ::-1].copy()) if mirrored else image)
        assert got.is_contiguous(memory_format=layout)
        got.fill_(9)
        assert torch.equal(images, before), "a copy"


def test_eval_batch_size():
    data = small(eval_batch_size=7)
    data.setup("test")
    assert [len(batch.indices) for batch in data.test_dataloader()] == [7, 7, 7, 7, 2]


def test_small_set_is_one_batch_with_a_warning(caplog):
    data = small(batch_size=500)
    data.setup("fit")
    with caplog.at_level(logging.WARNING):
        loader = data.train_dataloader()
    assert [len(batch.indices) for batch in loader] == [80]
    assert "batch_size is 500, but there are only 80 training images: each epoch is one batch of 80" in caplog.text


def test_is_picklable():
    data = small(val_size=0)
    data.setup("fit")
    again = pickle.loads(pickle.dumps(data))
    assert again.data_info() == data.data_info()
    assert torch.equal(next(iter(again.train_dataloader())).images, next(iter(data.train_dataloader())).images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"data.batch_size is 0: .*1 or more"),
        ({"eval_batch_size": 0}, r"data.eval_batch_size is 0: .*1 or more"),
        ({"val_size": -1}, r"data.val_size is -1: .*0 or more"),
        ({"augment": Augment(pad=8, pad_mode="reflect")}, "augment.pad is 8"),
        ({"seed": -1}, r"data.seed is -1: .*0 or more"),
        ({"augment": Augment(fill=(1, 2))}, r"augment.fill is \(1, 2\): .*1 value, or 3"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_bad_val_size_for_the_stage():
    with pytest.raises(ValueError, match=r"data.val_size is 100: .*below 100"):
        small(val_size=100).setup("fit")
    with pytest.raises(ValueError, match=r"data.val_size is 0: .*no images to validate on"):
        small(val_size=0).setup("validate")
    with pytest.raises(ValueError, match=r"the train split is not loaded: call setup"):
        small().train_dataloader()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(3, 3, 8, 9), [0, 1, 2], r"synthetic has images of shape \(3, 8, 9\): .*\(3, 8, 8\)"),
        (torch.zeros(3, 3, 8, 8), [0, 1, 4], "synthetic has labels from 0 to 4: .*0 to 3"),
        (torch.zeros(3, 3, 8, 8), [-1, 1, 2], "synthetic has labels from -1 to 2"),
        (torch.zeros(0, 3, 8, 8), [], "synthetic has a split without images"),
        (torch.zeros(2, 3, 8, 8), [[0, 1, 0, 0], [1, 0, 0, 1]], "synthetic has several labels for an image: its multi_label must be True"),
    ],
)
def test_a_set_that_is_not_as_announced(monkeypatch, images, labels, message):
    keys = torch.zeros(len(labels), 32, dtype=torch.uint8)
    split = Split(images.to(torch.uint8), torch.tensor(labels, dtype=torch.int64), keys)
    monkeypatch.setattr(Synthetic, "load_split", lambda *_: split)
    with pytest.raises(ValueError, match=message):
        small().setup("test")


def conv(*shape):
    return nn.Conv2d(*shape, bias=False)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Identity(), (torch.float32, torch.contiguous_format)),
        (nn.Linear(2, 2).double(), (torch.float64, torch.contiguous_format)),
        (conv(3, 4, 3).bfloat16(), (torch.bfloat16, torch.contiguous_format)),
        (conv(3, 4, 3).to(memory_format=torch.channels_last), (torch.float32, torch.channels_last)),
        # a first convolution of grey images looks like both
        (
            nn.Sequential(conv(1, 4, 3), conv(4, 4, 1), conv(4, 4, 3)).to(memory_format=torch.channels_last),
            (torch.float32, torch.channels_last),
        ),
        (nn.Sequential(conv(1, 4, 3), conv(4, 4, 1), conv(4, 4, 3)), (torch.float32, torch.contiguous_format)),
    ],
)
def test_network_format(module, expected):
    assert network_format(module) == expected


def settings_of(dataset):
    parser = ArgumentParser()
    parser.add_class_arguments(dataset, "data")
    return parser, parser.get_defaults().data


def test_the_command_line_finds_the_settings_that_a_dataset_does_not_name():
    common = {"batch_size", "eval_batch_size", "val_size", "seed", "augment", "mix", "class_weights", "sampling"}
    for dataset, own in (
        (Digits, set()),
        (Synthetic, {"images"}),
        (CIFAR, {"name", "root", "normalize", "allow_modified"}),
    ):
        parser, defaults = settings_of(dataset)
        assert set(vars(defaults)) == common | own, dataset
        assert "Seed of the order and the augmentation" in " ".join(parser.format_help().split())
    assert (defaults.batch_size, defaults.eval_batch_size, defaults.val_size, defaults.augment.pad) == (128, 1000, 5000, 4)
    assert (settings_of(Digits)[1].val_size, settings_of(Digits)[1].augment.pad) == (180, 1)


def test_a_setting_that_does_not_exist_is_a_type_error():
    with pytest.raises(TypeError, match="repeats"):
        Digits(repeats=2)


def test_construction_reads_nothing(monkeypatch):
    monkeypatch.setattr("reslight.data.digits._read", lambda: pytest.fail("read"))
    assert Digits().num_classes == 10
