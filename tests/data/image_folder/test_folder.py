"""Folders of images: their splits, settings and mistakes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from tests.data.test_trainer import SaveAt, make_trainer
from torch import nn
from torchvision.transforms import v2

from reslight.data import Augment, Crop, Folder, Mix
from reslight.data.augment.crop import RandomResizedCrop
from reslight.data.check.check import check
from reslight.data.loading import content
from reslight.data.loading.encoded import Files
from reslight.messages import UsageError
from reslight.preprocess import Preprocess
from reslight.training import ImageClassifier, ScheduleConfig
from reslight.training.resume import compare_data_info

PREPROCESS = Preprocess(size=8, resize=10, mean=(0.5,) * 3, std=(0.25,) * 3)


GREY = Preprocess(size=8, mean=(0.5,), std=(0.25,))
MIXED_WITH_ITSELF = {"repeated_augmentation": 32, "mix": Mix(cutmix=1.0), "batch_size": 32}


def fill(folder: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def names(data: Folder, part: str) -> list[str]:
    split = data.splits[part]
    return [Path(split.images.name(number)).name for number in split.numbers.tolist()]


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (("train", "val", "test"), {"train": 12, "val": 12, "test": 12}),
        (("training", "valid"), {"train": 12, "val": 12}),
        (("train", "test"), {"train": 9, "val": 3, "test": 12}),
        (("train",), {"train": 9, "val": 3}),
        (("",), {"train": 9, "val": 3}),
    ],
)
def test_layouts(tmp_path: Path, parts: tuple[str, ...], sizes: dict[str, int]):
    for part in parts:
        fill(tmp_path / "set" / part, **{"Bäume im Wald": 8, "cats": 4})
    data = Folder(str(tmp_path / "set"), PREPROCESS, val_size=0.25)
    data.setup()
    assert {part: len(split) for part, split in data.splits.items()} == sizes
    assert data.labels == ("Bäume im Wald", "cats")
    assert data.has_test == ("test" in parts)
    for split in data.splits.values():
        assert sorted(split.labels.unique().tolist()) == [0, 1]


def test_other_files_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = fill(tmp_path / "set", a=2, b=2)
    for name in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "b/.hidden.png", "a/notes.txt", "loose.png"):
        (root / name).write_bytes(b"x")
    (root / ".git").mkdir()
    fill(root / "b" / "holiday", deep=1)
    (root / "a" / "self").symlink_to(root / "a")
    data = Folder(str(root), PREPROCESS, val_size=0)
    data.setup("fit")
    assert names(data, "train") == ["00.png", "01.png", "00.png", "01.png", "00.png"]
    assert data.splits["train"].labels.tolist() == [0, 0, 1, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"{root} has images outside the folders of classes, which are ignored: loose.png"
    ]


def test_the_same_images_are_set_apart_for_all_seeds(tmp_path: Path):
    root = fill(tmp_path / "set", a=20, b=10)
    apart = []
    for seed, size in ((1, 6), (2, 0.2)):
        data = Folder(str(root), PREPROCESS, val_size=size, seed=seed)
        data.setup("fit")
        assert torch.bincount(data.splits["val"].labels).tolist() == [4, 2]
        assert not set(data.splits["val"].numbers.tolist()) & set(data.splits["train"].numbers.tolist())
        apart.append((names(data, "val"), data.data_info()["splits"], data.val_size))
    assert apart[0] == apart[1]


def test_training_sees_crops_and_evaluation_the_center(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), PREPROCESS, val_size=2, batch_size=6, crop=Crop(size=5))
    data.setup("fit")
    assert next(iter(data.train_dataloader())).images.shape == (6, 3, 5, 5)
    (batch,) = data.val_dataloader()
    picture = Image.open(data.splits["val"].images.name(int(data.splits["val"].numbers[0])))
    expected = PREPROCESS(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    assert torch.equal(PREPROCESS.normalize(batch.images)[0], expected)


def test_training_crops_are_functions_of_seed_and_index(tmp_path: Path):
    root = str(fill(tmp_path / "set", a=4, b=4))
    for seed in (1, 2):
        data = Folder(root, PREPROCESS, Crop(scale=(0.2, 0.5)), batch_size=8, val_size=0, seed=seed)
        data.setup("fit")
        (batch,) = data.train_dataloader()
        crop = RandomResizedCrop(8, scale=(0.2, 0.5))
        for place, (number, drawn) in enumerate(zip(batch.indices.tolist(), crop.draw(batch.indices, seed, epoch=0), strict=True)):
            picture = Image.open(data.splits["train"].images.name(number))
            assert torch.equal(batch.images[place], crop(torch.from_numpy(np.array(picture)).permute(2, 0, 1), drawn))


def test_data_info_is_plain_and_says_all(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), PREPROCESS, val_size=2, mix=Mix(cutmix=1.0), augment=Augment(random_erasing=0.1))
    data.setup("fit")
    info = data.data_info()
    assert json.loads(json.dumps(info)) == info
    assert (info["kind"], info["crop"]["kind"], info["test_views"]) == ("Folder", "random_resized", "center")
    assert (info["mix"]["cutmix"], info["augment"]["random_erasing"], info["val_size"]) == (1.0, 0.1, 2)


@pytest.mark.parametrize("order", [("fit", "validate", "test", "predict"), ("test", "validate", "fit")])
@pytest.mark.parametrize(("test_views", "views"), [("ten_crop", [10]), ("multi_scale", [2, 2]), ("center", None)])
def test_views_are_for_commands_that_evaluate(tmp_path: Path, order: tuple[str, ...], test_views, views: list[int] | None):
    root = tmp_path / "set"
    for part in ("train", "test"):
        fill(root / part, a=3, b=3)
    data = Folder(str(root), PREPROCESS, val_size=2, batch_size=2, eval_batch_size=1, test_views=test_views, test_scales=(8, 10))
    module, trainer = Shown(), make_trainer(max_epochs=1)
    for command in order:
        getattr(trainer, command)(module, datamodule=data)
    assert {command for command, _, _ in module.seen} == set(order)
    for command, is_training, shown in module.seen:
        assert shown == (None if command == "fit" else views), (command, is_training)


class Shown(LightningModule):
    """Keeps of each batch the command, whether it is a training batch, and how many views of each shape there are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 2)
        self.seen: list[tuple[str, bool, list[int] | None]] = []

    def keep(self, batch, _):
        images = batch[0]
        views = [len(group.images) for group in images] if isinstance(images, list) else None
        self.seen.append((self.trainer.state.fn.value, self.trainer.training, views))
        return batch[1]

    validation_step = test_step = predict_step = keep

    def training_step(self, batch, _):
        self.keep(batch, _)
        return self.net(batch[0].mean((1, 2, 3)).view(-1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_data_info_has_the_scales_of_a_test(tmp_path: Path):
    root = str(fill(tmp_path / "set", a=2, b=2))
    info = Folder(root, PREPROCESS, val_size=1, test_views="multi_scale", test_scales=(8, 12)).data_info()
    assert json.loads(json.dumps(info)) == info
    assert (info["test_views"], info["test_scales"]) == ("multi_scale", [8, 12])
    assert "test_scales" not in Folder(root, PREPROCESS, val_size=1, test_views="ten_crop").data_info()


def test_copies_in_a_training_batch(tmp_path: Path):
    root = str(fill(tmp_path / "set", a=4, b=4))
    data = Folder(root, PREPROCESS, val_size=0, batch_size=4, repeated_augmentation=2, seed=1)
    data.setup("fit")
    for batch in data.train_dataloader():
        one, other = batch.indices.view(2, 2)
        assert torch.equal(one, other - 8)
        assert torch.equal(*batch.labels.view(2, 2))
        assert all(not torch.equal(*pair) for pair in zip(batch.images[:2], batch.images[2:], strict=True)), "other crops"
    few = Folder(root, PREPROCESS, val_size=2, batch_size=8, repeated_augmentation=4)
    few.setup("fit")
    with pytest.raises(ValueError, match=r"^batch 6 = .*: 4 copies of each image cannot divide it. Set data.repeated_augmentation to 1\.$"):
        few.train_dataloader()


def test_a_broken_link_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = fill(tmp_path / "set", a=2, b=2)
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for on_bad_image in ("raise", "skip"):
        data = Folder(str(root), PREPROCESS, val_size=0, batch_size=5, on_bad_image=on_bad_image)
        data.setup("fit")
        loader = data.train_dataloader()
        if on_bad_image == "raise":
            with pytest.raises(ValueError, match=r"gone\.png cannot be read: No such file or directory\. .*`reslight data check`"):
                next(iter(loader))
        else:
            assert [len(batch.labels) for batch in loader] == [4]
            assert data.data_info()["splits"]["train"]["skipped"] == 1


def test_grey_weights_get_grey_images(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), GREY, val_size=0, batch_size=4)
    data.setup("fit")
    assert next(iter(data.train_dataloader())).images.shape == (4, 1, 8, 8)
    assert data.augment.fill == 117


def test_a_folder_that_changes_has_another_fingerprint(tmp_path: Path):
    root = fill(tmp_path / "set", a=3, b=3)

    def name() -> str:
        data = Folder(str(root), PREPROCESS, val_size=0)
        data.setup("fit")
        return data.splits["train"].fingerprint

    before = name()
    assert name() == before
    (root / "a" / "00.png").write_bytes(b"other")
    assert name() != before


def test_images_that_were_replaced_by_others_of_the_same_size_are_noticed(tmp_path: Path):
    root = fill(tmp_path / "set", a=3, b=3)

    def info() -> dict[str, str]:
        data = Folder(str(root), PREPROCESS, val_size=2)
        data.setup("fit")
        splits = data.data_info()["splits"]
        assert splits["val"]["content"] == splits["train"]["content"], "of all images that both were taken from"
        return dict(splits["train"])

    before = info()
    root = root.rename(root.with_name("moved"))
    assert info() == before
    image = root / "b" / "02.png"
    data = image.read_bytes()
    image.write_bytes(data[:-20] + bytes(20))
    after = info()
    assert after["fingerprint"] == before["fingerprint"]
    assert after["content"] != before["content"]
    line = "data has other images in train than when the checkpoint was written, of the same names and sizes."
    assert compare_data_info({"data": {"splits": {"train": before}}}, {"splits": {"train": after}}, "32", resume=True) == [line]
    after["fingerprint"] = "another"
    (only,) = compare_data_info({"data": {"splits": {"train": before}}}, {"splits": {"train": after}}, "32", resume=True)
    assert "fingerprint is another" in only
    del before["content"], after["content"]  # as in older checkpoints
    after["fingerprint"] = before["fingerprint"]
    assert compare_data_info({"data": {"splits": {"train": before}}}, {"splits": {"train": after}}, "32", resume=True) == []


def test_a_sample_of_many_files_finds_a_class_that_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(content, "_SAMPLE", 10)
    paths = [tmp_path / f"{number:02}.png" for number in range(95)]
    for path in paths:
        path.write_bytes(b"one")
    before = Files(paths).content()
    for path in paths[40:50]:  # as many as the sample's distance
        path.write_bytes(b"two")
    assert Files(paths).content() != before
    paths[40].unlink()
    assert Files(paths).content() != before, "a missing file is no error here"
    assert Files([]).content() == Files([]).content()


UNPRINTABLE = {"a\nb": r"a\nb", "t\tt": r"t\tt", "\x1b[31m": r"\x1b[31m", os.fsdecode(b"caf\xe9"): r"caf\udce9", "x\u202ey": r"x\u202ey"}


@pytest.mark.parametrize(("name", "shown"), UNPRINTABLE.items(), ids=UNPRINTABLE.values())
def test_a_class_that_no_card_can_name_is_refused_before_training_and_listed(tmp_path: Path, name: str, shown: str):
    root = fill(tmp_path / "set", a=1, **{name: 1})
    says = f"{root} has folders of classes whose names are not printable text: {shown}. Rename them; `reslight data check` lists all."
    with pytest.raises(UsageError) as caught:
        Folder(str(root), PREPROCESS)
    assert str(caught.value) == says
    problems = list(check(str(root)))
    assert [str(problem) for problem in problems if problem.kind == "name"] == [
        f"{root}/{shown} must be one line of printable text. Rename the folder."
    ]


def test_names_of_files_are_printed_without_control_characters(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = fill(tmp_path / "odd\x1b[31m", a=2, b=2)
    for name in ("a/\x1b[32mz.png", "\x1b[32mloose.png"):
        (root / name).write_bytes(b"junk")
    data = Folder(str(root), PREPROCESS, val_size=0, batch_size=5, on_bad_image="skip")
    data.setup("fit")
    assert [len(batch.labels) for batch in data.train_dataloader()] == [4]
    assert data.name == r"odd\x1b[31m"
    assert r"\x1b[32mz.png is not an image" in caplog.text
    assert r"ignored: \x1b[32mloose.png" in caplog.text
    assert "\x1b[32m" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "make"),
    [("a pipe", os.mkfifo), ("a device", lambda path: path.symlink_to("/dev/zero"))],
)
def test_what_is_not_a_file_is_neither_waited_for_nor_read(tmp_path: Path, kind: str, make, caplog: pytest.LogCaptureFixture):
    root = fill(tmp_path / "set", a=2, b=2)
    make(root / "a" / "z.png")
    data = Folder(str(root), PREPROCESS, val_size=0, batch_size=5)
    data.setup("fit")
    with pytest.raises(ValueError, match=rf"a/z\.png is {kind}: it must be a regular file\. Replace or remove it\. Run `reslight data"):
        next(iter(data.train_dataloader()))
    data = Folder(str(root), PREPROCESS, val_size=0, batch_size=5, on_bad_image="skip")
    data.setup("fit")
    assert [len(batch.labels) for batch in data.train_dataloader()] == [4]
    assert "z.png is a" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (lambda root: root.rename(root.with_name("away")), {}, "data.root is .*set: there is no such folder"),
        (lambda root: [path.unlink() for path in root.rglob("*.png")], {}, "has no images in folders of classes"),
        (lambda root: [path.unlink() for path in (root / "b").glob("*.png")], {}, "has classes without images: b. Add images"),
        (lambda root: (root / "b").rename(root.with_name("b")), {}, "has one class, a: a classifier needs"),
        (lambda root: fill(root / "test", a=1), {}, "it has test, but no train. Add train/CLASS/IMAGE"),
        (lambda root: None, {"val_size": 8}, "data.val_size is 8: .*below 8"),
        (lambda root: None, {"val_size": 1.5}, "data.val_size is 1.5: "),
        (lambda root: None, {"threads": 0}, "data.threads is 0: it must be at least 1"),
        (lambda root: None, {"on_bad_image": "shrug"}, "data.on_bad_image is shrug: it must be one of raise, skip"),
        (lambda root: None, {"test_views": "ten"}, "data.test_views is ten: it must be one of center, ten_crop, multi_scale"),
        (lambda root: None, {"test_scales": ()}, r"data.test_scales is \[\]: "),
        (lambda root: None, MIXED_WITH_ITSELF, "data.batch_size is 32: .* mixed with itself. Use 64"),
        (lambda root: None, {"repeated_augmentation": 0}, "data.repeated_augmentation is 0: it must be at least 1"),
        (lambda root: None, {"batch_size": 0}, "data.batch_size is 0: "),
        (lambda root: None, {"val_size": -1}, "data.val_size is -1: "),
        (lambda root: None, {"test_scales": (8, 0)}, r"data.test_scales is \[8, 0\]: "),
        (lambda root: None, {"crop": Crop(kind="scale_jitter", short_side=(7, 9))}, r"data.crop.short_side is \[7, 9\]: .* 8,"),
        (lambda root: None, {"repeated_augmentation": 3}, "data.batch_size is 64: 3 copies of each image .* cannot divide it. Use 66"),
        (lambda root: None, {"augment": Augment(pad=9, pad_mode="reflect")}, "augment.pad is 9"),
        (lambda root: None, {"preprocess": GREY, "test_views": "ten_crop"}, "data.preprocess.resize is null: ten crops need"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, spoil, settings, says: str):
    root = fill(tmp_path / "set", a=4, b=4)
    spoil(root)
    with pytest.raises((ValueError, OSError), match=says) as caught:
        Folder(str(root), **{"preprocess": PREPROCESS, **settings})
    assert "\n" not in str(caught.value)


