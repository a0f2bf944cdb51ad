"""Class weights by hand and by scikit-learn; balanced epochs by counting."""

import pytest
import torch

from reslight.data.augment.augment import Augment
from reslight.data.loading.balance import balanced_order, checked_class_weights, imbalance, loss_weights, positive_weights
from reslight.data.loading.loaders import BatchPlan, Position, TrainLoader
from reslight.data.loading.split import Split
from reslight.data.rng import NEXT_DRAW, Draw, bits, permutation
from reslight.messages import UsageError

COUNTS = (90, 7, 0, 1, 22)
LABELS = torch.arange(5).repeat_interleave(torch.tensor(COUNTS))[permutation(120, 1, 0)]
NAMES = ("ant", "bee", "cat", "dog", "elk")


def make_loader(*, batch_size=32, devices=1, accumulation=1, rank=0, epoch=0, batch=0, copies=1, seed=5):
    images = torch.arange(120, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    split = Split(images, LABELS, torch.zeros(120, 32, dtype=torch.uint8))
    at = Position(epoch, batch)
    return TrainLoader(
        split, BatchPlan(batch_size, devices, accumulation), rank=rank, seed=seed, position=lambda: at, copies=copies, sampling="balanced"
    )


@pytest.mark.parametrize("draws", [1, 3, 96, 97, 1000])
def test_classes_are_equally_frequent_in_every_epoch_and_over_all(draws: int):
    epochs = [balanced_order(LABELS, draws, 5, epoch) for epoch in range(12)]
    assert all(len(epoch) == len(epoch.unique()) == draws for epoch in epochs), "each draw has a number of its own"
    total = torch.zeros(5, dtype=torch.int64)
    for number, epoch in enumerate(epochs):
        counts = LABELS[epoch % 120].bincount(minlength=5)
        total += counts
        used, overall = counts[[0, 1, 3, 4]], total[[0, 1, 3, 4]]
        assert counts[2] == 0
        assert used.max() - used.min() <= 1
        assert overall.max() - overall.min() <= 1
        assert sorted(overall.tolist()) == sorted(((number + 1) * draws + place) // 4 for place in range(4))


@pytest.mark.parametrize("draws", [3, 96, 97, 1000])
def test_an_image_is_drawn_again_only_after_all_others_of_its_class(draws: int):
    epochs = [balanced_order(LABELS, draws, 5, epoch) for epoch in range(12)]
    times = torch.zeros(120, dtype=torch.int64)
    for epoch in epochs:
        times += (epoch % 120).bincount(minlength=120)
        for name in (0, 1, 3, 4):
            of_class = times[LABELS.eq(name)]
            assert of_class.max() - of_class.min() <= 1


def test_epochs_differ_in_order_and_seed_and_depend_on_nothing_else():
    first, again = (balanced_order(LABELS, 96, 5, 2) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, balanced_order(LABELS, 96, 5, 3))
    assert not torch.equal(first, balanced_order(LABELS, 96, 6, 2))
    # two rounds of a class have unrelated orders: 22 images in the same order twice would be no accident
    rounds = [[], []]
    for number in balanced_order(LABELS, 176, 5, 0).tolist():
        if LABELS[number % 120] == 4:
            rounds[number // 120].append(number % 120)
    assert sorted(rounds[0]) == sorted(rounds[1]) == LABELS.eq(4).nonzero().flatten().tolist()
    assert rounds[0] != rounds[1]


def test_the_order_is_part_of_every_published_result():
    assert balanced_order(torch.tensor([0, 0, 0, 1, 0, 0, 2, 0]), 8, 7, 3).tolist() == [3, 19, 22, 14, 7, 11, 6, 0]


def dealt_one_by_one(labels: list[int], draws: int, seed: int, epoch: int) -> list[int]:
    names = sorted(set(labels))
    turns = permutation(len(names), seed, 0, Draw.CLASS_TURN).tolist()
    in_turn = sorted(range(len(names)), key=lambda place: turns[place])
    taken, dealt, begun = [0] * len(names), [], {}
    for draw in range((epoch + 1) * draws):
        name = in_turn[draw % len(names)]
        rows = [row for row, label in enumerate(labels) if label == names[name]]
        turn, place = divmod(taken[name], len(rows))
        taken[name] += 1
        keys = bits(seed, 0, torch.tensor(rows) + turn * NEXT_DRAW, Draw.CLASS_ORDER).tolist()
        row = rows[sorted(range(len(rows)), key=keys.__getitem__)[place]]
        if draw >= epoch * draws:
            dealt.append((name, turn, place, row + (turn - begun.setdefault(name, turn)) * len(labels)))
    numbers = [number for *_, number in sorted(dealt)]
    return [numbers[place] for place in permutation(draws, seed, epoch).tolist()]


@pytest.mark.parametrize("draws", [1, 2, 8, 20])
def test_the_order_equals_that_of_images_dealt_one_by_one(draws: int):
    labels = [0, 0, 0, 1, 0, 0, 4, 0, 2]
    for epoch in range(4):
        assert balanced_order(torch.tensor(labels), draws, 7, epoch).tolist() == dealt_one_by_one(labels, draws, 7, epoch)


@pytest.mark.parametrize(("devices", "accumulation"), [(2, 1), (1, 2), (4, 2)])
@pytest.mark.parametrize("copies", [1, 2])
def test_steps_do_not_depend_on_the_division_or_on_where_training_resumes(devices, accumulation, copies):
    def steps(devices, accumulation, begun=0):
        settings = {"devices": devices, "accumulation": accumulation, "epoch": 3, "batch": begun * accumulation, "copies": copies}
        ranks = [list(make_loader(rank=rank, **settings)) for rank in range(devices)]
        micro = [batch.indices for together in zip(*ranks, strict=True) for batch in together]
        parts = devices * accumulation
        return [torch.cat(micro[start : start + parts]).tolist() for start in range(0, len(micro), parts)]

    whole = steps(1, 1)
    assert [len(step) for step in whole] == [32] * 3
    counts = LABELS[torch.tensor(whole).flatten() % 120].bincount(minlength=5).tolist()
    assert counts == [24, 24, 0, 24, 24]
    assert len({number for step in whole for number in step}) == 96, "each copy has a number, and so an augmentation, of its own"
    assert steps(devices, accumulation) == whole
    assert steps(devices, accumulation, begun=2) == whole[2:]


def test_an_image_that_is_drawn_twice_is_augmented_twice():
    loader = make_loader()
    batches = list(loader)
    assert loader.left_out == 0
    assert loader.state_dict() == {"images": 120, "batch_size": 32, "accumulation": 1, "rotates": 1}
    for batch in batches:
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.indices % 120)
        assert torch.equal(batch.labels, LABELS[batch.indices % 120])
    indices = torch.cat([batch.indices for batch in batches])
    only = indices[LABELS[indices % 120].eq(3)]
    assert len(only) == 24
    same = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8).expand(24, -1, -1, -1)
    assert len(Augment(pad=3, flip="random")(same, only, seed=5, epoch=0).flatten(1).unique(dim=0)) > 12


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    counts = LABELS.bincount(minlength=5)
    ours = loss_weights("balanced", NAMES, counts)
    present = [0, 1, 3, 4]
    theirs = compute_class_weight("balanced", classes=torch.tensor(present).numpy(), y=LABELS.numpy())
    assert [ours[number] for number in present] == pytest.approx(theirs.tolist(), rel=1e-5)
    assert ours[2] == 1, "a class without images"
    assert float(torch.tensor(ours)[LABELS].mean()) == pytest.approx(1, rel=1e-5)
    assert loss_weights({"dog": 3, "ant": 0.5}, NAMES, counts) == [0.5, 1, 1, 3, 1]


def test_names_that_yaml_reads_as_numbers_are_names():
    assert checked_class_weights({7: 2.0, "ant": 1}, ("7", "ant")) == {"7": 2.0, "ant": 1}


def test_imbalance_names_both_ends():
    assert imbalance(torch.tensor([9, 1300, 12]), NAMES[:3]) == "training images of a class: 9 (ant) to 1,300 (bee)"
    assert imbalance(torch.tensor([10, 49, 20]), NAMES[:3]) == ""
    assert imbalance(torch.tensor([10, 50, 20]), NAMES[:3]) != ""
    assert imbalance(torch.tensor([0, 1]), NAMES[:2]) == "training images of a class: 0 (ant) to 1 (bee)"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("even", "data.class_weights is 'even': it must be balanced, a weight for each class, or null."),
        (2, "data.class_weights is 2: it must be balanced"),
        ({"bees": 2.0}, "data.class_weights has the class bees: the dataset has no such class. Did you mean bee?"),
        ({33: 2.0}, "data.class_weights has the class 33"),
        ({"x" * 9: 2.0}, "Use names of the dataset's classes."),
        ({"bee": 0}, "data.class_weights.bee is 0: it must be above 0 and finite. Use 1 for no change."),
        ({"bee": float("inf")}, "data.class_weights.bee is inf"),
        ({"bee": float("nan")}, "data.class_weights.bee is nan"),
        ({"bee": "two"}, "data.class_weights.bee is 'two': it must be a number."),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(UsageError) as error:
        checked_class_weights(weights, NAMES)
    assert message in str(error.value)


def test_weights_of_several_labels_are_images_without_a_class_for_each_with_it():
    counts = torch.tensor([100, 300, 0, 400])
    names = ("a", "b", "c", "d")
    assert positive_weights("balanced", names, counts, 400) == [3.0, 0.333333, 1.0, 1.0]  # torch's example is 300 / 100
    assert positive_weights({"b": 2}, names, counts, 400) == [1.0, 2.0, 1.0, 1.0]
