"""Temperature scaling against scipy's minimizer, and what its numbers mean."""

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from reslight.analysis.temperature import cross_fitted, evaluated, fit_temperature, thresholds
from reslight.messages import UsageError


def sample(count: int, scale: float, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `scale` times those that the labels were drawn from: the best temperature is about `scale`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    return scale * logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_the_temperature_is_that_of_a_minimizer(scale: float):
    logits, labels = sample(2000, scale)
    found = fit_temperature(logits + 1000, labels)  # an offset changes nothing
    loss = minimize_scalar(lambda t: float(F.cross_entropy(logits.double() / t, labels)), bounds=(0.05, 20), options={"xatol": 1e-9})
    assert found == pytest.approx(loss.x, rel=1e-4)
    assert found == pytest.approx(scale, rel=0.1)


def test_scaling_mends_the_calibration_and_keeps_the_predictions():
    logits, labels = sample(20_000, 3.0)
    before, after = (evaluated(logits / t, labels) for t in (1.0, fit_temperature(logits, labels)))
    assert before[0].correct1 == after[0].correct1
    assert before[1].ece > 0.15
    assert after[1].ece < 0.015


def test_no_half_is_scaled_by_its_own_temperature_and_the_logits_stay():
    logits, labels = sample(400, 2.0)
    logits = logits.double()
    before = logits.clone()
    scaled, (one, other) = cross_fitted(logits, labels)
    assert torch.equal(logits, before)
    ratio = (logits / scaled)[:, 0]
    halves = [(ratio - value).abs() < 1e-9 for value in (other, one)]
    assert [int(half.sum()) for half in halves] == [200, 200]
    assert fit_temperature(logits[halves[0]], labels[halves[0]]) == pytest.approx(one)


@pytest.mark.parametrize("right", [True, False])
def test_without_a_best_temperature_it_says_so(right: bool):
    logits = torch.eye(3).repeat(4, 1)
    labels = torch.arange(3).repeat(4) if right else (torch.arange(3).repeat(4) + 1) % 3
    with pytest.raises(UsageError, match=r"(12|0) of 12 predictions are right: no temperature from 0\.01 to 100 fits"):
        fit_temperature(logits, labels)


def test_thresholds_count_the_sure_images():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = thresholds(probabilities.log(), torch.tensor([0, 1, 1]), [0.5, 0.7, 0.85, 0.95])
    assert found == [(0.5, 3, 2), (0.7, 2, 2), (0.85, 1, 1), (0.95, 0, 0)]
