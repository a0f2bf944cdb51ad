"""The folder that is published: written whole, and loaded only after everything in it was checked.

model.safetensors     parameters and statistics, contiguous, and nothing else
config.json           what other libraries read, and the object `reslight`: a `Record` and the files' sha256
golden.safetensors    a small input and the logits that it must give
README.md             the model card
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.weights.golden import Golden
from reslight.weights.header import Entry, compare, read_header
from reslight.weights.interop import timm_config
from reslight.weights.interop.convert import to_reslight
from reslight.weights.interop.timm_config import other_libraries
from reslight.weights.record import Record, check_sha256
from reslight.weights.strict_json import parse_json, read_json

MODEL, CONFIG, GOLDEN, CARD = "model.safetensors", "config.json", "golden.safetensors", "README.md"
FILES = (MODEL, GOLDEN, CARD, CONFIG)
"""In the order in which they are written: config.json vouches for the others."""
log = logging.getLogger(__name__)
_HEADER_OF_A_BLOCK = 4096
"""Bytes that safetensors takes at most to describe the tensors of a block."""


@dataclass(frozen=True)
class Description:
    """What config.json says.

    Attributes:
        record: What is known of the weights.
        sha256: Of model.safetensors and golden.safetensors, by name; empty where it is not known.
        folder: Where it lies.
        is_timm: Whether the tensors have timm's names.
    """

    record: Record
    sha256: Mapping[str, str]
    folder: Path
    is_timm: bool = False


def write_folder(net: ResNet, folder: Path, record: Record) -> None:
    """Write the four files; the same network and record give the same bytes. A person's own text in a card that is there stays.

    Raises:
        TypeError: It is no ResNet.
        ValueError: A weight is not finite, the record is of another network or dtype, or the folder is one of other things.
        OSError: The folder cannot be written.
    """
    from reslight.weights.card import card  # needs YAML, which loading does not

    check_target(folder)
    if not isinstance(net, ResNet):
        raise TypeError(f"this is a {type(net).__name__}, and only a ResNet can be saved; of what torch.compile returned give _orig_mod")
    state = widened(net)
    check_values(state, "the network")
    compare(entries_of(state), entries_of(_unallocated(record).state_dict()), "the network is not what its configuration says")
    try:
        text = json.dumps(record.to_dict(), ensure_ascii=False).encode()
    except TypeError as error:
        raise UsageError(f"what is to be saved beside the weights is not plain data: {error}") from None
    Record.from_dict(parse_json(text, "what is to be saved beside the weights"))  # what could not be read is not written
    files = {
        MODEL: model_bytes(net),
        GOLDEN: Golden.of(net, record.preprocess).to_bytes(),
    }
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    config = other_libraries(record) | {"reslight": record.to_dict() | {"sha256": sums}}
    say_replaced(folder, sums[MODEL])
    files[CARD] = card(record, len(files[MODEL]), read_card(folder), sha256=sums[MODEL]).encode()
    files[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    write_files({folder / name: files[name] for name in FILES})


def check_target(folder: Path) -> None:
    """Whether a folder may be written to: a new one, an empty one, or one of weights.

    Raises:
        ValueError: It holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = folder.is_dir() and "reslight" in read_json(folder / CONFIG)
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UsageError(f"{folder} holds other things than weights of reslight; give a new folder")


def say_replaced(folder: Path, sha256: str) -> None:
    """Warn if other weights lie where these are to be."""
    try:
        there = read_description(folder).sha256[MODEL]
    except (OSError, ValueError):
        return
    if there != sha256:
        log.warning("%s held other weights, sha256 %s..., which are replaced", folder, there[:12])


def read_card(folder: Path) -> str:
    """The text of the card in a folder; empty where there is none.

    Raises:
        ValueError: It is no UTF-8, so that a person's text in it could not be kept.
    """
    path = folder / CARD
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text, so what you wrote in it would be lost; save it as UTF-8, or move it away") from None


def check_folder(folder: Path) -> Record:
    """Read a folder with everything that `load` checks, and that the golden logits and a card are there.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: Something is damaged or altered.
    """
    described = read_description(folder)
    net = load_network(described)
    read_golden(described, net)
    if not (folder / CARD).is_file():
        raise FileNotFoundError(f"{folder} has no {CARD}; get the folder again")
    return described.record


