"""Images per second of each side, and seconds until the first answer of a fresh process; the sides take turns."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from torch import Tensor

from reslight.deploy.bench.side import BATCHES, Side
from reslight.messages import UsageError, visible

_SECONDS = 0.15
"""Of one measurement, at least."""
_LONGEST_START = 300
"""Seconds after which a fresh process has failed."""
_FIRST_ANSWER = """
import sys, torch
from reslight import Classifier
classifier = Classifier(sys.argv[1], exact=sys.argv[2] == "exact", threads=int(sys.argv[3]))
shape = [int(side) for side in sys.argv[4].split("x")]
classifier.predict(torch.zeros(shape, dtype=torch.uint8))
"""


def measure_speed(sides: Sequence[Side], pictures: Sequence[Tensor], rounds: int) -> None:
    """Classify decoded images: from their pixels to probabilities, preprocessing included."""
    for batch in BATCHES:
        images = list(pictures[:batch])
        times = {id(side): _repetitions(side, images) for side in sides}
        for side in _turns(sides, rounds):
            count, begin = times[id(side)], time.perf_counter()
            for _ in range(count):
                side.classifier.probabilities(images)
            side.per_second[batch].append(count * batch / (time.perf_counter() - begin))


def _repetitions(side: Side, images: Sequence[Tensor]) -> int:
    """Return how often a batch is classified in one measurement, after a warm-up."""
    side.classifier.probabilities(images)
    begin, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - begin) < _SECONDS:
        side.classifier.probabilities(images)
        count += 1
    return max(1, round(count * _SECONDS / seconds))


def measure_starts(sides: Sequence[Side], rounds: int) -> None:
    """Start a process for each side that opens it and classifies one image.

    Raises:
        UsageError: a process that fails.
    """
    for side in _turns(sides, rounds):
        classifier = side.classifier
        shape = "x".join(map(str, (classifier.preprocess.channels, *classifier.preprocess.shape)))
        words = [side.source, "exact" if side.is_exact else "quick", str(classifier.threads), shape]
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", _FIRST_ANSWER, *words], capture_output=True, timeout=_LONGEST_START, check=False)
        side.starts.append(time.perf_counter() - begin)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise UsageError(
                f"a fresh process could not classify with {side.name}: {visible(said[-1] if said else 'it said nothing', 300)}"
            )


def _turns(sides: Sequence[Side], rounds: int) -> Iterator[Side]:
    """Yield each side once a round; every second round in reverse, so that none always follows the same neighbor."""
    for number in range(rounds):
        yield from sides if number % 2 == 0 else reversed(sides)
