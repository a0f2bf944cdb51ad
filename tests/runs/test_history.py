"""The error curves of a run are read from its folder, whatever a crash or a resume did to it."""

import json
import os
from pathlib import Path

import pytest

from reslight.analysis import Curve, Run, find_run, read_run

HEADER = "epoch,step,val/loss,val/acc1,train/loss,train/acc1,train/loss_step"


def make_run(folder: str, *rows: str, header: str = HEADER, end: str = "\r\n") -> Run:
    path = Path(folder)
    path.mkdir(parents=True)
    (path / "metrics.csv").write_text("\r\n".join([header, *rows]) + end, newline="")
    return Run(path)


def test_every_finished_epoch_is_a_point():
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,", "2,30,,,,,1.5", "2,40,1,0.75,1,0.875,")
    history = read_run(run)
    assert history.training == Curve((20, 40), (50.0, 12.5))
    assert history.validation == Curve((20, 40), (75.0, 25.0))
    assert (history.test, history.epochs, history.steps, history.folder) == (Curve(), 2, 40, run.folder)


def test_validation_may_come_more_often_or_never():
    often = make_run("runs/a/1", "1,10,2,0.25,,,", "1,20,2,0.5,2,0.5,", "2,30,2,0.75,,,")
    assert read_run(often).validation.steps == (10, 20, 30)
    assert (read_run(often).training.steps, read_run(often).epochs) == ((20,), 2)
    never = make_run("runs/b/1", "1,20,2,0.5", header="epoch,step,train/loss,train/acc1")
    assert read_run(never).validation == Curve()
    assert read_run(never).training == Curve((20,), (50.0,))


def test_a_value_that_is_not_a_number_is_left_out():
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,", "2,40,nan,nan,nan,nan,", "3,60,1,inf,1,oops,", "4,80,1,,1,0.75,")
    assert read_run(run).training == Curve((20, 80), (50.0, 25.0))
    assert read_run(run).validation == Curve((20,), (75.0,))


@pytest.mark.parametrize("cut", ["2", "2,4", "2,40,1,0.7", "2,40,1,0.75,1,0.8", "2,40,1,0.75,1,0.875,", "\0\0\0"])
def test_a_row_without_its_end_does_not_count(cut: str):
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,", cut, end="")
    assert read_run(run).training == Curve((20,), (50.0,))
    assert read_run(run).validation == Curve((20,), (75.0,))


@pytest.mark.parametrize("row", ["2,40,1,0.75", "2,40,1,0.75,1,0.875,,,9", "2,x,1,0.75,1,0.875,", ",40,1,0.75,1,0.875,", ""])
def test_a_damaged_row_in_the_middle_does_not_count(row: str):
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,", row, "3,60,1,0.5,1,0.75,")
    assert read_run(run).training == Curve((20, 60), (50.0, 25.0))
    assert read_run(run).validation == Curve((20, 60), (75.0, 50.0))


def test_the_test_error_is_at_its_step():
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,", "2,40,1,0.75,1,0.875,")
    (run.folder / "test.json").write_text(json.dumps({"step": 20, "metrics": {"test/acc1": 0.375}}))
    assert read_run(run).test == Curve((20,), (62.5,))


@pytest.mark.parametrize("text", ["", '{"step": 20, "metr', "[]", '{"step": 20, "metrics": {}}', '{"metrics": {"test/acc1": 0.5}}'])
def test_a_damaged_test_json_is_named(text: str):
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,")
    (run.folder / "test.json").write_text(text)
    with pytest.raises(ValueError, match=r"1/test\.json is damaged: .* Run `reslight test --config runs/digits/1/config.yaml` again"):
        read_run(run)


@pytest.mark.parametrize(
    ("config", "net"),
    [
        ("model: {net: resnet20}", "resnet20"),
        ("model: {net: {name: resnet20, num_classes: 10, in_channels: 1}}", "resnet20"),
        ("model: {net: {name: resnet20, shortcut: B}}", "resnet20, shortcut B"),
        ("model: {net: {depths: [1], widths: [8]}}", None),
        ("model: {}", None),
        ("model: [", None),
        ("", None),
        (None, None),
    ],
)
def test_the_network_is_the_configurations(config: str | None, net: str | None):
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,")
    if config is not None:
        run.config.write_text(config)
    assert read_run(run).net == net


