"""The code blocks of a page, and what the HTML comments before a block say about running it.

The blocks of a page share a folder and run from top to bottom. Languages: `console` (lines with `$` are commands, the lines below them
their output), `bash` (commands only), `python`, `yaml`, and others, which are only shown. A `text` block right below another block is its
output. A `python` or `yaml` block that begins with `# NAME.py` or `# NAME.yaml` is saved as that file. The comments are:

    <!-- not run: REASON -->       the block is parsed only, for one of the reasons in NOT_RUN
    <!-- shortened: ARGUMENTS -->  they are added to each `reslight fit`
    <!-- stands for: A = B -->     B is run where the block has A; {repository} in B is the path of this one
    <!-- numbers vary -->          the output is compared without its numbers, as it is for shortened blocks
    <!-- exit code: N -->          of the commands that show no error; without it 0. An error shown means 2
    <!-- file: PATH -->            the block is saved as this file

Anywhere on a page:

    <!-- page not run: REASON -->  the reason of all its blocks that have no comment of their own
    <!-- setup: NAME ... -->       functions of setups.py make what the page needs
    <!-- nightly -->               the page takes too long for every day
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

NOT_RUN = ("a GPU", "several machines", "the internet", "hours", "a slow compiler", "an account", "large data", "keeps running")
"""What a block needs that a test does not have."""
LANGUAGES = ("console", "bash", "python", "yaml", "text", "csv", "json", "toml", "nginx", "dockerfile", "mermaid", "bibtex", "cpp")
_COMMENT = r"<!-- ((?:(?!-->).)*?) -->"
_FENCE = re.compile(rf"((?:{_COMMENT}\s*)*)^( *)(```+)([^\n]*)\n(.*?)^\3\4 *$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:\A|\n\n)    (?! *(?:[-*]|\d+\.) )\S[^\n]*")


@dataclass
class Block:
    """A fenced block.

    Attributes:
        language: The word behind the fence.
        text: What is in it.
        line: Its first line on the page.
        output: What it prints: the `text` block below it.
    """

    language: str
    text: str
    line: int
    not_run: str | None = None
    shortened: str = ""
    stands_for: dict[str, str] = field(default_factory=dict)
    numbers_vary: bool = False
    exit_code: int | None = None
    file: str | None = None
    output: str | None = None


@dataclass
class Page:
    """A page, its blocks, the names of its setups, and mistakes in its fences and comments."""

    path: Path
    blocks: list[Block]
    setup: list[str]
    is_nightly: bool
    problems: list[str]


def read_page(path: Path) -> Page:
    """Return the blocks of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    page = Page(path, [], re.findall(r"<!-- setup: (.*?) -->", text), "<!-- nightly -->" in text, [])
    page.setup = " ".join(page.setup).split()
    everywhere = re.search(r"<!-- page not run: (.*?) -->", text)
    end = 0
    for found in _FENCE.finditer(text):
        comments, _, indent, _, language, body = found.groups()
        line = text.count("\n", 0, found.start(4)) + 1
        block = Block(language.strip(), re.sub(f"^{indent}", "", body, flags=re.MULTILINE), line)
        for comment in re.findall(_COMMENT, comments, re.DOTALL):
            _note(block, *(part.strip() for part in comment.partition(":")[::2]))
        if block.not_run is None and everywhere:
            block.not_run = everywhere[1]
        if block.not_run not in (None, *NOT_RUN):
            page.problems.append(f"line {line}: not run: {block.not_run}. The reasons are {NOT_RUN}")
        if block.language not in LANGUAGES:
            page.problems.append(f"line {line}: the language is {block.language!r}. The languages are {LANGUAGES}")
        if block.language == "text" and page.blocks and not text[end : found.start(3)].strip():
            page.blocks[-1].output = block.text
        page.blocks.append(block)
        end = found.end()
    page.problems += [f"a block without a fence: {found[0].strip()}" for found in _INDENTED.finditer(_FENCE.sub("", text))]
    return page


def _note(block: Block, name: str, value: str) -> None:
    """Note a comment of a block."""
    if name == "not run":
        block.not_run = value
    elif name == "shortened":
        block.shortened, block.numbers_vary = value, True
    elif name == "stands for":
        old, _, new = value.partition(" = ")
        block.stands_for[old] = new
    elif name == "numbers vary":
        block.numbers_vary = True
    elif name == "exit code":
        block.exit_code = int(value)
    elif name == "file":
        block.file = value
