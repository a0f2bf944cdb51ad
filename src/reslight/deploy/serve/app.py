"""The pages of the server: POST /predict, GET /health and GET /info."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reslight.deploy.classifier import Classifier
from reslight.deploy.prediction import predictions
from reslight.deploy.serve.batches import Batches
from reslight.deploy.serve.limits import Limits, Rates, network
from reslight.deploy.serve.upload import ImageFile, check_images, read_images
from reslight.messages import UsageError, visible
from reslight.version import __version__

_TOP = 5


class Service:
    """What the pages share.

    Args:
        classifier: Classifies the images.
        name: What the classifier was made from, as `/info` names it.
        limits: What is accepted.
    """

    def __init__(self, classifier: Classifier, name: str, limits: Limits) -> None:
        self.classifier, self.name, self.limits = classifier, name, limits
        self.batches = Batches(classifier)
        self.rates = Rates(limits.rate)
        self.threads = ThreadPoolExecutor(classifier.threads, thread_name_prefix="reslight-decode")
        self.requests = self.answered = self.refused = 0
        """Requests for predictions that are in work, were answered, and were refused."""
        self._of_client: Counter[str] = Counter()
        self._pixels, self._freed = 0, asyncio.Condition()

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health),
            Route("/info", self.info),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _refusal, Exception: _failure})

    def close(self) -> None:
        """End the threads."""
        self.batches.close()
        self.threads.shutdown(cancel_futures=True)

    async def health(self, request: Request) -> JSONResponse:
        """Say whether predictions can be computed."""
        is_well = self.batches.is_alive()
        return JSONResponse({"status": "ok" if is_well else "failed"}, 200 if is_well else 503)

    async def info(self, request: Request) -> JSONResponse:
        """Say what is served."""
        one = self.classifier
        return JSONResponse(
            {
                "name": self.name,
                "labels": one.labels,
                "multi_label": one.multi_label,
                "preprocess": one.preprocess.to_dict(),
                "backend": one.backend,
                "version": __version__,
                "limits": asdict(self.limits),
            }
        )

    async def predict(self, request: Request) -> JSONResponse:
        """Classify the images of a request."""
        client = network(request.client.host if request.client else "")
        try:
            if wait := self.rates.wait(client):
                reason = f"More than {self.limits.rate:g} requests per second came from your address (--rate): try again in {wait:.1f} s."
                raise HTTPException(429, reason, {"Retry-After": str(math.ceil(wait))})
            if self.requests >= self.limits.max_requests:
                reason = f"{self.requests} requests are in work (--max-requests): try again later."
                raise HTTPException(503, reason, {"Retry-After": "1"})
            # A client that sends slowly must not stop all others.
            if (found := self._of_client[client]) >= max(1, self.limits.max_requests // 2):
                reason = f"{found} requests of your address are in work, half of --max-requests: try again later."
                raise HTTPException(429, reason, {"Retry-After": "1"})
            self.requests += 1
            self._of_client[client] += 1
            try:
                response = await self._answer(request)
            finally:
                self.requests -= 1
                self._of_client -= Counter([client])  # without those that have none left
        except HTTPException:
            self.refused += 1
            raise
        self.answered += 1
        return response

    async def _answer(self, request: Request) -> JSONResponse:
        top = _top(request)
        images = await read_images(request, self.limits)
        try:
            async with asyncio.timeout(self.limits.timeout):
                found = await self._probabilities(images)
        except TimeoutError:
            reason = f"The predictions took longer than {self.limits.timeout:g} s (--timeout): try again later."
            raise HTTPException(503, reason, {"Retry-After": "1"}) from None
        rows = predictions(found, self.classifier.labels, top)
        return JSONResponse({"predictions": [_row(image, row.classes) for image, row in zip(images, rows, strict=True)]})

    async def _probabilities(self, images: Sequence[ImageFile]) -> Any:
        loop, preprocess = asyncio.get_running_loop(), self.classifier.preprocess
        is_unusual = preprocess.channels not in (1, 3) or preprocess.bits != 8
        pixels = await loop.run_in_executor(self.threads, lambda: check_images(images, self.limits, tiff=is_unusual))
        async with self._room(pixels):
            decode = self.classifier.decode
            jobs = [loop.run_in_executor(self.threads, decode, one.data, one.name or "the image") for one in images]
            try:
                return await self.batches.probabilities([one.pixels for one in await asyncio.gather(*jobs)])
            except UsageError as error:
                raise HTTPException(422, visible(error, 1000)) from None
            finally:
                for job in jobs:
                    job.cancel()

    @asynccontextmanager
    async def _room(self, pixels: int) -> AsyncIterator[None]:
        """Wait until the images of all requests together have no more pixels than those of one may have: decoded, they fill the memory."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._pixels + pixels <= self.limits.pixels)
            self._pixels += pixels
        try:
            yield
        finally:
            self._pixels -= pixels
            async with self._freed:
                self._freed.notify_all()


def _row(image: ImageFile, classes: Sequence[tuple[str, float]]) -> dict[str, object]:
    named = {"file": image.name} if image.name else {}
    return {**named, "classes": [{"label": label, "probability": round(value, 6)} for label, value in classes]}


def _top(request: Request) -> int:
    unknown = [name for name in request.query_params if name != "top"]
    if unknown:
        raise HTTPException(422, f"{visible(unknown[0])} is no option: ?top=3 is the only one.")
    text = request.query_params.get("top", str(_TOP))
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text)):
        raise HTTPException(422, f"top is {visible(text)}: it must be a whole number from 1. Leave it out for {_TOP}.")
    return int(text)


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    reason = error.detail
    if error.status_code == 404:
        reason = f"{visible(request.url.path)} is no page: POST /predict, GET /health and GET /info are."
    if error.status_code == 405:
        reason = f"{visible(request.url.path)} does not take {visible(request.method)}: POST images to /predict; GET /health and /info."
    return JSONResponse({"error": reason}, error.status_code, error.headers)


async def _failure(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "The server failed; its log says why."}, 500)
