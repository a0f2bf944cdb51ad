"""The folder of published weights: written whole, and loaded only after everything in it was checked.

model.safetensors     parameters and batch norm statistics, contiguous, and nothing else
config.json           what other libraries read, and the object `reslight`: a `Record` and the files' sha256
golden.safetensors    a few images, and the logits that the network must give for them
README.md             the model card
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from reslight.messages import UsageError, visible
from reslight.models import ResNet, ResNetConfig
from reslight.regular_file import is_regular
from reslight.weights.golden import TOLERANCE, Golden
from reslight.weights.header import Entry, compare, read_header
from reslight.weights.interop.timm_config import MULTI_LABEL, other_libraries
from reslight.weights.record import Record, check_sha256
from reslight.weights.strict_json import read_json

MODEL, CONFIG, GOLDEN, CARD = "model.safetensors", "config.json", "golden.safetensors", "README.md"
FILES = (MODEL, GOLDEN, CARD, CONFIG)
"""In the order in which they are written: config.json holds the sha256 of the others, so it comes last."""
log = logging.getLogger(__name__)
MAX_CARD = 2**20
"""Size of the largest card that is read, in bytes."""
_HEADER_OF_A_BLOCK = 4096
"""Largest length of the part of a safetensors header that describes one block, in bytes."""


@dataclass(frozen=True)
class Description:
    """What config.json says, and how to read the weights beside it.

    Attributes:
        record: What is known about the weights.
        sha256: sha256 of model.safetensors and golden.safetensors, by name; empty if unknown.
        folder: The folder.
        by_transformers: transformers wrote the folder: what it says of the training may be of other weights.
        as_in_file: Converts a state dict to the names and shapes that model.safetensors has, in the same order.
    """

    record: Record
    sha256: Mapping[str, str]
    folder: Path
    as_in_file: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    by_transformers: bool = False


def read_card(folder: Path) -> str:
    """Return the text of the card in a folder; an empty text if there is no card.

    Raises:
        UsageError: a card that is not a regular file, too large, or not UTF-8, so that the user's text in it could not be kept.
    """
    path = folder / CARD
    if not is_regular(path):
        return ""
    _check_size(path, MAX_CARD)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: what you wrote in it would be lost. Save it as UTF-8, or move it away.") from None


def check_folder(folder: Path) -> Record:
    """Check everything that `load` checks, what other libraries read, the golden logits, and that there is a card; return the record.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a damaged or changed file.
    """
    description = read_description(folder)
    check_for_other_libraries(description)
    net = load_network(description)
    difference = read_golden(description, net).compare(net, description.record.preprocess).relative_difference
    if not difference <= TOLERANCE:  # NaN is none, too
        raise UsageError(
            f"the logits of {folder / MODEL} differ from those in {GOLDEN} by {difference:.1e} of the largest: at most {TOLERANCE:.0e} is "
            "allowed. Get the folder again, or export it again."
        )
    if not read_card(folder):
        raise FileNotFoundError(f"{folder} has no {CARD}. Get the folder again.")
    return description.record


def check_for_other_libraries(description: Description) -> None:
    """Check that timm and transformers read in config.json what reslight writes there for the record, and nothing else.

    Raises:
        UsageError: a key with another value, a missing key, or one that reslight does not write; or a folder that transformers wrote.
    """
    path = description.folder / CONFIG
    if description.by_transformers:
        raise UsageError(
            f"{description.folder} was written by transformers, which keeps what {CONFIG} said of the weights that it had loaded, and "
            "writes no golden logits and no card of reslight. Write them: reslight.save(reslight.load(FOLDER), OUT)."
        )
    found, expected = (
        _flat({key: value for key, value in config.items() if key != "reslight"})
        for config in (read_config(description.folder), json.loads(json.dumps(other_libraries(description.record))))
    )
    for key in {**expected, **found}:
        if (here := found.get(key)) != (ours := expected.get(key)):
            what = f"has the key {visible(key)}" if ours is None else f"is missing {key}" if here is None else f"has {key} {visible(here)}"
            says = "no such key" if ours is None else visible(ours)
            raise UsageError(f"{path} {what}: for its object `reslight` it must have {says}. Get the folder again, or export it again.")


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as JSON, those of objects by `key.inner`; as Python objects 1, 1.0 and true would be equal."""
    rows = [(f"{key}.{name}", inner) for key, value in config.items() if isinstance(value, dict) for name, inner in value.items()]
    rows += [(key, value) for key, value in config.items() if not isinstance(value, dict) or not value]
    return {key: json.dumps(value, sort_keys=True, ensure_ascii=False) for key, value in rows}


def read_golden(description: Description, net: ResNet) -> Golden:
    """Read the golden logits, whose sha256 must be the one in config.json.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a damaged or changed file.
    """
    path = description.folder / GOLDEN
    if not is_regular(path):
        raise FileNotFoundError(f"{path.parent} has no {path.name}. Get the folder again.")
    preprocess = description.record.preprocess
    _check_size(path, Golden.largest_file(preprocess, net.config.num_classes))
    _check_sum(path, description.sha256[GOLDEN])
    return Golden.read(path, net, preprocess)


def read_description(folder: Path) -> Description:
    """Read the config.json of a folder that reslight wrote, and nothing else.

    Raises:
        FileNotFoundError: a missing folder or config.json.
        UsageError: a config.json that is damaged, changed, or not written by reslight.
    """
    return describe(read_config(folder), folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json.

    Raises:
        FileNotFoundError: a missing folder or config.json.
        UsageError: a config.json that is too large, or not an object of standard JSON.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}. Check the name.")
    if (folder / "config.yaml").is_file():
        exported = folder / "weights"
        fix = f"Give {exported}." if (exported / CONFIG).is_file() else f"Export it: reslight export {folder} OUT."
        raise UsageError(f"{folder} is a run: weights are a folder with a {CONFIG}. {fix}")
    if not is_regular(path):
        raise FileNotFoundError(f"{folder} has no {CONFIG}. Give a folder that `reslight export` or `reslight pull` wrote.")
    return read_json(path)


