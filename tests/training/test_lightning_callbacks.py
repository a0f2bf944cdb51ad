"""Lightning's callbacks with an ImageClassifier: each works, or is refused before the first step."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelPruning,
    StochasticWeightAveraging,
)
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
