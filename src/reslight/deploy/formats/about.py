"""`About`: what every exported file says of itself, as JSON in its metadata, checked as strictly as a config.json."""

import json
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from reslight.messages import UsageError, check_keys, visible
from reslight.weights.field_checks import check_sum, check_text
from reslight.weights.record import Record
from reslight.weights.strict_json import MAX_BYTES, parse_json

KEY = "reslight"
"""The name of the JSON in a file's metadata."""
Precision = Literal["float32", "int8"]
_KEYS = ("format", "version", "precision", "sha256", "record")
_FORMAT = 1


@dataclass(frozen=True)
class About:
    """What an exported file says of itself."""

    record: Record
    """The weights that were exported, without the settings of their training."""
    sha256: str
    """sha256 of the model.safetensors of these weights."""
    precision: Precision
    """Of the layers in the file."""
    version: str
    """The version of reslight that wrote the file."""

    @classmethod
    def of(cls, record: Record, sha256: str, precision: Precision, version: str) -> Self:
        """Describe an export; settings of the training stay with the weights."""
        return cls(replace(record, recipe={}, run={}, files=()), sha256, precision, version)

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each class; its number where classes have no names."""
        return self.record.labels or tuple(map(str, range(self.record.net.num_classes)))

    def to_json(self) -> str:
        """Return the JSON for the file's metadata; `from_json` is the inverse."""
        values: dict[str, Any] = {
            "format": _FORMAT,
            "version": self.version,
            "precision": self.precision,
            "sha256": self.sha256,
            "record": self.record.to_dict(),
        }
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, name: str) -> Self:
        """Return what `to_json` gave `text` for.

        Args:
            text: The JSON.
            name: The file, for messages.

        Raises:
            UsageError: JSON that reslight did not write.
        """
        if len(text) > MAX_BYTES:
            raise UsageError(f"{name} has {len(text):,} characters of metadata: at most {MAX_BYTES:,} are read. Export it again.")
        data = parse_json(text.encode("utf-8", "replace"), f"the metadata of {name}")
        try:
            check_keys(data, _KEYS, _KEYS, KEY)
            if type(data["format"]) is not int or data["format"] != _FORMAT:
                raise UsageError(f"format is {visible(data['format'])}: this reslight reads {_FORMAT}. Install a newer one.")
            if data["precision"] not in get_args(Precision):
                raise UsageError(f"precision is {visible(data['precision'])}: it must be {' or '.join(get_args(Precision))}.")
            check_text("version", data["version"], 100)
            check_sum("sha256", data["sha256"])
            if not isinstance(data["record"], dict):
                raise UsageError(f"record is {visible(data['record'])}: it must be an object.")
            return cls(Record.from_dict(data["record"]), data["sha256"], data["precision"], data["version"])
        except UsageError as error:
            raise UsageError(f"the metadata of {name}: {error} Export it again.") from None


def readable(about: str) -> dict[str, str | None]:
    """Return what users of other runtimes look for in a file's metadata, by name: a part of the JSON of an `About`."""
    data = json.loads(about)
    record, labels = data["record"], data["record"]["labels"]
    return {
        "labels": labels and json.dumps(labels),
        "activation": "sigmoid" if record.get("multi_label") else "softmax",
        "preprocess": json.dumps(record["preprocess"]),
        "license": record["license"],
    }
