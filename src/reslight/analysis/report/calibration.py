"""How far probabilities can be believed, before and after temperature scaling."""

from dataclasses import dataclass

from torch import Tensor

from reslight.analysis.report.charts import Line, line_chart
from reslight.analysis.report.outcome import Outcome
from reslight.analysis.report.page import paragraph, table, text
from reslight.analysis.temperature import cross_fitted, evaluated, fit_temperature, thresholds
from reslight.messages import UsageError
from reslight.metrics import ConfusionAndCalibration
from reslight.weights.calibration import Calibration

LEVELS = (0.5, 0.7, 0.9, 0.95, 0.99)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Logits after temperature scaling.

    Attributes:
        logits: Divided by a temperature that was fitted to other images; the logits themselves if there is none.
        how: How the temperature was found, or why there is none, in a sentence.
        is_scaled: Whether there is a temperature.
    """

    logits: Tensor
    how: str
    is_scaled: bool = True


def calibrate(outcome: Outcome, validation: Outcome | None, stored: Calibration | None) -> Calibrated:
    """Divide the logits by a temperature that was not fitted to the same images.

    Args:
        outcome: The images of the report.
        validation: The validation images, if they are others.
        stored: The temperature of the weights, if they have one.
    """
    if stored is not None:
        whose = "their validation images" if stored.twin is None else "the validation images of a twin, see their card"
        return Calibrated(
            outcome.logits / stored.temperature, f"The weights have the temperature {stored.temperature:.3f}, fitted to {whose}."
        )
    try:
        if validation is not None:
            temperature = fit_temperature(validation.logits, validation.labels)
            how = f"The temperature {temperature:.3f} was fitted to the {len(validation.labels):,} validation images."
            return Calibrated(outcome.logits / temperature, how)
        logits, both = cross_fitted(outcome.logits, outcome.labels)
    except UsageError as error:
        return Calibrated(outcome.logits, f"Not scaled: {error}", is_scaled=False)
    return Calibrated(
        logits,
        f"There are no other images to fit a temperature to, so each half of the {outcome.images} is divided by the temperature of the "
        f"other half ({both[0]:.3f} and {both[1]:.3f}): no image is tested with a temperature that it was used for.",
    )


def calibration_section(outcome: Outcome, calibrated: Calibrated) -> str:
    """Return the section as HTML."""
    series = [("before scaling", outcome.logits, "orange dashed")]
    series += [("after scaling", calibrated.logits, "blue")] if calibrated.is_scaled else []
    lines = [Line("ideal", [(0, 0), (1, 1)], "gray dashed")]
    rows = []
    for name, logits, look in series:
        counts, details = evaluated(logits, outcome.labels)
        lines.append(Line(name, _points(details), look, dots=True))
        rows.append([name, f"{100 * details.ece:.2f} %", f"{counts.nll / counts.total:.4f}"])
    chart = line_chart(
        lines, "highest probability", "accuracy", (0, 1), (0, 1), "Accuracy of images by their highest probability, in 15 bins"
    )
    return "".join(
        [
            paragraph(text(calibrated.how, 400)),
            chart,
            table("Calibration error (ECE, 15 bins) and mean negative log-likelihood", ["probabilities", "ECE", "NLL"], rows),
            *(_sure_table(name, logits, outcome.labels) for name, logits, _ in series),
        ]
    )


def _sure_table(name: str, logits: Tensor, labels: Tensor) -> str:
    """Return a table of the images whose highest probability reaches a level, and how many of them are predicted right."""
    rows = [
        [f"at least {level:.0%}", f"{images:,}", f"{images / len(labels):.1%}", f"{right / images:.2%}" if images else ""]
        for level, images, right in thresholds(logits, labels, LEVELS)
    ]
    return table(f"How often the network is right where it is sure, {name}", ["highest probability", "images", "share", "right"], rows)


def _points(details: ConfusionAndCalibration) -> list[tuple[float, float]]:
    return [(probability / images, right / images) for images, right, probability in details.bins.tolist() if images]
