"""Fit a temperature to the validation images of weights, and store it with them."""

from dataclasses import replace
from pathlib import Path

from reslight.analysis.datasets import check_left_out, data_of, validation_fingerprint
from reslight.analysis.report.outcome import Part
from reslight.analysis.temperature import evaluated, fit_temperature
from reslight.messages import UsageError
from reslight.weights.calibration import Calibration
from reslight.weights.folder import load_network, read_description
from reslight.weights.saving import write_folder


def calibrate(folder: Path, root: str, labels: str | None = None) -> Calibration:
    """Fit a temperature, and write it to config.json and the card; the other files stay the same.

    Args:
        folder: A folder of weights.
        root: The folder of the images.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.

    Raises:
        OSError: missing weights or images, or a folder that cannot be written.
        UsageError: no validation images that training left out, several labels for an image, or no best temperature.
    """
    description = read_description(folder)
    record = description.record
    if record.multi_label:
        raise UsageError(
            f"{folder} gives an image several labels: one temperature cannot fit all of its classes. `reslight report` tells how "
            "far each can be believed."
        )
    data = data_of(record, root, labels, ("val",))
    if "val" not in data.splits:
        why = "a temperature is fitted to images that training left out, and never to test images"
        if validation_fingerprint(record.data):
            raise UsageError(f"--data is {root}: it has no validation images, and {why}. Give the data of the training.")
        raise UsageError(
            f"{folder} was trained without validation images, and {root} has none: {why}. Train with data.val_size, or put images that the "
            "network has not seen in the folder val."
        )
    split = data.splits["val"]
    check_left_out(record.data, split.fingerprint, root)
    net = load_network(description)
    part = Part.evaluate(net, split)
    temperature = fit_temperature(part.logits, part.labels)
    before, after = (evaluated(part.logits.double() / one, part.labels)[1].ece for one in (1.0, temperature))
    found = Calibration(temperature=temperature, total=len(part.labels), ece_before=before, ece=after, fingerprint=split.fingerprint)
    write_folder(net, folder, replace(record, calibration=found))
    return found
