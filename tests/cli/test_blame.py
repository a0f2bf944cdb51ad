"""Where an unexpected error comes from: the user's own file, a logger, a hidden module, or reslight."""

import traceback
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger

from reslight.cli.blame import origin
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
