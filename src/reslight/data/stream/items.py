"""What a chunk holds, as litdata reads it: encoded images, or pixels, and labels. No other module touches litdata's reader."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reslight.data.stream.chunk_index import ENCODED, ChunkIndex
from reslight.messages import MissingPackageError, UsageError, visible


@dataclass(frozen=True)
class Items:
    """The items of a chunk."""

    images: list[Any]
    """Each image: an encoded file, an array of pixels or an image of Pillow."""
    labels: list[int | str]
    """Number or name of each image's class."""


def check_installed(user: str) -> None:
    """Check that litdata can be imported.

    Args:
        user: What needs it, for the message.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import litdata  # noqa: F401  # only to see whether it is there
    except ModuleNotFoundError as error:
        if error.name != "litdata":
            raise
        install = "Run `pip install 'reslight[stream]'`."
        raise MissingPackageError(f"{user} needs the package litdata, which is not installed. {install}") from error


def read_items(path: Path, index: ChunkIndex, number: int) -> Items:
    """Read all items of a chunk.

    Args:
        path: The file.
        index: The chunks of the split.
        number: The chunk.

    Raises:
        OSError: a file that cannot be opened.
        UsageError: a missing or damaged file, or labels of another type.
    """
    from litdata.streaming.item_loader import PyTreeLoader
    from litdata.utilities._pytree import treespec_loads

    images, size = int(index.starts[number + 1] - index.starts[number]), index.sizes[number]
    try:
        held = path.stat().st_size
    except FileNotFoundError:
        raise UsageError(f"{visible(path, 1000)} is missing. Copy the whole dataset, or write it again.") from None
    if held < size:
        raise UsageError(f"{visible(path, 1000)} is cut short: it has {held:,} of {size:,} bytes. Delete it, and get it again.")
    chunk = {"filename": path.name, "chunk_size": images, "chunk_bytes": size, "dim": None}
    loader = PyTreeLoader()
    try:
        loader.setup({**index.config, "data_spec": treespec_loads(index.config["data_spec"])}, [chunk], _serializers())
        loader.set_mmap_allowed_chunks({0})  # litdata reads other chunks anew for each item
        items: list[Any] = [loader.load_item_from_chunk(one, 0, str(path), 0, size) for one in range(images)]
        found = Items([item[index.image.key] for item in items], [_label(item[index.label.key]) for item in items])
    except OSError:
        raise
    except Exception as error:  # litdata does not check what it reads
        reason = visible(str(error).partition("\n")[0], 200) or type(error).__name__
        raise UsageError(f"{visible(path, 1000)} is damaged ({reason}). Delete it, and get it again.") from error
    finally:
        loader.close(0)
    return found


def image_file(image: Any) -> bytearray:
    """Return an image as an image file.

    Args:
        image: An encoded file, pixels of uint8 `(H, W)`, `(H, W, C)` or `(C, H, W)`, or an image of Pillow.

    Raises:
        ValueError: pixels of another shape or type.
    """
    from PIL import Image

    if isinstance(image, bytes):
        return bytearray(image)
    file = io.BytesIO()
    if isinstance(image, Image.Image):
        image.save(file, "PPM" if image.mode in ("L", "RGB") else "TIFF")  # TIFF holds the other modes
        return bytearray(file.getbuffer())
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2:
        raise ValueError(f"it has {pixels.dtype} of shape {pixels.shape}")
    # Netpbm's formats are a line of text and the pixels, which Pillow reads at the speed of a copy.
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PPM")
    return bytearray(file.getbuffer())


def _label(label: Any) -> int | str:
    return label if isinstance(label, str) else int(label)


def _serializers() -> dict[str, Any]:
    """Return litdata's serializers, without those that decode images, and without those of formats that are not read."""
    from litdata.streaming.serializers import Serializer, _get_serializers

    class Raw(Serializer):  # type: ignore[misc]  # litdata has no types
        """Leaves encoded images as they are: threads decode them later."""

        def serialize(self, data: Any) -> Any:
            raise NotImplementedError  # chunks are only read here

        def deserialize(self, data: Any) -> bytes:
            return bytes(data)

        def can_serialize(self, data: Any) -> bool:
            return False

    class Unread(Raw):
        """Passes over a field: a pickled one could run code."""

        def deserialize(self, data: Any) -> Any:
            return None

    read = ("int", "str", "pil", "numpy", "tensor")
    return {
        name: serializer if name in read else Raw() if name in ENCODED else Unread() for name, serializer in _get_serializers(None).items()
    }
