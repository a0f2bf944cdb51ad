"""Write files whole or not at all."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together; earlier files of these names are kept until all of the new ones are on the disk.

    Args:
        files: Contents by path. The files are put in place in this order.

    Raises:
        OSError: a file cannot be written; the message is one line with the reason.
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
        for path, temporary in unfinished.items():
            temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}. Make room, or choose another folder.") from error
    finally:
        for temporary in unfinished.values():
            temporary.unlink(missing_ok=True)