def describe(config: Mapping[str, Any], folder: Path) -> Description:
    """Return the description in the contents of a config.json that reslight wrote.

    Raises:
        UsageError: contents that are damaged, changed, or not written by reslight.
    """
    try:
        ours = config.get("reslight")
        if not isinstance(ours, dict):
            raise UsageError("it has no object `reslight`, so reslight did not write it. `reslight convert` reads other libraries' files.")
        sums = check_sha256(ours.pop("sha256", None), (MODEL, GOLDEN))
        if "transformers_version" in config:  # its save_pretrained keeps the object `reslight` of the weights that it had loaded
            multi_label = config.get("problem_type") == MULTI_LABEL  # transformers sets it when it trains, perhaps on other data
            record = replace(Record.from_dict(ours), metrics=(), calibration=None, multi_label=multi_label)
            if (classes := config.get("num_classes", record.net.num_classes)) != record.net.num_classes:  # a head that was fine-tuned
                record = replace(record, net=replace(record.net, num_classes=classes), labels=None)
            return Description(record, {}, folder, by_transformers=True)
        return Description(Record.from_dict(ours), sums, folder)
    except UsageError as error:
        raise UsageError(f"{folder / CONFIG}: {error}") from None


def load_network(description: Description) -> ResNet:
    """Build the network and load its weights, in eval mode, after every check has passed.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a model.safetensors that is damaged, changed, or does not fit config.json.
    """
    path, record = description.folder / MODEL, description.record
    if not is_regular(path):
        raise FileNotFoundError(f"{path.parent} has no {path.name}. Get the folder again.")
    found = read_header(path, _HEADER_OF_A_BLOCK * (sum(record.net.depths) + 4))
    _check_depths(found, record.net, path)
    net = unallocated(record)
    empty = net.state_dict()
    in_file = description.as_in_file(as_stored(empty, record.dtype))
    compare(found, entries_of(in_file), f"{path} does not hold the network of its {CONFIG}")
    if MODEL in description.sha256:
        _check_sum(path, description.sha256[MODEL])
    if description.by_transformers:
        log.warning("%s was written by transformers: what it says of accuracy and training may be of other weights", path.parent)
    with safe_open(path, framework="pt") as file:
        # Clone: unaligned memory-mapped tensors change results in the last bit, and the file may be replaced while the model is in use.
        tensors = [file.get_tensor(name).clone() for name in in_file]
    state = {name: tensor.reshape(value.shape).to(value.dtype) for (name, value), tensor in zip(empty.items(), tensors, strict=True)}
    check_values(state, str(path))
    net.load_state_dict(state, strict=True, assign=True)
    net.preprocess, net.labels, net.multi_label = record.preprocess, record.labels, record.multi_label
    net.temperature = record.calibration.temperature if record.calibration else 1.0
    return net.eval()


def as_stored(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return a state dict with the dtypes that model.safetensors has for a record of `dtype`; tensors may be on the meta device."""
    is_half = dtype == "float16"
    return {name: value.half() if is_half and value.ndim > 1 else value for name, value in state.items()}


def entries_of(state: Mapping[str, Tensor]) -> dict[str, Entry]:
    """Return what a safetensors file of these tensors has in its header."""
    return {name: Entry.of(value) for name, value in state.items()}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_values(state: Mapping[str, Tensor], where: str) -> None:
    """Check that all weights are finite, and variances and counts not negative.

    Raises:
        UsageError: a value that training cannot produce.
    """
    for name, value in state.items():
        if value.is_floating_point() and not all(map(math.isfinite, torch.aminmax(value))):  # one pass, and it returns NaN if there is one
            raise UsageError(f"{where} has a NaN or an infinity in {name}: all weights must be finite. Get the weights again, or retrain.")
        if name.endswith(("running_var", "num_batches_tracked")) and bool((value < 0).any()):
            raise UsageError(f"{where} has a negative number in {name}: training leaves none there. Get the weights again.")


def _check_sum(path: Path, expected: str) -> None:
    if (found := sha256_of(path)) != expected:
        raise UsageError(f"{path} was changed: its sha256 is {found[:12]}..., {CONFIG} has {expected[:12]}.... Get the folder again.")


def _check_size(path: Path, limit: int) -> None:
    if (size := path.stat().st_size) > limit:
        raise UsageError(f"{path} has {size:,} bytes: at most {limit:,} are read. Get the folder again, or shorten the file.")


def unallocated(record: Record) -> ResNet:
    """Build the network without memory for its weights."""
    with torch.device("meta"):
        return ResNet(record.net).to(torch.float64 if record.dtype == "float64" else torch.float32)


def _check_depths(found: Mapping[str, Entry], net: ResNetConfig, path: Path) -> None:
    """Compare the number of blocks before anything is built: thousands of blocks take seconds, even without memory."""
    matches = (re.match(r"layer\d+\.\d+\.|stages\.\d+\.blocks\.\d+\.", name) for name in found)  # the latter are timm's
    blocks = {match[0] for match in matches if match}
    if len(blocks) != sum(net.depths):
        raise UsageError(f"{path} holds {len(blocks)} blocks: the network of its {CONFIG} has {sum(net.depths)}. Get the folder again.")
