"""List weights: those that come with the package, those in the Hub's cache on this machine, and those on the Hub."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reslight.hub.repo import Repository
from reslight.messages import UsageError, visible
from reslight.models.cost import Cost, cost_of
from reslight.weights.catalog import CATALOG, bundled
from reslight.weights.folder import MODEL, read_description
from reslight.weights.interop.timm_folder import read_any_description
from reslight.weights.record import Record
from reslight.weights.results import EvalResult

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}


class Listed(NamedTuple):
    """The weights of one network.

    Attributes:
        name: The name that `load` takes.
        accuracy: Top-1 accuracy on the test split, or mAP with several labels for each image, in percent; None if unknown.
        nbytes: Size of the tensors, or of their file if it is on this machine, in bytes; None if unknown.
        place: Where the weights are, in words.
        is_map: Whether accuracy is mAP.
        cost: Parameters, and multiply-adds for one image; None for weights that are not on this machine.
    """

    name: str
    accuracy: float | None
    nbytes: int | None
    place: str
    is_map: bool = False
    cost: Cost | None = None


def published() -> Iterator[Listed]:
    """Yield the weights in the catalog."""
    for name, row in CATALOG.items():
        if row.repository:
            yield Listed(name, row.accuracy, None, f"{row.repository} on the Hub")
        else:
            size = (bundled(name) / MODEL).stat().st_size
            yield Listed(name, row.accuracy, size, "in the package", cost=_cost(read_description(bundled(name)).record))


def cached() -> Iterator[Listed]:
    """Yield the weights in the Hub's cache that `load` takes, by branch, tag or commit; needs no network."""
    from huggingface_hub import constants

    for store in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        refs = [path for path in sorted((store / "refs").rglob("*"), key=lambda path: path.name == "main") if path.is_file()]
        names = {path.read_text(errors="replace"): path.relative_to(store / "refs").as_posix() for path in refs}  # main last, so it wins
        for snapshot in sorted((store / "snapshots").glob("*")):
            try:
                repository = Repository.parse(store.name.removeprefix("models--").replace("--", "/"))
                record = read_any_description(snapshot).record
                size = (snapshot / MODEL).stat().st_size
            except (OSError, ValueError):  # written by another library
                continue
            branch = names.get(snapshot.name, snapshot.name)
            tested = next((one for one in record.metrics if one.split == "test"), None)
            yield Listed(
                repository.name if branch == "main" else f"{repository.name}@{visible(branch)}",
                100 * (tested.correct1 / tested.total if isinstance(tested, EvalResult) else tested.mAP) if tested else None,
                size,
                f"in the cache, commit {visible(snapshot.name[:7])}",
                record.multi_label,
                _cost(record),
            )


def remote(owner: str) -> Iterator[Listed]:
    """Yield an owner's repositories on the Hub whose card has the tag `reslight`, with one request for each page.

    Raises:
        UsageError: a text that is not the name of an owner.
        OSError: a request that failed; one line says why.
    """
    from reslight.hub.client import in_time, quiet_client, transfer_seconds, translate_error

    try:
        Repository.parse(f"{owner}/name")
    except ValueError:
        raise UsageError(f"{owner[:200]!r} is not the name of an owner on the Hub. Write OWNER, as in OWNER/NAME.") from None
    what = f"listing the repositories of {owner}"
    try:  # no retries of ours: the client retries lists itself, for half a minute
        with quiet_client():
            found = in_time(partial(_models_of, owner), what, transfer_seconds(0))
    except Exception as error:
        raise translate_error(error, what, Repository(owner)) from error
    for model in found:
        with contextlib.suppress(ValueError):  # not a legal name
            accuracy, is_map = _accuracy(getattr(model, "model_index", None))
            yield Listed(
                Repository.parse(str(model.id)).name,
                accuracy,
                _nbytes(getattr(model, "safetensors", None)),
                f"on the Hub, {'gated, ' if model.gated else 'private, ' if model.private else ''}commit {visible(str(model.sha)[:7])}",
                is_map,
            )


def _cost(record: Record) -> Cost:
    return cost_of(record.net, record.preprocess.shape)


def _models_of(owner: str) -> list["ModelInfo"]:
    from reslight.hub.client import client

    models = client().list_models(author=owner, filter="reslight", expand=["sha", "model-index", "safetensors", "private", "gated"])
    return sorted(models, key=lambda model: str(model.id))


def matching(rows: Iterator[Listed], pattern: str) -> list[Listed]:
    """Return the rows whose name, with or without its owner, matches a shell-style pattern."""
    return [row for row in rows if fnmatchcase(row.name, pattern) or fnmatchcase(row.name.partition("/")[2], pattern)]


def _accuracy(index: Any) -> tuple[float | None, bool]:
    """Return the first accuracy or mAP on a test split in a card's model-index, which may hold anything, and whether it is mAP."""
    for result in (result for entry in _objects(index) for result in _objects(entry.get("results"))):
        dataset = result.get("dataset")
        if isinstance(dataset, Mapping) and dataset.get("split") == "test":
            for metric in _objects(result.get("metrics")):
                kind, value = metric.get("type"), metric.get("value")
                if kind in ("accuracy", "mean_average_precision") and isinstance(value, int | float) and 0 <= value <= 1:
                    return 100 * float(value), kind != "accuracy"
    return None, False


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _nbytes(info: Any) -> int | None:
    """Return the size of the tensors that the Hub counted, in bytes."""
    found = getattr(info, "parameters", None)
    counts: Mapping[Any, Any] = found if isinstance(found, Mapping) else {}
    known = [count * _BYTES.get(dtype, math.nan) for dtype, count in counts.items() if type(count) is int and 0 <= count < 2**50]
    return int(sum(known)) if known and math.isfinite(sum(known)) else None
