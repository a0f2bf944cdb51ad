"""The file formats that a network is exported to, with its preprocessing inside, and the file of each as a `Backend`.

A format is a module with two functions, `build` and `open_session`, and a row of the table here:

    build(network, about, calibration) -> {suffix: content}
    open_session(path, threads, workers) -> Session

Every export is opened and compared with the network before it is written; see formats/export.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from reslight.messages import UsageError, visible

if TYPE_CHECKING:
    from torch import Tensor

    from reslight.deploy.formats.pixels import PixelsToProbabilities


@dataclass(frozen=True)
class Session:
    """An opened file."""

    about: str
    """The JSON that `build` put into the file, see `About`."""
    run: "Callable[[Tensor], Tensor]"
    """uint8 or uint16 `(N, H, W, C)` -> float32 `(N, classes)`; any N, H and W."""
    runtime: str
    """What runs the file, such as `onnxruntime 1.30.0`."""


class FormatModule(Protocol):
    """The two functions of a format's module."""

    def build(self, network: "PixelsToProbabilities", about: str, calibration: "Sequence[Tensor] | None") -> Mapping[str, bytes]:
        """Return the contents of the files of an export, by their suffix; the format's own suffix comes last.

        Args:
            network: Preprocessing, network and softmax; it may be changed.
            about: JSON to be put into the file.
            calibration: For int8, batches of images, uint8 or uint16 `(N, H, W, C)`; None for float32.

        Raises:
            MissingPackageError: a package that is not installed.
        """

    def open_session(self, path: Path, threads: int, workers: int) -> Session:
        """Open a file with the format's own runtime.

        Args:
            path: The file.
            threads: Threads for a batch.
            workers: Threads that may call `run` at once. A runtime that computes one batch at a time gives each the threads of all.

        Raises:
            MissingPackageError: the runtime is not installed.
            UsageError: a file that reslight did not export.
            Exception: whatever the runtime raises for a damaged file.
        """


@dataclass(frozen=True)
class Format:
    """A row of the table."""

    name: str
    """As on the command line."""
    suffix: str
    """The end of the file's name."""
    home: str
    """The module in this folder."""
    beside: tuple[str, ...] = ()
    """Suffixes of other files that belong to the file."""

    def files(self, path: Path) -> list[Path]:
        """Return the files of an export: the others, then the one that is called by its name."""
        return [*(path.with_suffix(suffix) for suffix in self.beside), path]

    def module(self) -> FormatModule:
        """Import the format's module."""
        found: FormatModule = import_module(f"{__name__}.{self.home}")
        return found


FORMATS = {
    one.name: one
    for one in (
        Format("onnx", ".onnx", "onnx"),
        Format("openvino", ".xml", "openvino", (".bin",)),
        Format("executorch", ".pte", "executorch"),
        Format("torch", ".pt2", "torch_export"),
    )
}


def format_of(path: Path) -> Format | None:
    """Return the format of a file by its name; None if no format has such names."""
    return next((one for one in FORMATS.values() if path.suffix == one.suffix), None)


def is_exported_file(source: object) -> bool:
    """Return whether what a user calls a network is an exported file: the name ends as a format's, and it is a file."""
    path = Path(str(source))
    return format_of(path) is not None and path.is_file()


def check_format(name: str) -> Format:
    """Return a format by its name.

    Raises:
        UsageError: no such format.
    """
    if name not in FORMATS:
        raise UsageError(f"--format is {visible(name)}: reslight writes {', '.join(FORMATS)}. Choose one.")
    return FORMATS[name]
