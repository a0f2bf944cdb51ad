"""Write the folder of weights, whole or not at all; weights/folder.py reads it."""

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from reslight.atomic import unfinished_files, write_files
from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.regular_file import is_regular
from reslight.weights.folder import (
    CARD,
    CONFIG,
    FILES,
    GOLDEN,
    MODEL,
    as_stored,
    check_values,
    entries_of,
    read_card,
    read_description,
    unallocated,
)
from reslight.weights.golden import Golden
from reslight.weights.header import compare
from reslight.weights.interop.timm_config import other_libraries
from reslight.weights.record import Record
from reslight.weights.strict_json import parse_json, read_json

log = logging.getLogger(__name__)


def write_folder(net: ResNet, folder: Path, record: Record) -> None:
    """Write the four files; the same network and record give the same bytes. The user's own text in an existing card is kept.

    Raises:
        UsageError: a weight that is not finite or, for float16, too large, a record of another network or dtype, or a folder with other
            contents.
        OSError: the folder is not writable.
    """
    from reslight.weights.card import card  # loading does not need YAML

    check_target(folder)
    state = widened(net)
    if record.dtype == "float16":
        net = rounded(net)  # the golden logits are those of what is saved
        whole, state = state, widened(net)
        if record.metrics and not all(torch.equal(value, whole[name]) for name, value in state.items()):
            raise UsageError("metrics has results of the weights before rounding. Leave them out, or half, and evaluate the saved weights.")
    check_values(state, "the network")
    compare(entries_of(state), entries_of(unallocated(record).state_dict()), "the network does not match its config")
    try:
        text = json.dumps(record.to_dict(), ensure_ascii=False).encode()
    except TypeError as error:
        raise UsageError(f"the data to save with the weights cannot be written as JSON: {error}") from None
    Record.from_dict(parse_json(text, "the data to save with the weights"))  # a record that `load` would refuse is not written
    golden = Golden.of(net, record.preprocess)
    if not bool(golden.logits.isfinite().all()):
        raise UsageError("the network's logits for two images of noise are not finite: its weights are too large. Retrain it.")
    files = {MODEL: model_bytes(net, record.dtype), GOLDEN: golden.to_bytes()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    config = other_libraries(record) | {"reslight": record.to_dict() | {"sha256": sums}}
    files[CARD] = card(record, len(files[MODEL]), read_card(folder), sha256=sums[MODEL]).encode()
    files[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    replace_folder(folder, files, sums[MODEL])


def check_target(folder: Path) -> None:
    """Check that a folder may be written to: it is new, empty, or holds weights of reslight, which may be cut short.

    Raises:
        UsageError: a folder with other contents.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = folder.is_dir() and is_regular(folder / CONFIG) and "reslight" in read_json(folder / CONFIG)
    except (OSError, ValueError):
        ours = False
    if not ours and not (folder.is_dir() and _is_cut_short(folder)):
        raise UsageError(f"{folder} holds other files than weights of reslight: they would be overwritten. Give a new folder.")


def _is_cut_short(folder: Path) -> bool:
    """Return whether a process ended while it wrote weights to a new folder, so that config.json, the last file, is missing."""
    unfinished = {path for name in FILES for path in unfinished_files(folder, name)}
    return bool(unfinished) and {*folder.iterdir()} - unfinished <= {folder / name for name in FILES}


def replace_folder(folder: Path, files: Mapping[str, bytes], sha256: str) -> None:
    """Write the files of a folder; log a warning if it held other weights.

    Args:
        folder: The folder.
        files: The content of each of FILES.
        sha256: sha256 of the new model.safetensors.

    Raises:
        OSError: the folder is not writable.
    """
    try:
        existing = read_description(folder).sha256[MODEL]
    except (OSError, ValueError):
        existing = sha256
    write_files({folder / name: files[name] for name in FILES})
    if existing != sha256:
        log.warning("%s held other weights (sha256 %s...), which were replaced", folder, existing[:12])


def model_bytes(net: ResNet, dtype: str = "float32") -> bytes:
    """Return the contents of model.safetensors for a record of `dtype`; their sha256 identifies the weights that were evaluated."""
    # Only one key, because safetensors writes two of them in random order.
    return to_safetensors(as_stored(widened(net), dtype), metadata={"format": "pt"})


@torch.no_grad()
def rounded(net: ResNet) -> ResNet:
    """Return a copy of a network whose convolutions and classifier have the nearest values of float16: below 3e-8 it is 0.

    Raises:
        UsageError: a value that is larger than all of float16.
    """
    check_values(net.state_dict(), "the network")
    result = copy.deepcopy(net)
    limit = torch.finfo(torch.float16).max
    for name, value in result.state_dict().items():
        if value.ndim > 1:
            if bool((value.abs() > limit).any()):
                raise UsageError(f"{name} has {value.abs().max():,.0f}: float16 ends at {limit:,.0f}. Save the weights without half.")
            value.copy_(value.half())
    return result


def widened(net: ResNet) -> dict[str, Tensor]:
    """Return the state dict, contiguous and on the CPU; half precision becomes float32, which loses nothing and is fast on every CPU.

    Each tensor has its own memory: tied weights are saved once for each of their names.
    """
    result: dict[str, Tensor] = {}
    used = set()
    for name, value in net.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        if tensor.untyped_storage().data_ptr() in used:
            tensor = tensor.clone()
        used.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result
