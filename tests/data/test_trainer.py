"""The data module in real Lightning Trainers, with a module that knows nothing of reslight."""

import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler
from torch import nn

from reslight.data import Augment, Synthetic, SyntheticImages
from reslight.data.loading.loaders import TrainLoader

IMAGES = SyntheticImages(size=8, in_channels=3, num_classes=4, train_size=100, test_size=30)
AUGMENT = Augment(pad=2, flip="random", cutout=2)


class Recorder(LightningModule):
    """A small network that keeps what it is given."""

    def __init__(self, memory_format=torch.contiguous_format):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 4)).to(memory_format=memory_format)
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def keep(self, part, batch):
        images, labels, indices = batch
        self.seen[part].append((indices.tolist(), images.detach().clone()))
        return nn.functional.cross_entropy(self.net(images), labels)

    def training_step(self, batch, batch_idx):
        return self.keep("train", batch)

    def validation_step(self, batch, batch_idx):
        self.keep("val", batch)

    def test_step(self, batch, batch_idx):
        self.keep("test", batch)

    def predict_step(self, batch, batch_idx):
        return self.keep("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class LengthReader(Recorder):
    """Reads the length of the run in `configure_optimizers`, as schedules do: loaders are set up before a checkpoint is restored."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


class SaveAt(Callback):
    """Save a checkpoint the `count`-th time that a hook is called."""

    def __init__(self, hook, count, path):
        setattr(self, hook, self.save)
        self.left, self.path = count, path

    def save(self, trainer, *_):
        self.left -= not trainer.sanity_checking
        if self.left == 0:
            trainer.save_checkpoint(self.path)


def make_data(**settings):
    return Synthetic(IMAGES, **({"batch_size": 20, "val_size": 20, "seed": 3, "augment": AUGMENT} | settings))


def make_trainer(**settings):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", **(quiet | {"max_epochs": 2} | settings))


def fit(data=None, ckpt_path=None, module=None, **settings):
    """Train and return what the network saw: one (indices, pixels) for each batch."""
    module = module or Recorder()
    make_trainer(**settings).fit(module, data or make_data(), ckpt_path=ckpt_path)
    return module.seen["train"]


def same(one, other):
    return len(one) == len(other) and all(
        a_indices == b_indices and torch.equal(a_pixels, b_pixels)
        for (a_indices, a_pixels), (b_indices, b_pixels) in zip(one, other, strict=True)
    )


def test_all_stages_and_augmentation_in_training_only():
    data, module, trainer = make_data(), Recorder(), make_trainer(num_sanity_val_steps=2)
    trainer.fit(module, data)
    assert set(data.splits) == {"train", "val"}  # fitting has not touched the test set
    trainer.validate(module, data, verbose=False)
    trainer.test(module, data, verbose=False)
    trainer.predict(module, data)
    sizes = {"train": 80, "val": 20, "test": 30, "predict": 30}
    for part, batches in module.seen.items():
        split = data.splits["test" if part == "predict" else part]
        plain = data.preprocess.normalize(split.images)
        untouched = [torch.equal(pixels, plain[indices]) for indices, pixels in batches]
        assert not any(untouched) if part == "train" else all(untouched), part
        assert len({index for indices, _ in batches for index in indices}) == sizes[part]


def test_training_pixels_are_augment_of_seed_epoch_and_index():
    data = make_data()
    seen = fit(data)
    images = data.splits["train"].images
    assert len(seen) == 8
    for step, (indices, pixels) in enumerate(seen):
        expected = AUGMENT(images[indices], torch.tensor(indices), seed=3, epoch=step // 4)
        assert torch.equal(pixels, data.preprocess.normalize(expected)), step


def test_images_are_uint8_until_they_are_on_the_device():
    dtypes = []

    class Spy(Synthetic):
        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            dtypes.append(batch.images.dtype)
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    fit(Spy(IMAGES, batch_size=20, val_size=20), max_epochs=1)
    assert set(dtypes) == {torch.uint8}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
        ("bf16-mixed", torch.float32),
    ],
)
def test_pixels_have_the_networks_dtype_and_layout(precision, dtype, memory_format):
    module = Recorder(memory_format)
    make_trainer(precision=precision, max_epochs=1).fit(module, make_data())
    for part in ("train", "val"):
        for _, pixels in module.seen[part]:
            assert pixels.dtype == dtype
            assert pixels.is_contiguous(memory_format=memory_format)


def test_lightning_has_nothing_to_warn_about():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data, trainer = make_data(), make_trainer()
        trainer.fit(Recorder(), data)
        trainer.test(Recorder(), data, verbose=False)
    about_data = [str(one.message) for one in caught if "loader" in str(one.message) or "hook" in str(one.message)]
    assert about_data == []


def test_val_size_0_skips_validation():
    module = Recorder()
    trainer = make_trainer(num_sanity_val_steps=2)
    trainer.fit(module, make_data(val_size=0))
    assert module.seen["val"] == []
    assert len(module.seen["train"]) == 10
    with pytest.raises(ValueError, match=r"data.val_size is 0: .*no images to validate on"):
        trainer.validate(module, make_data(val_size=0), verbose=False)


def test_batch_size_that_cannot_be_divided():
    with pytest.raises(ValueError, match=r"data.batch_size is 20: 1 device x 3 accumulation steps cannot divide it. Use 18 or 21"):
        fit(accumulate_grad_batches=3)


def test_accumulation_that_changes_is_refused():
    scheduler = GradientAccumulationScheduler({1: 2})
    with pytest.raises(ValueError, match=r"trainer.accumulate_grad_batches went from 1 to 2 in training"):
        fit(callbacks=[scheduler])


def test_a_callback_can_look_at_the_first_batch():
    class Look(Callback):
        def on_fit_start(self, trainer, module):
            self.batch = next(iter(trainer.datamodule.train_dataloader()))

    look = Look()
    seen = fit(callbacks=[look])
    assert look.batch.indices.tolist() == seen[0][0]


def test_overfitting_repeats_the_same_images():
    seen = fit(overfit_batches=2, max_epochs=3)
    images = [indices for indices, _ in seen]
    assert images == images[:2] * 3
    assert not torch.equal(seen[0][1], seen[2][1])  # but the augmentation goes on


def test_accumulation_does_not_change_the_steps():
    whole = fit()
    halves = fit(accumulate_grad_batches=2)
    joined = [(one[0] + two[0], torch.cat([one[1], two[1]])) for one, two in zip(halves[::2], halves[1::2], strict=True)]
    assert same(joined, whole)


# (val_size, accumulation, hook, count, batches seen by then): 80 images are 4 steps an epoch, 100 are 5
SAVES = [
    (20, 1, "on_train_batch_end", 3, 3),
    (20, 1, "on_train_batch_end", 4, 4),
    (20, 2, "on_train_batch_end", 10, 10),
    (20, 1, "on_validation_end", 1, 4),
    (20, 2, "on_train_epoch_end", 1, 8),
    (0, 1, "on_train_epoch_end", 2, 10),
    (0, 2, "on_train_batch_end", 12, 12),
]


@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_steps": 11, "max_epochs": -1}], ids=str)
@pytest.mark.parametrize(("val_size", "accumulation", "hook", "count", "done"), SAVES)
def test_resume_sees_what_an_uninterrupted_run_sees(tmp_path, limit, val_size, accumulation, hook, count, done):
    settings = limit | {"accumulate_grad_batches": accumulation}
    data = make_data(val_size=val_size)
    checkpoint = tmp_path / "a.ckpt"
    whole = fit(data, callbacks=[SaveAt(hook, count, checkpoint)], **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rest = fit(make_data(val_size=val_size), ckpt_path=checkpoint, **settings)
    assert len(rest) == len(whole) - done > 0
    assert same(rest, whole[done:])
    assert not [one for one in caught if "not resumable" in str(one.message)]


@pytest.mark.parametrize(("hook", "count", "done"), [("on_train_batch_end", 6, 6), ("on_train_epoch_end", 1, 4)])
def test_a_balanced_run_resumes_exactly_and_its_steps_do_not_depend_on_accumulation(tmp_path, hook, count, done):
    def data():
        return make_data(batch_size=32, val_size=23, sampling="balanced")

    checkpoint = tmp_path / "a.ckpt"
    whole = fit(data(), callbacks=[SaveAt(hook, count, checkpoint)], max_epochs=3, accumulate_grad_batches=2)
    rest = fit(data(), ckpt_path=checkpoint, max_epochs=3, accumulate_grad_batches=2)
    assert len(whole) == 3 * 4
    assert same(rest, whole[done:])
    at_once = fit(data(), max_epochs=3)
    assert [indices for indices, _ in at_once] == [one + two for (one, _), (two, _) in zip(whole[::2], whole[1::2], strict=True)]


@pytest.mark.parametrize("stop", [2, 4, 6, 8])
def test_resume_after_max_steps_stopped_the_run(tmp_path, stop):
    # Lightning counts the epoch in which it stopped as completed; the images do not follow it
    whole = fit(max_steps=11, max_epochs=-1)
    checkpoint = tmp_path / "a.ckpt"
    fit(max_steps=stop, max_epochs=-1, callbacks=[SaveAt("on_train_end", 1, checkpoint)])
    assert same(fit(max_steps=11, max_epochs=-1, ckpt_path=checkpoint), whole[stop:])


@pytest.mark.parametrize("module", [Recorder, LengthReader])
def test_resume_with_another_batch_size_is_refused(tmp_path, module):
    checkpoint = tmp_path / "a.ckpt"
    fit(callbacks=[SaveAt("on_train_batch_end", 2, checkpoint)])
    with pytest.raises(ValueError, match="batch_size is 10: the checkpoint was saved with 20"):
        fit(make_data(batch_size=10), ckpt_path=checkpoint, module=module())


@pytest.mark.parametrize("module", [Recorder, LengthReader])
def test_the_batch_size_may_be_found_before_the_first_step(module):
    data = make_data()
    seen = fit(data, module=module(), callbacks=[BatchSizeFinder(max_trials=2, steps_per_trial=1)], max_epochs=1)
    assert data.batch_size == 4
    assert len(seen[-1][0]) == 4


@pytest.mark.parametrize("module", [Recorder, LengthReader])
@pytest.mark.parametrize(
    ("hook", "count", "done"), [("on_train_batch_end", 3, 3), ("on_train_batch_end", 6, 6), ("on_train_epoch_end", 1, 4)]
)
@pytest.mark.parametrize("old", [False, True], ids=["in turn", "from before"])
def test_images_that_fill_no_batch_are_left_out_in_turn_and_resume_is_exact(tmp_path, monkeypatch, module, hook, count, done, old):
    settings = {"max_epochs": 3, "accumulate_grad_batches": 2}
    data, checkpoint = make_data(batch_size=32, val_size=23), tmp_path / "a.ckpt"
    with monkeypatch.context() as patch:
        if old:  # a run of the version before: no turns, and no mark in its checkpoints
            patch.setattr(TrainLoader, "rotates", property(lambda self: False, lambda self, value: None), raising=False)
        whole = fit(data, callbacks=[SaveAt(hook, count, checkpoint)], module=module(), **settings)
    assert len(whole) == 3 * 4
    epochs = [{index for indices, _ in whole[start : start + 4] for index in indices} for start in (0, 4, 8)]
    assert (epochs[0] | epochs[1] == epochs[1] | epochs[2] == set(range(77))) is not old
    rest = fit(make_data(batch_size=32, val_size=23), ckpt_path=checkpoint, module=module(), **settings)
    assert same(rest, whole[done:])


TWO_PROCESSES = """
    import sys, torch
    from lightning.pytorch import LightningModule, Trainer
    from reslight.data import Augment, Synthetic, SyntheticImages

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4).eval(), torch.nn.Flatten(),
                                           torch.nn.Linear(144, 4))
            self.seen = {"val": [], "test": []}
        def training_step(self, batch, _):
            return torch.nn.functional.cross_entropy(self.net(batch.images), batch.labels)
        def validation_step(self, batch, _):
            self.net(batch.images)
            self.seen["val"] += batch.indices.tolist()
        def test_step(self, batch, _):
            self.net(batch.images)
            self.seen["test"] += batch.indices.tolist()
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    devices, out = int(sys.argv[1]), sys.argv[2]
    data = Synthetic(SyntheticImages(8, 3, 4, 100, 31), batch_size=20, val_size=19, eval_batch_size=8, seed=1,
                     augment=Augment(pad=2, flip="random"))
    net = Net()
    trainer = Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto",
                      max_epochs=2, logger=False,
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                      num_sanity_val_steps=0)
    trainer.fit(net, data)
    trainer.test(net, data, verbose=False)
    torch.save((net.net.state_dict(), net.seen, str(data.batch_plan)), f"{out}.{trainer.global_rank}")
"""


@pytest.mark.slow
def test_two_processes_train_the_same_network_and_evaluate_every_image_once(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES))
    for devices in (1, 2):
        arguments = [sys.executable, str(script), str(devices), str(tmp_path / f"{devices}")]
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
        assert result.returncode == 0, result.stderr
    alone, first, second = (torch.load(tmp_path / name) for name in ("1.0", "2.0", "2.1"))
    for name, value in alone[0].items():
        torch.testing.assert_close(first[0][name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(first[0][name], second[0][name])
    assert first[2] == "batch 20 = 2 devices x 1 accumulation step x 10"
    assert sorted(first[1]["test"] + second[1]["test"]) == list(range(31)) == alone[1]["test"]
    assert sorted(first[1]["val"] + second[1]["val"]) == sorted([*range(19)] * 2) == sorted(alone[1]["val"])
    assert not Path("lightning_logs").exists()
