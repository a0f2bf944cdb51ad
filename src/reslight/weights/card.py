"""The model card: README.md of the folder, with YAML in front that the Hub reads.

What reslight says lies between two markers and is written anew each time; what a person wrote around them, and keys of
theirs in the YAML, stay.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from reslight.weights.catalog import CATALOG
from reslight.weights.interop.timm_config import is_for_timm, native_architecture
from reslight.weights.record import EvalResult, Record

BEGIN, END = "<!-- reslight: begin, written anew by every export -->", "<!-- reslight: end -->"
HUB_DATA = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100", "imagenet": "ILSVRC/imagenet-1k"}
"""The Hub's names of data sets."""
_ANY = "FOLDER"
"""Stands for where the reader has the weights, as long as they are not on the Hub."""
_SPLITS = {"test": "test", "val": "validation"}


def card(record: Record, nbytes: int, before: str = "", place: str = "", sha256: str = "") -> str:
    """The text of README.md.

    Args:
        record: What is known of the weights.
        nbytes: Size of model.safetensors.
        before: A card that is there already.
        place: What the reader calls these weights, such as their repository on the Hub.
        sha256: Of model.safetensors: a published weight is known by it.
    """
    front, body = _split(before)
    published = (row := CATALOG.get(_title(record))) and row.sha256 == sha256
    ours = f"{BEGIN}\n{_body(record, nbytes, place or (_title(record) if published else _ANY))}\n{END}"
    old = re.search(f"{re.escape(BEGIN)}.*?{re.escape(END)}", body, re.DOTALL)
    text = body[: old.start()] + ours + body[old.end() :] if old else f"{ours}\n{body}"
    return _joined(_front(record, front), text)


def merged(here: str, there: str) -> str | None:
    """One card of two: the keys of both, and a person's text from where there is some; None if both have some and it differs."""
    mine, theirs = own_text(here), own_text(there)
    if mine and theirs and mine != theirs:
        return None
    front, other = _split(here)[0], _split(there)[0]
    lists = {key: [*other[key], *(one for one in front[key] if one not in other[key])] for key in front if _are_lists(front, other, key)}
    return _joined({**other, **front, **lists}, _split(there if theirs and not mine else here)[1])


