"""From a checkpoint to the folder of its weights."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.preprocess import Preprocess
from reslight.runs.folder import run_of
from reslight.training.resume import read_checkpoint
from reslight.weights.catalog import CATALOG
from reslight.weights.folder import FILES, model_bytes, read_description
from reslight.weights.loading import load, save
from reslight.weights.locate import locate
from reslight.weights.record import Measured

REPORTS = {"test": "test.json", "val": "validate.json"}
"""Where `reslight test` and `validate` leave what they measured, beside the run."""


def export(checkpoint: Path, folder: Path, *, raw: bool = False, license: str | None = None) -> list[str]:
    """Write the weights that `reslight test` measures: the average over training, if there is one.

    Args:
        checkpoint: A .ckpt of `reslight fit`.
        folder: Where to.
        raw: Write the weights of the last step, not their average.
        license: An SPDX identifier for the card.

    Returns:
        Lines: what was written, and what is missing.

    Raises:
        ValueError: It is no such checkpoint, was trained on data that say nothing of themselves, or has no average to leave aside.
    """
    contents = read_checkpoint(checkpoint)
    net, averaged = trained(contents, checkpoint, raw=raw)
    settings, kept = contents["hyper_parameters"], contents["reslight"]
    data = kept["data"]
    about: dict[str, Any] = {
        "weights": "average" if averaged else "raw",
        "data": {key: data[key] for key in ("name", "kind", "splits", "val_size", "normalize") if key in data},
        "recipe": {key: value for key, value in settings.items() if key != "net"}
        | {key: data[key] for key in ("batch_size", "augment", "crop", "mix", "repeats") if key in data},
        "run": {
            "seed": data.get("seed"),
            "steps": contents["global_step"],
            "precision": kept.get("precision"),
            **kept.get("environment", {}),
        },
        "license": license,
    }
    measured = measurements(run_of(checkpoint), hashlib.sha256(model_bytes(net)).hexdigest(), data["preprocess"])
    save(net, folder, preprocess=net.preprocess, labels=net.labels, metrics=measured, **about)
    size = sum((folder / name).stat().st_size for name in FILES)
    lines = [f"written {folder}: {size / 1e6:.2f} MB, the {about['weights']} weights of step {contents['global_step']}"]
    lines += [f"{one.split}: {one.correct1} of {one.total} right" for one in measured]
    return lines if measured else [*lines, f"with no measurement of these weights: {_why_none(run_of(checkpoint))}"]


def trained(contents: Mapping[str, Any], checkpoint: Path, *, raw: bool = False) -> tuple[ResNet, bool]:
    """The network that `reslight test` measures, as `load` gives it, and whether its weights are an average.

    Args:
        contents: What `read_checkpoint` read of `checkpoint`.
        checkpoint: The file.
        raw: The weights of the last step, not their average.

    Raises:
        ValueError: It was trained on data that say nothing of themselves, or has no average to leave aside.
    """
    data = contents.get("reslight", {}).get("data") or {}
    if "preprocess" not in data:
        raise UsageError(
            f"{checkpoint} does not say how images were prepared: it was not trained on a data module of reslight; use reslight.save"
        )
    averaged = "current_model_state" in contents
    if raw and not averaged:
        raise UsageError(f"{checkpoint} has no average (model.ema), so its weights are the raw ones; leave out --raw")
    net = network_of(contents, raw=raw)
    net.preprocess, net.labels = Preprocess.from_dict(data["preprocess"]), data["labels"]
    return net, averaged and not raw


def described_net(source: str) -> tuple[ResNet, Mapping[str, Any], str]:
    """A network, what is known of the data it was trained on, and what to call it.

    Args:
        source: A run's folder, which means its last.ckpt, or what `reslight.load` takes.

    Raises:
        OSError: There is no such run or weight.
        ValueError: It is damaged, or says nothing of its data.
    """
    path = Path(source) / "checkpoints" / "last.ckpt"
    if path.parent.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}; give another run")
        contents = read_checkpoint(path)
        return trained(contents, path)[0], contents["reslight"]["data"], "/".join(Path(source).resolve().parts[-2:])
    net, record = load(source), read_description(locate(source)).record
    if "name" not in record.data:
        raise UsageError(f"{source} does not say which data it was trained on, so there is nothing to show it")
    return net, record.data, source if source in CATALOG else record.name


def network_of(contents: Mapping[str, Any], *, raw: bool = False) -> ResNet:
    """The network of a checkpoint that `read_checkpoint` read, with its weights in their own dtype."""
    state = contents["current_model_state" if raw else "state_dict"]
    weights = {name.removeprefix("net."): value.contiguous() for name, value in state.items() if name.startswith("net.")}
    net = ResNet(ResNetConfig.from_dict(contents["hyper_parameters"]["net"])).to(weights["fc.weight"].dtype)
    net.load_state_dict(weights)
    return net.eval()


def _why_none(run: Path | None) -> str:
    """Why there is no measurement for the card, and what can be done."""
    for split, name in REPORTS.items():
        path = run / name if run else None
        report = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {"data": {"splits": {}}}
        if skipped := report["data"]["splits"].get(split, {}).get("skipped"):
            return f"{skipped} of the {split} images could not be read, and a card counts all of them; `reslight data check` lists which"
    return "`reslight test` them, or `reslight validate`, where there are images for it, then export again"


def measured(run: Path) -> tuple[Measured, ...]:
    """What was measured, on whole splits, of the weights that a run's last.ckpt holds."""
    path = run / "checkpoints" / "last.ckpt"
    contents = read_checkpoint(path)
    net = trained(contents, path)[0]
    return measurements(run, hashlib.sha256(model_bytes(net)).hexdigest(), contents["reslight"]["data"]["preprocess"])


def measurements(run: Path | None, sha256: str, preprocess: Mapping[str, Any]) -> tuple[Measured, ...]:
    """What was measured in a run of the very weights with this sha256, fed so."""
    found = []
    for split, name in REPORTS.items():
        path = run / name if run else None
        report = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
        whole = report and report["counts"]["total"] == report["data"]["splits"][split]["size"]  # not with limit_test_batches
        # a card's numbers are of the centre of each image, prepared as the card says
        plainly = report and report["data"].get("test_views", "centre") == "centre" and report["data"]["preprocess"] == preprocess
        if whole and plainly and report.get("sha256") == sha256 and report["batch_size"]:
            about = {"precision": report["precision"], "batch_size": report["batch_size"]}
            found.append(Measured(split=split, fingerprint=report["data"]["splits"][split]["fingerprint"], **report["counts"], **about))
    return tuple(found)
