"""Settings that differ from those of the checkpoint that training resumes from, or that is evaluated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from tests.training.test_optimization import TINY, tiny_data, trainer

from reslight.messages import UsageError
from reslight.training import ImageClassifier, OptimConfig
from reslight.training.resume import changed_settings, check_resumable, compare_data_info

SAVED = {"optim": OptimConfig(lr=0.1), "ema": 0.9}


def model(**settings: Any) -> ImageClassifier:
    return ImageClassifier(**{"net": TINY, "num_classes": 10} | SAVED | settings)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume") / "a.ckpt"
    run = trainer(max_epochs=1)
    run.fit(model(), datamodule=tiny_data())
    run.save_checkpoint(path)
    return path


CHANGES = {
    "optimizer": ({"optim": OptimConfig("adamw")}, "model.optim.name is adamw: {} was trained with sgd, and a run cannot resume with "),
    "muon": ({"optim": OptimConfig("muon")}, "model.optim.name is muon: {} was trained with sgd"),
    "options": ({"optim": OptimConfig("torch.optim.SGD", lr=0.1)}, "model.optim.name is torch.optim.SGD: {} was trained with sgd"),
    "groups": ({"optim": OptimConfig(lr=0.1, decay_norms=True)}, "model.optim.decay_norms is True: {} was trained with False"),
    "backbone_lr": ({"optim": OptimConfig(lr=0.1, backbone_lr=0.5)}, "model.optim.backbone_lr is 0.5: {} was trained with 1.0"),
    "freeze": ({"freeze": "stem"}, "model.freeze is stem: {} was trained with None"),
    "no average": (
        {"ema": None},
        "model.ema is None: {} was trained with 0.9, and a run cannot resume with another average. Set",
    ),
    "average": ({"ema": 0.99}, "model.ema is 0.99: {} was trained with 0.9"),
    "net": (
        {"net": {**TINY, "depths": [1, 2]}},
        "{} holds another network: depths is [1, 1] there and [1, 2] here. Set model.net",
    ),
}


@pytest.mark.parametrize(("settings", "says"), CHANGES.values(), ids=CHANGES)
def test_a_resume_in_python_refuses_what_the_state_does_not_fit(checkpoint, settings, says):
    with pytest.raises(UsageError) as caught:
        trainer().fit(model(**settings), datamodule=tiny_data(), ckpt_path=checkpoint)
    assert str(caught.value).startswith(says.format(checkpoint))
    assert "\n" not in str(caught.value)


def test_other_settings_are_printed_and_win(checkpoint, caplog):
    run = trainer()
    run.fit(model(optim=OptimConfig(lr=0.05), label_smoothing=0.1), datamodule=tiny_data(), ckpt_path=checkpoint)
    lines = [record.getMessage() for record in caplog.records if " it was " in record.getMessage()]
    assert lines == [
        f"model.label_smoothing is 0.1: it was 0.0 in {checkpoint}.",
        f"model.optim.lr is 0.05: it was 0.1 in {checkpoint}.",
    ]
    assert run.optimizers[0].param_groups[0]["initial_lr"] == 0.05


def test_a_resume_compares_class_weights_and_sampling():
    now = {"name": "digits", "class_weights": [1.0, 4.0], "sampling": "balanced"}
    for saved in ({"class_weights": "none", "sampling": "uniform"}, {}):  # {}: a checkpoint of an earlier version
        lines = compare_data_info({"data": {"name": "digits"} | saved}, now, "32-true", resume=True)
        assert lines == [
            "data.class_weights is [1.0, 4.0]: it was none when the checkpoint was written.",
            "data.sampling is balanced: it was uniform when the checkpoint was written.",
        ]
    assert compare_data_info({"data": now}, now, "32-true", resume=True) == []
    assert compare_data_info({"data": {"name": "digits"}}, now, "32-true", resume=False) == []
    assert compare_data_info({}, now, "32-true", resume=True) == []


def test_an_evaluation_refuses_another_network_only(checkpoint):
    trainer().test(model(ema=None, optim=OptimConfig("adamw")), datamodule=tiny_data(), ckpt_path=checkpoint, verbose=False)
    with pytest.raises(UsageError, match="holds another network: widths is"):
        trainer().test(model(net={**TINY, "widths": [8, 8]}), datamodule=tiny_data(), ckpt_path=checkpoint, verbose=False)


def test_checkpoints_without_an_optimizer_or_a_network(checkpoint, tmp_path):
    contents = torch.load(checkpoint, weights_only=True)
    del contents["optimizer_states"], contents["lr_schedulers"]
    torch.save(contents, tmp_path / "weights.ckpt")
    with pytest.raises(UsageError, match=r"weights\.ckpt has weights only: a run cannot resume without the optimizer's state"):
        trainer().fit(model(), datamodule=tiny_data(), ckpt_path=tmp_path / "weights.ckpt")
    run = trainer(max_epochs=0)
    run.strategy.connect(LightningModule())
    run.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(UsageError, match=r"other\.ckpt is not a checkpoint of reslight"):
        trainer().fit(model(), datamodule=tiny_data(), ckpt_path=tmp_path / "other.ckpt")


def test_a_subclass_has_hyper_parameters_of_its_own(tmp_path, caplog):
    class Own(ImageClassifier):
        def __init__(self, weights: torch.Tensor, **settings: Any) -> None:
            super().__init__(TINY, num_classes=10, **settings)
            self.save_hyperparameters({"weights": weights})

    run = trainer(max_epochs=1)
    run.fit(Own(torch.ones(3)), datamodule=tiny_data())
    run.save_checkpoint(tmp_path / "own.ckpt")
    trainer().fit(Own(torch.zeros(3)), datamodule=tiny_data(), ckpt_path=tmp_path / "own.ckpt")
    assert " it was " not in caplog.text


def test_networks_are_told_from_their_training():
    there = {"net": {"depths": [1], "drop_path": 0.1}, "optim": {"name": "sgd", "lr": 0.1}, "ema": None}
    contents = {"hyper_parameters": there, "optimizer_states": []}
    here = {"net": {"depths": [1], "drop_path": 0.0}, "optim": {"name": "sgd", "lr": 0.2}, "ema": None}
    check_resumable("x", contents, here, resume=True)
    lines = ["model.net.drop_path is 0.0: it was 0.1 in x.", "model.optim.lr is 0.2: it was 0.1 in x."]
    assert changed_settings("x", contents, here) == lines
    with pytest.raises(UsageError, match=r"x holds another network: depths is \[1\] there and \[2\] here"):
        check_resumable("x", contents, {**here, "net": {"depths": [2], "drop_path": 0.1}}, resume=False)
