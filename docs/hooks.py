"""What the site changes in the pages: files of the repository outside docs/ are included, or named without a link."""

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
INCLUDED = {"development/changelog.md": "CHANGELOG.md", "development/contributing.md": "CONTRIBUTING.md"}
"""Pages that are a file outside docs/; on a code host they have a link to it."""
BOOSTS = {"getting-started": 4, "guides": 4, "concepts": 2, "paper": 2, "development": 0.5}
"""By how much the search prefers the pages of a folder: what most readers look for comes before docstrings and numbers."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page's text for the site."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]  # here, because a code host would show front matter
    page.meta["search"] = {"boost": BOOSTS.get(uri.partition("/")[0], 1)}
    folder = ROOT / "docs" / uri
    if uri in INCLUDED:
        folder = ROOT / INCLUDED[uri]
        markdown = folder.read_text(encoding="utf-8")
    return rewritten(markdown, folder.parent, (ROOT / "docs" / uri).parent)


def rewritten(markdown: str, source: Path, target: Path) -> str:
    """Return text that was written for the folder `source` with links for `target`; links out of docs/ and to programs are plain text."""

    def replaced(found: re.Match[str]) -> str:
        mark, text, path, anchor = found.groups(default="")
        file = Path(os.path.normpath(source / path))
        if not file.is_relative_to(ROOT / "docs") or file.suffix in (".py", ".ipynb") or file.is_dir():
            return text if text.startswith("`") else f"{text} (`{file.relative_to(ROOT)}`)"
        return f"{mark}[{text}]({Path(os.path.relpath(file, target)).as_posix()}{anchor})"

    return _LINK.sub(replaced, markdown)
