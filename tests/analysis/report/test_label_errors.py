"""Confident learning against the paper's definition, written as loops, and against what cleanlab 2.9.0 finds."""

import pytest
import torch

from reslight.analysis.report.label_errors import LEAST_LIKELY, confident_classes, likely_label_errors


def noisy(count: int = 300, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator) * 1.5 + 2 * torch.nn.functional.one_hot(labels, classes)
    labels[:15] = (labels[:15] + 1) % classes
    return logits.double().softmax(dim=1), labels


def test_the_confident_joint_is_that_of_the_paper():
    """Equations 1 and 2: an image is counted in the most probable of the classes that reach their mean self-confidence."""
    probabilities, labels = noisy()
    thresholds = []
    for one in range(4):
        own = [float(row[one]) for row, label in zip(probabilities, labels, strict=True) if label == one]
        thresholds.append(sum(own) / len(own))
    expected = []
    for row in probabilities.tolist():
        reached = [one for one in range(4) if row[one] >= thresholds[one]]
        expected.append(max(reached, key=lambda one: row[one]) if reached else -1)
    assert confident_classes(probabilities, labels).tolist() == expected
    assert -1 in expected


def test_the_off_diagonal_images_are_those_of_cleanlab():
    """find_label_issues(labels, probabilities, filter_by="confident_learning") of cleanlab 2.9.0."""
    probabilities, labels = noisy()
    found = confident_classes(probabilities, labels)
    assert ((found >= 0) & (found != labels)).nonzero().flatten().tolist() == CLEANLAB


@pytest.mark.slow  # seconds to import cleanlab
def test_images_and_their_order_are_those_of_the_installed_cleanlab():
    cleanlab = pytest.importorskip("cleanlab.filter")
    probabilities, labels = noisy(2000)
    options = {"filter_by": "confident_learning", "return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    issues = cleanlab.find_label_issues(labels.numpy(), probabilities.numpy(), **options)
    expected = [one for one in issues if probabilities[one, labels[one]] <= LEAST_LIKELY]
    assert likely_label_errors(probabilities, labels)[0].tolist() == expected
    assert len(expected) > 5


def test_only_labels_that_are_hardly_possible_are_reported():
    sure, unsure = [0.995, 0.005], [0.9, 0.1]
    probabilities = torch.tensor([sure, sure, sure, unsure, [0.004, 0.996], [0.1, 0.9]])
    numbers, likely = likely_label_errors(probabilities, torch.tensor([0, 0, 1, 1, 0, 1]))
    assert numbers.tolist() == [4, 2]  # image 3 is a mistake, but its label is possible
    assert likely.tolist() == [1, 0]


def test_a_class_without_images_is_no_candidate():
    found = confident_classes(torch.tensor([[0.1, 0.1, 0.8], [0.2, 0.3, 0.5]]), torch.tensor([0, 1]))
    assert found.tolist() == [0, 1]


CLEANLAB = [
    0, 1, 3, 6, 7, 8, 9, 10, 12, 14, 20, 21, 23, 39, 47, 49, 59, 61, 71, 72, 74, 77, 80, 87, 91, 105, 107, 126, 127, 130,
    131, 133, 140, 146, 149, 158, 160, 161, 162, 175, 176, 178, 179, 185, 192, 194, 196, 197, 201, 207, 220, 226, 231, 238,
    243, 245, 250, 251, 270, 272, 278, 279, 281, 282, 289, 295, 297
]  # fmt: skip
