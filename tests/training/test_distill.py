"""Distillation against sums by hand; the teacher is neither trained nor saved, and sees the student's images in its own way."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tests.nets import scrambled
from tests.training.test_batches import pairs
from tests.training.test_classifier import TINY, tiny_data, tiny_model, trainer

import reslight
from reslight import Preprocess, UsageError
from reslight.models import ResNetConfig
from reslight.training import ImageClassifier
from reslight.training.distill import distillation_loss, load_teacher

CONFIG = ResNetConfig.from_dict(tiny_model().config.to_dict())
OTHER_WAY = Preprocess(size=8, mean=(0.1, 0.2, 0.3), std=(0.3, 0.4, 0.5))


def teacher(folder: Path, *, preprocess: Preprocess = OTHER_WAY, labels: list[str] | None = None, **settings: Any) -> reslight.ResNet:
    """A network that is larger than the student, saved in a folder."""
    torch.manual_seed(1)
    net = ImageClassifier(TINY | {"widths": [8, 16]}, **{"num_classes": 10} | settings).net
    with torch.no_grad():
        net.fc.weight.mul_(20)  # a new network's predictions are nearly uniform
    net.labels = None if labels is None else tuple(labels)  # as of another library's folder: save() refuses equal labels
    reslight.save(scrambled(net), folder, preprocess=preprocess)
    return net


class Batches(Callback):
    """Notes the batches, as the network gets them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch)


