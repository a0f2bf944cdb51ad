"""Who may import whom: read from the code itself, local imports included."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reslight

SOURCE = Path(reslight.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# What each part may import of ours. A part that is missing here may not be added without thinking about its place.
LEAVES = {"atomic", "messages", "version"}
OURS = {
    **{name: set() for name in LEAVES},
    "models": set(),
    "preprocess": set(),
    "metrics": set(),
    "recipes": set(),
    "allocator": set(),
    "hub": set(),
    "weights": {"models", "preprocess", "hub"},
    "data": {"preprocess"},
    "training": {"models", "weights", "metrics", "preprocess"},
    "analysis": {"models", "weights", "data", "metrics", "preprocess"},
    "commands": {"weights", "analysis", "training", "data", "models", "experiment"},
    "experiment": {"analysis", "models", "recipes", "trainer_cli", "training"},
    "explain": {"training", "data", "preprocess", "recipes"},
    "trainer_cli": {"allocator", "analysis", "explain", "recipes", "training", "data", "weights"},
    "weight_commands": {"hub", "weights", "analysis", "training", "models", "commands"},
    "parser": set(),
    "cli": {"parser", "trainer_cli"},
    "__init__": {"models", "preprocess", "weights"},
    "__main__": {"cli"},
}
# What the parts that people use without training may import of others'.
OTHERS = {
    "models": {"torch"},
    "metrics": {"torch", "torchmetrics"},
    "hub": {"huggingface_hub"},
    "weights": {"torch", "safetensors", "huggingface_hub", "yaml"},
    "preprocess": {"torch", "torchvision", "PIL"},
    "recipes": {"yaml"},
    "analysis": {"PIL", "matplotlib", "torch", "yaml"},
    "__init__": set(),
    "cli": set(),
    "commands": set(),
    "parser": set(),
    "weight_commands": set(),
}
# What single modules import that not everybody has.
OPTIONAL = {"timm.py": {"timm"}, "onnx.py": {"onnxscript", "onnxruntime"}}


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "reslight":
                yield from (f"reslight.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_imports_only_what_its_part_may(path: Path):
    part = part_of(path)
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "reslight":
            other = rest.split(".")[0]
            assert other in {"", part} | LEAVES | OURS[part], f"{part} must not import reslight.{other}"
        elif part in OTHERS:
            assert top in OTHERS[part] | OPTIONAL.get(path.name, set()) | sys.stdlib_module_names, f"{part} must not import {top}"


def test_the_reader_of_imports_sees_local_ones(tmp_path: Path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from reslight import cli\n    import reslight.data.cifar.cifar\n")
    assert list(imported(path)) == ["reslight", "reslight.cli", "reslight.data.cifar.cifar"]


def test_no_file_is_called_utils():
    assert not {"utils", "helpers", "common"} & {path.stem for path in MODULES}


def test_public_names_are_there():
    assert all(getattr(reslight, name) is not None for name in reslight.__all__)
    assert set(reslight.__all__) <= set(dir(reslight))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reslight.nothing
