"""Evaluation with several labels for each image: against scikit-learn, by hand, and the same in any order, batch and division."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch import Tensor

from reslight.multi_label import MultiLabelCounts, MultiLabelEvaluator, average_precision, evaluate_scores


def random_case(seed: int, images: int = 60, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Scores with many ties, rare classes, one without images and one that all images have."""
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(images, classes, generator=generator) * 2).round() / 2
    labels = (torch.rand(images, classes, generator=generator) < torch.linspace(0, 0.6, classes)).to(torch.uint8)
    labels[:, 0], labels[:, 1] = 0, 1
    return scores, labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:No positive class:UserWarning")
def test_equals_scikit_learn(seed: int) -> None:
    scores, labels = random_case(seed)
    counts, results = evaluate_scores(scores, labels)
    truth, said = labels.numpy(), (scores > 0).numpy()
    found = [number for number in range(labels.shape[1]) if labels[:, number].any()]
    expected = [average_precision_score(truth[:, number], scores[:, number]) for number in found]
    assert [results.ap[number] for number in found] == pytest.approx(expected, abs=1e-12)
    assert results.ap[0] is None
    assert results.f1[0] is None
    fractions = counts.fractions()
    assert fractions["mAP"] == pytest.approx(average_precision_score(truth[:, found], scores[:, found], average="macro"), abs=1e-12)
    assert fractions["f1_micro"] == pytest.approx(f1_score(truth, said, average="micro"), abs=1e-12)
    assert fractions["f1_macro"] == pytest.approx(f1_score(truth, said, average="macro", labels=found, zero_division=0), abs=1e-12)
    assert counts.exact == round(accuracy_score(truth, said) * len(truth))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores.double(), labels.double())
    assert fractions["loss"] == pytest.approx(float(loss), abs=1e-12)


def test_by_hand() -> None:
    """Class 0: ranks 1 and 3 of three are positive. Class 1: the two equal scores are one threshold with a precision of 1/2."""
    scores = torch.tensor([[3.0, -1.0], [1.0, 2.0], [-2.0, 2.0]])
    labels = torch.tensor([[1, 0], [0, 1], [1, 0]], dtype=torch.uint8)
    assert average_precision(scores, labels).tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
    counts, results = evaluate_scores(scores, labels)
    assert (counts.total, counts.exact, counts.tp, counts.fp, counts.fn) == (3, 1, 2, 2, 1)
    assert (results.positives, results.predicted, results.correct) == ([2, 1], [2, 2], [1, 1])
    assert counts.fractions()["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_order_batch_or_device_changes_a_bit(dtype: torch.dtype) -> None:
    scores, labels = random_case(9, images=101)
    scores = scores.to(dtype)

    def evaluated(order: Tensor, sizes: list[int]) -> tuple[MultiLabelCounts, object]:
        evaluator = MultiLabelEvaluator(7)
        for rows in order.split(sizes):
            evaluator.update(scores[rows], labels[rows].float())
        return evaluator.counts(), evaluator.details()

    whole = evaluated(torch.arange(101), [101])
    assert evaluated(torch.randperm(101, generator=torch.Generator().manual_seed(1)), [50, 0, 50, 1]) == whole

    parts = [MultiLabelEvaluator(7) for _ in range(3)]  # of three devices, one of them without images
    for rank, rows in enumerate([slice(0, 60), slice(60, 101), slice(0, 0)]):
        parts[rank].update(scores[rows], labels[rows])
    kept = [[part._scores[-1], part._labels[-1]] for part in parts]

    def gather(own: Tensor) -> Tensor:
        return torch.cat([one[own.dtype == torch.uint8].to(own.dtype) for one in kept])

    assert (parts[2].counts(gather=gather), parts[2].details()) == whole


def test_many_images_are_sorted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = random_case(3)
    whole = evaluate_scores(scores, labels)
    monkeypatch.setattr("reslight.multi_label._MOST_SORTED", 2 * len(scores))
    parts = evaluate_scores(scores, labels)
    assert replace(parts[0], nll=whole[0].nll) == whole[0]
    assert parts[0].nll == pytest.approx(whole[0].nll, rel=1e-14)
    assert parts[1] == whole[1]


def test_without_images_or_labels() -> None:
    counts, results = evaluate_scores(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.uint8))
    assert counts.fractions() == pytest.approx({"loss": 0.6931472, "mAP": 0, "f1_micro": 0, "f1_macro": 0, "subset_acc": 1})
    assert results.ap == [None, None]
    assert average_precision(torch.zeros(0, 2), torch.zeros(0, 2)).tolist() == [0, 0]
