"""Where an unexpected error comes from: the user's own file, a logger, a hidden module, or reslight."""

import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from reslight.cli.blame import hiding_file, origin
from reslight.messages import shortened


def error_of(function: Any, *arguments: Any) -> BaseException:
    try:
        function(*arguments)
    except Exception as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this test's own frame
        return error
    raise AssertionError("no error")


def own_function(text: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(text, str(Path.cwd() / "mine.py"), "exec"), names)
    return names["f"]


def test_the_innermost_file_outside_of_libraries():
    assert origin(error_of(own_function("def f():\n    return 1 / 0"))) == "f (mine.py, line 2) failed"
    in_library = own_function("import json\n\ndef f():\n    json.loads('{')")
    assert origin(error_of(in_library)) == "f (mine.py, line 4) failed"


def test_an_error_inside_reslight_is_its_own():
    function = own_function("from reslight.messages import shortened\n\ndef f():\n    shortened(3)")
    error = error_of(function)
    assert Path(traceback.extract_tb(error.__traceback__)[-1].filename).name == "messages.py"
    assert origin(error) is None
    assert origin(error_of(shortened, 3)) is None


def test_a_logger_of_lightning_is_named():
    assert origin(error_of(CSVLogger("logs").log_metrics, "no mapping")) == "trainer.logger CSVLogger failed"


def test_no_file_hides_a_module_where_a_name_is_missing_within_reslight():
    """This module exists once, whatever else is on sys.path under the name of the package."""
    with pytest.raises(ImportError) as raised:
        from reslight.models.blocks import missing  # noqa: F401  # the import is what is tested
    assert raised.value.name == "reslight.models.blocks"
    assert hiding_file(raised.value) is None


def test_a_file_hides_a_module_of_the_standard_library(monkeypatch: pytest.MonkeyPatch):
    Path("colorsys.py").write_text("")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(ImportError) as raised:
        from colorsys import rgb_to_hsv  # noqa: F401  # the import is what is tested
    assert hiding_file(raised.value) == "colorsys.py"
    monkeypatch.delitem(sys.modules, "colorsys")
