"""Write files whole or not at all."""

import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

Content = bytes | Callable[[BinaryIO], object]
"""A file's bytes, or a function that writes them."""


def write_files(files: Mapping[Path, Content]) -> None:
    """Write files that belong together; earlier files of these names are kept until all of the new ones are on the disk.

    Args:
        files: Contents by path. The files are put in place in this order.

    Raises:
        OSError: a file cannot be written; the message is one line with the reason.
    """
    unfinished = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in files}
    path = next(iter(files))
    try:
        make_folder(path.parent)
        for path, content in files.items():
            with unfinished[path].open("wb") as file:
                _write(file, content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in unfinished.items():
            temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}. Make room, or choose another folder.") from error
    finally:
        for temporary in unfinished.values():
            # An error here, such as a path below a file, would hide the one that is being raised.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in files}:
        _sync_folder(folder)


def unfinished_files(folder: Path, name: str = "*") -> list[Path]:
    """Return what killed processes left of files that they wrote to a folder; processes that live may write some of these files, too.

    Args:
        folder: The folder.
        name: The name that the files would have got, or a pattern of names.
    """
    return list(folder.glob(f".{name}.*.tmp"))


def make_folder(folder: Path, *, exist_ok: bool = True) -> None:
    """Make a folder and the missing ones above it, all of which last through a power cut.

    Args:
        folder: The folder.
        exist_ok: Accept a folder that exists.

    Raises:
        OSError: the folder cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=exist_ok)
    for one in missing:
        _sync_folder(one.parent)


def _write(file: BinaryIO, content: Content) -> None:
    if isinstance(content, bytes):
        file.write(content)
        return
    try:
        content(file)
    except RuntimeError as error:
        # torch.save turns the operating system's error into a RuntimeError of its own.
        if isinstance(cause := error.__cause__ or error.__context__, OSError):
            raise cause from error
        raise


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power cut; not every system can open or flush a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
