"""Loaders: the same images whoever asks, every one exactly once in evaluation."""

from itertools import pairwise
from math import gcd

import pytest
import torch

from reslight.data.augment.augment import Augment
from reslight.data.loading.loaders import BatchPlan, EvalLoader, Position, TrainLoader, repeated
from reslight.data.loading.split import Batch, Split
from reslight.data.rng import Draw, permutation

DIVISIONS = [(devices, accumulation) for devices in (1, 2, 3) for accumulation in (1, 2)]


def make_split(count=100):
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return Split(images, torch.arange(count) % 10, torch.zeros(count, 32, dtype=torch.uint8))


def make_loader(split, *, batch_size=12, devices=1, accumulation=1, rank=0, seed=5, epoch=0, batch=0):
    plan = BatchPlan(batch_size, devices, accumulation).fit_to(len(split))
    return TrainLoader(split, plan, rank=rank, seed=seed, position=lambda: Position(epoch, batch))


def global_batches(split, devices, accumulation, finish=lambda batch: batch, **settings):
    """Put together, in order, what the devices see in each optimizer step."""
    ranks = [list(make_loader(split, devices=devices, accumulation=accumulation, rank=rank, **settings)) for rank in range(devices)]
    micro = [finish(batch) for together in zip(*ranks, strict=True) for batch in together]
    parts = devices * accumulation
    return [torch.cat(micro[start : start + parts]) for start in range(0, len(micro), parts)]


def images_of(split, epoch, **settings):
    return torch.cat([batch.indices for batch in make_loader(split, epoch=epoch, **settings)]).tolist()


def left_out_slowly(images, batch_size, epoch, seed=5):
    turns, rest = permutation(images, seed, 0, Draw.LEFT_OUT).tolist(), images % batch_size
    return {turns[(epoch * rest + place) % images] for place in range(rest)}


def test_batches_are_the_order_of_the_epoch_without_the_images_whose_turn_it_is():
    loader = make_loader(make_split(), epoch=3)
    batches = list(loader)
    assert len(batches) == len(loader) == 8
    missing = left_out_slowly(100, 12, epoch=3)
    assert loader.left_out == len(missing) == 4
    expected = [image for image in permutation(100, 5, 3).tolist() if image not in missing]
    assert torch.cat([batch.indices for batch in batches]).tolist() == expected
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.indices)
        assert torch.equal(batch.labels, batch.indices % 10)


