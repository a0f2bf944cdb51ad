"""What is printed and saved when a figure fails, and of names that no terminal should get."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from reslight.cli import outputs
from reslight.cli.main import _configure_logging


def test_a_figure_that_fails_loses_nothing_else(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def fails(_: object) -> None:
        raise ValueError("no glyph for \x1b[31m")

    report = {"metrics": {}, "confusion": [], "per_class": [], "calibration": {"bins": []}}
    monkeypatch.setattr(outputs, "draw_evaluation", fails)
    monkeypatch.setattr(outputs, "evaluation_report", lambda *_: report)
    monkeypatch.setattr(outputs, "score_lines", lambda *_: ["test  100 %"])
    model = SimpleNamespace(counts=1, details=1, data_info={}, trainer=SimpleNamespace(is_global_zero=True))
    with caplog.at_level(logging.INFO, "reslight"):
        outputs.report_evaluation(model, "test", Path("last.ckpt"), 1)
    assert caplog.messages == [r"no figure: ValueError: no glyph for \x1b[31m", "test  100 %\nwritten test.json"]
    assert Path("test.json").exists()


def test_log_lines_have_no_control_characters(capsys: pytest.CaptureFixture[str]):
    _configure_logging(debug=False)
    logging.getLogger("reslight").warning("one %s\ntwo", "a\x1b[31mb")
    assert capsys.readouterr().err == "warning: one a\\x1b[31mb\ntwo\n"


def test_a_name_that_is_not_text_is_one_line(reslight):
    answer = reslight("fit", "--config", "digits", "--data.root", "caf\udce9")
    assert answer.code == 2
    says = "caf\\udce9 is not UTF-8 text, in which a run's configuration is saved. Rename the file or folder."
    assert answer.err == f"reslight: error: {says}\n"
