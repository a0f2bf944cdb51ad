"""What a shell completes: every name that is offered exists, and the answers come without heavy imports."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reslight.cli.complete import ARGUMENTS, SETTINGS, add_completers, networks
from reslight.cli.main import make_parser
from reslight.models import VARIANTS


def test_the_networks_are_those_of_the_table():
    assert networks() == list(VARIANTS)


def test_settings_and_datasets_exist(reslight):
    from reslight.cli.settings import datasets, keys_of

    def keys(content: dict, prefix: str = "") -> set[str]:
        inner = [keys(value, f"{prefix}{name}.") for name, value in content.items() if isinstance(value, dict)]
        return {f"{prefix}{name}" for name in content}.union(*inner)

    of_data = {f"data.{key}" for dataset in datasets() for key in keys_of(dataset)}
    known = keys(yaml.safe_load(reslight("fit", "--config", "digits", "--print_config").out)) | of_data | {"config", "print_config"}
    assert set(SETTINGS) <= known
    assert sorted(SETTINGS["data"](prefix="")) == [dataset.__name__ for dataset in datasets()]


def test_arguments_exist():
    parser = make_parser()
    add_completers(parser)
    commands = next(action.choices for action in parser._actions if isinstance(action.choices, dict))
    for command, argument in ARGUMENTS:
        assert any(action.dest == argument and hasattr(action, "completer") for action in commands[command]._actions), command


def test_names_and_files_are_completed():
    Path("mine.yaml").touch()
    Path("mixed").mkdir()
    assert SETTINGS["config"](prefix="mi") == ["mine.yaml", "mixed/"]
    assert SETTINGS["config"](prefix="cifar10/mo") == ["cifar10/modern"]
    assert SETTINGS["model.net"](prefix="resnet11") == ["resnet110"]
    assert SETTINGS["model.init_from"](prefix="resnet8") == ["resnet8.digits"]


def test_without_the_package_the_line_says_how_to_install_it(reslight, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    answer = reslight("completion", "bash")
    assert answer.code == 2
    assert answer.err == "reslight: error: reslight completion needs argcomplete. Run pip install 'reslight[completion]'.\n"


def test_the_script_of_each_shell_and_its_answers(reslight, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("argcomplete")
    for shell in ("bash", "zsh", "fish"):
        assert "complete" in reslight("completion", shell).out
    line = "reslight fit --config cifar100/m"
    for name, value in {"": "1", "_STDOUT_FILENAME": "answer", "_IFS": "\n", "_COMP_WORDBREAKS": " =:"}.items():
        monkeypatch.setenv(f"_ARGCOMPLETE{name}", value)
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    Path("answer").touch()
    code = "import sys; sys.modules['torch'] = None; from reslight.cli import main; main([])"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Path("answer").read_text().split() == ["cifar100/modern", "cifar100/muon"]
