"""Averages over views against sums by hand, and an evaluation of several labels on two processes."""

import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reslight.multi_label import MultiLabelEvaluator, evaluate_scores
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


SCORES = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
TRUTH = (SCORES + torch.randn(7, 3, generator=torch.Generator().manual_seed(1)) > 0).to(torch.uint8)


def evaluate_as(rank: int, folder: Path, rows: list[list[int]], results: Any) -> None:
    """Evaluate this process's rows, and put the results of all processes into a queue."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=len(rows))
    module: Any = SimpleNamespace(trainer=SimpleNamespace(world_size=len(rows)), global_rank=rank)
    module._sum_over_devices = lambda tensor: EvaluationModule._sum_over_devices(module, tensor)
    evaluator = MultiLabelEvaluator(3)
    evaluator.update(SCORES[rows[rank]], TRUTH[rows[rank]])
    results.put(evaluator.counts(gather=lambda own: EvaluationModule._gather_from_devices(module, own)))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("rows", [[[0, 2, 4, 6], [1, 3, 5]], [[], [6, 5, 4, 3, 2, 1, 0]]])
def test_two_processes_evaluate_several_labels_as_one(tmp_path, rows):
    context = multiprocessing.get_context("fork")  # no second import of torch
    results: Any = context.Queue()
    processes = [context.Process(target=evaluate_as, args=(rank, tmp_path, rows, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [evaluate_scores(SCORES, TRUTH)[0]] * 2
