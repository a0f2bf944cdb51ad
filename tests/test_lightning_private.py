"""A test for each private part of Lightning that reslight depends on: it fails when Lightning renames the part."""

import inspect
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, EMAWeightAveraging, Timer, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

from reslight import lightning_private

BATCHES = 4


class Module(LightningModule):
    """The smallest module that trains and validates."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.known: list[Any] = []

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        before = self.trainer.num_training_batches
        lightning_private.setup_training_data(self.trainer)
        self.known = [before, self.trainer.num_training_batches]
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Notes(Callback):
    """Notes what the functions return in training."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.completed: list[int] = []
        self.follows: list[bool] = []

    def on_train_batch_start(self, trainer, *_):
        self.begun.append(lightning_private.batches_begun(trainer))
        self.completed.append(lightning_private.batches_completed(trainer))

    def on_train_batch_end(self, trainer, *_):
        self.follows.append(lightning_private.validation_or_epoch_end_follows(trainer))


def trainer(**settings: Any) -> Trainer:
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**quiet | {"enable_checkpointing": False, "max_epochs": 2} | settings)


def fit(run: Trainer, **resume: Any) -> Module:
    module = Module()
    run.fit(module, DataLoader(torch.randn(2 * BATCHES, 2), batch_size=2), DataLoader(torch.randn(6, 2), batch_size=2), **resume)
    return module


def test_the_averaged_model_of_a_callback():
    callback = WeightAveraging()
    callback.setup(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), module := Module(), "fit")
    average = lightning_private.averaged_model(callback)
    average.update_parameters = lambda model: updated.append(model)
    updated: list[Any] = []
    callback.on_train_batch_end(SimpleNamespace(global_step=1), module, None, None, 0)
    assert updated == [module], "the callback calls what is put in its place"


def test_whole_numbers_stay_whole_though_a_library_named_floats_first(monkeypatch):
    annotations = inspect.unwrap(Trainer.__init__).__annotations__
    monkeypatch.setitem(annotations, "limit_train_batches", float | int | None)
    monkeypatch.setitem(annotations, "precision", before := annotations["precision"])
    lightning_private.order_number_types()
    assert get_args(annotations["limit_train_batches"]) == (int, float, type(None))
    assert annotations["precision"] is before
    parser = ArgumentParser()
    parser.add_class_arguments(Trainer, "trainer")
    for text, value in (("4", 4), ("1", 1), ("1.0", 1.0), ("0.5", 0.5)):
        found = parser.parse_args([f"--trainer.limit_train_batches={text}"]).trainer.limit_train_batches
        assert (found, type(found)) == (value, type(value))


def test_the_trainer_of_a_module():
    assert lightning_private.trainer_of(Module()) is None
    run = trainer(max_steps=1)
    assert lightning_private.trainer_of(fit(run)) is run


def test_the_length_of_an_epoch_is_known_after_the_setup_of_the_data():
    before, after = fit(trainer(max_steps=1, max_epochs=-1)).known
    assert after == BATCHES
    assert before != BATCHES


