"""The optimizer and the learning rate in real Trainers: of ImageClassifier, of subclasses, and with Lightning's callbacks."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from reslight.data import Synthetic, SyntheticImages
from reslight.messages import UsageError
from reslight.training import ImageClassifier, OptimConfig, ScheduleConfig
from reslight.training.optim import build_optimizer

TINY = {"depths": [1, 1], "widths": [4, 8], "stem": "small", "stem_width": 4, "shortcut": "A"}


def tiny_data(**settings: Any) -> Synthetic:
    images = SyntheticImages(size=8, train_size=96, test_size=40)
    return Synthetic(images, **{"batch_size": 16, "val_size": 32, "seed": 3} | settings)


def tiny_model(cls: type[ImageClassifier] = ImageClassifier, **settings: Any) -> ImageClassifier:
    torch.manual_seed(0)
    return cls(TINY, **{"num_classes": 10} | settings)


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**quiet | {"enable_checkpointing": False, "max_epochs": 2, "callbacks": list(callbacks)} | settings)


class Groups(Callback):
    """Notes settings of the optimizer's groups in each step."""

    def __init__(self, *names: str) -> None:
        self.names, self.seen = names or ("lr",), []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append([tuple(group[name] for name in self.names) for group in optimizer.param_groups])


# -- subclasses


class OwnOptimizer(ImageClassifier):
    """Two groups, as many as ImageClassifier's own optimizer has."""

    def configure_optimizers(self):
        weights, vectors = ([p for p in self.parameters() if (p.ndim > 1) is is_weight] for is_weight in (True, False))
        return torch.optim.SGD([{"params": weights}, {"params": vectors}], lr=0.003, weight_decay=0.01, momentum=0.5)


class OneCycle(ImageClassifier):
    """One group, and a schedule of torch's."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=8)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class OwnSchedule(ImageClassifier):
    """The optimizer of ImageClassifier with another schedule."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()["optimizer"]
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


