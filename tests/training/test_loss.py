"""Losses against timm's and sums by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from reslight.training.loss import class_of, is_correct, multi_label_loss, training_loss

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
MIXED = torch.softmax(3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=1)


def test_cross_entropy_by_hand():
    probabilities = LOGITS.double().softmax(dim=1)
    expected = -sum(math.log(probabilities[row, label]) for row, label in enumerate(LABELS.tolist())) / 6
    assert float(training_loss(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-6)
    mixed = -float((MIXED.double() * probabilities.log()).sum()) / 6
    assert float(training_loss(LOGITS, MIXED)) == pytest.approx(mixed, rel=1e-6)


def test_bce_by_hand():
    total = 0.0
    for row in range(6):
        for column in range(4):
            p, target = 1 / (1 + math.exp(-float(LOGITS[row, column]))), float(MIXED[row, column]) * 0.9 + 0.1 / 4
            total -= target * math.log(p) + (1 - target) * math.log(1 - p)
    assert float(training_loss(LOGITS, MIXED, "bce", smoothing=0.1)) == pytest.approx(total / 24, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce_is_timms(smoothing: float):
    theirs = pytest.importorskip("timm.loss").BinaryCrossEntropy(smoothing=smoothing)
    torch.testing.assert_close(training_loss(LOGITS, LABELS, "bce", smoothing), theirs(LOGITS, LABELS))


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_one_hot_probabilities_are_labels(kind):
    certain = F.one_hot(LABELS, 4).float()
    for smoothing in (0.0, 0.2):
        torch.testing.assert_close(training_loss(LOGITS, certain, kind, smoothing), training_loss(LOGITS, LABELS, kind, smoothing))
    assert class_of(certain).tolist() == LABELS.tolist() == class_of(LABELS).tolist()


WEIGHT = torch.tensor([0.5, 3.0, 1.0, 0.1])


@pytest.mark.parametrize("labels", [LABELS, MIXED], ids=["labels", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_cross_entropy_by_hand(labels, smoothing):
    one_hot = F.one_hot(labels, 4).double() if labels.ndim == 1 else labels.double()
    targets = one_hot * (1 - smoothing) + smoothing / 4
    total = -float((targets * LOGITS.double().log_softmax(dim=1) * WEIGHT).sum())
    expected = total / (float(WEIGHT[labels].sum()) if labels.ndim == 1 else 6)
    assert float(training_loss(LOGITS, labels, smoothing=smoothing, weight=WEIGHT)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_bce_by_hand(smoothing):
    targets = MIXED.double() * (1 - smoothing) + smoothing / 4
    p = LOGITS.double().sigmoid()
    expected = -float(((targets * p.log() + (1 - targets) * (1 - p).log()) * WEIGHT).mean())
    assert float(training_loss(LOGITS, MIXED, "bce", smoothing, WEIGHT)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
@pytest.mark.parametrize("labels", [LABELS, MIXED], ids=["labels", "probabilities"])
def test_weights_work_in_every_precision(kind, labels):
    exact = float(training_loss(LOGITS.double(), labels, kind, 0.1, WEIGHT))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        loss = training_loss(LOGITS.to(dtype), labels, kind, 0.1, WEIGHT)
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(exact, rel=1e-5 if dtype == torch.float32 else 2e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(training_loss(LOGITS.bfloat16(), labels, kind, 0.1, WEIGHT)) == pytest.approx(exact, rel=2e-2)
    even = training_loss(LOGITS, labels, kind, 0.1, torch.ones(4))
    torch.testing.assert_close(even, training_loss(LOGITS, labels, kind, 0.1))


def test_the_loss_of_several_labels_by_hand():
    """Each class is a decision of its own; images that have it weigh `positive_weight`, and smoothing moves both targets towards 1/2."""
    total, weights, labels = 0.0, (1.0, 3.0, 0.5, 2.0), (MIXED > 0.3).float()
    for row in range(6):
        for column in range(4):
            p, target = 1 / (1 + math.exp(-float(LOGITS[row, column]))), float(labels[row, column]) * 0.9 + 0.05
            total -= weights[column] * target * math.log(p) + (1 - target) * math.log(1 - p)
    found = multi_label_loss(LOGITS, labels, 0.1, torch.tensor(weights))
    assert float(found) == pytest.approx(total / 24, rel=1e-6)
    assert multi_label_loss(LOGITS.bfloat16(), labels).dtype == torch.float32


def test_an_image_with_several_labels_is_correct_if_all_are():
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-2.0, -1.0], [0.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.8]])
    assert is_correct(logits, labels, multi_label=True).tolist() == [True, False, True, True]