def _are_lists(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return isinstance(one[key], list) and isinstance(other.get(key), list) and key != "model-index"


def own_text(text: str) -> str:
    """What a person wrote in a card: all but the front and what lies between the markers."""
    body = _split(text)[1]
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", "", body, flags=re.DOTALL).strip()


def _split(text: str) -> tuple[Mapping[str, Any], str]:
    """The YAML in front of a card, and the rest; a card whose YAML cannot be read has none."""
    found = re.match(r"\ufeff?---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    if not found:
        return {}, text
    try:
        front = yaml.safe_load(found[1])
    except Exception:  # YAML's constructors raise whatever a date or a number stumbles over
        front = None
    return front if isinstance(front, dict) else {}, text[found.end() :].lstrip("\n")


def _joined(front: Mapping[str, Any], text: str) -> str:
    lead = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{lead}---\n\n{text.strip()}\n"


def _front(record: Record, theirs: Mapping[str, Any]) -> dict[str, Any]:
    library = "timm" if native_architecture(record.net) and is_for_timm(record) else "reslight"
    ours: dict[str, Any] = {
        "license": record.license.lower() if record.license else theirs.get("license"),  # as the Hub writes them
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": [*dict.fromkeys(["reslight", "resnet", "image-classification", *_texts(theirs.get("tags"))])],
        "datasets": [HUB_DATA[name]] if (name := record.data.get("name")) in HUB_DATA else theirs.get("datasets"),
        "metrics": ["accuracy"] if record.metrics else None,
        "model-index": _index(record) if record.metrics else None,
    }
    return {key: value for key, value in ours.items() if value} | {key: value for key, value in theirs.items() if key not in ours}


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _index(record: Record) -> list[dict[str, Any]]:
    name = str(record.data.get("name", "unknown"))
    results = []
    for measured in record.metrics:
        values = [("accuracy", "Top-1 accuracy", measured.correct1 / measured.total)]
        if measured.correct5 is not None:
            values.append(("accuracy", "Top-5 accuracy", measured.correct5 / measured.total))
        dataset = {"name": name, "type": HUB_DATA.get(name, name), "split": _SPLITS.get(measured.split, measured.split)}
        metrics = [{"type": kind, "name": title, "value": value} for kind, title, value in values]
        results.append({"task": {"type": "image-classification", "name": "Image classification"}, "dataset": dataset, "metrics": metrics})
    return [{"name": _title(record), "results": results}]


def _title(record: Record) -> str:
    data = record.data.get("name")
    return f"{record.name}.{data}" if data else record.name


def _body(record: Record, nbytes: int, place: str) -> str:
    title = _title(record)
    parts = [f"# {title}", _intro(record, nbytes)]
    if record.metrics:
        rows = "\n".join(map(_row, record.metrics))
        data = " --data ROOT" if record.data.get("kind") else ""
        head = "| split | top-1 | top-5 | mean NLL | precision | batch |\n|---|---|---|---|---|---|"
        parts += ["## Measured", f"{head}\n{rows}", f"Measure it again, from these very files:\n\n    reslight verify {place}{data}"]
    parts += ["## Use", _use(record, place), "## How it was made", _making(record)]
    return "\n\n".join(parts)


def _intro(record: Record, nbytes: int) -> str:
    net, feed = record.net, record.preprocess
    kinds = {"average": "the moving average over training", "raw": "the last step's", "other": "not trained by this package's command line"}
    lines = [
        f"A {'plain network' if net.shortcut == 'none' else 'residual network'} of {sum(net.depths)} {net.block} blocks"
        f"{'' if net.shortcut == 'none' else f', shortcut {net.shortcut}'}, in the format of reslight.",
        f"Input: {feed.channels} x {feed.size} x {feed.size}; {net.num_classes} classes; {nbytes / 1e6:.2f} MB of {record.dtype}. "
        f"Weights: {kinds[record.weights]}.",
    ]
    return "\n".join(lines)


def numbers_in(text: str, record: Record) -> bool:
    """Whether a card gives the numbers of a record."""
    return all(_row(measured) in text for measured in record.metrics)


def _row(measured: EvalResult) -> str:
    def share(correct: int | None) -> str:
        return "" if correct is None else f"{100 * correct / measured.total:.2f} % ({correct:,} of {measured.total:,})"

    cells = [_SPLITS.get(measured.split, measured.split), share(measured.correct1), share(measured.correct5)]
    cells += [f"{measured.nll / measured.total:.4f}", measured.precision, f"{measured.batch_size}"]
    return f"| {' | '.join(cells)} |"


def _use(record: Record, place: str) -> str:
    ways = f"""```python
import reslight

net = reslight.load("{place}")  # in eval mode; checked: configuration, sha256, every shape, every value
logits = net(net.preprocess(image)[None])  # image: a Pillow image, or uint8 (C, H, W)
```"""
    if not is_for_timm(record):
        return ways + "\n\ntimm cannot subtract a mean image, which these weights need."
    alone, here = native_architecture(record.net), place in (_ANY, *CATALOG)
    before = "" if alone else ", which reslight tells of this network first"
    return f"""{ways}

Or with timm{before}{"; FOLDER is where this card lies" if here else ""}:

```python
{"" if alone else "import reslight.weights.timm" + chr(10)}import timm

net = timm.create_model("{"local-dir:FOLDER" if here else f"hf-hub:{place}"}", pretrained=True).eval()
```"""


def _making(record: Record) -> str:
    parts = []
    if splits := record.data.get("splits"):
        rows = "\n".join(
            f"| {part} | {split.get('size', '')} | `{split.get('fingerprint', 'not known')}` |" for part, split in splits.items()
        )
        # of images that stay files, none is opened for it
        over = "classes, and images' names and sizes" if record.data.get("kind") else "images and labels in canonical order"
        parts.append(f"Data: {record.data.get('name')}. sha256 over {over}:\n\n| split | images | fingerprint |\n|---|---|---|\n{rows}")
    if record.run:
        parts.append("\n".join(f"- {key}: {_said(value)}" for key, value in record.run.items()))
    if record.recipe:
        recipe = yaml.safe_dump(dict(record.recipe), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        parts.append(f"<details><summary>Every setting</summary>\n\n```yaml\n{recipe}```\n\n</details>")
    return "\n\n".join(parts) or "Not recorded."


def _said(value: Any) -> str:
    return ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, Mapping) else str(value)