@pytest.mark.parametrize(("images", "batch_size"), [(63, 32), (100, 12), (97, 16), (64, 32), (10, 12)])
def test_images_are_left_out_in_turn_and_equally_often(images, batch_size):
    split, plan = make_split(images), BatchPlan(batch_size, 1, 1).fit_to(images)
    rest = images % plan.batch_size
    epochs = images // gcd(images, rest) if rest else 2
    seen = [images_of(split, epoch, batch_size=batch_size) for epoch in range(epochs)]
    assert all(len(set(epoch)) == len(epoch) == images - rest for epoch in seen)
    assert all(set(one) | set(two) == set(range(images)) for one, two in pairwise(seen))
    times = torch.tensor(seen).flatten().bincount()
    assert times.unique().tolist() == [epochs - epochs * rest // images]


def test_a_run_from_before_images_took_turns_keeps_its_order():
    old = {"images": 100, "batch_size": 12, "accumulation": 1}
    loader = make_loader(make_split(), epoch=3)
    loader.load_state_dict(old)
    assert torch.cat([batch.indices for batch in loader]).tolist() == permutation(100, 5, 3)[:96].tolist()
    assert loader.state_dict() == old, "and keeps it when it is resumed again"


def test_epochs_of_the_same_order_have_the_same_images():
    plan, at = BatchPlan(12, 1, 1), Position(0, 0)
    loader = TrainLoader(make_split(), plan, rank=0, seed=5, position=lambda: at, same_order=True)
    first = [batch.indices.tolist() for batch in loader]
    at = Position(3, 0)
    assert [batch.indices.tolist() for batch in loader] == first


@pytest.mark.parametrize(("devices", "accumulation"), DIVISIONS)
def test_every_division_gives_the_same_global_batches(devices, accumulation):
    split = make_split()
    augment = Augment(pad=1, flip="random", cutout=2)

    def pixels(batch):
        return augment(batch.images, batch.indices, seed=5, epoch=1)

    for finish in (lambda batch: batch.indices, pixels):
        expected = global_batches(split, 1, 1, finish, epoch=1)
        got = global_batches(split, devices, accumulation, finish, epoch=1)
        assert len(got) == len(expected) == 8
        assert all(map(torch.equal, got, expected))


def test_ranks_and_instances_do_not_influence_each_other():
    split = make_split()
    alone = [batch.indices for batch in make_loader(split)]
    loaders = [make_loader(split), make_loader(split), make_loader(split, epoch=9)]
    for expected, one, two, _ in zip(alone, *loaders, strict=True):
        assert torch.equal(one.indices, expected)
        assert torch.equal(two.indices, expected)
    torch.rand(100)
    assert all(map(torch.equal, alone, [batch.indices for batch in loaders[0]]))


def test_starts_at_the_position_that_holds_when_the_first_batch_is_asked_for():
    split = make_split()
    whole = [batch.indices for batch in make_loader(split, epoch=2)]
    at = Position(0, 0)
    loader = TrainLoader(split, BatchPlan(12, 1, 1), rank=0, seed=5, position=lambda: at)
    iterator = iter(loader)
    at = Position(2, 5)
    rest = [batch.indices for batch in iterator]
    assert len(loader) == 8
    assert len(rest) == 3
    assert all(map(torch.equal, rest, whole[5:]))


def test_set_smaller_than_a_batch_is_one_batch():
    assert [len(batch.indices) for batch in make_loader(make_split(10), batch_size=12)] == [10]
    shares = [list(make_loader(make_split(10), batch_size=12, devices=2, accumulation=2, rank=r)) for r in range(2)]
    assert [[len(batch.indices) for batch in share] for share in shares] == [[2, 2], [2, 2]]


def test_plan_text_and_errors():
    assert str(BatchPlan(128, 2, 1)) == "batch 128 = 2 devices x 1 accumulation step x 64"
    assert str(BatchPlan(128, 1, 4)) == "batch 128 = 1 device x 4 accumulation steps x 32"
    with pytest.raises(ValueError, match=r"batch_size is 100: 3 devices x 2 accumulation steps cannot divide it. Use 96 or 102\.$"):
        BatchPlan(100, 3, 2)
    with pytest.raises(ValueError, match=r"batch_size is 4: .* Use 6\.$"):
        BatchPlan(4, 3, 2)
    with pytest.raises(ValueError, match=r"batch_size is 0: .* Use 1\.$"):
        BatchPlan(0, 1, 1)
    with pytest.raises(ValueError, match=r"3 training images .* 4 devices x 1 accumulation step\. Use at most 3"):
        BatchPlan(8, 4, 1).fit_to(3)


def test_checkpoint_of_another_division_is_refused():
    split = make_split()
    state = make_loader(split, devices=1, accumulation=2).state_dict()
    assert state == {"images": 100, "batch_size": 12, "accumulation": 2, "rotates": 1}
    make_loader(split, devices=3, accumulation=2).load_state_dict(state)  # the number of devices is free
    with pytest.raises(ValueError, match=r"trainer.accumulate_grad_batches is 1: the checkpoint was saved with 2, .* Resume with 2\."):
        make_loader(split).load_state_dict(state)
    with pytest.raises(ValueError, match=r"data.batch_size is 24: the checkpoint was saved with 12"):
        make_loader(split, batch_size=24, accumulation=2).load_state_dict(state)
    with pytest.raises(ValueError, match="the number of training images is 90: the checkpoint was saved with 100"):
        make_loader(make_split(90), accumulation=2).load_state_dict(state)


@pytest.mark.parametrize(("images", "batch_size", "copies"), [(24, 8, 2), (25, 8, 4), (100, 12, 3), (7, 6, 6), (9, 4, 1), (3, 4, 2)])
def test_copies_of_an_image_equal_the_slow_way(images: int, batch_size: int, copies: int):
    order = permutation(images, 5, 1)
    distinct, slow = batch_size // copies, []
    for batch in range(images // batch_size):
        for copy in range(copies):
            slow += [int(order[batch * distinct + place]) + copy * images for place in range(distinct)]
    assert repeated(order, batch_size, copies, images).tolist() == slow
    assert len(slow) == images // batch_size * batch_size, "as many places as without copies"


class Numbers:
    """A split that hands out the numbers that it is asked for."""

    device = torch.device("cpu")

    def __len__(self):
        return 50

    def order(self, seed, epoch):
        return permutation(50, seed, epoch)

    def batches(self, numbers, epoch):
        return (Batch(batch, batch % 50 % 10, batch) for batch in numbers)


@pytest.mark.parametrize(("devices", "accumulation"), DIVISIONS)
def test_copies_do_not_depend_on_the_division_or_on_where_training_resumes(devices, accumulation):
    def steps(devices, accumulation, begun=0):
        plan, at = BatchPlan(12, devices, accumulation), Position(1, begun * accumulation)
        ranks = [list(TrainLoader(Numbers(), plan, rank=rank, seed=5, position=lambda: at, copies=3)) for rank in range(devices)]
        micro = [batch.indices for together in zip(*ranks, strict=True) for batch in together]
        parts = devices * accumulation
        return [torch.cat(micro[start : start + parts]).tolist() for start in range(0, len(micro), parts)]

    whole = steps(1, 1)
    assert [sorted(place % 50 for place in step) for step in whole] == [
        sorted(permutation(50, 5, 1)[4 * step : 4 * step + 4].tolist() * 3) for step in range(4)
    ]
    assert all(len(set(step)) == 12 for step in whole), "each copy has a number, and so an augmentation, of its own"
    assert steps(devices, accumulation) == whole
    assert steps(devices, accumulation, begun=2) == whole[2:]


def test_copies_have_a_random_part_of_all_images_whatever_a_checkpoint_says():
    loader = TrainLoader(Numbers(), BatchPlan(12, 1, 1), rank=0, seed=5, position=lambda: Position(1, 0), copies=3)
    before = [batch.indices.tolist() for batch in loader]
    loader.load_state_dict({"images": 50, "batch_size": 12, "accumulation": 1, "rotates": 1})
    assert [batch.indices.tolist() for batch in loader] == before
    assert loader.state_dict() == {"images": 50, "batch_size": 12, "accumulation": 1}


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 4, 10, 11, 12])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_sees_every_image_once(devices, count, batch_size):
    split = make_split(count)
    seen = []
    for rank in range(devices):
        loader = EvalLoader(split, batch_size=batch_size, rank=rank, devices=devices)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert batches, "a rank without a batch would be left out, and the others wait for it"
        least = 0 if rank >= count else 1
        assert all(least <= len(batch.indices) <= -(-batch_size // devices) for batch in batches)
        for batch in batches:
            assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.indices)
        seen += [index for batch in batches for index in batch.indices.tolist()]
    assert sorted(seen) == list(range(count))


def test_evaluation_on_one_device_is_in_order():
    loader = EvalLoader(make_split(10), batch_size=4, rank=0, devices=1)
    assert [batch.indices.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
