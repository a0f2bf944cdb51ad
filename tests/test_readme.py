"""What README.md and docs/ say is so."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_two_commands_stand_there():
    for command in ("pip install -e . && reslight fit --config configs/digits.yaml", "pip install -e '.[dev]' && pytest"):
        assert f"\n{command}\n" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "paper").glob("*.json")), ids=lambda file: file.stem)
def test_the_tables_of_the_paper_are_those_that_were_measured(file: Path):
    page, outcome = (ROOT / "docs" / "paper" / "index.md").read_text(encoding="utf-8"), json.loads(file.read_text(encoding="utf-8"))
    for row in outcome["table"]:
        assert f"| {' | '.join(row.values())} |" in page
    for sentence in outcome["directions"]:
        assert f"{sentence[0].upper()}{sentence[1:]}." in page
    assert f"]({file.stem}.png)" in page
    assert f"\nreslight paper {file.stem} " in page
