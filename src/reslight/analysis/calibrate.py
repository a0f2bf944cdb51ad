"""Fit a temperature to the validation images of weights, and store it with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from reslight.analysis.datasets import check_left_out, data_of, validation_fingerprint
from reslight.analysis.report.outcome import Part
from reslight.analysis.temperature import evaluated, fit_temperature
from reslight.messages import UsageError
from reslight.weights.calibration import Calibration
from reslight.weights.folder import MODEL, load_network, read_description, sha256_of
from reslight.weights.record import Record
from reslight.weights.saving import write_folder


def calibrate(folder: Path, root: str, labels: str | None = None, twin: Path | None = None) -> Calibration:
    """Fit a temperature, and write it to config.json and the card; the other files stay the same.

    Args:
        folder: A folder of weights.
        root: The folder of the images.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.
        twin: A folder of weights of the same network and training that left out validation images, for weights that saw all images.

    Raises:
        OSError: missing weights or images, or a folder that cannot be written.
        UsageError: no validation images that training left out, several labels for an image, no best temperature, or a twin that is none.
    """
    description = read_description(folder)
    record = description.record
    if record.multi_label:
        raise UsageError(
            f"{folder} gives an image several labels: one temperature cannot fit all of its classes. `reslight report` tells how "
            "far each can be believed."
        )
    fitted = description if twin is None else read_description(twin)
    if twin is not None:
        _check_twin(fitted.record, record, twin)
    data = data_of(fitted.record, root, labels, ("val",))
    if "val" not in data.splits:
        why = "a temperature is fitted to images that training left out, and never to test images"
        if validation_fingerprint(fitted.record.data):
            raise UsageError(f"--data is {root}: it has no validation images, and {why}. Give the data of the training.")
        raise UsageError(
            f"{fitted.folder} was trained without validation images, and {root} has none: {why}. Train with data.val_size, put images that "
            "the network has not seen in the folder val, or give the same network, trained with data.val_size, as --twin."
        )
    split = data.splits["val"]
    check_left_out(fitted.record.data, split.fingerprint, root)
    part = Part.evaluate(load_network(fitted), split)
    temperature = fit_temperature(part.logits, part.labels)
    before, after = (_ece(part, one) for one in (1.0, temperature))
    net = load_network(description)
    tested: dict[str, Any] = {}
    if twin is not None:
        test = data_of(record, root, labels, ("test",)).splits.get("test")
        if test is None:
            raise UsageError(f"--data is {root}: it has no test images, on which the twin's temperature is measured. Add the folder test.")
        tested = {"twin": sha256_of(twin / MODEL), "test_ece": _ece(Part.evaluate(net, test), temperature)}
    found = Calibration(
        temperature=temperature, total=len(part.labels), ece_before=before, ece=after, fingerprint=split.fingerprint, **tested
    )
    write_folder(net, folder, replace(record, calibration=found))
    return found


def _ece(part: Part, temperature: float) -> float:
    return evaluated(part.logits.double() / temperature, part.labels)[1].ece


def _check_twin(twin: Record, record: Record, path: Path) -> None:
    """Check that a twin is the same network with the same training, but for validation images.

    Raises:
        UsageError: another network or training, or weights that saw all images, too.
    """
    one, other = ({**some.recipe, "compile": None, "net": some.net, "data": some.data.get("name")} for some in (twin, record))
    if differ := [name for name in {**one, **other} if one.get(name) != other.get(name)]:
        raise UsageError(f"--twin is {path}: its {', '.join(differ)} differs. Train the same network in the same way, with data.val_size.")
    if not validation_fingerprint(twin.data):
        raise UsageError(f"--twin is {path}: it was trained without validation images, too. Train it with data.val_size.")
