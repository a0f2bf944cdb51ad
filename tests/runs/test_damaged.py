"""Files of a run that a full disk, a crash or an editor damaged: one line with the file and what to do."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from tests.runs.test_folder import TINY

from reslight.messages import UsageError
from reslight.runs.eval_results import eval_results_for
from reslight.runs.folder import Run
from reslight.runs.fork import fork_run
from reslight.runs.history import read_run
from reslight.runs.metrics_table import MetricsTable
from reslight.runs.trackers import read_ids

NESTED = "[" * 100_000
ROWS = "epoch,step,train/acc1\n1,20,0.5\n"
REPORT = {
    "step": 20,
    "metrics": {"test/acc1": 0.5},
    "counts": {"total": 4, "correct1": 2, "correct5": None, "nll": 1.0},
    "data": {"preprocess": {}, "splits": {"test": {"size": 4, "fingerprint": None}}},
    "precision": "32-true",
    "batch_size": 2,
    "sha256": "0",
}


@pytest.fixture
def run():
    found = Run(Path("runs/digits/1"))
    found.folder.mkdir(parents=True)
    found.metrics.write_text(ROWS)
    return found


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b'{"step": 2', b"[]", b"null", NESTED.encode()], ids=lambda content: repr(content[:5])
)
def test_json_that_is_none(run, content):
    for path in (run.folder / "test.json", run.trackers, run.summary):
        path.write_bytes(content)
    for read in (lambda: read_run(run), lambda: eval_results_for(run, "", {})):
        with pytest.raises(
            UsageError, match=r"^runs/digits/1/test\.json is damaged: it is not a JSON object\. Run `reslight test --config [^\n]*$"
        ):
            read()
    with pytest.raises(UsageError, match=r"trackers\.json is damaged: it is not a JSON object\. Remove it: the loggers then begin"):
        read_ids(run)
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt"):  # summary.json only saves the reading of the checkpoint
        _ = run.step


def test_a_command_in_a_message_can_be_typed(run):
    moved = Run(run.folder.rename("my run"))
    (moved.folder / "test.json").touch()
    with pytest.raises(UsageError, match=r"Run `reslight test --config 'my run/config\.yaml'` again"):
        read_run(moved)


def test_json_with_other_contents(run):
    (run.folder / "test.json").write_text(json.dumps(REPORT))
    assert eval_results_for(run, "0", {})[0].correct1 == 2
    for changes in (
        {"data": 3},
        {"data": {"splits": {}}},
        {"counts": {"total": "many"}},
        {"counts": [1]},
        {"data": REPORT["data"] | {"preprocess": 3}},
    ):
        (run.folder / "test.json").write_text(json.dumps(REPORT | changes))
        with pytest.raises(
            UsageError, match=r"test\.json is damaged: it has no counts, or does not say of which images\. Run `reslight test"
        ):
            eval_results_for(run, "0", {})
    run.trackers.write_text('{"WandbLogger": "abc"}')
    with pytest.raises(UsageError, match=r"trackers\.json is damaged: it has something else than lists of ids"):
        read_ids(run)
    run.summary.write_text('{"steps": "x", "seed": 1, "settings": {}}')
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt"):
        _ = run.step


def test_a_table_that_no_run_writes(run):
    run.metrics.write_text(f"{ROWS}1,{'9' * 5000},0.5\n\udcff,\0,1\n", errors="surrogateescape")
    assert read_run(run).training.steps == (20,)
    run.metrics.write_text(f"{ROWS}1,40,{'x' * 200_000}\n")
    for read in (lambda: read_run(run), lambda: MetricsTable(run.metrics).cut(20)):
        with pytest.raises(
            UsageError, match=r"^runs/digits/1/metrics\.csv is damaged: line 3: field larger than [^\n]*Remove that line, or the file\.$"
        ):
            read()
    run.metrics.unlink()
    os.mkfifo(run.metrics)
    with pytest.raises((UsageError, FileNotFoundError), match=r"metrics\.csv is "):
        read_run(run)


@pytest.mark.parametrize(
    ("content", "says"), [(b"\xff", "is not a text file"), (NESTED.encode()[:9000], "levels"), (b"model: x", "no settings of a model")]
)
def test_a_run_with_a_damaged_configuration_is_not_forked(run, content, says):
    run.checkpoint().parent.mkdir()
    run.checkpoint().touch()
    run.config.write_bytes(content)
    with pytest.raises(UsageError, match=rf"^runs/digits/1/config\.yaml [^\n]*{says}"):
        fork_run(run, Path("deeper"), "resnet20")
    assert not Path("deeper").exists()


@pytest.mark.slow
def test_a_resume_from_what_is_damaged_changes_nothing(reslight):
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY | {"model": TINY["model"] | {"ema": 0.9}}))
    assert reslight("fit", "--config", "tiny.yaml").code == 0
    run = Run(Path("runs/tiny/1"))
    resume = ("fit", "--config", "tiny.yaml", "--trainer.max_epochs", 2, "--ckpt_path")
    whole = torch.load(run.checkpoint(), weights_only=False)
    for changes in ({"loops": 3}, {"optimizer_states": [3]}, {"current_model_state": {}}):
        torch.save(whole | changes, "odd.ckpt")
        answer = reslight(*resume, "odd.ckpt")
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert re.match(r"reslight: error: odd\.ckpt cannot be restored: \w+: .*\. Choose another checkpoint\.", answer.err)
    run.metrics.write_text("epoch;step\n1;2\n")
    run.config.write_text("trainer: 3\ndata: {init_args: 4}\n")
    before = {path.name: path.read_bytes() for path in run.folder.glob("[a-z]*.*")}
    answer = reslight(*resume, "last")
    assert answer.code == 2
    assert answer.err.startswith("reslight: error: runs/tiny/1/metrics.csv has no column epoch")
    assert {path.name: path.read_bytes() for path in run.folder.glob("[a-z]*.*")} == before
