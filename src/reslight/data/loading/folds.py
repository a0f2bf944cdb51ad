"""Validation images by group, such as a patient or a camera, and the folds of a cross-validation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reslight.data.loading.split import class_quotas
from reslight.data.rng import permutation
from reslight.messages import UsageError

Counts = Sequence[tuple[int, int]]
"""The classes of a group, and how many of its images are in each."""


def grouped_split(labels: Tensor, groups: Tensor, size: int, seed: int, draw: int) -> tuple[Tensor, Tensor]:
    """Choose about `size` images at random by whole groups, each class as near to its proportion as the groups allow.

    The groups come in random order, and a group is taken if that brings the numbers of its classes nearer to those that
    `stratified_split` takes. Each class keeps an image. If each image is a group of its own and no class is tiny, the images are those of
    `stratified_split`.

    Args:
        labels: int64 `(N,)`, in canonical order.
        groups: int64 `(N,)`, numbers from 0, in the order in which the groups occur first.
        size: Number of images to take, below N.
        seed: As in `stratified_split`.
        draw: As in `stratified_split`.

    Returns:
        int64 numbers, ascending, of the images that are kept, and of those that are taken.

    Raises:
        UsageError: each group has all images of a class.
    """
    totals: list[int] = torch.bincount(labels).tolist()
    quotas: list[int] = class_quotas(torch.tensor(totals), size).tolist()
    counts = _counts_of(labels, groups)
    taken = [0] * len(totals)

    def change(group: int, all_taken: int) -> tuple[float, int]:
        """Return how much farther from their quotas the classes are with this group, and how much farther from `size` all images."""
        images = sum(n for _, n in counts[group])
        of_classes = sum(n * (n + 2 * (taken[c] - quotas[c])) / totals[c] for c, n in counts[group])
        return of_classes, abs(all_taken + images - size) - abs(all_taken - size)

    def may_go(group: int) -> bool:
        return all(taken[c] + n < totals[c] for c, n in counts[group])

    order = permutation(len(counts), seed, epoch=0, draw=draw).tolist()
    chosen, all_taken = [], 0
    for group in order:
        if change(group, all_taken) < (0, 0) and may_go(group):
            chosen.append(group)
            for c, n in counts[group]:
                taken[c] += n
                all_taken += n
    if size and not chosen:  # all groups are large
        if not (possible := [group for group in order if may_go(group)]):
            raise UsageError(
                f"data.val_size is {size}: each group has all training images of a class, so that none can be set apart. Use 0."
            )
        chosen = [min(possible, key=lambda group: change(group, 0))]
    is_taken = torch.isin(groups, torch.tensor(chosen, dtype=torch.int64))
    return (~is_taken).nonzero().flatten(), is_taken.nonzero().flatten()


def folds(labels: Tensor, groups: Tensor | None, count: int, seed: int, draw: int) -> Tensor:
    """Divide images at random into folds of about equal size, each class in proportion.

    Without groups, the numbers of images of any two folds, also those of a class, differ by at most one. With groups, each group is in one
    fold: the largest groups come first, each into the fold that has fewest images of its classes.

    Args:
        labels: int64 `(N,)`, in canonical order.
        groups: As in `grouped_split`; None if images do not belong together.
        count: Number of folds.
        seed: As in `stratified_split`.
        draw: As in `stratified_split`.

    Returns:
        int64 `(N,)`: the fold of each image, from 0.

    Raises:
        UsageError: fewer images or groups than folds.
    """
    if groups is None:
        if len(labels) < count:
            raise UsageError(f"data.fold is of {count}: there are {len(labels)} training images. Use fewer folds.")
        order = permutation(len(labels), seed, epoch=0, draw=draw)
        order = order[labels[order].argsort(stable=True)]
        found = torch.empty_like(labels)
        found[order] = torch.arange(len(labels)) % count
        return found
    counts = _counts_of(labels, groups)
    if len(counts) < count:
        raise UsageError(f"data.fold is of {count}: the training images have {len(counts)} groups. Use fewer folds.")
    totals = torch.bincount(labels).tolist()
    sizes = [sum(n for _, n in one) for one in counts]
    filled, images = [[0] * len(totals) for _ in range(count)], [0] * count
    fold_of_group = torch.empty(len(counts), dtype=torch.int64)
    for group in sorted(permutation(len(counts), seed, epoch=0, draw=draw).tolist(), key=lambda group: -sizes[group]):
        crowding = [(sum(n * of_class[c] / totals[c] for c, n in counts[group]), images[fold]) for fold, of_class in enumerate(filled)]
        fold = min(range(count), key=crowding.__getitem__)
        fold_of_group[group] = fold
        images[fold] += sizes[group]
        for c, n in counts[group]:
            filled[fold][c] += n
    return fold_of_group[groups]


def _counts_of(labels: Tensor, groups: Tensor) -> Sequence[Counts]:
    """Return the counts of each group."""
    classes = int(labels.max()) + 1
    pairs, numbers = torch.unique(groups * classes + labels, return_counts=True)
    found: list[list[tuple[int, int]]] = [[] for _ in range(int(groups.max()) + 1)]
    for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        found[pair // classes].append((pair % classes, number))
    return found
