"""Means and stds against NumPy in double precision."""

import numpy as np
import pytest
import torch

from reslight.data.cifar.statistics import channel_statistics, pixel_mean


def images(count, channels=3, size=32):
    return np.random.default_rng(count).integers(0, 256, (count, channels, size, size), np.uint8)


@pytest.mark.parametrize(("count", "channels", "size"), [(1, 3, 32), (7, 1, 5), (100, 3, 32), (4097, 2, 3), (9000, 3, 4)])
def test_against_numpy(count, channels, size):
    pixels = images(count, channels, size)
    scaled = pixels.astype(np.float64) / 255
    mean, std = channel_statistics(torch.from_numpy(pixels))
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=0, atol=1e-14)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(pixel_mean(torch.from_numpy(pixels)), scaled.mean(axis=0).ravel(), rtol=0, atol=1e-13)


def test_order_and_layout_do_not_matter():
    pixels = torch.from_numpy(images(5000, size=4))
    shuffled = pixels[torch.randperm(5000, generator=torch.Generator().manual_seed(0))]
    for compute in (channel_statistics, pixel_mean):
        assert compute(pixels) == compute(shuffled) == compute(pixels.contiguous(memory_format=torch.channels_last))


def test_large_sums_are_exact():
    """100,000 white images: float32 would lose the last ones."""
    white = torch.full((100_000, 1, 2, 2), 255, dtype=torch.uint8)
    white[-1] = 254
    assert pixel_mean(white) == (1 - 1 / 255 / 100_000,) * 4


@pytest.mark.parametrize("value", range(0, 256, 5))
def test_one_color_has_no_deviation(value):
    mean, std = channel_statistics(torch.full((3, 1, 7, 7), value, dtype=torch.uint8))
    assert mean == pytest.approx((value / 255,), abs=1e-15)
    assert std == pytest.approx((0,), abs=1e-15)


def test_results_are_plain_numbers():
    pixels = torch.from_numpy(images(2))
    for values in (*channel_statistics(pixels), pixel_mean(pixels)):
        assert all(type(value) is float for value in values)
