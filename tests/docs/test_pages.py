"""The code blocks of README.md and docs/ run, and print what the page shows. tests/docs/blocks.py says what a block may be."""

import sys
from pathlib import Path

import pytest
from tests.docs.blocks import Page, read_page
from tests.docs.sandbox import ROOT, Wrong, run_page
from tests.docs.setups import SETUPS

PAGES = [read_page(path) for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]


def named(page: Page) -> str:
    return str(page.path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_block_has_its_language(page: Page):
    assert not page.problems
    assert set(page.setup) <= set(SETUPS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.nightly] * page.is_nightly) for page in PAGES if page.blocks], ids=named
)
def test_each_block_runs(page: Page, request: pytest.FixtureRequest, tmp_path: Path):
    before = set(sys.modules)
    for name in page.setup:
        SETUPS[name](request)
    try:
        list(run_page(page))
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


def test_output_that_differs_is_found(tmp_path: Path):
    def page_of(output: str, comment: str = "") -> Page:
        (tmp_path / "page.md").write_text(f"{comment}\n```console\n$ reslight models resnet8\n{output}\n```\n")
        return read_page(tmp_path / "page.md")

    ((_, printed),) = run_page(page_of(""))
    list(run_page(page_of(printed)))
    list(run_page(page_of("name ... resnet8 ...")))
    shape = printed.replace("1", "7")
    assert shape != printed
    list(run_page(page_of(shape, "<!-- numbers vary -->")))
    for output, comment in ((shape, ""), ("name", ""), ("no such line", "<!-- numbers vary -->")):
        with pytest.raises(Wrong, match=r"page\.md, line 2: "):
            list(run_page(page_of(output, comment)))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```bash\nreslight fit --config digits --data.rot X\n```", "data.rot is no setting"),
        ("```bash\nreslight exprot X\n```", "exprot: there is no such command"),
        ("```bash\npython benchmarks/none.py\n```", "benchmarks/none.py does not exist"),
        ("```python\nif True\n```", "expected ':'"),
    ],
)
def test_a_block_that_is_not_run_is_parsed(tmp_path: Path, block: str, message: str):
    (tmp_path / "page.md").write_text(f"<!-- not run: hours -->\n{block}\n")
    with pytest.raises((Wrong, SyntaxError), match=message):
        list(run_page(read_page(tmp_path / "page.md")))


def test_mistakes_of_pages_are_found(tmp_path: Path):
    (tmp_path / "page.md").write_text("<!-- not run: no time -->\n```\nx\n```\n\n```text\n```\n\n    $ ls\n")
    problems = read_page(tmp_path / "page.md").problems
    assert [part in problem for part, problem in zip(("no time", "language is ''", "$ ls"), problems, strict=True)]
