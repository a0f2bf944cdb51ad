"""Every notebook of the docs runs from beginning to end, and shows what it promises."""

import re
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


@pytest.mark.slow
def test_first_steps(tmp_path):
    notebook = nbformat.read(FOLDER / "first_steps.ipynb", as_version=4)
    kept = texts(notebook)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = texts(notebook)
    for text in (kept, shown):
        assert re.findall(r"epoch (\d)/6", text) == list("123456"), "one line for each epoch"
    assert "of 360 correct" in shown
    images = [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(images) == 1
    assert images[0].startswith("iVBOR"), "a PNG"


@pytest.mark.parametrize("path", FOLDER.glob("*.ipynb"), ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_without_warnings(path: Path):
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 200_000
    assert all(output.get("name") != "stderr" for output in outputs(notebook))
    assert all(output.output_type != "error" for output in outputs(notebook))
