"""Results of `reslight test` and `reslight validate`: printed, saved in the run, and read back for a model card."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.metrics import ConfusionAndCalibration, EvalCounts
from reslight.models import ResNet
from reslight.multi_label import ClassResults, MultiLabelCounts
from reslight.renamed import new_value
from reslight.runs.folder import REPORTS, Run
from reslight.runs.json_file import read_json_file
from reslight.runs.trained import trained_net
from reslight.training.checkpoint_file import read_checkpoint
from reslight.training.classifier import ImageClassifier
from reslight.weights.results import AnyResult, EvalResult, MultiLabelResult
from reslight.weights.saving import model_bytes

MAX_MATRIX = 1000
"""The most classes whose confusion is saved as a matrix; of more classes, as the pairs that occurred."""


Counts = EvalCounts | MultiLabelCounts
Details = ConfusionAndCalibration | ClassResults


def score_lines(split: str, counts: Counts, details: Details) -> list[str]:
    """Return a line for each metric of a split, with the counts behind it."""
    behind = {name: f" ({text})" for name, text in counts.behind().items()}
    return [f"{split}/{name} {value:.4f}{behind.get(name, '')}" for name, value in _fractions(counts, details).items()]


def evaluation_report(split: str, counts: Counts, details: Details, model: ImageClassifier) -> dict[str, Any]:
    """Return the content of test.json or validate.json: metrics, counts, classes and, with one label, confusion and calibration."""
    names = model.data_info.get("labels") or range(model.config.num_classes)
    return {
        "metrics": {f"{split}/{name}": value for name, value in _fractions(counts, details).items()},
        "counts": asdict(counts),
        **(_of_classes(names, details) if isinstance(details, ClassResults) else _of_confusion(names, details)),
        "data": model.data_info,
        "precision": str(model.trainer.precision),
        "batch_size": getattr(getattr(model.trainer, "datamodule", None), "eval_batch_size", None),
        "sha256": weights_sha256(model.net),
    }


def _of_classes(names: Iterable[Any], results: ClassResults) -> dict[str, Any]:
    """Return the results of each class of images with several labels."""
    keys = ("label", "positives", "predicted", "correct", "ap", "f1")
    rows = zip(names, results.positives, results.predicted, results.correct, results.ap, results.f1, strict=True)
    return {"per_class": [dict(zip(keys, row, strict=True)) for row in rows]}


def _of_confusion(names: Iterable[Any], details: ConfusionAndCalibration) -> dict[str, Any]:
    """Return the accuracy of each class, the confusion and the calibration."""
    classes = zip(names, details.totals, details.correct, details.per_class, strict=True)
    bins = [(int(images), hits, probability) for images, hits, probability in details.bins.tolist()]
    return {
        "per_class": [{"label": name, "total": total, "correct": hits, "accuracy": share} for name, total, hits, share in classes],
        **_confusion(details),
        "calibration": {
            "ece": details.ece,
            "bins": [
                {"images": images, "accuracy": hits / images if images else None, "probability": probability / images if images else None}
                for images, hits, probability in bins
            ],
        },
    }


def _confusion(details: ConfusionAndCalibration) -> dict[str, list[list[int]]]:
    """Return the confusion matrix or, of many classes, rows of a label's number, a prediction's number and their images."""
    if details.num_classes <= MAX_MATRIX:
        return {"confusion": details.confusion.tolist()}
    return {"confusion_pairs": details.pairs.tolist()}


def save_report(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all.

    Raises:
        OSError: a file that cannot be written.
    """
    write_files({path: _to_json(report).encode()})


def _to_json(report: dict[str, Any]) -> str:
    """Return a report as readable JSON: one line for each row of the matrix or each pair, each class and each bin."""
    rows: dict[str, list[Any]] = {name: report[name] for name in ("confusion", "confusion_pairs", "per_class") if name in report}
    marks: dict[str, Any] = {name: name for name in rows}
    if "calibration" in report:
        marks["calibration"] = report["calibration"] | {"bins": "bins"}
        rows["bins"] = report["calibration"]["bins"]
    text = json.dumps(report | marks, indent=2)
    for name, values in rows.items():
        indent = " " * (6 if name == "bins" else 4)
        lines = ",\n".join(f"{indent}{json.dumps(value)}" for value in values)
        text = text.replace(f'"{name}": "{name}"', f'"{name}": [\n{lines}\n{indent[2:]}]', 1)
    return text + "\n"


