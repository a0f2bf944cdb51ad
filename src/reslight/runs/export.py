"""Export the weights of a checkpoint as a folder to load and to publish."""

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from reslight.models import ResNet
from reslight.runs.eval_results import eval_results_for, weights_sha256, why_no_results
from reslight.runs.folder import Run
from reslight.runs.trained import trained_net
from reslight.training.checkpoint_file import read_checkpoint
from reslight.weights.folder import FILES, MODEL, read_description
from reslight.weights.loading import record_of
from reslight.weights.record import Record
from reslight.weights.results import AnyResult
from reslight.weights.saving import model_bytes, rounded, write_folder

DATA_KEYS = ("name", "kind", "splits", "val_size", "fold", "labels_columns", "multi_label", "normalize")
"""What config.json says of the training data."""
RECIPE_KEYS = ("batch_size", "augment", "crop", "mix", "repeated_augmentation", "class_weights", "sampling")
"""Settings of the data that are part of the recipe."""


def export(checkpoint: Path, folder: Path, *, raw: bool = False, license: str | None = None, half: bool = False) -> list[str]:
    """Write the weights that `reslight test` evaluates: the average over training, if there is one.

    Args:
        checkpoint: A .ckpt file of `reslight fit`.
        folder: The folder to write.
        raw: Write the weights of the last step, not their average.
        license: An SPDX identifier for the model card.
        half: Round convolutions and classifier to float16, see `reslight.save`.

    Returns:
        Lines to print: what was written, and what is missing.

    Raises:
        UsageError: not a checkpoint, a checkpoint without information about its data, without an average where `raw` is true, or weights
            that cannot be rounded to float16.
    """
    net, record = net_and_record(checkpoint, raw=raw, license=license, half=half)
    record = record if record.metrics else replace(record, metrics=_results_in(folder, net, record))
    write_folder(net, folder, record)
    size = sum((folder / name).stat().st_size for name in FILES)
    lines = [f"written {folder}: {size / 1e6:.2f} MB, the {record.weights} weights of step {record.run['steps']}"]
    lines += [f"{one.split}: {one.in_words()}" for one in record.metrics]
    if record.metrics:
        return lines
    why = why_no_results(Run.of_checkpoint(checkpoint), record.data.get("splits", {}))
    if half:
        where = shlex.quote(str(folder))
        why = (
            f"a run's are of the weights before rounding; `reslight verify {where} --data ROOT --record {where}` evaluates the rounded ones"
        )
    return [*lines, f"without evaluation results: {why}"]


def _results_in(folder: Path, net: ResNet, record: Record) -> tuple[AnyResult, ...]:
    """Return the results that a folder has of the same weights, as `reslight verify --record` wrote them."""
    try:
        there = read_description(folder)
    except (OSError, ValueError):
        return ()
    is_same = there.sha256.get(MODEL) == hashlib.sha256(model_bytes(net, record.dtype)).hexdigest()
    return there.record.metrics if is_same and there.record.preprocess == record.preprocess else ()


def net_and_record(checkpoint: Path, *, raw: bool = False, license: str | None = None, half: bool = False) -> tuple[ResNet, Record]:
    """Return the network of a checkpoint with the description of its weights; see `export`."""
    contents = read_checkpoint(checkpoint)
    net, is_average = trained_net(contents, checkpoint, raw=raw)
    net = rounded(net) if half else net  # before results are looked for: they are those of weights with the same sha256
    settings, state = contents["hyper_parameters"], contents["reslight"]
    data = state["data"]
    about: dict[str, Any] = {
        "weights": "average" if is_average else "raw",
        "data": {key: data[key] for key in DATA_KEYS if key in data},
        "recipe": {key: value for key, value in settings.items() if key != "net"} | {key: data[key] for key in RECIPE_KEYS if key in data},
        "run": {
            "seed": data.get("seed"),
            "steps": contents["global_step"],
            "precision": state.get("precision"),
            **state.get("environment", {}),
        },
        "license": license,
    }
    results = eval_results_for(Run.of_checkpoint(checkpoint), weights_sha256(net), data["preprocess"])
    return net, record_of(net, metrics=results, half=half, **about)
