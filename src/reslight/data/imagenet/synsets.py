"""ImageNet's classes: the 1,000 synsets of ILSVRC 2012, and what people call them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

SYNSET = re.compile(r"n\d{8}")
"""WordNet's number of a noun."""
MAPPINGS = ("LOC_synset_mapping.txt", "synset_words.txt")
"""Files that come with some copies and name synsets: `n01440764 tench, Tinca tinca`."""


@cache
def known_synsets() -> Mapping[str, str]:
    """The 1,000 in sorted order, which is that of their numbers, with torchvision's names: no two are alike."""
    text = files("reslight.data.imagenet").joinpath("classes.txt").read_text(encoding="utf-8")
    return MappingProxyType(dict(line.split(" ", 1) for line in text.splitlines()))


def names_of(synsets: Sequence[str], root: Path | None = None) -> tuple[str, ...]:
    """What people call classes.

    Args:
        synsets: Their folders' names; what is no synset is its own name.
        root: Folder in which a mapping file may name synsets beyond the 1,000.

    Returns:
        A name for each, all different: where two would be alike, those beyond the 1,000 have their synset behind them.

    Raises:
        OSError: The mapping file cannot be read.
    """
    known = known_synsets()
    more: Mapping[str, str] = {} if root is None or known.keys() >= set(synsets) else _mapping_in(root)
    names = [known.get(synset) or more.get(synset, synset) for synset in synsets]
    uses = Counter(names)
    pairs = zip(synsets, names, strict=True)
    return tuple(name if uses[name] == 1 or synset in known else f"{name} ({synset})" for synset, name in pairs)


def _mapping_in(root: Path) -> dict[str, str]:
    """The first name that the mapping file gives for each synset; empty where there is no such file."""
    for path in [root / name for name in MAPPINGS if (root / name).is_file()]:
        pairs = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
        firsts = {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
        return {synset: name for synset, name in firsts.items() if SYNSET.fullmatch(synset) and name}
    return {}
