"""Files are written whole or not at all."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together; until all of them are on the disk, what stood there before stands there still.

    Args:
        files: Contents by path. They get their names in this order.

    Raises:
        OSError: One cannot be written; one line says why.
    """
    unfinished = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in files}
    path = next(iter(files))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            with unfinished[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, beside in unfinished.items():
            beside.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}; make room, or give another place") from error
    finally:
        for beside in unfinished.values():
            beside.unlink(missing_ok=True)
