"""Labels as class numbers and as 0 and 1 for each class: counts, and the class by which an image is stratified."""

import torch

from reslight.data.loading.folds import folds, grouped_split
from reslight.data.loading.labels import class_counts, strata
from reslight.data.loading.split import Split, stratified_split

LABELS = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.uint8)


def test_counts() -> None:
    assert class_counts(LABELS, 3).tolist() == [4, 2, 1]
    assert class_counts(torch.tensor([0, 2, 2]), 4).tolist() == [1, 0, 2, 0]


def test_an_image_is_stratified_by_its_rarest_class() -> None:
    assert strata(LABELS).tolist() == [2, 0, 1, 3, 1, 3]
    assert strata(torch.tensor([5, 1])).tolist() == [5, 1]
    assert strata(torch.zeros(2, 3, dtype=torch.uint8)).tolist() == [3, 3]


def random_labels(images: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(images, 5, generator=generator) < torch.tensor([0.5, 0.3, 0.2, 0.1, 0.05])).to(torch.uint8)


def test_each_class_is_divided_in_proportion() -> None:
    labels = random_labels(2000)
    kept, taken = stratified_split(labels, 400, 0, draw=1)
    assert sorted([*kept.tolist(), *taken.tolist()]) == list(range(2000))
    assert len(taken) == 400
    wanted = labels.sum(dim=0, dtype=torch.int64) / 5
    assert int(labels[taken][:, 4].sum()) in (int(wanted[4]), int(wanted[4]) + 1)  # the rarest, exactly
    assert ((labels[taken].sum(dim=0, dtype=torch.int64) - wanted).abs() < 15).all()


def test_folds_and_groups_take_strata() -> None:
    labels = random_labels(500)
    fold = folds(strata(labels), None, 5, 0, draw=1)
    rarest = torch.stack([labels[fold == number][:, 4].sum() for number in range(5)])
    assert rarest.max() - rarest.min() <= 1
    groups = torch.arange(500) // 4
    _, taken = grouped_split(strata(labels), groups, 100, 0, draw=1)
    assert torch.equal(torch.isin(groups, groups[taken]).nonzero().flatten(), taken)
    assert abs(len(taken) - 100) <= 8


def test_a_split_in_memory_has_several_classes_for_an_image() -> None:
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    labels = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=torch.uint8)
    one, other = Split.from_images(images, labels), Split.from_images(images.flip(0), labels.flip(0))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Split.from_images(images, 1 - labels).fingerprint
    assert torch.equal(one.batch(torch.tensor([2, 0])).labels, one.labels[[2, 0]])