def test_classes_of_other_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "set" / "train", a=2, b=2, c=2)
    fill(tmp_path / "set" / "val", a=1, c=1)
    data = Folder(str(tmp_path / "set"), PREPROCESS)
    data.setup("fit")
    assert data.splits["val"].labels.tolist() == [0, 2], "numbered as in training"
    assert caplog.messages == [f"{tmp_path / 'set' / 'val'} has no images of b"]
    fill(tmp_path / "set" / "val", d=1)
    with pytest.raises(ValueError, match=r"val has classes that are missing in .*train: d\. "):
        Folder(str(tmp_path / "set"), PREPROCESS)


def test_an_empty_root():
    with pytest.raises(ValueError, match=r"data\.root is empty"):
        Folder("")


def test_a_small_part_of_the_image_in_evaluation_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Folder(str(fill(tmp_path / "set", a=4, b=4)), Preprocess(size=8, resize=256, mean=(0.5,) * 3, std=(0.25,) * 3))
    (message,) = caplog.messages
    assert message.startswith("data.preprocess.resize is 256: ")
    assert "8 x 8" in message


def test_nothing_to_test_on(tmp_path: Path):
    data = Folder(str(fill(tmp_path / "set", a=4, b=4)), PREPROCESS)
    with pytest.raises(ValueError, match=r"^data.root is .*set: it has no test images. .*`reslight validate`"):
        data.setup("test")


