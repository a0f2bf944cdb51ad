"""Images that stay files: the same batches whatever the threads, and what becomes of those that cannot be read."""

import io
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslight.data.augment.crop import Center, RandomResizedCrop
from reslight.data.augment.views import TenCrop
from reslight.data.loading.decode import decode
from reslight.data.loading.encoded import EncodedSplit, Files
from reslight.data.loading.loaders import BatchPlan, EvalLoader, Position, TrainLoader, repeated
from reslight.data.loading.split import Batch

BAD = 5


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@dataclass(frozen=True)
class Made:
    """Images in memory; some of them are text."""

    count: int = 24
    bad: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> bytearray:
        return bytearray(b"no image" if number in self.bad else jpeg(number))

    def name(self, number: int) -> str:
        return f"picture {number}"


def split(threads: int = 2, bad: tuple[int, ...] = (), **settings) -> EncodedSplit:
    images = Made(bad=bad)
    labels = torch.arange(len(images)) % 3
    return EncodedSplit(images, torch.arange(len(images)), labels, "name", RandomResizedCrop(16), 3, threads, seed=7, **settings)


def batches(of: EncodedSplit, *numbers: list[int], epoch: int = 1) -> list[Batch]:
    return list(of.batches([torch.tensor(each) for each in numbers], epoch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_for_a_gpu_a_batch_is_in_pinned_memory():
    (batch,) = batches(split(), [0, 1, 2])
    assert all(part.is_pinned() for part in batch)


def test_labels_and_numbers_are_pinned_where_there_is_a_gpu(monkeypatch):
    pinned = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.tolist()) or self)
    batches(split(views=TenCrop(16, 20)), [4, 5])
    assert pinned == [[1, 2], [4, 5]]


def test_threads_and_batches_change_nothing():
    (whole,) = batches(split(1), list(range(20)))
    assert whole.images.is_contiguous(memory_format=torch.channels_last)
    assert whole.images.dtype == torch.uint8
    for threads in (2, 4):
        parts = batches(split(threads), list(range(7)), list(range(7, 20)))
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.cat([part.labels for part in parts]).tolist() == [n % 3 for n in range(20)]
        assert torch.cat([part.indices for part in parts]).tolist() == list(range(20))
    (later,) = batches(split(), list(range(20)), epoch=2)
    assert not torch.equal(later.images, whole.images)


def test_a_pixel_is_where_the_slow_way_puts_it():
    made = replace(split(), geometry=Center(16, 18))
    (batch,) = batches(made, [3, 0])
    for place, number in enumerate((3, 0)):
        slow = torch.from_numpy(np.array(Image.open(io.BytesIO(jpeg(number))))).permute(2, 0, 1)
        expected = Center(16, 18)(slow, torch.empty(0))
        assert (batch.images[place].int() - expected.int()).abs().max() <= 1  # decoders may round otherwise


def test_taken_images_keep_their_files():
    taken = split().subset(torch.tensor([4, 9, 2]))
    assert taken.numbers.tolist() == [4, 9, 2]
    assert taken.labels.tolist() == [1, 0, 2]
    names = {split().fingerprint, taken.fingerprint, split().subset(torch.tensor([9, 4, 2])).fingerprint}
    assert len(names) == 3, "other images, and another order, have another name"
    fixed = replace(taken, geometry=Center(16, 18))
    (batch,) = batches(fixed, [1])
    (there,) = batches(replace(split(), geometry=Center(16, 18)), [9])
    assert torch.equal(batch.images, there.images)


def test_a_bad_image_stops_with_its_name():
    with pytest.raises(ValueError, match=r"picture 5 is .*`reslight data check` .*data.on_bad_image") as caught:
        batches(split(bad=(BAD,)), list(range(10)))
    assert "\n" not in str(caught.value)


def test_bad_images_are_left_out_and_counted_once(caplog: pytest.LogCaptureFixture):
    made = split(bad=(BAD, 6), on_bad_image="skip")
    (sound,) = batches(split(), list(range(4, 10)))
    for _ in range(2):
        (batch,) = batches(made, list(range(4, 10)))
        assert batch.indices.tolist() == [4, 7, 8, 9]
        assert batch.labels.tolist() == [1, 1, 2, 0]
        assert torch.equal(batch.images, sound.images[[0, 3, 4, 5]])
    assert made.skipped == 2
    assert [record.getMessage().partition(" is")[0] for record in caplog.records] == ["skipped: picture 5", "skipped: picture 6"]
    assert made.subset(torch.tensor([1, 6])).skipped == 1, "of the images of a part, its own are counted"


def test_none_of_a_batch_can_be_read():
    made = split(bad=tuple(range(24)), on_bad_image="skip")
    assert [len(batch.labels) for batch in EvalLoader(made, batch_size=8, rank=0, devices=1)] == [0, 0, 0]
    loader = TrainLoader(made, BatchPlan(8, 1, 1), rank=0, seed=0, position=lambda: Position(0, 0))
    with pytest.raises(ValueError, match=r"a training batch has 8 images, and none .* `reslight data check`"):
        next(iter(loader))


def test_leaving_early_leaves_no_thread():
    before = threading.active_count()
    road = split(3).batches([torch.arange(8)] * 6, 0)
    next(road)
    assert threading.active_count() > before
    road.close()
    assert threading.active_count() == before