def softened(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    powers = torch.exp(logits.double() / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def by_hand(logits: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """The paper's loss from its definition."""
    q, p = softened(logits, temperature), softened(theirs, temperature)
    return temperature**2 * (p * (p / q).log()).sum() / len(logits)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_loss_and_its_gradient_equal_those_by_hand(temperature):
    logits, theirs = torch.randn(6, 5, dtype=torch.float64, requires_grad=True), 3 * torch.randn(6, 5, dtype=torch.float64)
    loss = distillation_loss(logits, theirs, temperature)
    loss.backward()
    torch.testing.assert_close(loss, by_hand(logits, theirs, temperature))
    torch.testing.assert_close(logits.grad, temperature * (softened(logits, temperature) - softened(theirs, temperature)).detach() / 6)
    assert float(distillation_loss(theirs, theirs, temperature)) == pytest.approx(0, abs=1e-12)
    assert distillation_loss(logits.bfloat16(), theirs.bfloat16(), temperature).dtype == torch.float32


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_a_run_equals_a_loop_by_hand(tmp_path, loss):
    net = teacher(tmp_path / "t")  # with other pixel statistics than the data
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model, student = tiny_model(loss=loss, teacher=str(tmp_path / "t"), teacher_weight=0.7, teacher_temperature=3.0), tiny_model().net
    data = tiny_data(batch_size=32)
    trainer(callbacks=[batches := Batches()], limit_val_batches=0).fit(model, data)
    assert len(batches.seen) == 2
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    pixel_mean, pixel_std = (torch.tensor(getattr(data.preprocess, name)).view(-1, 1, 1) for name in ("mean", "std"))
    for images, labels, _ in batches.seen:
        pixels = images * pixel_std + pixel_mean
        with torch.no_grad():
            theirs = net((pixels - torch.tensor(OTHER_WAY.mean).view(-1, 1, 1)) / torch.tensor(OTHER_WAY.std).view(-1, 1, 1))
        logits = student.train()(images)
        if loss == "bce":
            task = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.nn.functional.one_hot(labels, 10).float())
        else:
            task = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        (0.3 * task + 0.7 * by_hand(logits, theirs, 3.0)).backward()
        optimizer.step()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(model.net.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert not all(torch.equal(value, tiny_model().net.state_dict()[name]) for name, value in model.net.state_dict().items())
    used = model._teacher.net
    assert not used.training
    assert all(torch.equal(value, before[name]) for name, value in used.state_dict().items()), "running statistics, too"
    assert all(parameter.grad is None for parameter in used.parameters())


def test_the_teacher_is_in_no_checkpoint_and_evaluation_needs_none(tmp_path):
    teacher(tmp_path / "t")
    model, run = tiny_model(teacher=str(tmp_path / "t"), ema=0.9), trainer(max_epochs=2)
    run.fit(model, tiny_data())
    run.save_checkpoint("a.ckpt")
    names = torch.load("a.ckpt", weights_only=True)["state_dict"].keys()
    assert names == {f"net.{name}" for name in model.net.state_dict()} == model.state_dict().keys()
    assert len(list(model.parameters())) == len(list(model.net.parameters()))
    for path in (tmp_path / "t").iterdir():
        path.unlink()
    (tmp_path / "t").rmdir()
    again = ImageClassifier.load_from_checkpoint("a.ckpt", weights_only=True)
    assert again.hparams["teacher"] == str(tmp_path / "t")
    trainer().test(again, tiny_data(), verbose=False)
    with pytest.raises(UsageError, match=r"model\.teacher is .*t: there is no .* Training needs it at the start and at each resume"):
        trainer(max_epochs=3).fit(again, tiny_data(), ckpt_path="a.ckpt", weights_only=True)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    teacher(tmp_path / "t")

    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    whole, part = (tiny_model(teacher=str(tmp_path / "t")) for _ in range(2))
    trainer(max_epochs=2, callbacks=Save()).fit(whole, tiny_data())
    trainer(max_epochs=2).fit(part, tiny_data(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert all(torch.equal(value, part.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("precision", "close"), [("64-true", 1e-4), ("bf16-mixed", 0.05), ("bf16-true", 0.05)])
def test_other_precisions_and_layouts(tmp_path, precision, close, channels_last):
    teacher(tmp_path / "t")
    losses = []
    for settings in ({"precision": "32-true"}, {"precision": precision}):
        model = tiny_model(teacher=str(tmp_path / "t"), channels_last=channels_last)
        trainer(max_steps=2, limit_val_batches=0, **settings).fit(model, tiny_data())
        losses.append(model.recorded["train/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=close)
    weight = model._teacher.net.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


LABELS = [f"class {number}" for number in range(10)]
INFO = {"preprocess": OTHER_WAY.to_dict(), "labels": LABELS, "image_size": 8}


def test_classes_are_matched_by_name(tmp_path):
    more = ["cat", *reversed(LABELS), "dog"]
    net = teacher(tmp_path / "t", labels=more, num_classes=12)
    images = torch.randn(3, 3, 8, 8)
    found = load_teacher(str(tmp_path / "t"), CONFIG, INFO).logits(images)
    torch.testing.assert_close(found, net(images)[:, [more.index(label) for label in LABELS]])
    with pytest.raises(UsageError, match=r"does not know the classes bird\. Choose a teacher of all classes"):
        load_teacher(str(tmp_path / "t"), CONFIG, INFO | {"labels": [*LABELS[:9], "bird"]})


def test_classes_are_matched_by_number_where_no_name_is_shared(tmp_path, caplog):
    net = teacher(tmp_path / "t", labels=[str(number) for number in range(10)])
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(load_teacher(str(tmp_path / "t"), CONFIG, INFO).logits(images), net(images))
    assert "its classes have other names than the data's; they are matched by number" in caplog.text


def test_loaders_without_information_and_the_cost(tmp_path, caplog):
    teacher(tmp_path / "t")
    model = tiny_model(teacher=str(tmp_path / "t"))
    with caplog.at_level(logging.INFO, "reslight"):
        trainer().fit(model, pairs())
    assert "it gets images as they are, since the loaders do not say how they are normalized" in caplog.text
    assert "1.9 million multiply-adds an image, 3 times the network's; a step costs about 2 times as much" in caplog.text


REFUSED = [
    ({"in_channels": 1, "preprocess": Preprocess(8, (0.5,), (0.5,))}, r"it takes images with 1 channel, and the data have 3"),
    ({"preprocess": Preprocess(17, (0.5,) * 3, (0.5,) * 3)}, r"it was trained for 17 pixels, and the data have 8: .* at most 2 times"),
    (
        {"preprocess": Preprocess(9, (0.5,) * 243, (0.5,) * 3)},
        r"it was trained for 9 pixels, and .* 8: they must be the same size",
    ),
    ({"num_classes": 12}, r"it has 12 classes, and the data have 10"),
    ({"num_classes": 12, "labels": [*LABELS, "class 1", "x"]}, r"it has several classes called class 1"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_a_teacher_of_other_data_is_refused(tmp_path, settings, message):
    teacher(tmp_path / "t", **settings)
    with pytest.raises(UsageError, match=rf"^model\.teacher is .*t: {message}"):
        load_teacher(str(tmp_path / "t"), CONFIG, INFO)


def test_a_teacher_of_half_the_size_is_taken(tmp_path):
    teacher(tmp_path / "t", preprocess=Preprocess(16, (0.5,) * 3, (0.5,) * 3))
    assert load_teacher(str(tmp_path / "t"), CONFIG, INFO).logits(torch.randn(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("name", "value"), [("weight", 0.0), ("weight", 1.5), ("temperature", 0.0), ("temperature", math.inf)])
def test_settings_out_of_range(name, value):
    with pytest.raises(UsageError, match=rf"model\.teacher_{name} is {value}: it must be above 0"):
        tiny_model(**{f"teacher_{name}": value})