def test_a_configuration_that_is_a_pipe_is_not_waited_for():
    run = make_run("runs/digits/1", "1,20,2,0.25,2,0.5,")
    os.mkfifo(run.config)
    assert read_run(run).net is None


@pytest.mark.parametrize(
    "path",
    [
        "runs/digits/10",
        "runs/digits/10/",
        "runs/digits",
        "runs/digits/10/config.yaml",
        "runs/digits/10/config.1.yaml",
        "runs/digits/10/metrics.csv",
    ],
)
def test_a_run_is_found_by(path: str):
    for number in (9, 10):
        make_run(f"runs/digits/{number}")
    Path("runs/digits/notes").mkdir()
    for name in ("config.yaml", "config.1.yaml"):
        Path("runs/digits/10", name).write_text("model: {net: resnet8}")
    assert find_run(path) == Run(Path("runs/digits/10"))
    assert find_run("runs/digits/9") == Run(Path("runs/digits/9"))


def test_a_run_is_found_from_inside_it(monkeypatch):
    folder = make_run("runs/digits/1").folder.resolve()
    monkeypatch.chdir(folder)
    assert find_run(".").folder.resolve() == folder
    assert find_run("metrics.csv").folder.resolve() == folder


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("digits", r"digits is not a run. Did you mean runs/digits\?"),
        ("digits/1", r"digits/1 is not a run. Did you mean runs/digits/1\?"),
        ("runs", r"runs is not a run. Did you mean runs/digits\?"),
        ("runs/digitz", r"runs/digitz is not a run. Did you mean runs/digits\?"),
        ("runs/digits/2", r"runs/digits/2 is not a run. Did you mean runs/digits/1\?"),
        ("cifar10/resnet20", r"cifar10/resnet20 is not a run. Did you mean runs/cifar10/resnet20\?"),
        ("runs/cifar10", r"runs/cifar10 is not a run. Did you mean runs/cifar10/resnet20\?"),
        ("elsewhere", r"elsewhere is not a run. Give the folder of one, such as runs/digits/1"),
        ("mine.yaml", r"mine\.yaml is not a run. Give the folder of one"),
    ],
)
def test_a_path_without_a_run_is_named_with_the_nearest(path: str, says: str):
    make_run("runs/digits/1")
    make_run("runs/cifar10/resnet20/1")
    Path("mine.yaml").write_text("model: {net: resnet8}")
    with pytest.raises(FileNotFoundError, match=says):
        find_run(path)


def test_a_run_without_numbers_says_what_to_do():
    new = Path("runs/digits/2")
    new.mkdir(parents=True)
    (new / "config.yaml").write_text("model: {net: resnet8}")
    with pytest.raises(FileNotFoundError, match=r"runs/digits/2/metrics\.csv is missing: .* Or train one with `reslight fit`"):
        read_run(Run(new))
    make_run("runs/digits/1", "1,20,2,0.25,2,0.5,")
    assert find_run("runs/digits") == Run(new), "an older run must not be taken for the newest"
    with pytest.raises(FileNotFoundError, match=r"runs/digits/2/metrics\.csv is missing: .* Or give another run, such as runs/digits/1"):
        read_run(Run(new))


@pytest.mark.parametrize("rows", [[], ["1,10,,,,,2.5"], ["1,10,1,nan,1,nan,"]])
def test_a_run_without_a_finished_epoch_is_named(rows: list[str]):
    with pytest.raises(ValueError, match=r"runs/digits/1 has no finished epoch yet\. .* Or train one"):
        read_run(make_run("runs/digits/1", *rows))


def test_an_empty_or_foreign_table_is_named():
    empty = make_run("runs/empty/1")
    empty.metrics.write_text("")
    with pytest.raises(ValueError, match="runs/empty/1 has no finished epoch yet"):
        read_run(empty)
    with pytest.raises(ValueError, match=r"runs/foreign/1/metrics\.csv has no column step: "):
        read_run(make_run("runs/foreign/1", "1,0.5", header="epoch,train/acc1"))