class Changed(ImageClassifier):
    """What ImageClassifier returns, with other settings and one more group."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.extra = torch.nn.Parameter(torch.zeros(1))

    def configure_optimizers(self):
        made = super().configure_optimizers()
        made["optimizer"].param_groups[0] |= {"weight_decay": 0.25, "lr": 0.02}
        made["optimizer"].add_param_group({"params": [self.extra], "lr": 0.5})
        return made


CONSTANT = ScheduleConfig("constant")


def test_a_subclass_trains_with_its_own_optimizer():
    trainer(groups := Groups("lr", "weight_decay", "momentum")).fit(tiny_model(OwnOptimizer), datamodule=tiny_data())
    assert groups.seen == [[(0.003, 0.01, 0.5)] * 2] * 8


def test_a_subclass_trains_with_its_own_schedule():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule, rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=8), []
    for _ in range(8):
        rates.append([(optimizer.param_groups[0]["lr"],)])
        optimizer.step()
        schedule.step() if len(rates) < 8 else None
    run = trainer(groups := Groups(), log_every_n_steps=1, max_steps=7)
    run.fit(model := tiny_model(OneCycle), datamodule=tiny_data())
    assert groups.seen == rates[:7]
    assert model.recorded["lr"] == rates[6][0][0]  # that of the step, not the next one's
    trainer(groups := Groups()).fit(tiny_model(OwnSchedule, optim=OptimConfig(lr=0.4)), datamodule=tiny_data())
    assert groups.seen == [[(0.4,)] * 2] * 4 + [[(0.2,)] * 2] * 4


def test_a_subclass_changes_the_groups(tmp_path):
    """The schedule applies to each group, also in a run that resumes."""
    schedule = ScheduleConfig("multistep", milestones=(3, 6), gamma=0.5)

    def fit(steps: int, **resume: Any) -> list[Any]:
        run = trainer(groups := Groups("lr", "weight_decay"), max_steps=steps, max_epochs=-1)
        run.fit(tiny_model(Changed, optim=OptimConfig(lr=0.1), schedule=schedule), datamodule=tiny_data(), **resume)
        run.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return groups.seen

    whole, part = fit(8), fit(4)
    factors = [1] * 3 + [0.5] * 3 + [0.25] * 2
    assert whole == [[(0.02 * f, 0.25), (0.1 * f, 0.0), (0.5 * f, 0.0)] for f in factors]
    assert part + fit(8, ckpt_path=tmp_path / "4.ckpt", weights_only=True) == whole


def test_the_configuration_wins_over_the_checkpoint(tmp_path):
    """A resume with other settings trains with them."""
    run = trainer(max_epochs=1)
    run.fit(tiny_model(optim=OptimConfig(lr=0.1), schedule=CONSTANT), datamodule=tiny_data())
    run.save_checkpoint(tmp_path / "a.ckpt")
    model = tiny_model(optim=OptimConfig(lr=0.05, weight_decay=0.3, momentum=0.8), schedule=CONSTANT)
    groups = Groups("lr", "weight_decay", "momentum")
    trainer(groups).fit(model, datamodule=tiny_data(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert groups.seen == [[(0.05, 0.3, 0.8), (0.05, 0.0, 0.8)]] * 4


def test_a_callback_may_change_the_settings_of_a_fresh_run():
    class Decay(Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.optimizers[0].param_groups[0]["weight_decay"] = 0.25

    trainer(Decay(), groups := Groups("weight_decay")).fit(tiny_model(), datamodule=tiny_data())
    assert {group[0] for group in groups.seen} == {(0.25,)}


def test_a_warm_up_that_is_too_long_is_shortened(caplog):
    """And said, once."""
    schedule = ScheduleConfig("constant", unit="epoch", warmup=2, warmup_start=0.5)
    trainer(groups := Groups(), max_epochs=1).fit(tiny_model(schedule=schedule), datamodule=tiny_data())
    assert [row[0] for row in groups.seen] == [(pytest.approx(lr),) for lr in (0.05, 0.075, 0.1, 0.1)]
    line = "model.schedule.warmup is 2 epochs: the run has 4 steps. The warm-up is shortened to half of the run."
    assert [record.getMessage() for record in caplog.records if "warmup" in record.getMessage()] == [line]


def test_plateau_in_a_run_is_torchs():
    """After the warm-up, from the validations that were recorded; the recorded learning rate is that of the step."""
    values: list[tuple[int, float]] = []
    rates: list[tuple[int, float]] = []

    class Watched(ImageClassifier):
        def record(self, recorded):
            super().record(recorded)
            if "val/acc1" in recorded:
                values.append((self.global_step, recorded["val/acc1"]))
            if "lr" in recorded:
                rates.append((self.global_step, recorded["lr"]))

    schedule = ScheduleConfig("plateau", monitor="val/acc1", patience=1, gamma=0.5, threshold=0.2, warmup=5, warmup_start=0.5)
    run = trainer(groups := Groups(), max_epochs=6, val_check_interval=2, log_every_n_steps=1, num_sanity_val_steps=2)
    run.fit(tiny_model(Watched, schedule=schedule, optim=OptimConfig(lr=0.1, backbone_lr=0.5)), datamodule=tiny_data())
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=1, threshold=0.2)
    expected = [0.05 + 0.05 * step / 5 for step in range(5)]
    measured = dict(values)
    assert sorted(measured) == list(range(2, 25, 2))
    for step in range(5, 24):
        if step in measured:
            theirs.step(measured[step])
        expected.append(optimizer.param_groups[0]["lr"])
    assert expected[-1] < 0.03
    assert [max(lr for (lr,) in row) for row in groups.seen] == pytest.approx(expected)
    assert [min(lr for (lr,) in row) for row in groups.seen] == pytest.approx([lr / 2 for lr in expected])
    assert all(lr == pytest.approx(expected[step - 1]) for step, lr in rates)
    assert {step for step, _ in rates} == set(range(1, 25))


@pytest.mark.parametrize("without", [{"data": {"val_size": 0}}, {"trainer": {"limit_val_batches": 0}}])
def test_plateau_needs_validation(without):
    run, data = trainer(**without.get("trainer", {})), tiny_data(**without.get("data", {}))
    with pytest.raises(UsageError, match=r"model\.schedule\.name is plateau: it needs a validation, .* Set data\.val_size"):
        run.fit(tiny_model(schedule=ScheduleConfig("plateau")), datamodule=data)


@pytest.mark.parametrize(
    ("settings", "first", "length"),
    [
        ({"check_val_every_n_epoch": 3}, 12, 8),  # 4 batches an epoch
        ({"check_val_every_n_epoch": 2, "max_steps": 7, "max_epochs": 9}, 8, 7),
        ({"check_val_every_n_epoch": None, "val_check_interval": 9}, 9, 8),
        ({"val_check_interval": 0.5, "max_steps": 1}, 2, 1),
        ({"check_val_every_n_epoch": 2}, 8, None),
        ({"check_val_every_n_epoch": None, "val_check_interval": 8}, 8, None),
        ({"fast_dev_run": True}, 1, None),
    ],
)
def test_plateau_needs_a_validation_before_the_run_ends(settings, first, length):
    run, model = trainer(**settings), tiny_model(schedule=ScheduleConfig("plateau"))
    if length is None:
        run.fit(model, datamodule=tiny_data())
        assert model.counts is not None
        return
    with pytest.raises(UsageError, match=rf"plateau: .* would be after {first} training batches, and the run has {length}\. Lower"):
        run.fit(model, datamodule=tiny_data())
    assert run.global_step == 0


def test_plateau_needs_a_loader_that_validates():
    class Own(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(torch.zeros(32, 3, 8, 8), torch.zeros(32).long()), batch_size=16)

        def val_dataloader(self):
            return []

    run = trainer()
    with pytest.raises(UsageError, match=r"model\.schedule\.name is plateau: it needs a validation, .* Set data\.val_size"):
        run.fit(tiny_model(schedule=ScheduleConfig("plateau")), datamodule=Own())
    assert run.global_step == 0


# -- tuners

REGULARIZED = {**TINY, "depths": [2, 2], "drop_path": 0.3}
WARM = ScheduleConfig(warmup=5)


def weights_of(model: ImageClassifier) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def tuned_model(**settings: Any) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(REGULARIZED, num_classes=10, ema=0.8, **{"schedule": WARM} | settings)


@pytest.mark.parametrize(("mode", "found"), [("power", 8), ("binsearch", 7)])
@pytest.mark.parametrize("by", ["callback", "Tuner"])
def test_a_batch_size_finder_leaves_no_trace(mode, found, by, tmp_path, caplog):
    """The run is the same as one with this batch size from the start."""
    settings = {"mode": mode, "steps_per_trial": 2, "init_val": 2, "max_trials": 3}
    limits = {"default_root_dir": tmp_path, "log_every_n_steps": 1}
    model, data, rates = tuned_model(), tiny_data(eval_batch_size=16), Groups()
    if by == "Tuner":
        run = trainer(rates, **limits)
        assert Tuner(run).scale_batch_size(model, datamodule=data, **settings) == found
    else:
        run = trainer(BatchSizeFinder(**settings), rates, **limits)
    rates.seen.clear()
    run.fit(model, datamodule=data)
    whole = trainer(expected := Groups(), **limits)
    whole.fit(same := tuned_model(), datamodule=tiny_data(batch_size=found, eval_batch_size=16))
    assert rates.seen == expected.seen
    assert len(rates.seen) == 64 // found * 2
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(same), strict=True))
    assert model.recorded == same.recorded
    assert model.data_info["batch_size"] == found
    run.save_checkpoint(tmp_path / "a.ckpt")
    whole.save_checkpoint(tmp_path / "b.ckpt")
    states = [torch.load(tmp_path / name, weights_only=True) for name in ("a.ckpt", "b.ckpt")]
    for key in ("reslight", "lr_schedulers"):
        assert states[0][key] == states[1][key]
    assert "when the checkpoint was written" not in caplog.text


def test_a_batch_size_finder_for_evaluation(tmp_path):
    model, data = tiny_model(), tiny_data()
    size = Tuner(trainer(default_root_dir=tmp_path)).scale_batch_size(
        model, datamodule=data, method="test", batch_arg_name="eval_batch_size", max_trials=3
    )
    assert size == data.eval_batch_size == 8
    assert trainer().test(model, datamodule=data, verbose=False)
    assert model.counts is not None
    assert model.counts.total == 40


SWEEP = {"min_lr": 1e-4, "max_lr": 1.0, "num_training_steps": 30}


@pytest.mark.parametrize("optim", [OptimConfig(lr=0.3, backbone_lr=0.1), OptimConfig("muon", lr=0.02, sgd_lr=0.1)])
def test_a_learning_rate_finder_sweeps_and_sets_the_rate(optim, tmp_path, caplog):
    finder, limits = LearningRateFinder(**SWEEP), {"default_root_dir": tmp_path, "max_epochs": 10}
    model, rates = tuned_model(optim=optim), Groups()
    caplog.set_level("INFO", "reslight")
    trainer(finder, rates, **limits).fit(model, datamodule=tiny_data())
    swept = finder.optimal_lr.results["lr"]
    assert (len(swept), swept[0]) == (30, 1e-4)
    assert swept[-1] == pytest.approx(1.0)
    found = finder.optimal_lr.suggestion()
    assert model.lr == model.optim.lr == model.hparams["optim"]["lr"] == model.hparams_initial["optim"]["lr"] == found != optim.lr
    assert model.hparams["net"] == model.config.to_dict()
    assert f"model.optim.lr is {found:g} now: it was {optim.lr:g}." in caplog.text
    trainer(expected := Groups(), **limits).fit(same := tuned_model(optim=model.optim), datamodule=tiny_data())
    for ours, theirs in zip(rates.seen, expected.seen, strict=True):
        assert [lr for (lr,) in ours] == pytest.approx([lr for (lr,) in theirs])
    for ours, theirs in zip(weights_of(model), weights_of(same), strict=True):
        torch.testing.assert_close(ours, theirs)
    if optim.name == "muon":
        assert model.optim.sgd_lr / found == pytest.approx(0.1 / 0.02)


def test_the_sweep_keeps_the_ratio_of_groups(tmp_path):
    class Watched(ImageClassifier):
        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            if self._in_trial:
                seen.append([group["lr"] for group in optimizer.param_groups])

    seen: list[list[float]] = []
    model = tiny_model(Watched, optim=OptimConfig(lr=0.3, backbone_lr=0.1))
    finder = Tuner(trainer(default_root_dir=tmp_path, max_epochs=10)).lr_find(
        model, datamodule=tiny_data(), min_lr=1e-4, max_lr=0.1, num_training=30
    )
    assert [max(row) for row in seen] == pytest.approx(finder.results["lr"])
    assert [min(row) for row in seen] == pytest.approx([lr * 0.1 for lr in finder.results["lr"]])


def test_a_sweep_may_diverge(tmp_path):
    """A loss that is not a number ends a run, but not a sweep, which looks for the highest rate."""
    sweep = {"min_lr": 1.0, "max_lr": 1e30, "num_training": 30, "early_stop_threshold": None, "update_attr": False}
    run = trainer(default_root_dir=tmp_path, max_epochs=10)
    losses = Tuner(run).lr_find(tiny_model(), datamodule=tiny_data(), **sweep).results["loss"]
    assert len(losses) == 30
    assert not math.isfinite(losses[-1])


def test_a_learning_rate_that_is_set_in_training():
    class Lower(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                pl_module.lr = 0.01

    model = tiny_model(optim=OptimConfig(lr=0.1, backbone_lr=0.5), schedule=CONSTANT)
    trainer(Lower(), groups := Groups()).fit(model, datamodule=tiny_data())
    rates = [sorted({rate for (rate,) in row}) for row in groups.seen]
    assert rates == [pytest.approx([0.05, 0.1])] * 4 + [pytest.approx([0.005, 0.01])] * 4


def test_tuners_are_left_out_of_a_resume(tmp_path, caplog):
    """With what they found, though the configuration has other values."""
    caplog.set_level("INFO", "reslight")

    def fit(epochs: int, *callbacks: Callback, **resume: Any) -> ImageClassifier:
        run = trainer(*callbacks, default_root_dir=tmp_path, max_epochs=epochs)
        run.fit(model := tiny_model(schedule=CONSTANT), datamodule=tiny_data(), **resume)
        run.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return model

    def tuners() -> list[Callback]:
        sweep = LearningRateFinder(num_training_steps=14, min_lr=1e-3)
        return [BatchSizeFinder(steps_per_trial=1, init_val=4, max_trials=2, max_val=64), sweep]

    whole = fit(4, *tuners())
    fit(2, *tuners())
    resumed = fit(4, *tuners(), ckpt_path=tmp_path / "2.ckpt", weights_only=True)
    assert whole.optim == resumed.optim != OptimConfig()
    assert "LearningRateFinder is left out: the run resumes with the learning rate" in caplog.text
    assert "BatchSizeFinder is left out: the run resumes with the batch size of the checkpoint." in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(resumed), strict=True))


def test_a_tuner_in_the_middle_of_training_is_refused(tmp_path):
    class Late(BatchSizeFinder):
        def on_fit_start(self, *_):
            return

        def on_train_epoch_start(self, trainer, pl_module):
            self.scale_batch_size(trainer, pl_module)

    with pytest.raises(UsageError, match="runs in the middle of training"):
        trainer(Late(max_trials=2), default_root_dir=tmp_path).fit(tiny_model(), datamodule=tiny_data())


def test_what_tuners_find_is_in_the_configuration_of_the_run(fit):
    finder, sweep = "--trainer.callbacks+=BatchSizeFinder", "--trainer.callbacks+=LearningRateFinder"
    options = {"max_trials": 3, "steps_per_trial": 1}, {"min_lr": 1e-3, "num_training_steps": 14}
    words = [
        word
        for name, settings in zip((finder, sweep), options, strict=True)
        for word in (name, *(f"--trainer.callbacks.init_args.{key}={value}" for key, value in settings.items()))
    ]
    answer = fit("runs", *words)
    assert answer.code == 0, answer.err
    run = Path("runs/tiny/1")
    config, summary = yaml.safe_load((run / "config.yaml").read_text()), json.loads((run / "summary.json").read_text())
    lr = config["model"]["optim"]["lr"]
    assert config["data"]["init_args"]["batch_size"] == summary["data"]["batch_size"] == 8
    assert lr == summary["settings"]["optim"]["lr"] != 0.05
    assert f"model.optim.lr is {lr:g} now: it was 0.05." in answer.err + answer.out
    assert f"sgd with lr {lr:g}" in answer.err + answer.out


class Endless(IterableDataset):
    """Images without a known number."""

    def __iter__(self):
        for _ in range(96):
            yield torch.randn(3, 8, 8), 1


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ({}, "model.schedule.name is cosine: a cosine needs the length of the run"),
        ({"warmup": 2}, "model.schedule.name is cosine"),
        ({"name": "multistep", "unit": "epoch", "milestones": (1,)}, "model.schedule.unit is epoch: an epoch of this loader has no known"),
        ({"name": "constant", "unit": "epoch", "warmup": 1}, "model.schedule.unit is epoch"),
    ],
)
def test_a_loader_without_a_length_needs_a_schedule_that_does_without(schedule, says):
    run = trainer()
    with pytest.raises(UsageError, match=says) as error:
        run.fit(tiny_model(schedule=ScheduleConfig(**schedule)), DataLoader(Endless(), 32))
    assert "trainer.limit_train_batches" in str(error.value)
    assert run.global_step == 0


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({"max_steps": 4}, {"warmup": 1}),
        ({"limit_train_batches": 2}, {"unit": "epoch", "warmup": 0.5}),
        ({}, {"name": "constant", "warmup": 2}),
        ({}, {"name": "constant", "unit": "epoch"}),
        ({}, {"name": "multistep", "milestones": (2,)}),
    ],
)
def test_a_loader_without_a_length_trains_at_rates_above_0(settings, schedule):
    noted = Groups("lr")
    trainer(noted, **settings).fit(tiny_model(schedule=ScheduleConfig(**schedule)), DataLoader(Endless(), 32))
    assert noted.seen
    assert all(lr > 0 for step in noted.seen for (lr,) in step)


def test_counters_in_an_optimizers_groups_are_those_of_the_checkpoint(tmp_path):
    """timm's lookahead counts its steps there; the learning rate is the configuration's."""
    pytest.importorskip("timm")
    optim = OptimConfig(name="timm:lookahead_sgd", lr=0.05, options={"momentum": 0.9})

    def fit(steps: int, **settings: Any) -> Trainer:
        run = trainer(max_steps=steps, max_epochs=-1)
        run.fit(tiny_model(optim=optim, schedule=ScheduleConfig(name="constant")), tiny_data(), **settings)
        return run

    whole, part = fit(8), fit(3)
    part.save_checkpoint(tmp_path / "part.ckpt")
    again = fit(8, ckpt_path=tmp_path / "part.ckpt")
    assert [run.optimizers[0].param_groups[0]["lookahead_step"] for run in (whole, part, again)] == [8, 3, 8]
    for one, other in zip(whole.lightning_module.parameters(), again.lightning_module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_settings_that_an_optimizer_does_not_get_are_said(caplog):
    net = tiny_model().net
    with caplog.at_level("WARNING"):
        build_optimizer(OptimConfig(name="torch.optim.SGD", nesterov=True, momentum=0.5), net)
    assert [record.getMessage() for record in caplog.records] == [
        "model.optim.momentum and model.optim.nesterov are not passed on to torch.optim.SGD. "
        "Set model.optim.options, such as {momentum: 0.5}."
    ]
    caplog.clear()
    build_optimizer(OptimConfig(name="torch.optim.SGD", options={"momentum": 0.5}), net)
    build_optimizer(OptimConfig(name="adamw", betas=(0.9, 0.99)), net)
    assert not caplog.records
