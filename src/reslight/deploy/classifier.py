"""`Classifier`: images in, names and probabilities out, from a network or an exported file."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reslight.cores import available_cores
from reslight.deploy.backend import Backend
from reslight.deploy.formats import is_exported_file
from reslight.deploy.images import Picture, all_pixels, decoded, is_ready, plain_pixels
from reslight.deploy.inference import Inference
from reslight.deploy.prediction import Prediction, predictions
from reslight.messages import UsageError, check_number
from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.runs.folder import find_run_or_weights
from reslight.weights.folder import sha256_of
from reslight.weights.loading import load

BATCH = 32
"""Images that are computed at once; larger batches are not faster on CPUs."""
_BATCH_OF_WHOLE = 4
"""Images that are decoded at once for exported files, which get all pixels of each: a photo of 12 million has 36 MB."""
_SMALL = 2**15
"""Values of an array that no thread is worth: 104 x 104 pixels in color."""
_LARGEST_BATCH = 2**27
"""Values of a batch after which no image is added."""


class DecodedImage(NamedTuple):
    """An image as a network takes it."""

    pixels: Tensor
    """uint8 or uint16 `(C, H, W)`."""
    steps: tuple[str, ...]
    """How it was and will be changed for the network, in words."""


class Classifier:
    """A trained network, to classify images of any kind: it preprocesses them as they were in the network's evaluation.

    Args:
        source: A name from `reslight.list_weights()`, a folder of weights, a repository on the Hub, a run's folder, a network that
            `reslight.load` returned, or a file that `reslight export` wrote (.onnx and others).
        threads: Threads for computing and decoding; the cores that this process may use if None.
        workers: Threads that may call `compute` at once, each with `threads` of its own.
        exact: Compute with the network as it is, in its own precision, instead of its quickest form on this CPU.
        threshold: With several labels, the probability above which you take a class: images near it are computed again as with `exact`.

    Attributes:
        labels: Name of each class; its number where classes have no names.
        preprocess: What is done to images.
        multi_label: Whether an image may have several classes, each with a probability of its own.
        backend: How probabilities are computed, in words.
        form: The same without the number of threads, which changes no result.
        batch: Images that are best computed at once.
        features: Numbers of an embedding; 0 for an exported file.

    Raises:
        OSError: missing weights, or a Hub that cannot be reached.
        UsageError: damaged weights, a network without `preprocess`, or an option that is out of range.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ResNet,
        *,
        threads: int | None = None,
        workers: int = 1,
        exact: bool = False,
        threshold: float = 0.5,
    ) -> None:
        check_number("threshold", threshold)
        if not 0 <= threshold <= 1:
            raise UsageError(f"threshold is {threshold:g}: it must be 0 to 1, a probability. Use 0.5, for example.")
        for name, value, usual in (("threads", threads, "all cores"), ("workers", workers, "one")):
            if value is not None:
                check_number(name, value, whole=True)
                if value < 1:
                    raise UsageError(f"{name} is {value}: it must be at least 1. Leave it out for {usual}.")
        self.threads, self.workers = threads or available_cores(), workers
        self._model = _open(source, threads, workers, exact=exact, threshold=threshold)
        self.labels: tuple[str, ...] = self._model.labels
        self.preprocess: Preprocess = self._model.preprocess
        self.multi_label: bool = self._model.multi_label
        self.backend: str = self._model.description
        self.form = self.backend.rpartition(", ")[0]
        self.features = self._model.net.fc.in_features if isinstance(self._model, _Network) else 0
        self.batch = BATCH if isinstance(self._model, _Network) else _BATCH_OF_WHOLE

    @overload
    def predict(self, images: Picture, top: int | None = 5) -> Prediction: ...  # type: ignore[overload-overlap]  # bytes hold numbers
    @overload
    def predict(self, images: Iterable[Picture], top: int | None = 5) -> list[Prediction]: ...
    def predict(self, images: Picture | Iterable[Picture], top: int | None = 5) -> Prediction | list[Prediction]:
        """Return the most probable classes of images.

        Args:
            images: An image, see `reslight.deploy.images.Picture`, or any number of them; an array or tensor of four dimensions is a batch.
            top: Classes of each image that are returned; None for all.

        Returns:
            The prediction of one image, or a list for several.

        Raises:
            OSError: a file that is missing or cannot be read.
            TypeError: something that is no image.
            UsageError: a damaged image, or one with other channels than the network's.
        """
        if top is not None:
            check_number("top", top, whole=True)
            if top < 1:
                raise UsageError(f"top is {top}: it must be at least 1, or None for all classes.")
        found = predictions(self.probabilities(images), self.labels, top)
        return found[0] if _is_one(images) else found

    def probabilities(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Return the probabilities of all classes, float32 `(N, classes)`; see `predict` for `images` and errors."""
        found = [self.compute(batch)[0] for batch in self._batches(images)]
        return torch.cat(found) if found else torch.empty(0, len(self.labels))

    def embeddings(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Return what the network's last layer gets, float32 `(N, features)`; see `predict` for `images` and errors.

        Raises:
            UsageError: an exported file, which gives probabilities only.
        """
        self.check_embeddings()
        found = [features for batch in self._batches(images) if (features := self.compute(batch)[1]) is not None]
        return torch.cat(found) if found else torch.empty(0, 0)

    @property
    def sha256(self) -> str:
        """Identify what is computed: the sha256, in hexadecimal, of the weights with their labels, or of the exported file."""
        return self._model.sha256()

    def check_embeddings(self) -> None:
        """Check that the network gives embeddings.

        Raises:
            UsageError: an exported file.
        """
        if not isinstance(self._model, _Network):
            raise UsageError(
                "embeddings are asked of an exported file: it gives probabilities only. Give the weights that it was made from."
            )

    def decode(self, picture: Picture, name: str = "the image") -> DecodedImage:
        """Return an image as `compute` takes it; several threads may decode at once.

        Args:
            picture: The image.
            name: The image's name in an error.
        """
        return self._model.decode(picture, name)

    def compute(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Compute a batch.

        Args:
            pixels: The `pixels` of each image from `decode`.

        Returns:
            The probabilities, float32 `(N, classes)`, and the embeddings, float32 `(N, features)`; None from an exported file.
        """
        return self._model.compute(pixels)

    def _batches(self, images: Picture | Iterable[Picture]) -> Iterator[list[Tensor]]:
        """Yield decoded images, a batch at a time: at most `BATCH`, and few where an exported file gets all pixels of large ones."""
        batch: list[Tensor] = []
        size = 0
        for pixels in self._decoded(images):
            batch.append(pixels)
            size += pixels.numel()
            if len(batch) == BATCH or size > _LARGEST_BATCH:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _decoded(self, images: Picture | Iterable[Picture]) -> Iterator[Tensor]:
        """Yield the pixels of each image. Each thread gets a few in a row, and none if they are small: to hand them over takes longer."""
        named = (("the image" if _is_one(images) else f"image {number}", picture) for number, picture in enumerate(_each(images)))
        with ThreadPoolExecutor(self.threads, thread_name_prefix="reslight-decode") as pool:
            while several := list(islice(named, self.batch)):
                share = len(several) if all(map(_is_small, several)) else math.ceil(len(several) / self.threads)
                shares = [several[first : first + share] for first in range(0, len(several), share)]
                for found in pool.map(self._decode_some, shares) if len(shares) > 1 else map(self._decode_some, shares):
                    yield from found

    def _decode_some(self, several: Sequence[tuple[str, Picture]]) -> list[Tensor]:
        return [self._pixels(picture, name) for name, picture in several]

    def _pixels(self, picture: Picture, name: str) -> Tensor:
        plain = self._model.plain(picture)
        return self.decode(picture, name).pixels if plain is None else plain


class _Network:
    """A network in torch."""

    def __init__(self, net: ResNet, threads: int | None, *, exact: bool, threshold: float) -> None:
        if net.preprocess is None:
            raise UsageError(
                "net.preprocess is None: it says what to do to an image. Set it, for instance to reslight.Preprocess(size=32, ...)."
            )
        if net.training:
            raise UsageError("net is in training mode: its answers would depend on the other images of a batch. Call net.eval() first.")
        self.net, self.preprocess, self.multi_label = net, net.preprocess, net.multi_label
        self.labels = tuple(str(name) for name in net.labels or range(net.config.num_classes))
        self._inference = Inference(net, exact=exact, threads=threads, threshold=threshold)
        self.description = self._inference.description
        self._takes_plain = self.preprocess.bits == 8 and is_ready(self.preprocess.shape, self.preprocess)

    def plain(self, picture: Picture) -> Tensor | None:
        return plain_pixels(picture, self.preprocess.channels, self.preprocess.shape) if self._takes_plain else None

    def decode(self, picture: Picture, name: str) -> DecodedImage:
        image, steps = decoded(picture, self.preprocess, name)
        pixels = self.preprocess.pixels(image)
        if self.preprocess.bits == 16 and pixels.dtype == torch.uint8:  # a batch has one dtype
            pixels = pixels.to(torch.int32).mul_(257).to(torch.uint16)
        return DecodedImage(pixels, steps)

    def compute(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        logits, features = self._inference(torch.stack(list(pixels)))
        return self.net.probabilities(logits).float(), features

    def sha256(self) -> str:
        about = [self.preprocess.to_dict(), self.labels, self.multi_label, self.net.temperature, self.net.config.to_dict()]
        digest = hashlib.sha256(json.dumps(about).encode())
        for value in self.net.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


class _File:
    """An exported file in its own runtime."""

    def __init__(self, backend: Backend, path: Path) -> None:
        self.path, self.backend, self.preprocess, self.multi_label = path, backend, backend.preprocess, backend.multi_label
        self.labels, self.description = backend.labels, backend.description

    def plain(self, picture: Picture) -> Tensor | None:
        return plain_pixels(picture, self.preprocess.channels, None) if self.preprocess.bits == 8 else None

    def decode(self, picture: Picture, name: str) -> DecodedImage:
        image, steps = decoded(picture, self.preprocess, name, whole=True)
        return DecodedImage(all_pixels(image), steps)

    def compute(self, pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        return self.backend.probabilities(pixels), None

    def sha256(self) -> str:
        return sha256_of(self.path)


def _open(source: str | os.PathLike[str] | ResNet, threads: int | None, workers: int, *, exact: bool, threshold: float) -> _Network | _File:
    if isinstance(source, ResNet):
        return _Network(source, threads, exact=exact, threshold=threshold)
    if is_exported_file(source):
        if exact:
            raise UsageError(f"exact is true: {source} is an exported file, which its own runtime computes. Leave exact out.")
        from reslight.deploy.formats.opened import open_file

        return _File(open_file(Path(source), threads, workers), Path(source))
    if find_run_or_weights(os.fspath(source)):
        from reslight.runs.trained import load_net  # imports Lightning, as everything about checkpoints

        return _Network(load_net(os.fspath(source)), threads, exact=exact, threshold=threshold)
    return _Network(load(source), threads, exact=exact, threshold=threshold)


def _is_small(named: tuple[str, Picture]) -> bool:
    """Return whether an image is decoded in no time."""
    picture = named[1]
    return isinstance(picture, np.ndarray | Tensor) and math.prod(picture.shape) <= _SMALL


def _is_one(images: object) -> bool:
    """Return whether something is one image, not several."""
    return isinstance(images, str | os.PathLike | bytes | bytearray | Image.Image) or (
        isinstance(images, np.ndarray | Tensor) and images.ndim != 4
    )


def _each(images: Any) -> Iterable[Picture]:
    """Return the images of a list, an iterator or a batch; or the only one.

    Raises:
        TypeError: neither an image nor something that holds images.
    """
    if _is_one(images):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, dict):
        raise TypeError(
            f"images is of type {type(images).__name__}: it must be a path, bytes, a Pillow image, an array, a tensor, or a list of these."
        )
    return images
