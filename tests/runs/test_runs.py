"""One folder is one run, through the command line as a user does."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from reslight.runs.folder import Run, RunDirectory
from reslight.training.resume import compare_data_info, compare_environments

TINY = """\
seed_everything: 5
trainer: {max_epochs: 2, log_every_n_steps: 2}
model:
  net: {depths: [1, 1], widths: [8, 16], stem: small, stem_width: 8}
  optim: {lr: 0.05}
data: {class_path: Synthetic, init_args: {images: {size: 8, train_size: 96, test_size: 40}, batch_size: 16, val_size: 30}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_of_a_run(reslight, config):
    answer = reslight("fit", "--config", config)
    assert answer.code == 0, answer.err
    run = Path("runs/tiny/1")
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    events = {name for name in names if "tfevents" in name}
    assert names - events == {"config.yaml", "metrics.csv", "summary.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    assert len(events) == 1
    assert [row["step"] for row in rows(run)] == ["2", "4", "6", "8"]
    assert [row["epoch"] for row in rows(run)] == ["1", "1", "2", "2"]
    assert rows(run)[1]["val/acc1"]
    assert rows(run)[1]["train/acc1"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 8
    assert summary["seed"] == 5
    assert summary["metrics"]["val/acc1"] == float(rows(run)[-1]["val/acc1"])
    for said in ("batch  16 = 1 device", "seed 5", "epoch 2/2", "done   8 steps", "next   reslight test --config runs/tiny/1/config.yaml"):
        assert said in answer.out


def test_runs_count_up_and_their_config_makes_the_same_run(reslight, config):
    assert reslight("fit", "--config", config).code == 0
    assert reslight("fit", "--config", "runs/tiny/1/config.yaml").code == 0
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == ["1", "2"]
    first, second = (torch.load(f"runs/tiny/{n}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for n in (1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_test_validate_and_predict_take_the_newest_run(reslight, config):
    reslight("fit", "--config", config)
    reslight("fit", "--config", config, "--seed_everything", 6)
    answer = reslight("test", "--config", config)
    assert answer.code == 0, answer.err
    assert "checkpoint runs/tiny/2/checkpoints/last.ckpt, step 8" in answer.out
    report = json.loads(Path("runs/tiny/2/test.json").read_text())
    counts = report["counts"]
    assert counts["total"] == 40
    assert f"test/acc1 {counts['correct1'] / 40:.4f} ({counts['correct1']} of 40)" in answer.out
    confusion = torch.tensor(report["confusion"])
    assert (int(confusion.sum()), int(confusion.trace())) == (40, counts["correct1"])
    assert [(row["total"], row["correct"]) for row in report["per_class"]] == list(
        zip(confusion.sum(dim=1).tolist(), confusion.diagonal().tolist(), strict=True)
    )
    assert sum(row["images"] for row in report["calibration"]["bins"]) == 40
    assert "written runs/tiny/2/test.json and test.png" in answer.out
    assert Path("runs/tiny/2/test.png").is_file()
    assert reslight("validate", "--config", config).code == 0
    assert json.loads(Path("runs/tiny/2/validate.json").read_text())["counts"]["total"] == 30

    assert reslight("predict", "--config", config).code == 0
    with Path("runs/tiny/2/predictions.csv").open() as file:
        answers = list(csv.DictReader(file))
    assert [row["image"] for row in answers] == [str(n) for n in range(40)]
    labels, truth = report["data"]["labels"], synthetic_labels()
    assert sum(labels.index(row["label"]) == int(true) for row, true in zip(answers, truth, strict=True)) == counts["correct1"]
    assert all(0.1 <= float(row["probability"]) <= 1 for row in answers)


class Evaluated(Callback):
    """A user's callback that logs values of an evaluation; 40 test images are batches of 16, 16 and 8."""

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("mine/batch", float(batch_idx), on_step=True, on_epoch=True, batch_size=len(batch[1]))

    def on_test_epoch_end(self, trainer, pl_module):
        pl_module.log("mine/end", 1234567.5)

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("mine/validated", 1e-6)


def test_values_that_a_callback_logs_in_an_evaluation_are_in_its_report(reslight, config):
    reslight("fit", "--config", config, "--trainer.max_epochs", 1)
    answer = reslight("test", "--config", config, "--trainer.callbacks", f"{__name__}.Evaluated")
    assert answer.code == 0, answer.err
    metrics = json.loads(Path("runs/tiny/1/test.json").read_text())["metrics"]
    assert list(metrics) == ["test/loss", "test/acc1", "test/acc5", "test/ece", "mine/batch_epoch", "mine/end"]
    assert metrics["mine/batch_epoch"] == pytest.approx((0 * 16 + 1 * 16 + 2 * 8) / 40)
    assert metrics["mine/end"] == 1234567.5
    ece, *own = answer.out.splitlines()[-4:-1]
    assert ece.startswith("test/ece ")
    assert own == ["mine/batch_epoch 0.8", "mine/end 1.23457e+06"]
    answer = reslight("validate", "--config", config, "--trainer.callbacks", f"{__name__}.Evaluated")
    assert json.loads(Path("runs/tiny/1/validate.json").read_text())["metrics"]["mine/validated"] == pytest.approx(1e-6)
    assert "\nmine/validated 1e-06\n" in answer.out


def test_without_matplotlib_there_is_no_picture_and_everything_else(reslight, config, monkeypatch):
    reslight("fit", "--config", config)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    answer = reslight("test", "--config", config)
    assert answer.code == 0
    assert "pip install 'reslight[plot]'" in answer.out
    assert "written runs/tiny/1/test.json\n" in answer.out


def synthetic_labels() -> torch.Tensor:
    from reslight.data import Synthetic, SyntheticImages

    data = Synthetic(SyntheticImages(size=8, train_size=96, test_size=40))
    data.setup("test")
    return data.splits["test"].labels


def test_a_runs_own_config_means_that_run(reslight, config):
    reslight("fit", "--config", config)
    reslight("fit", "--config", config)
    assert "runs/tiny/1/checkpoints/best.ckpt" in reslight("test", "--config", "runs/tiny/1/config.yaml", "--ckpt_path", "best").out


STOPS = {
    "after an epoch": ["--trainer.max_epochs", 2],
    "in mid-epoch": ["--trainer.max_steps", 7, "--trainer.max_epochs", -1],
    "in mid-epoch, both ends set": ["--trainer.max_steps", 7, "--trainer.max_epochs", 4],
    "by a signal to stop": ["--trainer.max_epochs", 4, "--trainer.callbacks+=StopAtSix"],
}


class StopAtSix(Callback):
    """What a timer or early stopping does, in the middle of an epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step == 6


@pytest.mark.parametrize("ema", [[], ["--model.ema", 0.8]], ids=["raw", "ema"])
@pytest.mark.parametrize("stop", STOPS)
def test_a_resume_goes_on_in_its_folder_and_is_the_same_run(reslight, config, stop, ema):
    common = ["fit", "--config", config, "--model.schedule.name", "constant", *ema, "--trainer.default_root_dir"]
    four = ["--trainer.max_epochs", 4]
    assert reslight(*common, "whole", *four).code == 0
    limit = [str(word).replace("StopAtSix", f"{__name__}.StopAtSix") for word in STOPS[stop]]
    assert reslight(*common, "part", *limit).code == 0
    answer = reslight(*common, "part", *four, "--ckpt_path", "last")
    assert answer.code == 0, answer.err
    assert "checkpoint part/tiny/1/checkpoints/last.ckpt" in answer.out
    assert [path.name for path in Path("part/tiny").iterdir()] == ["1"]
    saved = yaml.safe_load(Path("part/tiny/1/config.1.yaml").read_text())
    assert (saved["trainer"]["max_epochs"], saved["ckpt_path"]) == (4, None)

    one, two = (torch.load(f"{root}/tiny/1/checkpoints/last.ckpt", weights_only=True) for root in ("whole", "part"))
    assert one["global_step"] == two["global_step"] == 16
    for kind in ("state_dict", "current_model_state") if ema else ("state_dict",):
        assert all(torch.equal(one[kind][key], two[kind][key]) for key in one[kind]), kind
    if ema:
        assert not torch.equal(one["state_dict"]["net.fc.weight"], one["current_model_state"]["net.fc.weight"])

    whole, part = ({row["step"]: row for row in rows(Path(root) / "tiny/1")} for root in ("whole", "part"))
    cut = part.keys() - whole.keys()  # where the run was stopped it measured what it had
    assert cut <= {"6", "7"}
    timing = {"images_per_second"}
    assert all(part[step][name] == value for step, row in whole.items() for name, value in row.items() if value and name not in timing)


def test_averaged_weights_are_kept_beside_the_raw_ones_however_rarely_one_saves(reslight, config):
    reslight("fit", "--config", config, "--model.ema", 0.8, "--checkpoint.every_n_epochs", 5)
    saved = torch.load("runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 8
    assert not torch.equal(saved["state_dict"]["net.fc.weight"], saved["current_model_state"]["net.fc.weight"])


def test_resuming_from_the_best_weights_is_the_run_from_there(reslight, config):
    base = ["fit", "--config", config, "--model.schedule.name", "constant", "--trainer.max_epochs", 5]
    reslight(*base)
    whole = torch.load("runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    answer = reslight(*base, "--ckpt_path", "best")
    assert answer.code == 0, answer.err
    again = torch.load("runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    assert again["global_step"] == whole["global_step"] == 20
    assert all(torch.equal(whole["state_dict"][key], again["state_dict"][key]) for key in whole["state_dict"])
    assert [row["step"] for row in rows(Path("runs/tiny/1"))] == [str(step) for step in range(2, 21, 2)]


def test_a_step_that_failed_is_not_kept(reslight, config):
    answer = reslight("fit", "--config", config, "--model.optim.lr", 1e20, "--checkpoint.every_n_train_steps", 1)
    assert answer.code == 1
    saved = torch.load("runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    assert int(re.search(r"at step (\d+)", answer.err)[1]) == saved["global_step"] + 1


def test_a_finished_run_has_nothing_to_do(reslight, config):
    reslight("fit", "--config", config)
    answer = reslight("fit", "--config", config, "--ckpt_path", "last")
    assert answer.code == 0
    assert "done   nothing" in answer.out


def test_changed_data_are_said_and_another_epoch_length_is_refused(reslight, config):
    base = ["fit", "--config", config, "--model.schedule.name", "constant", "--trainer.max_epochs", 3, "--ckpt_path", "last"]
    reslight(*base[:-2], "--trainer.max_epochs", 1)
    answer = reslight(*base, "--data.augment.pad", 1, "--seed_everything", 6, "--trainer.precision", "64-true")
    assert answer.code == 0, answer.err
    for line in ("data.augment.pad is 1: it was 0", "data.seed is 6: it was 5", "trainer.precision is 64-true: it was 32-true"):
        assert f"warning: {line}" in answer.err
    answer = reslight(*base, "--trainer.max_epochs", 5, "--trainer.limit_train_batches", 2)
    assert "an epoch has 2 batches: it had 4 in the checkpoint" in answer.err
    assert not list(Path("runs").rglob("config.2.yaml")), "what was refused leaves nothing"
    assert answer.code == 2


def test_a_changed_setting_wins_over_the_checkpoint_and_is_said(reslight, config):
    base = ["fit", "--config", config, "--model.schedule.name", "constant"]
    reslight(*base)
    answer = reslight(*base, "--ckpt_path", "last", "--trainer.max_epochs", 3, "--model.optim.lr", 0.01, "--model.optim.weight_decay", 0.5)
    assert answer.code == 0, answer.err
    assert "model.optim.lr is 0.01: it was 0.05 in runs/tiny/1/checkpoints/last.ckpt." in answer.err
    saved = torch.load("runs/tiny/1/checkpoints/last.ckpt", weights_only=True)
    groups = saved["optimizer_states"][0]["param_groups"]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 0.5), (0.01, 0.0)]
    assert {float(row["lr"]) for row in rows(Path("runs/tiny/1")) if row["lr"] and int(row["step"]) > 8} == {0.01}


def test_overlays_add_to_a_configuration(reslight, config):
    answer = reslight("fit", "--config", config, "--config", "overlays/smoke")
    assert answer.code == 0, answer.err
    assert "done   4 steps" in answer.out
    assert Path("runs/tiny/1").is_dir()


def test_no_validation_no_best(reslight, config):
    assert reslight("fit", "--config", config, "--data.val_size", 0).code == 0
    assert sorted(path.name for path in Path("runs/tiny/1/checkpoints").iterdir()) == ["last.ckpt"]


def test_two_processes_never_get_the_same_run(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    runs = RunDirectory(tmp_path, "x")
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda _: runs.create(), range(40)))
    assert sorted(run.number for run in created) == list(range(1, 41))


@pytest.mark.parametrize(
    ("words", "train", "done"),
    [
        (["--trainer.max_steps", 1], "train  1 step, ", "done   1 step"),
        (["--trainer.max_steps", 5000, "--trainer.limit_train_batches", 2], "train  2 epochs, ", "done   4 steps"),
    ],
)
def test_the_length_of_training_is_that_which_ends_it(reslight, config, words, train, done):
    answer = reslight("fit", "--config", config, *words, "--model.schedule.name", "constant")
    assert answer.code == 0, answer.err
    assert train in answer.out
    assert f"{done}; " in answer.out or f"{done}\n" in answer.out
    assert "66 train, 30 val images" in answer.out


def test_the_newest_run_is_meant_and_an_older_one_only_offered(tmp_path):
    runs = RunDirectory(tmp_path, "x")
    for number in (2, 10, 9):
        (tmp_path / "x" / str(number) / "checkpoints").mkdir(parents=True)
    (tmp_path / "x/notes").mkdir()
    (tmp_path / "x/9/checkpoints/last.ckpt").touch()
    with pytest.raises(
        FileNotFoundError, match=r"the run .*/x/10 has no checkpoint last.ckpt\. .*--ckpt_path, such as .*/x/9/checkpoints/last.ckpt"
    ):
        runs.latest_checkpoint("last")
    (tmp_path / "x/10/checkpoints/last.ckpt").touch()
    assert runs.latest_checkpoint("last") == tmp_path / "x/10/checkpoints/last.ckpt"
    assert RunDirectory(tmp_path, "x", Run(tmp_path / "x/9")).latest_checkpoint("last") == tmp_path / "x/9/checkpoints/last.ckpt"
    assert runs.create().number == 11


def test_the_run_of_a_configuration_under_a_chosen_folder(tmp_path):
    inner = tmp_path / "out/cifar10/net/3"
    inner.mkdir(parents=True)
    for chosen in ("out", "out/cifar10", "other"):
        runs = RunDirectory.for_config(inner / "config.yaml", "net", tmp_path / chosen)
        folder, only = (tmp_path / "other/net", None) if chosen == "other" else (inner.parent, Run(Path("out/cifar10/net/3")))
        assert (tmp_path / runs.folder, runs.only) == (folder, only)
    assert RunDirectory.for_config(None, "net", tmp_path / "out").folder == tmp_path / "out/net"


def test_a_runs_own_config_means_that_run_from_anywhere(reslight, config, tmp_path, monkeypatch):
    reslight("fit", "--config", config, "--trainer.default_root_dir", "part")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = reslight("test", "--config", tmp_path / "part/tiny/1/config.yaml")
    assert answer.code == 0, answer.err
    assert f"checkpoint {tmp_path}/part/tiny/1/checkpoints/last.ckpt" in answer.out


@pytest.mark.nightly
@pytest.mark.slow
def test_two_processes_train_resume_and_measure_as_one(reslight, config):
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    base = ["--config", config, "--model.schedule.name", "constant", *two]

    def run(*words):
        command = [sys.executable, "-m", "reslight", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    first = run("fit", *base, "--trainer.max_steps", 7, "--trainer.max_epochs", -1)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("batch  16 = 2 devices x 1 accumulation step x 8") == 1
    assert "sync_dist" not in first.stderr
    again = run("fit", *base, "--trainer.max_epochs", 3, "--ckpt_path", "last")
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in rows(Path("runs/tiny/1"))] == ["2", "4", "6", "8", "10", "12"]
    whole = run("fit", *base, "--trainer.max_epochs", 3, "--trainer.default_root_dir", "whole")
    assert whole.returncode == 0, whole.stderr
    one, other = (torch.load(f"{root}/tiny/1/checkpoints/last.ckpt", weights_only=True) for root in ("whole", "runs"))
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
    parts = [{r["step"]: (r["train/loss"], r["train/acc1"]) for r in rows(Path(root) / "tiny/1")}["8"] for root in ("whole", "runs")]
    assert parts[0] == parts[1]

    assert run("test", *base).returncode == 0
    counts = json.loads(Path("runs/tiny/1/test.json").read_text())["counts"]
    assert reslight("test", "--config", config).code == 0
    alone = json.loads(Path("runs/tiny/1/test.json").read_text())["counts"]
    assert {k: counts[k] for k in ("total", "correct1", "correct5")} == {k: alone[k] for k in ("total", "correct1", "correct5")}
    bad = run("fit", *base, "--data.val_size", 5000)
    assert (bad.returncode, bad.stderr.count("reslight: error")) == (2, 1), bad.stderr


def test_only_what_affects_predictions_is_compared_when_evaluating():
    names = [f"class {number}" for number in range(20)]
    data = {"seed": 1, "normalize": "channel", "labels": names, "preprocess": {"size": 8, "mean": [0.5] * 3}}
    state = {"data": data, "precision": "32"}
    other = {"seed": 2, "normalize": "pixel_mean", "labels": names[::-1], "preprocess": {"size": 8, "mean": [0.5] * 192}}
    line = "{} is {}: it was {} when the checkpoint was written."
    preprocessing = [
        line.format("data.normalize", "pixel_mean", "channel"),
        line.format("data.labels", "a list of 20 values", "a list of 20 values"),
        line.format("data.preprocess.mean", "a list of 192 values", [0.5, 0.5, 0.5]),
    ]
    assert compare_data_info(state, data, "32", resume=False) == []
    assert compare_data_info(state, other, "16", resume=False) == preprocessing
    seed, precision = line.format("data.seed", 2, 1), line.format("trainer.precision", 16, 32)
    assert compare_data_info(state, other, "16", resume=True) == [seed, *preprocessing, precision]
    assert compare_data_info({}, other, "16", resume=False) == []  # a checkpoint that says nothing of its data


def test_another_environment_is_said_in_one_line():
    there = {"torch": "2.11.0", "threads": 2, "devices": 1, "accumulation": 1}
    here = {"torch": "2.15.0", "threads": 1, "devices": 1, "accumulation": 1}
    (line,) = compare_environments(there, here)
    assert "torch was 2.11.0, is 2.15.0; threads was 2, is 1" in line
    assert compare_environments(there, there) == compare_environments({}, here) == []


def test_a_resume_under_another_environment_warns_and_a_newer_format_is_refused(reslight, config):
    reslight("fit", "--config", config)
    path = Path("runs/tiny/1/checkpoints/last.ckpt")
    contents = torch.load(path, weights_only=True)
    state = contents["reslight"]
    assert (state["format"], state["environment"]["devices"], state["environment"]["threads"]) == (1, 1, torch.get_num_threads())
    state["environment"]["threads"] = 77
    torch.save(contents, path)
    again = ["fit", "--config", config, "--trainer.max_epochs", 3, "--ckpt_path", "last"]
    answer = reslight(*again)
    assert answer.code == 0
    assert f"threads was 77, is {torch.get_num_threads()}.\n" in answer.err
    state["format"] = 2
    torch.save(contents, path)
    answer = reslight(*again)
    assert answer.code == 2
    assert f"{path} has format 2: this version of reslight reads formats up to 1" in answer.err


def test_measuring_says_that_images_are_fed_otherwise(reslight, config):
    reslight("fit", "--config", config)
    path = Path("runs/tiny/1/checkpoints/last.ckpt")
    contents = torch.load(path, weights_only=True)
    contents["reslight"]["data"]["preprocess"]["mean"] = [0.25]
    torch.save(contents, path)
    for command in ("test", "validate", "predict"):
        answer = reslight(command, "--config", config)
        assert answer.code == 0
        assert answer.err.count(": it was [0.25] when the checkpoint was written.") == 1