class Steps(Callback):
    """Notes which step Lightning passes to loggers, and whether a step or an epoch has begun."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, int, bool, bool]] = []

    def note(self, name: str, run: Trainer) -> None:
        private = lightning_private
        self.notes.append((name, private.logged_step(run), private.step_is_open(run), private.epoch_begins(run)))

    def on_train_epoch_start(self, trainer, *_):
        self.note("epoch start", trainer)

    def on_train_batch_start(self, trainer, *_):
        self.note("start", trainer)

    def on_train_batch_end(self, trainer, *_):
        self.note("end", trainer)

    def on_validation_end(self, trainer, *_):
        self.note("validated", trainer)

    def on_train_epoch_end(self, trainer, *_):
        self.note("epoch end", trainer)


def test_what_numbers_the_values_of_loggers(tmp_path):
    run = trainer(max_epochs=1, limit_train_batches=2, accumulate_grad_batches=2, num_sanity_val_steps=0, callbacks=[(steps := Steps())])
    fit(run)
    assert steps.notes == [
        ("epoch start", 0, False, True),
        ("start", 0, True, False),
        ("end", 0, True, False),
        ("start", 0, True, False),
        ("end", 0, False, False),
        ("validated", 0, False, False),
        ("epoch end", 1, False, False),
    ]
    run.save_checkpoint(tmp_path / "x.ckpt")
    assert lightning_private.saved_batches(torch.load(tmp_path / "x.ckpt", weights_only=True)) == 2
    assert lightning_private.saved_batches({}) == 0


@pytest.mark.parametrize(("strategy", "copies"), [("ddp", False), ("ddp_fork", True), ("ddp_spawn", True), ("auto", False)])
def test_which_strategies_copy_the_process(strategy, copies):
    assert lightning_private.copies_process(trainer(strategy=strategy, devices=1 if strategy == "auto" else 2).strategy) is copies


def test_which_logger_has_a_metric_of_its_hyper_parameters(tmp_path):
    assert lightning_private.has_hp_metric(TensorBoardLogger(tmp_path))
    assert not lightning_private.has_hp_metric(TensorBoardLogger(tmp_path, default_hp_metric=False))
    assert not lightning_private.has_hp_metric(CSVLogger(tmp_path))


def test_training_loaders_get_their_states_once(tmp_path):
    class Loader:
        def __init__(self):
            self.loaded = []

        def __len__(self):
            return BATCHES

        def __iter__(self):
            return iter(torch.randn(BATCHES, 2, 2))

        def state_dict(self):
            return {"mark": 7}

        def load_state_dict(self, state):
            self.loaded.append(state)

    class Restore(Callback):
        def on_train_start(self, trainer, pl_module):
            lightning_private.restore_training_loaders(trainer)
            lightning_private.restore_training_loaders(trainer)

    run = trainer(callbacks=Restore(), max_epochs=1)
    run.fit(Module(), loader := Loader())
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert loader.loaded == []
    trainer(callbacks=Restore()).fit(Module(), loader, ckpt_path=tmp_path / "last.ckpt")
    assert loader.loaded == [{"mark": 7}]


def test_batches_are_counted_over_the_whole_run(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

    fit(trainer(callbacks=[notes := Notes(), Save()]))
    assert notes.begun == [1, 2, 3, 4, 5, 6, 7, 8]
    assert notes.completed == [0, 1, 2, 3, 4, 5, 6, 7]
    fit(trainer(callbacks=(notes := Notes())), ckpt_path=tmp_path / "last.ckpt")
    assert (notes.begun, notes.completed) == ([7, 8], [6, 7])


@pytest.mark.parametrize(
    ("settings", "follows"),
    [
        ({}, [False, False, False, True] * 2),
        ({"val_check_interval": 2}, [False, True, False, True] * 2),
        ({"check_val_every_n_epoch": 2}, [False, False, False, True] * 2),
        ({"limit_val_batches": 0}, [False, False, False, True] * 2),
        ({"max_steps": 6}, [False, False, False, True, False, True]),
    ],
)
def test_what_follows_a_batch(settings, follows):
    fit(trainer(callbacks=(notes := Notes()), **settings))
    assert notes.follows == follows


def test_which_validations_are_those_of_the_whole_run():
    scheduled: list[bool] = []

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 2 * BATCHES - 1

        def on_validation_end(self, trainer, _):
            scheduled.append(lightning_private.validation_is_scheduled(trainer))
            stops.append(trainer.should_stop)

    stops: list[bool] = []
    fit(trainer(callbacks=Stop(), num_sanity_val_steps=0))
    assert (scheduled, stops) == ([True, False], [False, True])


def test_epochs_done_are_what_a_checkpoint_counts(tmp_path):
    class Count(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            lightning_private.set_epochs_done(trainer, 5)
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    fit(trainer(callbacks=Count(), max_epochs=1))
    progress = torch.load(tmp_path / "last.ckpt", weights_only=True)["loops"]["fit_loop"]["epoch_progress"]["current"]
    assert (progress["ready"], progress["processed"]) == (1, 5)


def test_an_interrupted_validation_restarts_on_resume(tmp_path):
    class Interrupt(Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            if trainer.global_step == BATCHES and batch_idx == 1:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            lightning_private.restart_validation_on_resume(checkpoint)

    class Validated(Callback):
        def __init__(self):
            self.batches: list[tuple[int, int]] = []

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            self.batches.append((trainer.global_step, batch_idx))

    fit(trainer(callbacks=Interrupt(), num_sanity_val_steps=0))
    again = trainer(callbacks=(validated := Validated()), num_sanity_val_steps=0)
    fit(again, ckpt_path=tmp_path / "last.ckpt")
    assert validated.batches == [(step, batch) for step in (BATCHES, 2 * BATCHES) for batch in range(3)]


def test_the_checkpoint_of_a_requeued_job_is_found_under_slurm_only(tmp_path, monkeypatch):
    own = trainer(default_root_dir=tmp_path)
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: True))
    assert lightning_private.requeue_checkpoint(own) is None
    (tmp_path / "hpc_ckpt_3.ckpt").touch()
    assert lightning_private.requeue_checkpoint(own) == tmp_path / "hpc_ckpt_3.ckpt"
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: False))
    assert lightning_private.requeue_checkpoint(own) is None


def test_slurm_is_recognized():
    assert not lightning_private.runs_under_slurm(trainer())
    assert lightning_private.runs_under_slurm(trainer(plugins=[SLURMEnvironment()]))


def test_callbacks_are_listed_and_removed():
    run = trainer(callbacks=[note := Callback(), *(others := [Timer(), EMAWeightAveraging()])])
    assert [one for one in lightning_private.callbacks_of(run) if one in (note, *others)] == [note, *others]
    lightning_private.remove_callbacks(run, (Timer, EMAWeightAveraging))
    assert note in lightning_private.callbacks_of(run)
    assert not set(others) & set(lightning_private.callbacks_of(run))
    assert lightning_private.callbacks_of(run) is run.callbacks, "what the trainer calls"


def test_what_a_running_learning_rate_finder_tries(tmp_path, capfd):
    seen: list[int | None] = []

    class Watched(Module):
        def on_train_start(self):
            seen.append(lightning_private.learning_rates_to_try(self.trainer))
            lightning_private.hide_bar_of_learning_rates(self.trainer)

    run = trainer(default_root_dir=tmp_path, max_epochs=10)
    Tuner(run).lr_find(Watched(), DataLoader(torch.randn(BATCHES, 2)), num_training=14, update_attr=False)
    run.fit(Watched(), DataLoader(torch.randn(BATCHES, 2)))
    assert seen == [14, None]
    assert "Finding" not in capfd.readouterr().err


def test_what_a_batch_size_finder_sets():
    assert lightning_private.batch_size_name(BatchSizeFinder(batch_arg_name="own")) == "own"


def test_an_error_from_restoring_a_checkpoint():
    saved = trainer(max_epochs=1)
    saved.fit(Module(), DataLoader(torch.randn(BATCHES, 2)))
    saved.save_checkpoint("whole.ckpt")
    torch.save(torch.load("whole.ckpt", weights_only=False) | {"loops": 3}, "odd.ckpt")
    with pytest.raises(TypeError) as caught:
        trainer(max_epochs=2).fit(Module(), DataLoader(torch.randn(BATCHES, 2)), ckpt_path="odd.ckpt")
    assert lightning_private.is_from_restoring(caught.value)
    with pytest.raises(TypeError) as caught:
        trainer(max_epochs=1).fit(Module(), DataLoader(3))
    assert not lightning_private.is_from_restoring(caught.value)


def test_the_names_of_values_of_single_steps():
    names: list[list[str]] = []

    class Logged(Module):
        def training_step(self, batch, batch_idx):
            self.log("step", 1.0)
            self.log("both", 1.0, on_step=True, on_epoch=True)
            self.log("bar", 1.0, logger=False)
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self):
            names.append(lightning_private.names_of_step_values(self.trainer))

    trainer(max_epochs=1).fit(Logged(), DataLoader(torch.randn(BATCHES, 2)))
    assert names == [["step"]]