def test_stopping_at_a_bad_image_leaves_no_thread():
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="picture 5"):
        batches(split(3, bad=(BAD,)), *[list(range(8))] * 4)
    assert set(threading.enumerate()) == before


def test_only_a_few_batches_are_under_way():
    asked = []

    def numbers():
        for batch in range(10):
            asked.append(batch)
            yield torch.arange(4)

    road = split().batches(numbers(), 0)
    assert asked == [], "nothing is begun before the first batch is wanted: a trainer may still be resuming"
    for taken in range(1, 4):
        next(road)
        assert asked == list(range(taken + 2)), "memory holds the batch that is wanted, and two ahead"
    road.close()


def test_a_bad_image_in_training_leaves_the_others_as_they_are(caplog: pytest.LogCaptureFixture):
    def epoch(made: EncodedSplit) -> list[Batch]:
        return list(TrainLoader(made, BatchPlan(8, 1, 1), rank=0, seed=0, position=lambda: Position(2, 0)))

    lost = 0
    for sound, batch in zip(epoch(split()), epoch(split(bad=(BAD, 6), on_bad_image="skip")), strict=True):
        kept = ~torch.isin(sound.indices, torch.tensor([BAD, 6]))
        lost += int((~kept).sum())
        assert torch.equal(batch.indices, sound.indices[kept])
        assert torch.equal(batch.labels, sound.labels[kept])
        assert torch.equal(batch.images, sound.images[kept])
    assert lost == len(caplog.records) == 2


def test_views_of_images_that_cannot_be_read():
    made = split(bad=(BAD, *range(8, 12)), on_bad_image="skip", views=TenCrop(16, 20))
    first, second, third, *_ = EvalLoader(made, batch_size=4, rank=0, devices=1)
    assert first.indices.tolist() == [0, 1, 2, 3]
    (views,) = second.images
    assert second.indices.tolist() == [4, 6, 7]
    assert views.owners.tolist() == [0] * 10 + [1] * 10 + [2] * 10, "places in the batch as it is"
    for place, number in enumerate((4, 6, 7)):
        expected = TenCrop(16, 20)(decode(bytearray(jpeg(number)), "x"))[0]
        assert torch.equal(views.images[views.owners == place], expected)
    assert (third.images, third.labels.tolist(), third.indices.tolist()) == ([], [], [])
    assert made.skipped == 5


def test_in_inference_mode():
    with torch.inference_mode():
        (batch,) = batches(split(), [1, 2, 3])
    assert torch.equal(batch.images, batches(split(), [1, 2, 3])[0].images)


@pytest.mark.parametrize("how", ["gone", "a link to nowhere", "a folder by now"])
def test_a_file_that_goes_away(tmp_path: Path, how: str):
    path = tmp_path / "a.jpg"
    if how == "a link to nowhere":
        path.symlink_to(tmp_path / "nowhere.jpg")
    if how == "a folder by now":
        path.mkdir()
    says = "is a folder: it must be a regular file" if path.is_dir() else "cannot be read: No such file or directory"
    made = replace(split(), images=Files([path]), numbers=torch.tensor([0]), labels=torch.tensor([1]))
    with pytest.raises(ValueError, match=rf"a\.jpg {says}\. .*`reslight data check`") as caught:
        batches(made, [0])
    assert "\n" not in str(caught.value)
    (batch,) = batches(replace(made, on_bad_image="skip"), [0])
    assert len(batch.labels) == 0


def test_copies_of_an_image_are_cropped_for_themselves():
    (batch,) = batches(split(), [3, 27, 51])  # 24 images: copies of image 3
    assert batch.labels.tolist() == [0, 0, 0]
    assert batch.indices.tolist() == [3, 27, 51]
    assert not torch.equal(batch.images[0], batch.images[1])
    (fixed,) = batches(replace(split(), geometry=Center(16, 18)), [3, 27])
    assert torch.equal(fixed.images[0], fixed.images[1])
    one = replace(split(), channels=1)
    assert batches(one, [3])[0].images.shape == (1, 1, 16, 16)


def test_repeated_augmentation_by_hand():
    # batches of 4 places with 2 copies: 2 distinct images each, then their copies, numbered from N = 9 on
    order = torch.tensor([8, 3, 5, 0, 1, 2, 4, 6, 7])
    assert repeated(order, batch_size=4, copies=2, images=len(order)).tolist() == [8, 3, 17, 12, 5, 0, 14, 9]
    loader = TrainLoader(split(), BatchPlan(8, 1, 1), rank=0, seed=0, position=lambda: Position(0, 0), copies=4)
    for batch in loader:
        assert torch.bincount(batch.indices % 24).max() == 4
        assert len(set((batch.indices % 24).tolist())) == 2
        assert not (batch.indices[0::2] % 24 == batch.indices[1::2] % 24).any(), "neighbours, which may be mixed, are two images"
    halves = [TrainLoader(split(), BatchPlan(8, 2, 1), rank=r, seed=0, position=lambda: Position(0, 0), copies=4) for r in (0, 1)]
    for whole, one, two in zip(loader, *halves, strict=True):
        assert torch.equal(whole.indices, torch.cat((one.indices, two.indices)))
        assert torch.equal(whole.images, torch.cat((one.images, two.images)))
