"""Read a checkpoint. Nothing in it is executed, and what is damaged or of another program is refused in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from torch import Tensor

from reslight.messages import UsageError, shortened, visible
from reslight.regular_file import regular_size
from reslight.renamed import with_new_names
from reslight.weights.torch_file import TorchFileError, check_unpacked_size, read_torch_file

FORMAT = 1
"""Format of `reslight` in a checkpoint of `ImageClassifier`; increased when its meaning changes."""
_FIX = "Choose another checkpoint."


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint, with settings under their present names; nothing in the file is executed.

    Tensors are mapped from the file and read when they are used.

    Raises:
        UsageError: a damaged file, or one that is not a checkpoint of an ImageClassifier.
    """
    regular_size(path)  # a pipe would never end
    try:
        check_unpacked_size(path)
        _check_sums(path)
        contents: Any = read_torch_file(path, mmap=True)
    except TorchFileError as error:
        raise UsageError(f"{path} {error.problem}. {_FIX}") from None
    settings, state = (contents.get("hyper_parameters"), contents.get("reslight", {})) if isinstance(contents, dict) else (None, None)
    if not isinstance(settings, Mapping) or not isinstance(settings.get("net"), Mapping) or not isinstance(state, dict):
        raise UsageError(f"{path} is not a checkpoint of reslight: it has no settings of a network. Choose one in runs/ with --ckpt_path.")
    counts = contents.get("global_step"), contents.get("epoch", 0)
    if any(type(count) is not int for count in counts) or not isinstance(contents.get("state_dict"), Mapping):
        raise UsageError(f"{path} is not a checkpoint of reslight: it has no weights or no step. Choose one in runs/ with --ckpt_path.")
    if type(format := state.get("format", FORMAT)) is not int or format > FORMAT:
        raise UsageError(
            f"{path} has format {visible(format)}: this version of reslight reads formats up to {FORMAT}. Install a newer reslight."
        )
    contents["hyper_parameters"] = with_new_names(settings, "model")
    if "data" in state:
        data = state["data"]
        if not isinstance(data, Mapping) or not isinstance(data.get("preprocess", {}), Mapping):
            raise UsageError(f"{path} is damaged: what it says of its data is not a mapping. {_FIX}")
        state["data"] = with_new_names(data, "data")
    return dict(contents)


def _check_sums(path: Path) -> None:
    """Check the checksums in a checkpoint, which torch.load does not.

    Raises:
        UsageError: altered bytes, or not a zip file.
    """
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # a damaged zip file can raise any error
        raise UsageError(f"{path} is not a checkpoint, or was cut short: it must be a .ckpt file of reslight. Choose another.") from None
    if damaged:
        raise UsageError(f"{path} is damaged: the checksum of {visible(damaged)} is wrong. {_FIX}")


def check_fit(path: object, state: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Check that the weights of a checkpoint have the names and shapes of a module's.

    Args:
        path: The checkpoint, for the message.
        state: Its state dict.
        expected: The state dict of the module, which may be on the meta device.

    Raises:
        UsageError: missing tensors, unknown ones, or ones of another shape.
    """
    shapes = {name: getattr(value, "shape", None) for name, value in state.items()}
    wrong = [name for name, value in expected.items() if shapes.get(name) != getattr(value, "shape", None)]
    if wrong := [*wrong, *(name for name in shapes if name not in expected)]:
        listed = shortened([visible(name) for name in wrong])
        raise UsageError(f"{path} does not fit its network: missing, unknown or of another shape: {listed}. {_FIX}")
