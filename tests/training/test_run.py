"""One folder is one run, through the command line as a person uses it."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from reslight.training import Runs
from reslight.training.resume import compare

TINY = """\
seed_everything: 5
trainer: {max_epochs: 2, log_every_n_steps: 2}
model:
  net: {depths: [1, 1], widths: [4, 8], stem: small, stem_width: 4}
  optim: {lr: 0.05}
data: {class_path: Synthetic, init_args: {images: {size: 8, train_size: 96, test_size: 40}, batch_size: 16, val_size: 32}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_a_person_needs(reslight, config):
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
    assert reslight("validate", "--config", config).code == 0
    assert json.loads(Path("runs/tiny/2/validate.json").read_text())["counts"]["total"] == 32

    assert reslight("predict", "--config", config).code == 0
    with Path("runs/tiny/2/predictions.csv").open() as file:
        answers = list(csv.DictReader(file))
    assert [row["image"] for row in answers] == [str(n) for n in range(40)]
    labels, truth = report["data"]["labels"], synthetic_labels()
    assert sum(labels.index(row["label"]) == int(true) for row, true in zip(answers, truth, strict=True)) == counts["correct1"]
    assert all(0.1 <= float(row["probability"]) <= 1 for row in answers)


def synthetic_labels() -> torch.Tensor:
    from reslight.data import Synthetic, SyntheticImages

    data = Synthetic(SyntheticImages(size=8, train_size=96, test_size=40))
    data.setup("test")
    return data.splits["test"].labels


def test_a_runs_own_config_means_that_run(reslight, config):
    reslight("fit", "--config", config)
    reslight("fit", "--config", config)
    assert "runs/tiny/1/checkpoints/best.ckpt" in reslight("test", "--config", "runs/tiny/1/config.yaml", "--ckpt_path", "best").out


@pytest.mark.parametrize("extra", [[], ["--checkpoint.every_n_train_steps", "3"]])
def test_a_resume_goes_on_in_its_folder_and_is_the_same_run(reslight, config, extra):
    whole = ["--trainer.default_root_dir", "whole", "--trainer.max_epochs", 4, "--model.schedule.name", "constant"]
    assert reslight("fit", "--config", config, *whole).code == 0
    part = ["--trainer.default_root_dir", "part", "--model.schedule.name", "constant", *extra]
    limit = ["--trainer.max_steps", 7] if extra else ["--trainer.max_epochs", 2]
    assert reslight("fit", "--config", config, *part, *limit).code == 0
    answer = reslight("fit", "--config", config, *part, "--trainer.max_epochs", 4, "--ckpt_path", "last")
    assert answer.code == 0, answer.err
    assert "checkpoint part/tiny/1/checkpoints/last.ckpt" in answer.out
    assert [path.name for path in Path("part/tiny").iterdir()] == ["1"]
    assert Path("part/tiny/1/config.1.yaml").is_file()
    assert yaml.safe_load(Path("part/tiny/1/config.1.yaml").read_text())["trainer"]["max_epochs"] == 4

    one, two = (torch.load(f"{root}/tiny/1/checkpoints/last.ckpt", weights_only=True) for root in ("whole", "part"))
    assert one["global_step"] == two["global_step"] == 16
    assert all(torch.equal(one["state_dict"][key], two["state_dict"][key]) for key in one["state_dict"])
    timing = {"images_per_second"}
    trace = [[{k: v for k, v in row.items() if k not in timing} for row in rows(Path(root) / "tiny/1")] for root in ("whole", "part")]
    if extra:  # a run that was stopped in mid-epoch measured that epoch twice: once where it stopped
        trace = [[{k: v for k, v in row.items() if k in ("step", "train/loss_step")} for row in t if row["train/loss_step"]] for t in trace]
    assert trace[0] == trace[1]


def test_a_changed_setting_wins_over_the_checkpoint_and_is_said(reslight, config):
    base = ["fit", "--config", config, "--model.schedule.name", "constant"]
    reslight(*base)
    answer = reslight(*base, "--ckpt_path", "last", "--trainer.max_epochs", 3, "--model.optim.lr", 0.01, "--model.optim.weight_decay", 0.5)
    assert answer.code == 0, answer.err
    assert "model.optim.lr was 0.05 in runs/tiny/1/checkpoints/last.ckpt, is 0.01 from now on" in answer.out
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

    runs = Runs(tmp_path, "x")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runs.create(), range(40)))
    assert sorted(int(folder.name) for folder in folders) == list(range(1, 41))


def test_newest_skips_runs_without_the_checkpoint(tmp_path):
    runs = Runs(tmp_path, "x")
    for number in (2, 10, 9):
        (tmp_path / "x" / str(number) / "checkpoints").mkdir(parents=True)
    (tmp_path / "x/notes").mkdir()
    (tmp_path / "x/9/checkpoints/last.ckpt").touch()
    (tmp_path / "x/2/checkpoints/last.ckpt").touch()
    assert runs.newest("last.ckpt") == tmp_path / "x/9/checkpoints/last.ckpt"
    assert runs.create().name == "11"


def test_compare_tells_networks_from_settings():
    there = {"hyper_parameters": {"net": {"depths": [1], "drop_path": 0.1}, "optim": {"name": "sgd", "lr": 0.1}, "ema": None}}
    here = {"net": {"depths": [1], "drop_path": 0.0}, "optim": {"name": "sgd", "lr": 0.2}, "ema": None}
    lines = compare(Path("x"), there, here, resume=True)
    assert lines == ["model.net.drop_path was 0.1 in x, is 0.0 from now on", "model.optim.lr was 0.1 in x, is 0.2 from now on"]
    assert compare(Path("x"), there, here, resume=False) == []
    with pytest.raises(ValueError, match=r"x holds another network: depths \[1\] there, \[2\] here"):
        compare(Path("x"), there, {**here, "net": {"depths": [2], "drop_path": 0.1}}, resume=False)
    with pytest.raises(ValueError, match="another average cannot go on from it"):
        compare(Path("x"), there, {**here, "ema": 0.9}, resume=True)