def eval_results_of(run: Run) -> tuple[AnyResult, ...]:
    """Return the results of a run's last weights on whole splits, as `reslight test` and `validate` saved them."""
    contents = read_checkpoint(run.checkpoint())
    net, _ = trained_net(contents, run.checkpoint())
    return eval_results_for(run, weights_sha256(net), contents["reslight"]["data"]["preprocess"])


def eval_results_for(run: Run | None, sha256: str, preprocess: Mapping[str, Any]) -> tuple[AnyResult, ...]:
    """Return the results that a run saved of the weights with this sha256.

    Args:
        run: The run; None for a checkpoint outside of a run, which has no results.
        sha256: Of the weights, see `weights_sha256`.
        preprocess: How the model card says that images are preprocessed; results of other images are left out.
    """
    found = []
    for split, report in _reports(run).items():
        data = report["data"]
        is_whole = report["counts"]["total"] == data["splits"][split]["size"]  # not with trainer.limit_test_batches
        views = new_value("data.test_views", str(data.get("test_views", "center")))
        is_as_on_card = views == "center" and data["preprocess"] == preprocess
        if is_whole and is_as_on_card and report.get("sha256") == sha256 and report.get("batch_size"):
            found.append(_eval_result(split, report))
    return tuple(found)


def _eval_result(split: str, report: Mapping[str, Any]) -> AnyResult:
    kind = MultiLabelResult if report["data"].get("multi_label") else EvalResult
    how = {"precision": report["precision"], "batch_size": report["batch_size"]}
    how |= {"ece": report["calibration"]["ece"]} if "calibration" in report else {}
    return kind(split=split, fingerprint=report["data"]["splits"][split]["fingerprint"], **report["counts"], **how)


def why_no_results(run: Run | None, splits: Mapping[str, Any]) -> str:
    """Return why the results of a run cannot be on a model card, and what to do.

    Args:
        run: The run; None for a checkpoint outside of a run.
        splits: What is known of the splits that the run was trained with.
    """
    commands = "`reslight test` or `reslight validate`" if splits.get("val", {}).get("size") else "`reslight test` if there are test images"
    for split, report in _reports(run).items():
        about, counted = report["data"]["splits"].get(split, {}), report["counts"]["total"]
        if skipped := about.get("skipped"):
            return f"{skipped} of the {split} images could not be read, and a card counts all of them; `reslight data check` lists them"
        if counted != about.get("size"):
            return f"{REPORTS[split]} has {counted:,} of {about.get('size', 0):,} images; run {commands} on all of them, then export again"
    return f"run {commands}, then export again"


def weights_sha256(net: ResNet) -> str:
    """Return the sha256 of the file that `reslight export` writes of a network's weights."""
    return hashlib.sha256(model_bytes(net)).hexdigest()


def _reports(run: Run | None) -> dict[str, dict[str, Any]]:
    """Return the reports that a run saved, by split.

    Raises:
        UsageError: a damaged report.
    """
    found: dict[str, dict[str, Any]] = {}
    if run is None:
        return found
    for split, name in REPORTS.items():
        path, command = run.folder / name, name.removesuffix(".json")
        if not path.is_file():
            continue
        fix = f"Run `reslight {command} --config {quote(str(run.config))}` again, or remove the file."
        report = found[split] = read_json_file(path, fix)
        try:
            _eval_result(split, {**report, "batch_size": report.get("batch_size") or 1})
            is_whole = isinstance(report["data"]["preprocess"], Mapping)
        except (KeyError, TypeError, AttributeError, UsageError):
            is_whole = False
        if not is_whole:
            raise UsageError(f"{path} is damaged: it has no counts, or does not say of which images. {fix}")
    return found


def _fractions(counts: Counts, details: Details) -> dict[str, float]:
    return counts.fractions() | ({"ece": details.ece} if isinstance(details, ConfusionAndCalibration) else {})
