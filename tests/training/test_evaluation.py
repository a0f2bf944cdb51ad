"""Averages over views against sums by hand."""

from types import SimpleNamespace

import pytest
import torch

from reslight.training.evaluation import EvaluationModule, average_views


def test_each_image_gets_the_mean_of_its_own_views():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

    def net(images):
        return logits[images.flatten().long()]

    views = [(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1, 0, 1])), (torch.tensor([[3.0], [4.0]]), torch.tensor([0, 1]))]
    p = logits.softmax(dim=1)
    expected = torch.stack([(p[1] + p[3]) / 2, (p[0] + p[2] + p[4]) / 3])
    torch.testing.assert_close(average_views(net, views, 2, 3).exp(), expected)
    torch.testing.assert_close(average_views(net, views, 2, 3).softmax(dim=1), expected)
    assert average_views(net, [], 0, 3).shape == (0, 3)


def test_views_with_several_labels_keep_sure_classes_finite():
    """The sigmoid of 20 is 1 in float32: from the mean probability alone, the logit would be infinite, and the loss not a number."""
    logits = torch.tensor([[20.0, -50.0, 1.0], [30.0, -60.0, -2.0]])
    views = [(torch.zeros(1), torch.tensor([0])), (torch.ones(1), torch.tensor([0]))]
    found = average_views(lambda images: logits[images.long()], views, 1, 3, multi_label=True)
    torch.testing.assert_close(found, logits.double().sigmoid().mean(dim=0, keepdim=True).logit().float())


@pytest.mark.parametrize("name", ["data_info", "describe"])
def test_the_information_of_a_users_own_data_module(name):
    """`describe` was the method's name before."""
    module = SimpleNamespace(trainer=SimpleNamespace(datamodule=SimpleNamespace(**{name: lambda: {"name": "mine"}})), data_info={})
    EvaluationModule._update_data_info(module)
    assert module.data_info == {"name": "mine"}
    module.trainer.datamodule = None
    EvaluationModule._update_data_info(module)
    assert module.data_info == {"name": "mine"}
