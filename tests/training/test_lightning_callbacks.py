"""Lightning's callbacks with an ImageClassifier: each works, or is refused before the first step."""

import re
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)
from lightning.pytorch.tuner import Tuner
from tests.training.test_optimization import Groups, tiny_data, tiny_model, trainer

from reslight.messages import UsageError
from reslight.training import ImageClassifier, ScheduleConfig

CONSTANT = ScheduleConfig("constant")


class NoStep(Callback):
    def on_train_batch_start(self, *_):
        pytest.fail("a step was taken")


@pytest.mark.parametrize(
    ("callback", "settings", "says"),
    [
        (lambda: StochasticWeightAveraging(0.05), {}, r"has StochasticWeightAveraging: .* Set model\.ema"),
        (lambda: GradientAccumulationScheduler({1: 2}), {}, r"has GradientAccumulationScheduler: .* Set trainer\.accumulate_grad_batches"),
        (lambda: BackboneFinetuning(1), {}, r"has BackboneFinetuning: .* Set model\.init_from with model\.freeze"),
        (lambda: ModelPruning("l1_unstructured", amount=0.5), {"ema": 0.9}, r"has ModelPruning: .* Set model\.ema to null"),
        (lambda: ModelPruning("l1_unstructured", amount=0.5), {}, r"has ModelPruning: .* Set model\.channels_last to false"),
    ],
)
def test_callbacks_that_cannot_work_are_refused_before_the_first_step(callback, settings, says):
    with pytest.raises(UsageError, match=says) as caught:
        trainer(callback(), NoStep()).fit(tiny_model(**settings), datamodule=tiny_data())
    assert "\n" not in str(caught.value)


def test_pruned_weights_are_saved_and_evaluated(tmp_path):
    run = trainer(ModelPruning("l1_unstructured", amount=0.5), max_epochs=1)
    run.fit(model := tiny_model(channels_last=False), datamodule=tiny_data())
    run.save_checkpoint(tmp_path / "pruned.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "pruned.ckpt", weights_only=True)
    weights = torch.cat([p.flatten() for p in again.parameters() if p.ndim > 1])
    assert 0.4 < float((weights == 0).float().mean()) < 0.6
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_groups_that_a_finetuning_callback_adds_follow_the_schedule():
    class Unfreeze(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.net.layer1)

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.net.layer1, optimizer, initial_denom_lr=2)

    schedule = ScheduleConfig("multistep", milestones=(6,), gamma=0.5)
    trainer(Unfreeze(), groups := Groups()).fit(tiny_model(schedule=schedule), datamodule=tiny_data())
    assert groups.seen == [[(0.1,)] * 2] * 4 + [[(0.1,), (0.1,), (0.05,)]] * 2 + [[(0.05,), (0.05,), (0.025,)]] * 2


def test_a_subclass_with_a_backbone_is_finetuned():
    class Own(ImageClassifier):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.backbone = torch.nn.Sequential(self.net.conv1, self.net.layer1)

    model = tiny_model(Own, schedule=CONSTANT)
    start = model.net.conv1.weight.detach().clone()
    trainer(BackboneFinetuning(1, backbone_initial_lr=0.05), max_epochs=1).fit(model, datamodule=tiny_data())
    assert torch.equal(model.net.conv1.weight, start)
    trainer(BackboneFinetuning(1, backbone_initial_lr=0.05), max_epochs=2).fit(model, datamodule=tiny_data())
    assert not torch.equal(model.net.conv1.weight, start)


def test_a_batch_size_finder_says_what_it_found(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.tuner.batch_size_scaling.garbage_collection_cuda", lambda: None)  # takes half a second each
    caplog.set_level("INFO", "reslight")

    class Late(BatchSizeFinder):
        def on_fit_start(self, *_):
            return

    settings: dict[str, Any] = {"max_trials": 3, "steps_per_trial": 1}
    trainer(BatchSizeFinder(**settings), Late(), default_root_dir=tmp_path).fit(tiny_model(), datamodule=tiny_data())
    run = trainer(BatchSizeFinder(**settings, batch_arg_name="eval_batch_size"), default_root_dir=tmp_path)
    run.test(tiny_model(), datamodule=tiny_data(), verbose=False)
    lines = [record.getMessage() for record in caplog.records if "BatchSizeFinder" in record.getMessage()]
    assert lines == ["BatchSizeFinder: batch_size is 8 now: it was 16.", "BatchSizeFinder: eval_batch_size is 8 now."]


@pytest.mark.parametrize(
    ("epochs", "rates", "says"),
    [
        (1, 100, "tries 100 learning rates, one in each step, and training has 4 steps. Set trainer.max_epochs to at least 25."),
        (5, 21, "20 steps. Set trainer.max_epochs to at least 6, or num_training_steps (num_training of Tuner.lr_find) to at most 20."),
        (5, 20, None),
        (-1, 21, None),
    ],
)
@pytest.mark.parametrize("by", ["callback", "Tuner"])
def test_a_learning_rate_finder_that_training_would_cut_short_is_refused(by, epochs, rates, says, tmp_path, capfd):
    def sweep() -> None:
        run = trainer(default_root_dir=tmp_path, max_epochs=epochs, max_steps=1)  # which a sweep replaces
        if by == "Tuner":
            Tuner(run).lr_find(model, datamodule=tiny_data(), num_training=rates)
        else:
            run.callbacks.append(LearningRateFinder(num_training_steps=rates))
            run.fit(model, datamodule=tiny_data())

    model = tiny_model(schedule=CONSTANT)
    if says is None:
        sweep()
    else:
        with pytest.raises(UsageError, match=re.escape(says)):
            sweep()
    assert "Finding best initial lr" not in capfd.readouterr().err  # its bar is for terminals
    assert not list(tmp_path.iterdir())