@pytest.mark.parametrize("field", ["kind", "size", "scale", "ratio", "short_side"])
def test_impossible_crops(field: str):
    bad = {"kind": "whole", "size": 0, "scale": (0.5, 0.1), "ratio": (0.0, 1.0), "short_side": (30, 20)}
    with pytest.raises(ValueError, match=f"^data.crop.{field} is "):
        Crop(**{field: bad[field]})
    with pytest.raises(ValueError, match=r"^data.crop.short_side is \[100, 200\]: .* 224,"):
        Crop(kind="scale_jitter", short_side=(100, 200)).geometry(Preprocess(size=224, mean=(0.5,) * 3, std=(1.0,) * 3))


# -- whole runs

TINY = {"depths": [1, 1], "widths": [4, 8], "stem": "small", "stem_width": 4, "shortcut": "A"}
BAD = ("train/a/03.png", "test/a/01.png", "test/b/00.png", "test/b/01.png")


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """Bluish and reddish images, some of which cannot be read; the third test batch of two has only such images."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 9), ("val", 2), ("test", 4)):
        for channel, name in ((0, "a"), (2, "b")):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 120, (9 + number % 3, 12, 3))
                pixels[..., channel] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "set" / part / name / f"{number:02}.png")
    for name in BAD:
        (tmp_path / "set" / name).write_bytes(b"%PDF-1.7")
    return tmp_path / "set"


def run_data(root: Path, **settings) -> Folder:
    common = {"batch_size": 6, "eval_batch_size": 2, "seed": 3, "on_bad_image": "skip", "repeated_augmentation": 2, "threads": 2}
    return Folder(str(root), PREPROCESS, Crop(scale=(0.3, 1.0)), **common | {"mix": Mix(mixup=0.2, cutmix=1.0)} | settings)


def run_module() -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(TINY, num_classes=2, schedule=ScheduleConfig("constant"))


def views_by_hand(picture: Path, test_views: str) -> list[torch.Tensor]:
    """float32 `(n, 3, H, W)` each: what the network must see of an image."""
    image = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)
    if test_views == "center":
        seen = [v2.CenterCrop(8)(v2.Resize(10)(image)).unsqueeze(0)]
    elif test_views == "ten_crop":
        seen = [torch.stack(v2.TenCrop(8)(v2.Resize(10)(image)))]
    else:
        seen = [torch.stack((scaled, scaled.flip(-1))) for scaled in (v2.Resize(8)(image), v2.Resize(12)(image))]
    return [(views / 255 - 0.5) / 0.25 for views in seen]


@pytest.mark.slow
def test_a_run_from_files_to_numbers(spoilt: Path):
    module, trainer = run_module(), make_trainer(max_epochs=2)
    data = run_data(spoilt)
    trainer.fit(module, data)
    assert trainer.global_step == 6
    assert data.data_info()["splits"]["train"]["skipped"] == 1
    trainer.validate(module, data, verbose=False)
    assert module.counts.total == 4
    net = module.net.eval()
    for test_views in ("center", "ten_crop", "multi_scale"):
        data = run_data(spoilt, test_views=test_views, test_scales=(8, 12))
        trainer.test(module, data, verbose=False)
        predicted = trainer.predict(module, data)
        split = data.splits["test"]
        sound = [number for number in range(8) if "/".join(Path(split.images.name(number)).parts[-3:]) not in BAD]
        assert [number for indices, _ in predicted for number in indices.tolist()] == sound
        with torch.no_grad():
            views = [views_by_hand(Path(split.images.name(number)), test_views) for number in sound]
            expected = torch.stack([torch.cat([net(view).softmax(1) for view in of_image]).mean(0) for of_image in views])
        torch.testing.assert_close(torch.cat([probabilities for _, probabilities in predicted]), expected, atol=1e-5, rtol=0)
        labels = split.labels[sound]
        right = int((expected.argmax(1) == labels).sum())
        assert (module.counts.total, module.counts.correct1) == (5, right)
        assert module.counts.nll == pytest.approx(-float(expected[range(5), labels].log().sum()), rel=1e-4)
        assert data.data_info()["splits"]["test"] == {"size": 8, "fingerprint": split.fingerprint, "content": split.content, "skipped": 3}


@pytest.mark.slow
def test_a_run_that_is_resumed_in_an_epoch_ends_in_the_same_weights(spoilt: Path, tmp_path: Path):
    def fit(threads: int, ckpt_path: Path | None = None, **settings) -> dict[str, torch.Tensor]:
        module = run_module()
        data = run_data(spoilt, threads=threads, augment=Augment(flip="random", policy="trivialaugment"))
        make_trainer(max_epochs=-1, max_steps=8, **settings).fit(module, data, ckpt_path=ckpt_path)
        return module.state_dict()

    saved = tmp_path / "part.ckpt"
    whole = fit(2, callbacks=[SaveAt("on_train_batch_end", 5, saved)])
    assert torch.load(saved, weights_only=True)["global_step"] == 5, "the second batch of the second epoch"
    resumed = fit(3, saved)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not torch.equal(whole["net.fc.weight"], run_module().state_dict()["net.fc.weight"])


def test_many_channels_of_16_bits_of_any_shape(tmp_path: Path):
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 65536, (8, 20, 30, 5), dtype=np.uint16)
    for number, pixels in enumerate(values):
        file = tmp_path / "ab"[number % 2] / f"{number}.tif"
        file.parent.mkdir(exist_ok=True)
        tifffile.imwrite(file, pixels, photometric="minisblack", planarconfig="contig")
    preprocess = Preprocess((8, 15), (0.5,) * 5, (0.25,) * 5, crop="letterbox", bits=16)
    data = Folder(str(tmp_path), preprocess, Crop("letterbox", size=(8, 15)), batch_size=4, val_size=0.5)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert (batch.images.dtype, batch.images.shape) == (torch.uint16, (4, 5, 8, 15))
    assert data.augment.fill == (128,) * 5
    trained = data.training_batch(batch, epoch=0)
    assert trained.images.dtype == torch.float32
    (evaluated,) = data.val_dataloader()
    for image, number in zip(data.on_after_batch_transfer(evaluated, 0).images, data.splits["val"].numbers, strict=True):
        path = data.splits["val"].images.name(int(number))
        assert torch.equal(image, preprocess(torch.from_numpy(tifffile.imread(path)).permute(2, 0, 1)))
    assert data.data_info()["image_size"] == [8, 15]
    wrong = Folder(str(tmp_path), replace(preprocess, mean=(0.5,) * 4, std=(0.2,) * 4), batch_size=4)
    wrong.setup("fit")
    with pytest.raises(ValueError, match=r"\.tif has 5 channels: the network takes 4 "):
        next(iter(wrong.train_dataloader()))
    for settings in ({"augment": Augment(policy="randaugment")}, {"augment": Augment(pca=0.1)}, {"test_views": "multi_scale"}):
        with pytest.raises(ValueError, match=r"Use (none|0|center)"):
            Folder(str(tmp_path), preprocess, **settings)


def test_a_scaled_decode_is_for_training_only_and_the_same_with_any_threads(tmp_path: Path):
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        file = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC).save(file)
    batches = {}
    for key in ({"scaled_decode": True, "threads": 1}, {"scaled_decode": True, "threads": 3}, {"scaled_decode": False}):
        data = Folder(str(tmp_path), PREPROCESS, batch_size=4, val_size=2, **key)
        data.setup("fit")
        assert not data.splits["val"].scaled_decode
        batches[tuple(key.values())] = next(iter(data.train_dataloader())).images
    assert torch.equal(batches[True, 1], batches[True, 3])
    difference = (batches[True, 1].int() - batches[(False,)].int()).abs().float()
    assert 0 < difference.mean() < 8
