"""Check a file of torch.export before torch reads it: torch would run code that such a file may hold.

torch.export.load unpickles some of a file's entries, evaluates its expressions and its guards as Python, and calls any function of
torch's that a node names. What reslight writes needs none of this, so whatever looks different is refused.
"""

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
_EXPRESSION = re.compile(r"(?:\b(?:Mul|Add|Integer|Symbol|Max|Min|Mod|FloorDiv|positive|integer|True)\b|'?\bs\d+\b'?|\b\d+\b|[()=,+*\- ])*")
_GUARD = re.compile(r"L\['?\w+'?\](\[\d+\])*\.size\(\)\[\d+\] (>=|<=|==|!=) \d+")
_MOST_JSON = 2**26
"""Largest size of a JSON entry in bytes: that of a ResNet-1202 has 20 MB."""
_NEVER = ("as_custom_obj", "as_operator", "as_graph", "as_script_object", "as_opaque_obj")


def check_program(path: Path) -> None:
    """Check that a file of torch.export holds tensors and operations on tensors only.

    Raises:
        OSError: a missing file.
        UsageError: a file that is damaged, or that holds anything else.
    """
    name = visible(path, 1000)

    def refuse(why: str) -> NoReturn:
        raise UsageError(f"{name} {why}, which no export of reslight has: it could run code on this machine. Export it again.")

    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                inner = entry.filename.partition("/")[2]
                if not _ENTRY.fullmatch(inner) or entry.compress_type != zipfile.ZIP_STORED:
                    refuse(f"holds {visible(entry.filename)!r}")
                if inner == "data/sample_inputs/model.pt" and entry.file_size:
                    refuse("holds a pickle")
                if inner.endswith(".json"):
                    if entry.file_size > _MOST_JSON:
                        refuse(f"holds {entry.file_size:,} bytes of JSON")
                    _check_json(json.loads(archive.read(entry)), refuse)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RecursionError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name} is damaged, or no file of torch.export: {visible(error)}. Export it again.") from None


def _check_json(data: Any, refuse: Any) -> None:
    """Check the description of a program, or of its tensors."""
    for key, value in _pairs(data):
        if key == "target" and not (isinstance(value, str) and _TARGET.fullmatch(value)):
            refuse(f"calls {visible(value)}")
        if key == "expr_str" and not (isinstance(value, str) and _EXPRESSION.fullmatch(value)):
            refuse(f"has the expression {visible(value)}")
        if key == "guards_code" and not all(isinstance(one, str) and _GUARD.fullmatch(one) for one in value or ()):
            refuse(f"has the guard {visible(value)}")
        if key == "use_pickle" and value is not False:
            refuse("holds a pickle")
        if key == "path_name" and not (isinstance(value, str) and re.fullmatch(r"(weight|tensor)_\d+", value)):
            refuse(f"refers to {visible(value)}")
        if key in _NEVER and value is not None:
            refuse(f"has {key}")


def _pairs(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of all objects in JSON."""
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
