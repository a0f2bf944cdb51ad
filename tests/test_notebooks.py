"""Every notebook of the docs runs from beginning to end, and shows what it promises."""

import os
import re
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parents[1] / "docs/notebooks"


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def texts(notebook) -> str:
    return "\n".join(str(output.get("text", "")) + output.get("data", {}).get("text/plain", "") for output in outputs(notebook))


def executed(name: str, folder: Path):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    errors = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not [text for text in errors if "IProgress" not in text], "a reader would see lines that the notebook does not show"
    return notebook


@pytest.mark.slow
def test_first_steps(tmp_path):
    notebook = executed("first_steps", tmp_path)
    shown = texts(notebook)
    assert re.findall(r"epoch (\d)/6", shown) == list("123456"), "one line for each epoch"
    assert "of 360 correct" in shown
    images = [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(images) == 1
    assert images[0].startswith("iVBOR"), "a PNG"


@pytest.mark.nightly
@pytest.mark.slow
def test_fine_tuning_finds_the_shapes(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # of the cells with `!reslight`
    shown = texts(executed("finetune", tmp_path))
    assert "no problems" in shown
    assert re.findall(r"epoch +(\d+)/15", shown) == [str(number) for number in range(1, 16)], "no bar between the lines"
    assert int(re.search(r"(\d+) of 100 new pictures", shown)[1]) >= 90


@pytest.mark.nightly
@pytest.mark.slow
def test_deeper_plain_networks_are_worse_unless_they_are_built(tmp_path):
    shown = texts(executed("deeper", tmp_path))
    errors = {name: float(value) for name, value in re.findall(r"(.*): +([\d.]+) % test error", shown)}
    assert errors["plain, 32 layers"] > errors["plain,  8 layers"] + 20
    assert errors["plain, 32 layers, built from 8"] == errors["plain,  8 layers"]
    assert errors["residual, 32 layers"] < 10
    assert "equal outputs: True" in shown


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_without_warnings(path: Path):
    notebook = nbformat.read(path, as_version=4)
    assert texts(notebook)
    assert "\r" not in texts(notebook)
    assert "\x1b" not in texts(notebook)
    assert path.stat().st_size < 200_000
    assert all(output.get("name") != "stderr" for output in outputs(notebook))
    assert all(output.output_type != "error" for output in outputs(notebook))