def read_golden(described: Description, net: ResNet) -> Golden:
    """The golden logits of a network, if they are those that config.json vouches for.

    Raises:
        FileNotFoundError: They are not there.
        ValueError: They are damaged or altered.
    """
    path = described.folder / GOLDEN
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; get the folder again")
    if (found := sha256_of(path)) != described.sha256[GOLDEN]:
        raise UsageError(f"{path} was altered: its sha256 is {found[:12]}..., not config.json's; get the folder again")
    return Golden.read(path, net, described.record.preprocess)


def model_bytes(net: ResNet) -> bytes:
    """The contents of model.safetensors; their sha256 says which weights were measured."""
    # One key alone: safetensors writes two in random order
    return to_safetensors(widened(net), metadata={"format": "pt"})


def widened(net: ResNet) -> dict[str, Tensor]:
    """The state, contiguous and on the CPU; half precision as float32, which loses nothing and which every CPU computes with."""
    half = (torch.float16, torch.bfloat16)
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    return {name: value.float() if value.dtype in half else value for name, value in state.items()}


def read_description(folder: Path, *, accept_timm: bool = False) -> Description:
    """Read config.json, and nothing else.

    Args:
        folder: Where it lies.
        accept_timm: Read one that timm wrote, too.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not one that reslight (or timm) wrote, or was altered.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}; give a folder that `reslight export` or `reslight pull` wrote")
    config = read_json(path)
    described = config.get("reslight")
    try:
        if described is None and accept_timm:
            return Description(timm_config.record_of(config), {}, folder, is_timm=not timm_config.is_ours(config))
        if not isinstance(described, dict):
            raise UsageError("it has no object `reslight`, so reslight did not write it; `reslight convert` takes others' files")
        sums = check_sha256(described.pop("sha256", None), (MODEL, GOLDEN))
        return Description(Record.from_dict(described), sums, folder)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def load_network(described: Description) -> ResNet:
    """Build the network and load its weights, in eval mode, once every check has passed.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: model.safetensors is damaged, altered, or does not fit config.json.
    """
    path, record = described.folder / MODEL, described.record
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; get the folder again")
    there = read_header(path, _HEADER_OF_A_BLOCK * (sum(record.net.depths) + 4))
    _check_depths(there, record.net, path)
    net = _unallocated(record)
    expected = entries_of(timm_config.names_in_file(record.net) if described.is_timm else net.state_dict())
    compare(there, expected, f"{path} does not hold the network of its {CONFIG}")
    if (sha256 := described.sha256.get(MODEL)) and (found := sha256_of(path)) != sha256:
        raise UsageError(f"{path} was altered: its sha256 is {found[:12]}..., and {CONFIG} says {sha256[:12]}...; get the folder again")
    with safe_open(path, framework="pt") as file:
        # Copies: what the file's bytes lie at in memory would show in the last bit, and the file may be replaced while the network lives
        state = {name: file.get_tensor(name).clone() for name in there}
    if described.is_timm:
        state = to_reslight(state, "timm", record.net.to_dict())[1]
    check_values(state, str(path))
    net.load_state_dict(state, strict=True, assign=True)
    net.preprocess, net.labels = record.preprocess, record.labels
    return net.eval()


def entries_of(state: Mapping[str, Tensor]) -> dict[str, Entry]:
    """What a safetensors file of these tensors says."""
    return {name: Entry.of(value) for name, value in state.items()}


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_values(state: Mapping[str, Tensor], where: str) -> None:
    """Complain of weights that no training can have left.

    Raises:
        ValueError: One is not finite, or a variance or a count is negative.
    """
    for name, value in state.items():
        if value.is_floating_point() and not all(map(math.isfinite, torch.aminmax(value))):  # one pass, and NaN comes through
            raise UsageError(f"{where} holds a NaN or an infinity in {name}; nothing can be computed with it")
        if name.endswith(("running_var", "num_batches_tracked")) and bool((value < 0).any()):
            raise UsageError(f"{where} holds a negative number in {name}, which no training leaves there")


def _unallocated(record: Record) -> ResNet:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return ResNet(record.net).to(getattr(torch, record.dtype))


def _check_depths(there: Mapping[str, Entry], net: ResNetConfig, path: Path) -> None:
    """Compare the number of blocks first: to build thousands, without memory even, takes seconds."""
    found = (re.match(r"layer\d+\.\d+\.|stages\.\d+\.blocks\.\d+\.", name) for name in there)  # the latter are timm's
    blocks = {match[0] for match in found if match}
    if len(blocks) != sum(net.depths):
        raise UsageError(f"{path} holds {len(blocks)} blocks, and the network of its {CONFIG} has {sum(net.depths)}; get the folder again")


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples as lists, numbers of numpy and torch as Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.item() if hasattr(value, "item") else value
