"""Files are written whole or not at all."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write a file; until all of it is on the disk, what stood there before stands there still.

    Raises:
        OSError: It cannot be written; one line says why.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}; make room, or give another place") from error
    finally:
        unfinished.unlink(missing_ok=True)
