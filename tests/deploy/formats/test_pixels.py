"""Preprocessing as tensor operations: the same pixels as Pillow's, for every size, fitting and interpolation."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

import reslight
from reslight.deploy.formats.pixels import PixelsToInput, PixelsToProbabilities
from reslight.preprocess import Preprocess

SIZES = [
    (1, 1),
    (1, 40),
    (40, 1),
    (7, 5),
    (8, 8),
    (31, 33),
    (32, 32),
    (64, 64),
    (50, 333),
    (333, 50),
    (640, 480),
    (1, 1200),
    (1200, 1),
    (700, 3),
]


def pictures(channels: int, seed: int = 0) -> list[np.ndarray]:
    """Noise, whose neighbors differ most, and edges of black and white, of which bicubic weights overshoot."""
    rng, chosen = np.random.default_rng(seed), random.Random(seed)
    more = [(chosen.randint(1, 200), chosen.randint(1, 200)) for _ in range(12)]
    noise = [rng.integers(0, 256, (*size, channels), dtype=np.uint8) for size in [*SIZES, *more]]
    return [image if number % 3 else (image > 127).astype(np.uint8) * 255 for number, image in enumerate(noise)]


def largest_difference(preprocess: Preprocess, images: list[np.ndarray]) -> float:
    """In steps of one of 255."""
    graph = PixelsToInput(preprocess)
    found = []
    for image in images:
        expected = preprocess(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image))
        got = graph(torch.from_numpy(image)[None])[0]
        assert got.shape == expected.shape
        assert got.dtype == torch.float32
        found.append(float((got - expected).abs().max() * 255))
    return max(found)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", ["center", "squash", "letterbox"])
def test_the_graph_has_the_pixels_of_pillow(crop, interpolation):
    for size, resize in ((32, None), (28, 37), (1, None), ((24, 40), 24), ((40, 24), 31), ((3, 50), 5)):
        channels = 3 if resize is None else 1
        preprocess = Preprocess(size, (0.0,) * channels, (1.0,) * channels, resize, interpolation, crop)
        images = [image for image in pictures(channels) if crop != "squash" or image.shape[0] <= 100 * image.shape[1]]
        assert largest_difference(preprocess, images) < 1.001, (size, resize)


def test_the_matrices_of_an_image_that_fits_change_nothing():
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for interpolation in ("bilinear", "bicubic"):
        preprocess = Preprocess(32, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), None, interpolation)
        assert torch.equal(PixelsToInput(preprocess)(torch.from_numpy(image)[None])[0], preprocess(Image.fromarray(image)))


def test_pillow_resizes_the_columns_of_a_very_tall_image_first():
    """Pillow changes the order at 100 times as tall as wide, here it stays: the difference is that of clipping between the passes."""
    preprocess = Preprocess(28, (0.0,), (1.0,), None, "bicubic", "squash")
    image = (np.random.default_rng(2).integers(0, 2, (351, 3, 1)) * 255).astype(np.uint8)
    difference = largest_difference(preprocess, [image])
    assert difference == 0 or 1.5 < difference < 20  # Pillow 11.0 does not change it yet


def test_a_mean_for_each_pixel_and_any_number_of_channels():
    generator = torch.Generator().manual_seed(3)
    mean = tuple(torch.rand(5 * 6 * 7, generator=generator).tolist())
    preprocess = Preprocess((6, 7), mean, (0.3, 0.4, 0.5, 0.6, 0.7))
    image = torch.randint(0, 256, (5, 19, 23), dtype=torch.uint8, generator=generator)
    got, expected = PixelsToInput(preprocess)(image.permute(1, 2, 0)[None])[0], preprocess(image)
    assert (got - expected).abs().max() * 255 * 0.3 < 1.001


@pytest.mark.parametrize("crop", ["center", "letterbox"])
def test_sixteen_bits(crop):
    preprocess = Preprocess(12, (0.4,), (1.0,), 14, "bilinear", crop, bits=16)
    image = torch.randint(0, 65536, (1, 40, 31), dtype=torch.int32).to(torch.uint16)
    got, expected = PixelsToInput(preprocess)(image.permute(1, 2, 0)[None])[0], preprocess(image)
    assert (got - expected).abs().max() * 65535 < 2


def test_several_labels_and_the_temperature():
    net = reslight.load("resnet8.digits")
    pixels = torch.randint(0, 256, (4, 8, 8, 1), dtype=torch.uint8)
    with torch.inference_mode():
        logits = net(net.preprocess(pixels.permute(0, 3, 1, 2)))
        net.temperature = 1.7
        assert torch.allclose(PixelsToProbabilities(net)(pixels), (logits / 1.7).softmax(1), atol=1e-6)
        net.temperature, net.multi_label = 1.0, True
        assert torch.allclose(PixelsToProbabilities(net)(pixels), logits.sigmoid(), atol=1e-6)
