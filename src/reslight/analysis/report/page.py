"""Parts of an HTML page that needs no other file and no script. Texts of others are escaped here."""

import html
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

from PIL import Image
from torch import Tensor

from reslight.messages import visible

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --paper: #fff; --soft: #f3f5f8; --line: #d0d7de; --blue: #0072b2;
  --orange: #c04e00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --dim: #a0a9b3; --paper: #14171a; --soft: #20252b; --line: #3b434c;
  --blue: #56b4e9; --orange: #e69f00; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
p { max-width: 48rem; margin: .5rem 0; } a { color: var(--blue); } .dim { color: var(--dim); font-size: .9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }
.wide { overflow-x: auto; margin: .75rem 0; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; color: var(--dim); padding-bottom: .25rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right; overflow-wrap: normal; }
th { font-weight: 600; } th:first-child, td.text { text-align: left; }
td.share { background: color-mix(in srgb, var(--blue) calc(var(--share) * 60%), transparent); }
td.share.right { background: color-mix(in srgb, var(--dim) calc(var(--share) * 30%), transparent); }
.bar { display: inline-block; height: .7rem; background: var(--blue); min-width: 1px; } td.bars { min-width: 9rem; text-align: left; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; padding: 0; list-style: none; }
figure { margin: 0; background: var(--soft); border-radius: .4rem; padding: .6rem; height: 100%; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; } .pair img { width: 100%; display: block; border-radius: .2rem; }
.small img:first-child { image-rendering: pixelated; } figcaption { font-size: .85rem; margin-top: .4rem; }
svg { width: 100%; max-width: 42rem; height: auto; display: block; } svg text { fill: var(--ink); font-size: 13px; }
svg .grid { stroke: var(--line); } svg .line { fill: none; stroke-width: 2.2; } svg .dashed { stroke-dasharray: 5 4; }
svg .blue { stroke: var(--blue); } svg .orange { stroke: var(--orange); } svg .gray { stroke: var(--dim); }
svg circle.blue { fill: var(--blue); } svg circle.orange { fill: var(--orange); }
@media (max-width: 34rem) { svg text { font-size: 18px; } }
"""
MAX_SIDE = 160
"""Pixels of a picture: all pictures together stay below 3 MB even if they show noise."""
_SMALL = 64


def text(value: object, longest: int = 60) -> str:
    """Return a text of others, such as the name of a class or a file, that HTML shows as it is."""
    return html.escape(visible(value, longest))


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return a page.

    Args:
        title: Its title, as text.
        sections: Heading and HTML of each section; the first one needs no heading.
    """
    heads = [(f"part{number}", head) for number, (head, _) in enumerate(sections) if head]
    links = "".join(f'<li><a href="#{key}">{text(head)}</a></li>' for key, head in heads)
    body = "".join(
        f'<section id="part{number}"><h2>{text(head)}</h2>{inner}</section>\n'
        if head
        else f'{inner}\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n'
        for number, (head, inner) in enumerate(sections)
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, '
        f'initial-scale=1">\n<title>{text(title, 200)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n'
        f"<h1>{text(title, 200)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )


def paragraph(content: str, *, dim: bool = False) -> str:
    """Return a paragraph of HTML."""
    return f'<p class="dim">{content}</p>' if dim else f"<p>{content}</p>"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls by itself where the page is narrow.

    Args:
        caption: Its caption, as text.
        head: The names of the columns, as HTML.
        rows: The cells as HTML: content, or whole `<td>` elements. The first cell of a row is its header.
    """
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(f'<tr><th scope="row">{first}</th>{"".join(map(_cell, cells))}</tr>\n' for first, *cells in rows)
    label = text(caption, 200)
    return (
        f'<div class="wide" role="region" aria-label="{label}" tabindex="0"><table><caption>{label}</caption>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{lines}</tbody></table></div>\n"
    )


def _cell(content: str) -> str:
    return content if content.startswith("<td") else f"<td>{content}</td>"


def bar(share: float) -> str:
    """Return a cell with a bar, as long as a share of 1."""
    return f'<td class="bars"><span class="bar" style="width:{100 * share:.1f}%"></span></td>'


def cards(figures: Sequence[str]) -> str:
    """Return figures side by side."""
    return f'<ul class="cards">{"".join(f"<li>{one}</li>" for one in figures)}</ul>'


def pair(pictures: Sequence[tuple[Tensor, str]], caption: str) -> str:
    """Return a figure of two pictures.

    Args:
        pictures: uint8 `(H, W, 3)`, and what the picture shows, as text.
        caption: HTML.
    """
    small = " small" if max(pictures[0][0].shape[:2]) <= _SMALL else ""
    images = "".join(f'<img src="{_uri(picture)}" alt="{text(shows, 200)}">' for picture, shows in pictures)
    return f'<figure><div class="pair{small}">{images}</div><figcaption>{caption}</figcaption></figure>'


def _uri(picture: Tensor) -> str:
    """Return a picture as a data URI: small ones without loss, others as WebP of at most MAX_SIDE pixels."""
    image = Image.fromarray(picture.contiguous().numpy())
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    content = BytesIO()
    image.save(content, "WEBP", quality=80, lossless=max(picture.shape[:2]) <= _SMALL)
    return f"data:image/webp;base64,{b64encode(content.getvalue()).decode()}"
