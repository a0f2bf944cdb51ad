"""Compute the images of several requests as one batch."""

import asyncio
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reslight.deploy.classifier import BATCH, Classifier


@dataclass(frozen=True)
class _Job:
    """The images of one request."""

    pixels: Sequence[Tensor]
    done: asyncio.Future[Tensor]
    loop: asyncio.AbstractEventLoop


class Batches:
    """A thread that computes what waits, without waiting for more: requests that come while it computes make up the next batch.

    Args:
        classifier: Computes the probabilities.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reslight-batches", daemon=True)
        self._thread.start()

    async def probabilities(self, pixels: Sequence[Tensor]) -> Tensor:
        """Return the probabilities of decoded images, float32 `(N, classes)`.

        Args:
            pixels: From `Classifier.decode`; not empty.
        """
        loop = asyncio.get_running_loop()
        job = _Job(pixels, loop.create_future(), loop)
        self._jobs.put(job)
        return await job.done

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread after what waits."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while job := self._jobs.get():
            jobs, is_last = [job], False
            while sum(len(one.pixels) for one in jobs) < BATCH:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    is_last = True
                    break
                jobs.append(more)
            self._compute([one for one in jobs if not one.done.cancelled()])  # a request that took too long is cancelled
            if is_last:
                return

    def _compute(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        pixels = [one for job in jobs for one in job.pixels]
        try:
            parts = [self._classifier.compute(pixels[start : start + BATCH])[0] for start in range(0, len(pixels), BATCH)]
            rows = iter([row for part in parts for row in part])
        except Exception as error:
            if len(jobs) > 1:  # one request must not take the others with it
                for job in jobs:
                    self._compute([job])
                return
            _finish(jobs[0], error)
            return
        for job in jobs:
            _finish(job, [next(rows) for _ in job.pixels])


def _finish(job: _Job, result: list[Tensor] | Exception) -> None:
    """Hand a result over to the thread of the requests."""

    def finish() -> None:
        if job.done.cancelled():
            return
        if isinstance(result, Exception):
            job.done.set_exception(result)
        else:
            job.done.set_result(torch.stack(result))

    job.loop.call_soon_threadsafe(finish)
