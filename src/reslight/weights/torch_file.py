"""Read files that torch.save wrote: tensors and plain containers only, and nothing in a file is executed."""

import re
import warnings
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch

from reslight.messages import visible

_GLOBAL = re.compile(r"\bGLOBAL (\S+)")
"""The class or function that a file needs, in torch's message."""


@dataclass
class TorchFileError(Exception):
    """A file that cannot be read. torch's own messages are not shown: they advise to execute what is in the file."""

    problem: str
    """What is wrong with the file, as `has ...` or `is ...`."""
    forbidden: str = ""
    """The class or function that the file needs; empty if that is not the reason."""


def read_torch_file(path: Path, *, mmap: bool = False) -> Any:
    """Return the contents of a file that torch.save wrote.

    Args:
        path: The file.
        mmap: Map tensors from the file and read them when they are used.

    Raises:
        TorchFileError: a damaged file, or one that needs more than tensors and plain containers.
    """
    check_unpacked_size(path)
    try:
        # A Namespace is an object with attributes and no code of its own; torchvision's training script saves its arguments in one.
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings(action="ignore"):  # the error says it, too
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle can raise any error
        text = str(error)
    if found := _GLOBAL.search(text):
        name = visible(found[1])
        raise TorchFileError(f"needs {name}: only tensors and plain containers are read, because anything else can execute code", name)
    if "TorchScript" in text:
        raise TorchFileError("is a TorchScript archive, which holds code: only tensors and plain containers are read")
    raise TorchFileError("is damaged, or was not written by torch.save")


def check_unpacked_size(path: Path) -> None:
    """Check that a zip file is not compressed, as those of torch.save are not: it could unpack to gigabytes.

    Raises:
        TorchFileError: a compressed or damaged zip file.
    """
    if not is_zipfile(path):  # the format of torch before 1.6
        return
    try:
        with ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (BadZipFile, ValueError, NotImplementedError):  # the last two for damaged numbers of a file's place and version
        raise TorchFileError("is a damaged zip file") from None
    if unpacked > (size := path.stat().st_size):
        raise TorchFileError(f"has {size:,} bytes that unpack to {unpacked:,}: torch.save does not compress")
