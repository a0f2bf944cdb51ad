"""Counts compared with those of torchmetrics and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error, multiclass_confusion_matrix

from reslight import metrics
from reslight.metrics import Evaluator, TrainingSums


@pytest.fixture
def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(503, 10, generator=generator) * 3, torch.randint(10, (503,), generator=generator)


def counts_of(logits: torch.Tensor, labels: torch.Tensor, sizes: list[int]):
    evaluator = Evaluator(logits.shape[1])
    for part, target in zip(logits.split(sizes), labels.split(sizes), strict=True):
        evaluator.update(part, target)
    return evaluator.counts()


def test_counts_are_those_of_torchmetrics_and_sklearn(predictions):
    logits, labels = predictions
    counts = counts_of(logits, labels, [503])
    assert counts.total == 503
    assert counts.correct1 == round(503 * multiclass_accuracy(logits, labels, 10, average="micro").item())
    assert counts.correct5 == top_k_accuracy_score(labels, logits, k=5, normalize=False)
    probabilities = logits.double().softmax(1).numpy()
    assert counts.nll == pytest.approx(log_loss(labels, probabilities, normalize=False, labels=np.arange(10)), rel=1e-9)


@pytest.mark.parametrize("sizes", [[500, 3], [1] * 503, [100, 0, 403]])
def test_batches_do_not_matter(predictions, sizes):
    whole, parts = counts_of(*predictions, [503]), counts_of(*predictions, sizes)
    assert (whole.total, whole.correct1, whole.correct5) == (parts.total, parts.correct1, parts.correct5)
    assert whole.nll == pytest.approx(parts.nll, rel=1e-12)


def test_ties_go_to_the_lower_class():
    logits = torch.zeros(4, 3)
    counts = counts_of(logits, torch.tensor([0, 1, 2, 0]), [4])
    assert counts.correct1 == 2


def test_few_classes_have_no_top5():
    counts = counts_of(torch.eye(5), torch.arange(5), [5])
    assert counts.correct5 is None
    assert set(counts.fractions()) == {"loss", "acc1"}


def test_devices_add_up(predictions):
    logits, labels = predictions
    halves = [Evaluator(10), Evaluator(10)]
    halves[0].update(logits[:200], labels[:200])
    halves[1].update(logits[200:], labels[200:])
    others = iter([halves[1]._integers, halves[1]._nll])
    counts = halves[0].counts(lambda tensor: tensor + next(others))
    assert counts.correct1 == counts_of(logits, labels, [503]).correct1
    assert counts.total == 503


def test_training_sums_by_hand():
    sums = TrainingSums()
    assert sums.fractions() == {}
    sums.update(torch.tensor(2.0), torch.tensor([True, True, False]))
    sums.update(torch.tensor(1.0), torch.tensor([True]))
    assert sums.fractions() == {"loss": pytest.approx(7 / 4), "acc1": 3 / 4}
    again = TrainingSums()
    again.load_state_dict(sums.state_dict())
    assert again.fractions() == sums.fractions()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_training_sums_of_a_long_epoch_do_not_drift(dtype):
    sums = TrainingSums()
    loss, correct = torch.tensor(2.3, dtype=dtype), torch.tensor([True, False]).repeat(64)
    for _ in range(400):
        sums.update(loss, correct)
    assert sums.fractions() == {"loss": pytest.approx(float(loss), rel=1e-9), "acc1": 0.5}


def test_details_are_those_of_torchmetrics(predictions):
    logits, labels = predictions
    evaluator = Evaluator(10, details=True)
    for part, target in zip(logits.split([100, 0, 403]), labels.split([100, 0, 403]), strict=True):
        evaluator.update(part, target)
    details = evaluator.details()
    assert torch.equal(details.confusion, multiclass_confusion_matrix(logits, labels, 10))
    expected = multiclass_calibration_error(logits.double(), labels, 10, n_bins=15, norm="l1").item()
    assert details.ece == pytest.approx(expected, rel=1e-6)  # theirs is float32
    assert details.per_class == pytest.approx(multiclass_accuracy(logits.double(), labels, 10, average=None).tolist(), rel=1e-6)


def test_details_by_hand():
    """Five images of three classes, none of class 2; the probabilities are 0.9 (correct), 0.7 (wrong), 0.7, 0.45 (correct), 1 (wrong)."""
    rows = [[0.9, 0.05, 0.05], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.45, 0.45], [0.0, 1.0, 0.0]]
    evaluator = Evaluator(3, details=True)
    evaluator.update(torch.tensor(rows, dtype=torch.float64).log(), torch.tensor([0, 1, 1, 1, 0]))
    details = evaluator.details()
    assert details.confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]  # the tie goes to class 1
    assert details.pairs.tolist() == [[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 2]]
    assert (details.totals, details.correct) == ([2, 3, 0], [1, 2, 0])
    assert details.per_class == [0.5, 2 / 3, None]
    bins = {number: tuple(row[:2]) for number, row in enumerate(details.bins.tolist()) if row[0]}
    assert bins == {6: (1, 1), 10: (2, 1), 13: (1, 1), 14: (1, 0)}  # of fifteen; probability 1 is in the last
    assert details.ece == pytest.approx((abs(1 - 0.45) + abs(1 - 1.4) + abs(1 - 0.9) + abs(0 - 1)) / 5, rel=1e-9)


def test_details_add_up_over_devices_and_one_may_have_no_images(predictions):
    logits, labels = predictions
    whole, one, two = (Evaluator(10, details=True) for _ in range(3))
    whole.update(logits, labels)
    one.update(logits, labels)
    other = two.details()
    assert other.pairs.shape == (0, 3)
    summed = one.details(lambda tensor: tensor + other.bins, lambda rows: torch.cat([other.pairs, rows]))
    assert torch.equal(summed.pairs, whole.details().pairs)
    assert torch.equal(summed.confusion, whole.details().confusion)
    assert summed.ece == whole.details().ece


@pytest.mark.parametrize("most", [0, 7, 100, 503])
def test_pairs_are_those_of_sklearn_however_often_they_are_counted(predictions, most, monkeypatch):
    monkeypatch.setattr(metrics, "_MOST_UNCOUNTED", most)
    logits, labels = predictions
    halves = [Evaluator(10, details=True) for _ in range(2)]
    for number, (part, target) in enumerate(zip(logits.split(50), labels.split(50), strict=True)):
        halves[number % 2].update(part, target)
    details = halves[0].details(gather=lambda rows: torch.cat([rows, halves[1].details().pairs]))
    expected = confusion_matrix(labels, logits.argmax(1), labels=range(10))
    assert details.confusion.tolist() == expected.tolist()
    assert details.pairs.tolist() == [[int(a), int(b), int(expected[a, b])] for a, b in zip(*expected.nonzero(), strict=True)]
    assert (details.totals, details.correct) == (expected.sum(axis=1).tolist(), expected.diagonal().tolist())


@pytest.mark.parametrize("classes", [21_000, 300_000])
def test_many_classes_take_memory_for_the_images_only(classes):
    """A matrix of 300,000 classes would take 720 GB."""
    evaluator = Evaluator(classes, details=True)
    labels = torch.tensor([classes - 1, 0, classes - 1, 5])
    evaluator.update(torch.zeros(4, classes).index_fill_(1, torch.tensor([classes - 1]), 3.0), labels)
    details = evaluator.details()
    assert details.pairs.tolist() == [[0, classes - 1, 1], [5, classes - 1, 1], [classes - 1, classes - 1, 2]]
    assert (evaluator.counts().correct1, sum(details.totals), sum(details.correct), details.per_class[5]) == (2, 4, 2, 0.0)


def test_without_details_nothing_is_gathered():
    evaluator = Evaluator(10)
    evaluator.update(torch.eye(10), torch.arange(10))
    details = evaluator.details(gather=lambda _: pytest.fail("the other devices would wait"))
    assert (details.pairs.shape, sum(details.totals)) == ((0, 3), 0)
