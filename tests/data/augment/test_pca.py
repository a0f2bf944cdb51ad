"""Color noise against one that goes pixel by pixel, and its distribution."""

import math
from statistics import NormalDist

import pytest
import torch
from scipy.stats import kstest

from reslight.data.augment import pca as color
from reslight.data.augment.pca import EIGENVALUES, EIGENVECTORS, normal, pca_noise
from reslight.data.rng import Draw, uniform

ALPHAS = (Draw.PCA_1, Draw.PCA_2, Draw.PCA_3)
COUNT = 20_000


def some_images(shape=(13, 3, 5, 7)):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def slow_image(image, index, epoch, std):
    uniforms = [uniform(4, epoch, torch.tensor(index), draw).item() for draw in ALPHAS]
    alphas = [NormalDist(0, std).inv_cdf(u + 2**-25) for u in uniforms]
    out = torch.empty_like(image)
    for c, y, x in torch.cartesian_prod(*map(torch.arange, image.shape)).tolist():
        value = image[c, y, x].item() / 255
        for k in range(3):
            value += alphas[k] * EIGENVALUES[k] * EIGENVECTORS[c][k]
        out[c, y, x] = min(max(math.floor(value * 255 + 0.5), 0), 255)
    return out


@pytest.mark.parametrize("std", [0.1, 1.5])
@pytest.mark.parametrize("epoch", [0, 2])
def test_equals_slow_reference(std, epoch):
    images, indices = some_images(), torch.arange(13) * 7 + 3
    before = images.clone()
    got = pca_noise(images, indices, std=std, seed=4, epoch=epoch)
    assert got.dtype == torch.uint8
    assert torch.equal(images, before)
    for row, index in enumerate(indices.tolist()):
        assert torch.equal(got[row], slow_image(images[row], index, epoch, std)), row


def test_batches_cut_up_differently_are_augmented_alike():
    images, indices = some_images(), torch.arange(13)
    whole = pca_noise(images, indices, std=0.1, seed=1, epoch=1)
    parts = [pca_noise(images[i : i + 1], indices[i : i + 1], std=0.1, seed=1, epoch=1) for i in range(13)]
    assert torch.equal(torch.cat(parts), whole)


def test_alphas_are_normal_and_independent():
    alphas = normal(3, 5, torch.arange(COUNT), ALPHAS)
    assert alphas.dtype == torch.float64
    for alpha in alphas:
        assert kstest(alpha.numpy(), "norm").pvalue > 1e-3
        assert abs(alpha.mean()) < 4 / math.sqrt(COUNT)
        assert abs(alpha.std() - 1) < 4 / math.sqrt(2 * COUNT)
    assert (torch.corrcoef(alphas) - torch.eye(3)).abs().max() < 5 / math.sqrt(COUNT)


def test_normal_numbers_are_finite_and_symmetric(monkeypatch):
    ends = torch.tensor([0.0, 1 - 2**-24])
    monkeypatch.setattr(color, "uniform", lambda *_: ends)
    low, high = normal(0, 0, torch.arange(2), Draw.PCA_1).tolist()
    assert low == pytest.approx(-high)
    assert 5.4 < high < 5.5


def test_colors_vary_as_imagenets_do():
    grey = torch.full((COUNT, 3, 1, 1), 128, dtype=torch.uint8)
    out = pca_noise(grey, torch.arange(COUNT), std=0.3, seed=1, epoch=0).flatten(1).double()
    vectors, values = torch.tensor(EIGENVECTORS).double(), torch.tensor(EIGENVALUES).double()
    expected = (255 * 0.3) ** 2 * vectors @ torch.diag(values**2) @ vectors.T + torch.eye(3) / 12  # of rounding
    assert (torch.cov(out.T) - expected).abs().max() < 0.04 * expected.max()
    assert (out.mean(0) - 128).abs().max() < 4 * expected.max().sqrt() / math.sqrt(COUNT)


def test_eigenvectors_are_orthonormal():
    vectors = torch.tensor(EIGENVECTORS)
    assert torch.allclose(vectors.T @ vectors, torch.eye(3), atol=1e-3)


def test_absurdly_strong_noise_makes_corners_of_the_cube():
    out = pca_noise(some_images(), torch.arange(13), std=1e9, seed=1, epoch=0)
    assert out.unique().tolist() == [0, 255]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_same_pixels():
    images, indices = some_images(), torch.arange(13)
    on_gpu = pca_noise(images.cuda(), indices.cuda(), std=0.1, seed=1, epoch=1)
    assert torch.equal(on_gpu.cpu(), pca_noise(images, indices, std=0.1, seed=1, epoch=1))
