"""Classify pictures in threads: each decodes and computes a batch by itself.

That is quicker than threads that decode for a network with threads of its own: these wait for each other after every layer, and any that
has to share its core with a decoder stops all of them.
"""

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
"""Batches that wait for a thread, besides the one that each has."""
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
        classifier: The network; its `workers` are the threads.
        paths: Of the pictures; they are read from the iterator a few batches ahead.
        top: Classes of each picture.
    """
    pending, in_flight = iter(paths), deque[Future[list[Result]]]()
    pool = ThreadPoolExecutor(classifier.workers, thread_name_prefix="reslight-predict")
    try:
        while True:
            while len(in_flight) < classifier.workers + _AHEAD and (batch := list(islice(pending, classifier.batch))):
                in_flight.append(pool.submit(_classify, classifier, batch, top))
            if not in_flight:
                return
            yield in_flight.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _classify(classifier: Classifier, paths: list[str], top: int) -> list[Result]:
    decoded = _decode(classifier, paths)
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
