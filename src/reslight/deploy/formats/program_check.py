"""Check a file of torch.export before torch reads it: torch would run code that such a file may hold.

torch.export.load unpickles some of a file's entries, evaluates its expressions and its guards as Python, calls any function of torch's
that a node names, writes the names of inputs into Python code, and imports modules that a treespec names. What reslight writes needs none
of this, so whatever looks different is refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from reslight.messages import UsageError, visible

_ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|extra/\w+|data/sample_inputs/model\.pt"
    r"|data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json))"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|quantized_decomposed|onednn)\.(?!from_file)\w+(\.\w+)?|_operator\.(add|sub|mul|mod|floordiv|getitem)"
)
_EXPRESSION = re.compile(
    r"(?!.*\*\*)(?:\b(?:Mul|Add|Integer|Symbol|Max|Min|Mod|FloorDiv|positive|integer|True)\b|'?\bs\d+\b'?|\b\d+\b|[()=,+*\- ])*"
)
_GUARD = re.compile(r"L\['?\w+'?\](\[\d+\])*\.size\(\)\[\d+\] (>=|<=|==|!=) \d+")
_TREESPEC = re.compile(r'(?:[\[\]{},: 1]|null|"(?:type|context|children_spec|builtins\.(?:tuple|list|dict)|null|\[\])")*')
_NAME, _TEXT = re.compile(r"\w*"), re.compile(r"[\w.,;+<> -]*")
_RULES = {
    "target": (_TARGET, "calls"),
    "expr_str": (_EXPRESSION, "has the expression"),
    "guards_code": (_GUARD, "has the guard"),
    "in_spec": (_TREESPEC, "has the treespec"),
    "out_spec": (_TREESPEC, "has the treespec"),
    "path_name": (re.compile(r"(weight|tensor)_\d+"), "refers to"),
} | dict.fromkeys(("name", "as_name", "forward_arg_names"), (_NAME, "has the name"))
"""By key: the pattern that its strings must match, and the words for those that do not. Strings of other keys must match `_TEXT`."""
_MOST_JSON = 2**26
"""Largest size of a JSON entry in bytes: that of a ResNet-1202 has 20 MB."""
_NEVER = ("as_custom_obj", "as_operator", "as_graph", "as_script_object", "as_opaque_obj")


def check_program(path: Path) -> io.BytesIO:
    """Check that a file of torch.export holds tensors and operations on tensors only.

    Returns:
        The checked entries as a new archive: torch reads archives in another way than Python, and could find other entries in the file.

    Raises:
        OSError: a missing file.
        UsageError: a file that is damaged, or that holds anything else.
    """
    name, checked = visible(path, 1000), io.BytesIO()

    def refuse(why: str) -> NoReturn:
        raise UsageError(f"{name} {why}, which no export of reslight has: it could run code on this machine. Export it again.")

    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(checked, "w") as copy:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) < len(entries) or sum(one.file_size for one in entries) > path.stat().st_size:
                refuse("holds entries twice")
            for entry in entries:
                inner = entry.filename.partition("/")[2]
                if not _ENTRY.fullmatch(inner) or entry.compress_type != zipfile.ZIP_STORED:
                    refuse(f"holds {visible(entry.filename)!r}")
                if inner == "data/sample_inputs/model.pt" and entry.file_size:
                    refuse("holds a pickle")
                if inner.endswith(".json") and entry.file_size > _MOST_JSON:
                    refuse(f"holds {entry.file_size:,} bytes of JSON")
                content = archive.read(entry)
                if inner.endswith(".json"):
                    _check_json(json.loads(content), refuse)
                copy.writestr(zipfile.ZipInfo(entry.filename), content)
    # zipfile raises NotImplementedError for a compression that it does not know.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RecursionError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name} is damaged, or no file of torch.export: {visible(error)}. Export it again.") from None
    checked.seek(0)
    return checked


def _check_json(data: Any, refuse: Any) -> None:
    """Check the description of a program, or of its tensors."""
    for key, value in _pairs(data):
        if not _TEXT.fullmatch(key):
            refuse(f"has the key {visible(key)}")
        rule, says = _RULES.get(key, (_TEXT, "has the text"))
        if isinstance(value, str) and not rule.fullmatch(value):
            refuse(f"{says} {visible(value)}")
        if key == "use_pickle" and value is not False:
            refuse("holds a pickle")
        if key in _NEVER and value is not None:
            refuse(f"has {key}")


def _pairs(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of all objects in JSON; each value of a list with the key of the list."""
    waiting = [("", data)]
    while waiting:
        key, one = waiting.pop()
        yield key, one
        if isinstance(one, dict):
            waiting += one.items()
        elif isinstance(one, list):
            waiting += [(key, value) for value in one]
