"""The optimizer and the learning rate in real Trainers: of ImageClassifier, of subclasses, and with Lightning's callbacks."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from reslight.data import Synthetic, SyntheticImages
from reslight.training import ImageClassifier, OptimConfig, ScheduleConfig

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
