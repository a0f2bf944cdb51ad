"""ImageNet's classes: the 1,000 synsets of ILSVRC 2012, and their names."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from reslight.regular_file import read_regular

SYNSET = re.compile(r"n\d{8}")
"""The number of a noun in WordNet."""
MAPPINGS = ("LOC_synset_mapping.txt", "synset_words.txt")
"""Files with names of synsets, such as `n01440764 tench, Tinca tinca`, that some copies of ImageNet have."""
_LARGEST = 2**27
"""Bytes of such a file that are read at most."""


@cache
def known_synsets() -> Mapping[str, str]:
    """Return torchvision's name, which is unique, of each of the 1,000 synsets, in the order of the class numbers."""
    text = files("reslight.data.imagenet").joinpath("classes.txt").read_text(encoding="utf-8")
    return MappingProxyType(dict(line.split(" ", 1) for line in text.splitlines()))


def names_of(synsets: Sequence[str], root: Path | None = None) -> tuple[str, ...]:
    """Return the names of classes.

    Args:
        synsets: The classes, as their folders are named; a class that is not a synset keeps its name.
        root: Folder that may have a file with names of synsets other than the 1,000.

    Returns:
        A name for each class. Names are unique: if two would be equal, synsets other than the 1,000 get theirs in parentheses.

    Raises:
        OSError: a mapping file that cannot be read.
    """
    known = known_synsets()
    more: Mapping[str, str] = {} if root is None or known.keys() >= set(synsets) else _mapping_in(root)
    names = [known.get(synset) or more.get(synset, synset) for synset in synsets]
    uses = Counter(names)
    pairs = zip(synsets, names, strict=True)
    return tuple(name if uses[name] == 1 or synset in known else f"{name} ({synset})" for synset, name in pairs)


def _mapping_in(root: Path) -> dict[str, str]:
    """Return the first name of each synset in the mapping file; empty without such a file."""
    for path in [root / name for name in MAPPINGS if (root / name).is_file()]:
        pairs = [line.split(maxsplit=1) for line in read_regular(path, _LARGEST).decode("utf-8-sig", errors="replace").splitlines()]
        firsts = {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
        return {synset: name for synset, name in firsts.items() if SYNSET.fullmatch(synset) and name}
    return {}
