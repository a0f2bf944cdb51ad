"""The real CIFAR sets, where they are: what the code says of them is computed again from the images."""

import os
import time
from pathlib import Path

import pytest

from reslight.data import CIFAR
from reslight.data.cifar.metadata import METADATA
from reslight.data.cifar.statistics import channel_statistics, pixel_mean

# A folder with cifar10 and cifar100 in any form; without the variable it lies beside the repository
REAL = Path(os.environ.get("RESLIGHT_TEST_DATA") or Path(__file__).parents[3].parent / "shared" / "data")


def needs_real_images(test):
    are_there = all((REAL / name).is_dir() for name in METADATA)
    reason = f"the real images are not in {REAL}; RESLIGHT_TEST_DATA names a folder with cifar10 and cifar100"
    return pytest.mark.slow(pytest.mark.skipif(not are_there, reason=reason)(test))


def test_what_is_known_is_consistent():
    for name, metadata in METADATA.items():
        assert metadata.labels == tuple(sorted(metadata.labels))
        assert len(set(metadata.labels)) == len(metadata.labels) == int(name.removeprefix("cifar"))
        assert {part: number * len(metadata.labels) for part, number in metadata.per_class.items()} == {"train": 50_000, "test": 10_000}
        assert all(len(text) == 64 for text in metadata.fingerprints.values())
        assert len(metadata.revision) == 40
        assert metadata.batches.keys() == metadata.shards.keys() == metadata.per_class.keys() == {"train", "test"}


@pytest.fixture(scope="module", params=["cifar10", pytest.param("cifar100", marks=pytest.mark.nightly)])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where decoded images are for all tests here: decoding takes longer than they do."""
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture
def data(name, kept, monkeypatch):
    monkeypatch.setenv("RESLIGHT_CACHE", str(kept))
    return CIFAR(name, root=str(REAL))


@needs_real_images
@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "test"])
def test_fingerprints_and_counts(data, part):
    split = data.load_split(part)
    assert split.fingerprint == data.metadata.fingerprints[part]
    assert split.labels.bincount().tolist() == [data.metadata.per_class[part]] * data.num_classes


@needs_real_images
def test_means_and_deviations(data):
    images = data.load_split("train").images
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(data.metadata.mean, abs=5.1e-6)
    assert std == pytest.approx(data.metadata.std, abs=5.1e-6)
    image = pixel_mean(images)
    assert [sum(image[channel * 1024 :][:1024]) / 1024 for channel in range(3)] == pytest.approx(mean, abs=1e-12)


@needs_real_images
def test_a_second_start_is_quick(data):
    data.prepare_data()
    seconds = []
    for _ in range(3):
        again = CIFAR(data.name, root=str(REAL))
        start = time.process_time()  # what the clock on the wall says depends on who else is at work
        again.prepare_data()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1


@needs_real_images
def test_every_class_has_its_share_of_the_validation_images(data):
    data.setup("fit")
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 45_000, "val": 5_000}
    assert data.splits["val"].labels.bincount().tolist() == [5000 // data.num_classes] * data.num_classes
