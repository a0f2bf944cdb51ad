"""Comparing logits, by hand."""

import math

import pytest
import torch

from reslight.weights.logits import compare_logits


def test_differences_and_classes_by_hand():
    reference = torch.tensor([[1.0, -4.0], [0.0, 2.0]])
    found = compare_logits(torch.tensor([[1.5, -4.0], [3.0, 2.0]]), reference)
    assert (found.max_difference, found.max_reference, found.same_class, found.images) == (3.0, 4.0, 0.5, 2)
    assert found.relative_difference == 0.75


@pytest.mark.parametrize("at", [0, 1])
def test_nan_is_never_within_a_tolerance(at):
    pair = [torch.zeros(1, 2), torch.zeros(1, 2)]
    pair[at][0, 1] = math.nan
    found = compare_logits(*pair)
    assert math.isnan(found.max_difference)
    assert not found.relative_difference <= 1e9


def test_reference_logits_of_zero_have_a_relative_difference():
    assert compare_logits(torch.zeros(1, 2), torch.zeros(1, 2)).relative_difference == 0
