"""`reslight paper`: only finished runs have numbers, and no run is trained twice."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reslight.paper import experiments as paper
from reslight.paper.experiments import EXPERIMENTS, Condition
from reslight.paper.results import Finished, directions, draw_results, summary
from reslight.runs.history import Curve, History, average

TINY = ("--budget", "tiny", "--iterations", "8")
"""Takes some seconds."""


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_finished_runs_have_rows_and_are_not_trained_again(reslight: Callable[..., Any]):
    words = ("paper", "degradation", *TINY, "--nets", "plain20", "resnet20")
    first = reslight(*words)
    assert first.code == 0, first.err
    table = first.out.partition("64,000 iterations\n\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table] == ["net", "plain-20", "ResNet-20"]
    assert "std" not in table[0].split()  # one seed has none
    for net in ("plain20", "resnet20"):
        run = Path(f"runs/paper/tiny-8/{net}/1")
        test = json.loads((run / "test.json").read_text())
        (row,) = [row for row in rows_of("runs/paper/tiny-8/degradation.csv") if row["name"] == net]
        assert (int(row["test_correct"]), int(row["test_total"])) == (test["counts"]["correct1"], 360)
        assert float(row["test_error"]) == pytest.approx(100 * (1 - test["counts"]["correct1"] / 360), abs=1e-4)
        line = next(line for line in table if line.startswith("plain" if net == "plain20" else "ResNet"))
        assert f"{float(row['test_error']):.2f}" in line.split()
    checkpoint = Path("runs/paper/tiny-8/plain20/1/checkpoints/last.ckpt")
    before = checkpoint.stat().st_mtime_ns
    again = reslight(*words, "--seeds", "2")
    assert again.code == 0, again.err
    assert "finished  runs/paper/tiny-8/plain20/1" in again.out
    assert checkpoint.stat().st_mtime_ns == before
    assert [(row["name"], row["seed"]) for row in rows_of("runs/paper/tiny-8/degradation.csv")] == [
        ("plain20", "1"),
        ("plain20", "2"),
        ("resnet20", "1"),
        ("resnet20", "2"),
    ]
    seeds = json.loads(Path("runs/paper/tiny-8/degradation.json").read_text())
    assert [row["n"] for row in seeds["table"]] == ["2", "2"]
    assert {run["environment"]["precision"] for run in seeds["runs"]} == {"32-true"}
    assert Path("runs/paper/tiny-8/degradation.png").stat().st_size > 10_000


def test_a_stopped_run_is_resumed(reslight: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    words = ("paper", "depth", *TINY, "--nets", "resnet20")
    assert reslight(*words).code == 0
    whole = rows_of("runs/paper/tiny-8/depth.csv")
    config = yaml.safe_load(Path("runs/paper/tiny-8/resnet20.yaml").read_text())
    # the same run, stopped after five of its eight steps
    stopped = ("--trainer.max_steps", "5", "--trainer.default_root_dir", "other/tiny-8")
    Path("other/tiny-8").mkdir(parents=True)
    Path("other/tiny-8/resnet20.yaml").write_text(yaml.safe_dump(config))
    assert reslight("fit", "--config", "other/tiny-8/resnet20.yaml", *stopped).code == 0
    answer = reslight(*words, "--root", "other")
    assert answer.code == 0, answer.err
    assert "resuming  other/tiny-8/resnet20/1 at iteration 5" in answer.out
    (row,) = rows_of("other/tiny-8/depth.csv")
    assert {**row, "run": ""} == {**whole[0], "run": ""}
    assert not Path("other/tiny-8/resnet20/2").exists()


def test_a_configuration_with_other_settings_is_an_error(reslight: Callable[..., Any]):
    Path("runs/paper/tiny-8").mkdir(parents=True)
    Path("runs/paper/tiny-8/plain20.yaml").write_text("trainer: {max_steps: 7}\n")
    answer = reslight("paper", "degradation", *TINY, "--nets", "plain20")
    assert answer.code == 2
    assert answer.err.startswith("reslight: error: runs/paper/tiny-8/plain20.yaml has other settings than this experiment")
    assert len(answer.err.splitlines()) == 1


def test_a_run_with_other_settings_and_a_partial_evaluation_do_not_count(reslight: Callable[..., Any]):
    words = ("paper", "depth", *TINY, "--nets", "resnet20")
    assert reslight(*words).code == 0
    (whole,) = rows_of("runs/paper/tiny-8/depth.csv")
    by_hand = ("--config", "runs/paper/tiny-8/resnet20.yaml", "--trainer.default_root_dir", "runs/paper/tiny-8", "--model.optim.lr", "0.5")
    assert reslight("fit", *by_hand, "--seed_everything", "1").code == 0
    run = "runs/paper/tiny-8/resnet20/1"
    assert reslight("test", "--config", run, "--trainer.limit_test_batches", "1").code == 0
    assert json.loads(Path(run, "test.json").read_text())["counts"]["total"] < 360
    answer = reslight(*words)
    assert answer.code == 0, answer.err
    assert "left out  runs/paper/tiny-8/resnet20/2: its settings differ from runs/paper/tiny-8/resnet20.yaml" in answer.out
    assert rows_of("runs/paper/tiny-8/depth.csv") == [whole]


def test_a_diverged_run_stops_only_runs_that_start_from_it(reslight: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    from reslight.cli import trainer as trainer_cli

    train = trainer_cli.run

    def run(words: list[str]) -> None:
        if words[0] == "fit" and any("resnet20.yaml" in word for word in words):
            raise FloatingPointError("the loss of step 3 is nan")
        train(words)

    monkeypatch.setattr(trainer_cli, "run", run)
    answer = reslight("paper", "identity", *TINY)
    assert answer.code == 1
    assert answer.err == "reslight: stopped: ResNet-20, seed 1: the loss of step 3 is nan\n"
    assert [row["name"] for row in rows_of("runs/paper/tiny-8/identity.csv")] == ["resnet56_anew"]


def test_the_table_has_the_runs_of_other_calls(reslight: Callable[..., Any]):
    assert reslight("paper", "degradation", *TINY, "--nets", "plain20").code == 0
    assert reslight("paper", "degradation", *TINY, "--nets", "resnet20").code == 0
    assert [row["name"] for row in rows_of("runs/paper/tiny-8/degradation.csv")] == ["plain20", "resnet20"]
    assert {(row["data"], row["paper"]) for row in rows_of("runs/paper/tiny-8/degradation.csv")} == {("digits", "")}  # not the paper's data


@pytest.mark.nightly
@pytest.mark.slow
def test_of_two_processes_one_trains_and_the_other_waits(tmp_path: Path):
    command = [sys.executable, "-m", "reslight", "paper", "depth", *TINY, "--nets", "resnet20"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted((process.communicate()[0] for process in both), key=lambda text: "finished  " in text)
    assert [process.returncode for process in both] == [0, 0]
    assert "reslight fit" in outputs[0]
    assert "reslight fit" not in outputs[1]
    assert [path.name for path in (tmp_path / "runs/paper/tiny-8/resnet20").iterdir()] == ["1"]


def test_mistakes_are_one_line(reslight: Callable[..., Any]):
    for words, message in (
        (("degradatio",), "NAME is degradatio: there is no such value. Did you mean degradation?"),
        (("depth", "--budget", "huge"), "--budget is huge: there is no such value. Choose one of tiny, short, full"),
        (("depth", "--iterations", "7"), "--iterations is 7: "),
        (("depth", "--seeds", "0"), "--seeds is 0: "),
        (("depth", *TINY, "--nets", "resnet21"), "--nets is resnet21: "),
    ):
        answer = reslight("paper", *words)
        assert answer.code == 2
        assert message in answer.err
        assert len(answer.err.splitlines()) == 1
    assert not Path("runs").exists()
    answer = reslight("paper", "depth", "--budget", "short", "--nets", "resnet20", "--data", "nowhere/at/all.tar.gz")
    assert answer.code == 2
    mistakes = [line for line in answer.err.splitlines() if not line.startswith("warning: ")]  # of jsonargparse
    assert len(mistakes) == 1
    assert mistakes[0].startswith("reslight: error: ")
    assert "nowhere/at/all.tar.gz" in mistakes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["responses", pytest.param("identity", marks=pytest.mark.nightly)])
def test_experiments_that_are_more_than_training(reslight: Callable[..., Any], name: str):
    words = ("--nets", "plain20", "resnet20") if name == "responses" else ()
    answer = reslight("paper", name, *TINY, *words)
    assert answer.code == 0, answer.err
    rows = {row["name"]: row for row in rows_of(f"runs/paper/tiny-8/{name}.csv")}
    assert Path(f"runs/paper/tiny-8/{name}.png").stat().st_size > 10_000
    if name == "responses":
        layers = rows_of("runs/paper/tiny-8/responses_layers.csv")
        for net in ("plain20", "resnet20"):
            std = [float(row["std"]) for row in layers if row["name"] == net]
            assert len(std) == 19
            assert float(rows[net]["mean_response_std"]) == pytest.approx(sum(std) / 19, abs=1e-5)
        return
    assert rows["deepened"]["test_correct"] == rows["resnet20"]["test_correct"]
    assert [int(rows[condition]["iterations"]) for condition in ("deepened", "deepened_on", "resnet20_on")] == [8, 10, 14]
    table = json.loads(Path("runs/paper/tiny-8/identity.json").read_text())["table"]
    assert [row["compute"] for row in table] == ["1.00", "1.00", "1.77", "1.75", "1.93"]  # in whole iterations; a real run has more of them


@pytest.mark.nightly
def test_the_tiny_budget_runs_the_whole_of_the_degradation(reslight: Callable[..., Any]):
    answer = reslight("paper", "degradation", "--budget", "tiny")
    assert answer.code == 0, answer.err
    names = [row["name"] for row in rows_of("runs/paper/tiny/degradation.csv")]
    assert names == ["plain20", "plain32", "plain44", "plain56", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]


# -- tables and figures of runs that are made up here


def finished(condition: Condition, seed: int, correct: int, training: float = 10.0, steps: int = 3200) -> Finished:
    curve = Curve((steps // 2, steps), (50.0, training))
    test = Curve((steps,), (100 - correct / 100,))
    return Finished(condition, seed, History(Path(f"runs/{condition.name}/{seed}"), condition.net, 9, curve, curve, test), correct, 10_000)


def test_the_table_has_the_mean_and_the_sample_standard_deviation():
    conditions = {condition.name: condition for condition in EXPERIMENTS["depth"].conditions}
    runs = [finished(conditions["resnet20"], seed, correct) for seed, correct in enumerate((9100, 9120, 9150), start=1)]
    header, rows = summary(EXPERIMENTS["depth"], paper.BUDGETS["short"], [*runs, finished(conditions["resnet110"], 1, 9339, 3.5)])
    assert header == ["net", "iterations", "paper", "test error (%)", "std", "n", "training error (%)"]
    assert rows == [
        ["ResNet-20", "3,200", "8.75", "8.77", "0.25", "3", "10.00"],  # 9.00, 8.80, 8.50
        ["ResNet-110", "3,200", "6.61 ± 0.16 (n = 5)", "6.61", "", "1", "3.50"],
    ]


def test_which_way_the_errors_go():
    degradation = EXPERIMENTS["degradation"]
    conditions = {condition.name: condition for condition in degradation.conditions}
    plain = [
        finished(conditions["plain20"], 1, 9000, 5),
        finished(conditions["plain20"], 2, 9100, 6),
        finished(conditions["plain56"], 1, 8600, 12.5),
    ]
    lines = directions(degradation, [*plain, finished(conditions["resnet20"], 1, 9125)])
    assert lines == [
        "plain: from plain-20 to plain-56 the training error goes from 5.50 to 12.50 %, the test error from 9.50 to 14.00 %"
    ]  # one residual network has no direction


def test_several_seeds_are_drawn_as_their_mean():
    runs = [
        finished(EXPERIMENTS["depth"].conditions[0], 1, 9000, 10).history,
        finished(EXPERIMENTS["depth"].conditions[0], 2, 9200, 20).history,
    ]
    one = average(runs)
    assert one.training == Curve((1600, 3200), (50.0, 15.0))
    assert one.test == Curve((3200,), (9.0,))
    longer = average([runs[0], finished(EXPERIMENTS["depth"].conditions[0], 3, 9200, 20, steps=1600).history])
    assert longer.training.steps == (1600,)  # the steps that both have


def test_the_figures_have_a_panel_for_plain_and_one_for_residual_nets():
    degradation = EXPERIMENTS["degradation"]
    figure = draw_results(degradation, paper.BUDGETS["short"], [finished(condition, 1, 9000) for condition in degradation.conditions])
    assert [axes.get_title() for axes in figure.axes] == ["plain", "ResNet"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()][:4] == ["plain-20", "plain-32", "plain-44", "plain-56"]
    shortcuts = EXPERIMENTS["shortcuts"]
    figure = draw_results(shortcuts, paper.BUDGETS["short"], [finished(condition, 1, 9000) for condition in shortcuts.conditions])
    assert [axes.get_title() for axes in figure.axes] == ["ResNet-20", "ResNet-56"]


def test_depth_is_drawn_with_the_papers_numbers_beside_ours():
    depth = EXPERIMENTS["depth"]
    conditions = [
        condition for condition in depth.conditions if condition.name != "resnet1202"
    ]  # not run, so not drawn, not even the paper's
    (axes,) = draw_results(
        depth, paper.BUDGETS["short"], [finished(condition, seed, 9000 + seed) for condition in conditions for seed in (1, 2)]
    ).axes
    theirs, ours = axes.lines[:2]
    assert list(theirs.get_xdata()) == list(ours.get_xdata()) == [20, 32, 44, 56, 110]
    assert list(theirs.get_ydata()) == [8.75, 7.51, 7.17, 6.97, 6.61]
    assert list(ours.get_ydata()) == pytest.approx([9.985] * 5)


def test_the_thought_experiment_is_drawn_over_compute():
    identity = EXPERIMENTS["identity"]
    ends = {"resnet20": 3200, "deepened": 3200, "deepened_on": 4000, "resnet20_on": 5676, "resnet56_anew": 1834}
    (axes,) = draw_results(
        identity, paper.BUDGETS["short"], [finished(condition, 1, 9000, steps=ends[condition.name]) for condition in identity.conditions]
    ).axes
    assert axes.get_xlabel() == "iterations of ResNet-20"
    lines = {line.get_label(): line.get_xdata()[-1] for line in axes.lines if line.get_label().endswith(" test")}
    assert lines == {
        "deepened, trained on test": pytest.approx(5676, abs=1),
        "ResNet-20, trained on test": 5676,
        "ResNet-56 from scratch test": pytest.approx(5676, abs=3),
    }
