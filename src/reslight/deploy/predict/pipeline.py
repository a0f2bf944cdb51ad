"""Decode pictures in threads, a few batches ahead of the network, in their order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from reslight.deploy.classifier import Classifier
from reslight.deploy.prediction import Prediction, predictions
from reslight.messages import MissingPackageError, visible

_AHEAD = 2
"""Batches that wait for the network, besides one for each thread."""
_LONGEST = 1000


@dataclass(frozen=True)
class Result:
    """What is known of a picture."""

    path: str
    prediction: Prediction | None = None
    embedding: Tensor | None = None
    """float32 `(features,)`; None from an exported file."""
    error: str | None = None
    """Why the picture could not be read."""


def classified(classifier: Classifier, paths: Iterable[str], top: int) -> Iterator[list[Result]]:
    """Yield the results of pictures, a batch at a time; pictures that cannot be read are among them.

    Args:
        classifier: The network.
        paths: Of the pictures; they are read from the iterator a few batches ahead.
        top: Classes of each picture.
    """
    pending, in_flight = iter(paths), deque[Future[list[Tensor | Result]]]()
    batches: deque[list[str]] = deque()
    pool = ThreadPoolExecutor(classifier.threads, thread_name_prefix="reslight-decode")
    try:
        while True:
            while len(batches) < classifier.threads + _AHEAD and (batch := list(islice(pending, classifier.batch))):
                batches.append(batch)
                in_flight.append(pool.submit(_decode, classifier, batch))
            if not batches:
                return
            # Only what was computed is removed, so that Ctrl-C in the network loses nothing that was yielded.
            yield _compute(classifier, batches.popleft(), in_flight.popleft().result(), top)
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(classifier: Classifier, paths: list[str]) -> "list[Tensor | Result]":
    found: list[Tensor | Result] = []
    for path in paths:
        try:
            found.append(classifier.decode(path).pixels)
        except MissingPackageError:
            raise  # not the fault of this picture
        except (OSError, ValueError, MemoryError) as error:
            found.append(Result(path, error=_reason(error)))
    return found


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return visible(text, _LONGEST)


def _compute(classifier: Classifier, paths: list[str], decoded: "list[Tensor | Result]", top: int) -> list[Result]:
    pixels = [one for one in decoded if isinstance(one, Tensor)]
    if not pixels:
        return [one for one in decoded if isinstance(one, Result)]
    probabilities, features = classifier.compute(pixels)
    found = iter(enumerate(predictions(probabilities, classifier.labels, top)))
    results = []
    for path, one in zip(paths, decoded, strict=True):
        if isinstance(one, Result):
            results.append(one)
            continue
        number, prediction = next(found)
        results.append(Result(path, prediction, None if features is None else features[number]))
    return results
