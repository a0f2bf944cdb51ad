"""The site: pages that come from the program are current, links lead to headings, and it builds without a warning."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import reslight
from reslight.cli.main import DONE, FAILED, MISTAKE
from reslight.interrupts import INTERRUPTED
from reslight.training.signals import NUMBERS

CHROMIUM = shutil.which("chromium")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def script(name: str) -> ModuleType:
    """Import a file of docs/."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(text: str) -> set[str]:
    """Return the anchors of a page, as code hosts make them of its headings."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_headings_lead_to_one(page: Path):
    text = page.read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", text):
        assert anchor in anchors((page.parent / path).read_text(encoding="utf-8") if path else text), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_says_nothing_twice(page: Path):
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = re.split(r"\n|(?<=[.:]) ", re.sub(r"^\|(?! \[).*", "", prose, flags=re.MULTILINE))  # of tables, the rows that begin with a link
    said = [re.sub(r"^(\| .*?) \|.*", r"\1", line.strip()) for line in lines]
    assert not {line for line in said if len(line) > (10 if line.startswith("|") else 40) and said.count(line) > 1}


@pytest.mark.slow
def test_the_reference_is_that_of_the_program():
    for name, text in script("generate").pages().items():
        assert not re.search(r"%\(\w+\)|%%", text), f"{name}: a help that argparse did not fill in"
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, f"{name}: run `python docs/generate.py`"


def test_the_architecture_names_every_folder():
    text = (DOCS / "development" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in Path(reslight.__file__).parent.glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)) == folders


def test_every_file_to_read_is_there():
    text = (DOCS / "development" / "architecture.md").read_text(encoding="utf-8")
    files = re.findall(r"^\| `(\w+/\w+\.py)` \|", text, re.MULTILINE)
    assert len(files) == 6
    assert all((Path(reslight.__file__).parent / file).is_file() for file in files)


def test_the_exit_codes_are_those_of_the_program():
    text = (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert codes == {DONE, FAILED, MISTAKE, INTERRUPTED, *(128 + number for number in NUMBERS)}


def test_every_benchmark_has_its_row():
    text = (DOCS / "development" / "benchmarks.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "benchmarks").glob("*.py")} - set(re.findall(r"`(\w+\.py)`", text)) <= SHARED


SHARED = {"feature_table.py", "images.py", "loops.py", "pictures.py"}
"""Files of benchmarks/ that are no commands, beside those that the page names."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built: strict, so that any warning raises."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?https?://", text), page
    assert 'class="doc doc-object' in (site / "reference/api/networks.html").read_text(encoding="utf-8")
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    found = {one["location"]: one.get("boost", 1) for one in index}
    assert found["guides/train.html#resume"] > found["reference/api/runs.html"] > found["development/architecture.html"]


@pytest.mark.nightly
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_its_pages_fit_a_narrow_screen_and_its_search_works_from_the_disk(site: Path):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 800})
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        for path in sorted(set(site.rglob("*.html")) - {site / "404.html"}):  # which only a server shows
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, path
        page.goto((site / "index.html").as_uri())
        page.click("label.md-header__button[for=__search]")
        page.locator("input.md-search__input").press_sequentially("exit codes")
        page.locator(".md-search-result__item > a").first.click()
        page.wait_for_url("**/reference/exit-codes.html*")
        browser.close()
    assert not errors
    assert all(url.startswith(("file:", "data:")) for url in asked)
