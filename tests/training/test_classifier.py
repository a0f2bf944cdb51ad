"""ImageClassifier in real Trainers: what it logs, saves, averages and refuses."""

import functools
import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.nn import functional as F

from reslight.data import Augment, Digits, Mix, Synthetic, SyntheticImages
from reslight.models import ResNetConfig, create_model
from reslight.training import Checkpoints, ImageClassifier, OptimConfig, ScheduleConfig

TINY = {"depths": [1, 1], "widths": [4, 8], "stem": "small", "stem_width": 4, "shortcut": "A"}


def tiny_data(**settings: Any) -> Synthetic:
    images = SyntheticImages(size=8, train_size=96, test_size=40)
    return Synthetic(images, **{"batch_size": 16, "val_size": 32, "seed": 3} | settings)


def tiny_model(**settings: Any) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(TINY, **{"num_classes": 10, "schedule": ScheduleConfig("constant")} | settings)


def trainer(**settings: Any) -> Trainer:
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    return Trainer(**quiet | settings)


class Recorder(Callback):
    """Notes the loss and the learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


# -- the network


def test_net_by_name_mapping_config_and_name_with_changes():
    named = ImageClassifier("resnet20", num_classes=100, in_channels=1).config
    assert (named.num_classes, named.in_channels, named.depths) == (100, 1, (3, 3, 3))
    assert ImageClassifier({"name": "resnet20", "shortcut": "B"}).config == create_model("resnet20", shortcut="B").config
    config = ResNetConfig(depths=(1,), widths=(8,), stem="small", stem_width=8)
    assert ImageClassifier(config).config == config
    assert ImageClassifier({"depths": [1], "widths": [8], "stem": "small", "stem_width": 8}).config == config


@pytest.mark.parametrize(
    ("net", "says"),
    [
        ({"name": "resnet20", "num_classes": 7}, "model.net.num_classes is 7: num_classes of the data, or as given, is 10"),
        (create_model("resnet20", num_classes=7).config, "model.net.num_classes is 7"),
        ({"stem": "small"}, "it must have a name, such as resnet20, or depths and widths"),
        ({"name": "resnet20", "widht": 3}, "unknown key 'widht'"),
        ("resnet21", "there is no network 'resnet21'"),
    ],
)
def test_nets_that_contradict_or_do_not_exist(net, says):
    with pytest.raises(ValueError, match=says):
        ImageClassifier(net, num_classes=10)


@pytest.mark.parametrize(
    ("settings", "says"), [({"label_smoothing": 1.0}, "model.label_smoothing is 1.0"), ({"ema": 1.5}, "model.ema is 1.5")]
)
def test_bad_settings(settings, says):
    with pytest.raises(ValueError, match=says):
        tiny_model(**settings)


def test_data_that_do_not_fit_the_network():
    with pytest.raises(ValueError, match=r"model\.num_classes is 7: synthetic has 10 classes"):
        trainer().fit(tiny_model(num_classes=7), datamodule=tiny_data())
    with pytest.raises(ValueError, match=r"model\.in_channels is 1: synthetic has 3 channels"):
        trainer().fit(tiny_model(in_channels=1), datamodule=tiny_data())


def test_a_large_stem_on_small_images_gives_a_warning(caplog):
    net = {**TINY, "stem": "imagenet"}
    trainer(fast_dev_run=True).fit(ImageClassifier(net, num_classes=10), datamodule=tiny_data())
    assert "imagenet stem halves images twice" in caplog.text
    assert "resnet18_cifar" in caplog.text


# -- training


def test_training_is_the_bare_loop():
    """The same batches through a hand-written loop give the same weights: no additional step, and no learning rate off by one."""
    seen: list[Any] = []

    class Keep(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append([tensor.clone() for tensor in batch])

    optim = OptimConfig(lr=0.05, nesterov=True, weight_decay=1e-2)
    schedule = ScheduleConfig(warmup=2, warmup_start=0.1)
    model = tiny_model(optim=optim, schedule=schedule, label_smoothing=0.1)
    trainer(max_epochs=2, callbacks=Keep()).fit(model, datamodule=tiny_data(augment=Augment(pad=1, flip="random")))

    bare = tiny_model().net.train()
    groups = [[p for p in bare.parameters() if p.ndim > 1], [p for p in bare.parameters() if p.ndim == 1]]
    optimizer = torch.optim.SGD(
        [{"params": groups[0], "weight_decay": 1e-2}, {"params": groups[1], "weight_decay": 0.0}], lr=0.05, momentum=0.9, nesterov=True
    )
    assert len(seen) == 8
    for step, (images, labels, _) in enumerate(seen):
        rate = 0.05 * (0.1 + 0.9 * step / 2) if step < 2 else 0.05 * (1 + math.cos(math.pi * (step - 2) / 6)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(bare(images), labels, label_smoothing=0.1).backward()
        optimizer.step()
    for (name, ours), (_, theirs) in zip(model.net.state_dict().items(), bare.state_dict().items(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
@pytest.mark.parametrize("mixed", [False, True])
def test_class_weights_are_torchs_and_for_training_only(kind, mixed):
    weights = {"class 1": 4.0, "class 3": 0.25}
    weight = torch.tensor([1, 4, 1, 0.25, 1, 1, 1, 1, 1, 1])
    expected: list[float] = []

    class Expect(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with torch.no_grad():
                logits = deepcopy(pl_module.net)(batch.images)
                if kind == "cross_entropy":
                    loss = F.cross_entropy(logits, batch.labels, weight, label_smoothing=0.1)
                else:
                    targets = batch.labels if mixed else F.one_hot(batch.labels, 10).float()
                    loss = F.binary_cross_entropy_with_logits(logits, targets * 0.9 + 0.01, weight)
            expected.append(float(loss))

    recorder, data = Recorder(), tiny_data(class_weights=weights, mix=Mix(cutmix=1.0 if mixed else 0.0))
    model, run = tiny_model(loss=kind, label_smoothing=0.1), trainer(callbacks=[Expect(), recorder])
    run.fit(model, datamodule=data)
    assert recorder.losses == pytest.approx(expected, rel=1e-6)
    assert model.data_info["class_weights"] == weight.tolist()
    weighted = run.validate(model, datamodule=data, verbose=False)
    assert weighted == run.validate(model, datamodule=tiny_data(), verbose=False), "evaluation has no weights"


def test_class_weights_end_with_the_data_that_have_them():
    model, recorder = tiny_model(), Recorder()
    trainer().fit(model, datamodule=tiny_data(class_weights={"class 1": 4.0}))
    state = deepcopy(model.state_dict())
    trainer(callbacks=[recorder]).fit(model, datamodule=tiny_data())
    alone, other = tiny_model(), Recorder()
    alone.load_state_dict(state)
    trainer(callbacks=[other]).fit(alone, datamodule=tiny_data())
    assert recorder.losses == other.losses


def test_the_loss_goes_down_and_the_numbers_are_logged():
    model = tiny_model(optim=OptimConfig(lr=0.05))
    run = trainer(max_epochs=30)
    run.fit(model, datamodule=tiny_data())
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert {"train/loss", "train/acc1", "val/loss", "val/acc1", "val/acc5", "lr"} <= logged.keys()
    assert logged["train/loss"] < 1.0
    assert 0.9 <= logged["train/acc1"] <= 1.0


def test_logged_accuracy_is_a_hand_count():
    model, data = tiny_model(optim=OptimConfig(lr=0.05)), tiny_data(eval_batch_size=7)
    run = trainer(max_epochs=3)
    run.fit(model, datamodule=data)
    split = data.splits["val"]
    model.eval()
    right = 0
    with torch.inference_mode():
        for image, label in zip(split.images, split.labels, strict=True):
            right += int(model(data.preprocess.normalize(image[None])).argmax()) == int(label)
    assert model.counts is not None
    assert (model.counts.total, model.counts.correct1) == (32, right)
    assert float(run.callback_metrics["val/acc1"]) == pytest.approx(right / 32)


def test_few_classes_have_no_acc5():
    data = Synthetic(SyntheticImages(size=8, num_classes=5, train_size=40, test_size=10), batch_size=8, val_size=10)
    run = trainer()
    run.fit(tiny_model(num_classes=5), datamodule=data)
    assert "val/acc1" in run.callback_metrics
    assert "val/acc5" not in run.callback_metrics


def test_an_evaluation_that_loses_images_is_an_error():
    data = tiny_data()
    model = tiny_model()

    class Losing(Callback):
        def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            if batch_idx == 1:
                pl_module._evaluator._integers -= 1

    with pytest.raises(RuntimeError, match="39 images of test were counted: the split has 40"):
        trainer(callbacks=Losing()).test(model, datamodule=data, verbose=False)
    assert trainer(limit_test_batches=1).test(model, datamodule=data, verbose=False)[0]["test/acc1"] <= 1


def test_a_loss_that_is_not_a_number_stops_the_run():
    model = tiny_model(optim=OptimConfig(lr=1e8))
    with pytest.raises(FloatingPointError, match=r"the training loss is (nan|inf) at step \d+.*Lower model\.optim\.lr"):
        trainer(max_epochs=20).fit(model, datamodule=tiny_data())


def test_a_checkpoint_of_weights_that_are_not_finite_is_not_written():
    """The loss of the last step was finite."""
    run = trainer()
    run.fit(tiny_model(), datamodule=tiny_data())
    run.save_checkpoint("good.ckpt")
    with torch.no_grad():
        next(run.lightning_module.parameters())[0] = float("inf")
    with pytest.raises(FloatingPointError, match=r"net\.conv1\.weight is not finite at step \d+.*this checkpoint is not written"):
        run.save_checkpoint("good.ckpt")
    assert all(torch.isfinite(value).all() for value in torch.load("good.ckpt", weights_only=True)["state_dict"].values())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_resnet110s_warmup_ends_when_the_error_is_down(accumulation):
    schedule = ScheduleConfig("multistep", milestones=(300,), warmup_until_error=0.5, warmup_start=0.2)
    model = tiny_model(optim=OptimConfig(lr=0.05), schedule=schedule)
    rates = Recorder()
    run = trainer(max_steps=320, max_epochs=-1, callbacks=rates, accumulate_grad_batches=accumulation, check_val_every_n_epoch=1000)
    run.fit(model, datamodule=tiny_data())
    warm_at = model._warmup.warm_at
    assert warm_at in (101, 201)  # the error is averaged over 100 steps, and the learning rate of the next step is already set
    assert rates.rates == pytest.approx([0.01] * warm_at + [0.05] * (300 - warm_at) + [0.005] * 20)


def test_the_warm_up_ends_at_the_same_step_after_a_resume(tmp_path):
    """A checkpoint between the 100th step and the decision about it."""
    schedule = ScheduleConfig("multistep", milestones=(300,), warmup_until_error=0.5, warmup_start=0.2)

    def run(steps: int, **fit: Any) -> ImageClassifier:
        model = tiny_model(optim=OptimConfig(lr=0.05), schedule=schedule)
        saver = Checkpoints(every_n_train_steps=100)
        saver.folder = tmp_path
        limits = {"max_steps": steps, "max_epochs": -1, "limit_val_batches": 0, "enable_checkpointing": True, "callbacks": saver}
        trainer(**limits).fit(model, datamodule=tiny_data(), **fit)
        return model

    whole = run(220)
    run(100)
    resumed = run(220, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed._warmup.warm_at == whole._warmup.warm_at
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_the_loss_of_a_step_is_the_mean_over_its_batches():
    """Accumulation changes how a step is computed, not the loss that is recorded."""
    losses = []
    for accumulation in (1, 2):
        model = tiny_model(optim=OptimConfig(lr=1e-9))
        net = model.net
        for module in net.modules():  # batch norm in eval mode: otherwise the loss depends on the batch size
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train = lambda mode=True, module=module: module
                module.training = False
        run = trainer(accumulate_grad_batches=accumulation, log_every_n_steps=1)
        steps: list[float] = []
        record = model.record
        model.record = lambda values, record=record, steps=steps: (steps.append(values.get("train/loss_step")), record(values))
        run.fit(model, datamodule=tiny_data())
        losses.append([value for value in steps if value is not None])
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# -- precisions, loaders and settings


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed", "16-true", "64", "32", "bf16"])
def test_every_precision_of_the_cpu(precision):
    run = trainer(precision=precision, max_epochs=2)
    model = tiny_model(optim=OptimConfig(lr=0.02))
    run.fit(model, datamodule=tiny_data())
    reference = trainer(max_epochs=2)
    reference.fit(same := tiny_model(optim=OptimConfig(lr=0.02)), datamodule=tiny_data())
    assert model.recorded["train/loss"] == pytest.approx(same.recorded["train/loss"], rel=0.03)
    dtype = {"64-true": torch.float64, "64": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
    assert next(model.parameters()).dtype == dtype.get(precision, torch.float32)


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format_is_the_setting(channels_last):
    model = tiny_model(channels_last=channels_last)
    assert model.net.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.parametrize(
    ("setting", "mode"),
    [(True, "default"), ("default", "default"), ("reduce-overhead", "reduce-overhead"), ("max-autotune", "max-autotune")],
)
def test_compile_takes_a_mode_of_torch(setting, mode, monkeypatch):
    called = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: called.append(options))
    model = tiny_model(compile=setting)
    trainer(fast_dev_run=1).fit(model, datamodule=tiny_data())
    assert called == [{"mode": mode}]
    assert model.hparams["compile"] == setting


def test_another_mode_is_a_mistake():
    with pytest.raises(ValueError, match=r"model\.compile is fast: it must be true, false, default, reduce-overhead, max-autotune"):
        tiny_model(compile="fast")


# By day without the code generator, which takes most of the time.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.nightly)])
def test_compile_keeps_the_keys(backend, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend=backend))
    run = trainer(max_steps=1, limit_val_batches=0)
    model = tiny_model(compile=True)
    keys = list(model.state_dict())
    run.fit(model, datamodule=tiny_data())
    assert model.net._compiled_call_impl is not None
    assert list(model.state_dict()) == keys
    assert all(key.startswith("net.") and "_orig_mod" not in key for key in keys)


def test_a_checkpoint_with_ema_holds_the_average_and_the_raw_weights(tmp_path):
    raw: list[torch.Tensor] = []

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            raw.append(pl_module.net.fc.weight.detach().clone())

    run = trainer(max_epochs=1, callbacks=[Keep(), saver := Checkpoints()], enable_checkpointing=True)
    saver.folder = tmp_path
    run.fit(tiny_model(ema=0.8, optim=OptimConfig(lr=0.05)), datamodule=tiny_data())
    average = raw[0]
    for weight in raw[1:]:
        average = 0.8 * average + 0.2 * weight
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["net.fc.weight"], average)
    torch.testing.assert_close(saved["current_model_state"]["net.fc.weight"], raw[-1])


def test_a_checkpoint_is_plain_data_and_restores_the_classifier(tmp_path):
    run = trainer(enable_checkpointing=True, callbacks=(saver := Checkpoints()))
    saver.folder = tmp_path
    model = tiny_model(optim=OptimConfig(lr=0.02, betas=(0.8, 0.9)), schedule=ScheduleConfig("multistep", milestones=(2, 3)))
    run.fit(model, datamodule=tiny_data())
    contents = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert contents["reslight"]["data"]["splits"]["val"]["size"] == 32
    again = ImageClassifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert dict(again.hparams) == dict(model.hparams)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_stochastic_depth_is_a_function_of_the_step():
    """Random numbers that were drawn before, here by a callback, change nothing."""

    class Disturb(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.rand(batch_idx + 1)

    losses = []
    for callbacks in ([], [Disturb()]):
        recorder = Recorder()
        model = ImageClassifier({**TINY, "depths": [3, 3], "drop_path": 0.5}, num_classes=10, schedule=ScheduleConfig("constant"))
        model.net.load_state_dict(losses[0][1]) if losses else None
        start = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
        trainer(callbacks=[*callbacks, recorder]).fit(model, datamodule=tiny_data())
        losses.append((recorder.losses, start))
    assert losses[0][0] == losses[1][0]
    assert len(set(losses[0][0])) == 4


def test_your_own_loaders_and_trainer():
    """Any data that give batches of (images, labels, indices) can be used."""
    images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 10
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels, torch.arange(24)), batch_size=8)

    class Own(LightningDataModule):
        def train_dataloader(self):
            return loader

        def val_dataloader(self):
            return loader

    for data in ({"train_dataloaders": loader, "val_dataloaders": loader}, {"datamodule": Own()}):
        run = trainer()
        run.fit(tiny_model(), **data)
        assert "val/acc1" in run.callback_metrics


def test_a_subclass_can_have_its_own_optimizer():
    class Own(ImageClassifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0123)

    rates = Recorder()
    trainer(callbacks=rates).fit(Own(TINY, num_classes=10), datamodule=tiny_data())
    assert rates.rates == [0.0123] * 4


@pytest.mark.slow
def test_digits_in_python():
    run = trainer(max_epochs=15)
    model = ImageClassifier("resnet8", OptimConfig(lr=0.1), ScheduleConfig(unit="epoch", warmup=2), num_classes=10, in_channels=1)
    run.fit(model, datamodule=(data := Digits(seed=1)))
    assert run.test(model, datamodule=data, verbose=False)[0]["test/acc1"] >= 0.96
