"""One set of images in ten forms gives one fingerprint and one training: the table of benchmarks/forms.py, with few images."""

import importlib
import logging
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_forms_are_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    pytest.importorskip("datasets")
    pytest.importorskip("litdata")
    caplog.set_level(logging.ERROR)
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("forms", "pictures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("RESLIGHT_CACHE", str(tmp_path / "cache"))
    forms = importlib.import_module("forms")
    rows = forms.compare(tmp_path / "forms", 36)
    assert len(rows) == 10
    assert {row.fingerprint for row in rows} == {rows[0].fingerprint}
    assert {row.form for row in rows if row.weights != rows[0].weights} <= {forms.STREAMED}
