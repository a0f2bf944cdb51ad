"""Groups stay together, classes are in proportion, and the choice is a pure function of the seed."""

import numpy as np
import pytest
import torch

from reslight.data.loading.folds import folds, grouped_split
from reslight.data.loading.split import stratified_split
from reslight.data.rng import Draw
from reslight.messages import UsageError

SETS = 1000


def random_set(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and groups of a set: few or many images, classes and groups, of equal or of very different sizes."""
    rng = np.random.default_rng(number)
    groups = int(rng.integers(6, 40))
    classes, images = int(rng.integers(2, 6)), int(rng.integers(groups, 8 * groups))
    weights = rng.dirichlet(np.full(groups, rng.choice([0.3, 5.0])))
    group = np.concatenate([np.arange(groups), rng.choice(groups, images, p=weights)])
    mostly = rng.integers(0, classes, groups)  # the usual class of each group
    label = np.where(rng.random(len(group)) < rng.random(), mostly[group], rng.integers(0, classes, len(group)))
    _, labels = np.unique(label, return_inverse=True)
    firsts = {one: place for place, one in enumerate(dict.fromkeys(group.tolist()))}
    return torch.from_numpy(labels), torch.tensor([firsts[one] for one in group.tolist()])


@pytest.mark.slow
def test_no_group_is_on_two_sides_of_1000_sets():
    deviations = []
    for number in range(SETS):
        labels, groups = random_set(number)
        size = len(labels) // 5
        try:
            kept, taken = grouped_split(labels, groups, size, number, Draw.VAL_SPLIT)
        except UsageError:
            assert all(
                any(bool((groups[labels == c] == group).all()) for c in labels.unique()) for group in groups.unique()
            )  # no group can go: each has all images of a class
            continue
        assert torch.equal(torch.cat([kept, taken]).sort().values, torch.arange(len(labels)))
        assert not set(groups[kept].tolist()) & set(groups[taken].tolist())
        assert set(labels[kept].tolist()) == set(labels.tolist())
        assert len(taken)
        again = grouped_split(labels, groups, size, number, Draw.VAL_SPLIT)
        assert torch.equal(again[0], kept)
        deviations.append((len(taken) - size) / len(labels))
    assert len(deviations) > 0.99 * SETS
    assert abs(np.mean(deviations)) < 0.03
    assert np.abs(deviations).max() < 0.5


def test_each_image_is_in_one_fold():
    for number in range(200):
        labels, groups = random_set(number)
        count = 2 + number % 5
        fold = folds(labels, groups, count, number, Draw.FOLD)
        assert set(fold.tolist()) == set(range(count))
        assert len(set(zip(groups.tolist(), fold.tolist(), strict=True))) == int(groups.max()) + 1
        plain = folds(labels, None, count, number, Draw.FOLD)
        for counts in (
            torch.bincount(plain, minlength=count),
            *torch.bincount(labels * count + plain, minlength=count * (int(labels.max()) + 1)).view(-1, count),
        ):
            assert counts.max() - counts.min() <= 1


def test_groups_of_one_image_are_no_groups():
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 7, 500))
    single = torch.arange(500)
    for size in (10, 100, 250):
        for one, other in zip(
            grouped_split(labels, single, size, 3, Draw.VAL_SPLIT), stratified_split(labels, size, 3, Draw.VAL_SPLIT), strict=True
        ):
            assert torch.equal(one, other)
    fold = folds(labels, single, 5, 3, Draw.FOLD)
    for c in range(7):
        counts = torch.bincount(fold[labels == c], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_classes_keep_their_proportions():
    """60 patients of 10 images each, of a rare and of a frequent class: as a hand count of the best division has it."""
    groups = torch.arange(600) // 10
    labels = (groups % 5 == 0).long()  # 12 patients of class 1, 48 of class 0
    _, taken = grouped_split(labels, groups, 150, 0, Draw.VAL_SPLIT)
    assert torch.bincount(labels[taken]).tolist() == [120, 30]
    fold = folds(labels, groups, 6, 0, Draw.FOLD)
    assert all(torch.bincount(labels[fold == k]).tolist() == [80, 20] for k in range(6))


def test_other_seeds_choose_others():
    labels, groups = torch.arange(400) % 2, torch.arange(400) // 4
    chosen = {tuple(grouped_split(labels, groups, 80, seed, Draw.VAL_SPLIT)[1].tolist()) for seed in range(20)}
    assert len(chosen) == 20


@pytest.mark.parametrize(("groups", "says"), [([0, 0, 1, 1], "2 groups"), (None, "4 training images")])
def test_too_few_to_divide(groups: list[int] | None, says: str):
    with pytest.raises(UsageError, match=says):
        folds(torch.tensor([0, 1, 0, 1]), None if groups is None else torch.tensor(groups), 5, 0, Draw.FOLD)


def test_groups_that_hold_a_class_each_cannot_be_divided():
    with pytest.raises(UsageError, match="each group has all training images of a class"):
        grouped_split(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1]), 1, 0, Draw.VAL_SPLIT)
