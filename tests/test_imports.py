"""Who may import whom: read from the code itself, local imports included."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reslight

SOURCE = Path(reslight.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# What each part may import of ours. A part that is missing here may not be added without thinking about its place.
OURS = {
    "preprocess": {"plain", "messages"},
    "metrics": set(),
    "atomic": set(),
    "multi_label": set(),
    "file_lock": set(),
    "messages": set(),
    "regular_file": {"messages"},
    "version": set(),
    "plain": set(),
    "lazy": set(),
    "renamed": set(),
    "lightning_private": set(),
    "cores": set(),
    "interrupts": set(),
    "hub": {"atomic", "messages", "version"},
    "models": {"plain", "messages"},
    "weights": {"plain", "models", "preprocess", "hub", "atomic", "messages", "regular_file", "multi_label"},
    "data": {"cores", "lazy", "plain", "preprocess", "hub", "atomic", "messages", "regular_file", "lightning_private"} | {"file_lock"},
    "training": {"cores", "plain", "models", "weights", "metrics", "preprocess", "atomic", "messages", "renamed", "lightning_private"}
    | {"regular_file", "multi_label"},
    "runs": {"renamed", "training", "weights", "models", "metrics", "preprocess", "atomic", "messages", "regular_file"}
    | {"file_lock", "lightning_private", "multi_label"},
    "analysis": {"multi_label", "atomic", "runs", "weights", "data", "models", "metrics", "preprocess", "messages", "regular_file"},
    "deploy": {"weights", "models", "preprocess", "data", "runs", "analysis", "metrics", "multi_label", "messages", "atomic"}
    | {"regular_file", "version", "cores", "hub", "file_lock"},
    "paper": {"atomic", "analysis", "runs", "training", "models", "messages", "weights"},
    "cli": {"atomic", "cores", "interrupts", "lightning_private", "plain", "deploy"}
    | {"renamed", "paper", "analysis", "runs", "training", "data", "weights", "models", "hub", "messages", "version"},
    "__init__": {"lazy", "models", "preprocess", "weights", "messages", "version", "deploy"},
    "__main__": {"cli", "interrupts"},
}
# The same inside data/; preprocess, hub and the leaves are for all of it.
DATA = {
    "rng": set(),
    "augment": {"rng"},
    "loading": {"augment", "rng"},
    "datamodule": {"loading", "augment", "rng"},
    "digits": {"datamodule", "loading", "augment", "rng"},
    "synthetic": {"datamodule", "loading", "rng"},
    "cifar": {"datamodule", "loading", "augment"},
    "image_folder": {"datamodule", "loading", "augment", "rng"},
    "imagenet": {"image_folder", "loading"},
    "check": {"imagenet", "image_folder", "loading"},
    "pack": {"image_folder", "loading", "augment"},
    "stream": {"image_folder", "datamodule", "loading", "rng"},
    "__init__": {"augment", "cifar", "datamodule", "digits", "image_folder", "imagenet", "loading"} | {"stream", "synthetic"},
}
# What the parts that people use without training may import of others'.
OTHERS = {
    "models": {"torch"},
    "metrics": {"torch"},
    "hub": {"huggingface_hub"},
    "weights": {"torch", "safetensors", "huggingface_hub", "yaml"},
    "preprocess": {"torch", "torchvision", "PIL", "numpy"},
    "analysis": {"PIL", "matplotlib", "torch"},
    "__init__": set(),
}
# What single modules import that not everybody has.
OPTIONAL = {"timm.py": {"timm"}}


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
            assert other in {"", part} | OURS[part], f"{part} must not import reslight.{other}"
        elif part in OTHERS:
            assert top in OTHERS[part] | OPTIONAL.get(path.name, set()) | sys.stdlib_module_names, f"{part} must not import {top}"


@pytest.mark.parametrize("path", sorted((SOURCE / "data").rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_part_of_data_imports_only_what_it_may(path: Path):
    part = path.relative_to(SOURCE / "data").parts[0].removesuffix(".py")
    for name in imported(path):
        if name.startswith("reslight.data."):
            other = name.split(".")[2]
            assert other in {part} | DATA[part], f"data/{part} must not import data/{other}"


def test_the_tables_allow_no_more_than_is_used():
    tables = {**OURS, **{f"data.{part}": others for part, others in DATA.items()}}
    unused = {(part, other) for part, others in (*tables.items(), *OTHERS.items()) for other in others}
    for path in MODULES:
        part, inside = part_of(path), ".".join(path.relative_to(SOURCE).with_suffix("").parts[:2])
        for name in imported(path):
            ours = name.removeprefix("reslight.").split(".")
            unused -= {(part, ours[0]), (inside, ours[1] if ours[0] == "data" and ours[1:] else "")}
    assert not unused


def test_the_command_line_needs_nothing_heavy_to_be_parsed():
    heavy = [
        f"{path.name}: {name}"
        for path in (SOURCE / "cli").rglob("*.py")
        if path.name
        not in ("trainer.py", "outputs.py", "errors.py", "refusals.py", "settings.py", "limits.py", "loggers.py", "saved_config.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
        if name.split(".")[0] not in sys.stdlib_module_names | {"reslight"}
    ]
    assert not heavy


@pytest.mark.slow
def test_an_image_is_classified_without_lightning_and_torchvision():
    """Their imports take three times as long as that of torch."""
    heavy = {"lightning", "torchvision", "torchmetrics", "torch._dynamo"}
    program = f"import sys, reslight.deploy.classifier; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_reader_of_imports_sees_local_ones(tmp_path: Path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from reslight import cli\n    import reslight.data.cifar\n")
    assert list(imported(path)) == ["reslight", "reslight.cli", "reslight.data.cifar"]


def test_no_file_is_called_utils():
    assert not {"utils", "helpers", "common"} & {path.stem for path in MODULES}


def test_public_names_are_there():
    assert all(getattr(reslight, name) is not None for name in reslight.__all__)
    assert set(reslight.__all__) <= set(dir(reslight))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reslight.nothing
