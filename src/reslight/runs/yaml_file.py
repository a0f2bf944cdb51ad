"""Read the YAML of configuration files: bounded, without duplicate keys, and each error in one line."""

import re
from pathlib import Path
from typing import Any

import yaml

from reslight.messages import UsageError

MOST_BYTES, MOST_VALUES, MOST_LEVELS = 100_000, 10_000, 50
"""Bounds of a configuration file. The configuration of a run, with every default written out, has 2 kB, 200 values and 5 levels."""


def read(path: Path) -> dict[str, Any]:
    """Read the settings of a configuration file.

    Args:
        path: The file; its size, its depth and what its aliases expand to are bounded before anything is built from them.

    Returns:
        Nested settings, as they are in the file.

    Raises:
        UsageError: text that is not YAML, keys that are not names or are there twice, or more than a configuration can need.
        OSError: a file that cannot be read.
    """
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    try:
        if len(raw) > MOST_BYTES:
            raise _TooLargeError(f"more than {MOST_BYTES:,} bytes")
        content = yaml.load(raw.decode("utf-8"), _Loader)
    except _TooLargeError as error:
        raise UsageError(f"{path} has {error}: that is no configuration. Give another file.") from error
    except _DuplicateError as error:
        raise UsageError(f"{path}, {error} Keep one.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file: a configuration is YAML in UTF-8. Give another file.") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}," if error.problem_mark else ""
        raise UsageError(f"{path}{line} is not YAML: {error.problem}. Correct it there.") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # PyYAML raises any of these for a value that does not fit its type, such as the date 2026-13-01 or `!!int x`.
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}. Correct it there.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} has no settings: a configuration is a mapping. Write one, such as `model: {{net: resnet20}}`.")
    if glued := glued_key(content):
        raise UsageError(f"{path} has the key {glued} without a value: YAML needs a space behind a colon. Write {spaced(glued)}.")
    if odd := [key for key, value in _pairs(content) if value is None and not isinstance(key, str)]:
        raise UsageError(f"{path} has the key {odd[0]}: keys are names of settings. Write a decimal number with a point, as in 0.1.")
    data = content.get("data")
    keys = set(data) if isinstance(data, dict) and "class_path" in data else set()
    stray = sorted(map(str, keys - {"class_path", "init_args", "dict_kwargs"}))
    if stray:
        raise UsageError(f"{path} has {', '.join(stray)} beside data.class_path: these belong in data.init_args. Move them.")
    return content


def parse(text: str) -> Any:
    """Return the value of a YAML text, such as one that was typed.

    Raises:
        ValueError: text that is not YAML, or more than a configuration can need.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, _TooLargeError, _DuplicateError, LookupError, AttributeError) as error:
        raise ValueError(str(error)) from error


class _TooLargeError(Exception):
    """A file with more than a configuration can need."""


class _DuplicateError(Exception):
    """A key that is twice in a mapping."""


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses keys that are twice in a mapping, and a text with too many values or levels.

    Values and levels are counted with every alias expanded: two hundred bytes of nested aliases are a billion values to whatever walks
    through them.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.extents: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node, and bound the values and the levels in it."""
        self.depth += 1
        if self.depth > MOST_LEVELS:  # before PyYAML's recursion goes too deep for Python
            raise _TooLargeError(f"more than {MOST_LEVELS} levels")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if is_alias and id(node) not in self.extents:
            raise _TooLargeError("an alias (*name) inside the mapping or list that it repeats")
        inner = [self.extents[id(child)] for child in _children(node)]
        values, levels = 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)
        if values > MOST_VALUES:
            raise _TooLargeError(f"more than {MOST_VALUES:,} values, with aliases (*name) expanded")
        if levels > MOST_LEVELS:
            raise _TooLargeError(f"more than {MOST_LEVELS} levels, with aliases (*name) expanded")
        self.extents[id(node)] = values, levels
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping whose keys differ; PyYAML would silently keep the last of two values."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _DuplicateError(f"line {line}: {key.value} is there twice (first in line {lines[key.value]}).")
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
        return node


def _children(node: yaml.Node | None) -> list[yaml.Node]:
    """Return the nodes directly inside a node."""
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _pairs(content: Any) -> list[tuple[Any, Any]]:
    """Return the keys and values of all mappings in a configuration."""
    if isinstance(content, dict):
        return [*content.items(), *(pair for value in content.values() for pair in _pairs(value))]
    return [pair for value in content for pair in _pairs(value)] if isinstance(content, list) else []


def glued_key(content: Any) -> str | None:
    """Return a key that ends with its value because a space is missing, such as `lr:0.1`; None without one."""
    return next((key for key, value in _pairs(content) if value is None and isinstance(key, str) and ":" in key), None)


def spaced(text: str) -> str:
    """Return a text with a space behind each colon, but for those of times and addresses."""
    return re.sub(r"(?<=\w):(?=[^\s/])", ": ", text)
