"""`Calibration`: the temperature of weights, see analysis/temperature.py."""

import math
import reprlib
from dataclasses import asdict, dataclass
from typing import Any, Self

from reslight.messages import UsageError
from reslight.weights.field_checks import check_object, check_sum


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the logits are divided by before the softmax, and the validation images that it was fitted to.

    Weights that were trained on all images have none left. A twin has: the same network, trained in the same way on the other images.
    """

    temperature: float
    """What the logits are divided by."""
    total: int
    """Number of the images."""
    ece_before: float
    """Expected calibration error of these images without the temperature, 0 to 1."""
    ece: float
    """The same with it."""
    fingerprint: str
    """Of the images."""
    twin: str | None = None
    """sha256 of the file model.safetensors of the twin that it was fitted with; None without one. Both ECE are then the twin's."""
    test_ece: float | None = None
    """Expected calibration error of these weights on the test images, with the temperature; None without a twin."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a value of the wrong type, or an impossible one.
        """
        ranges = {"temperature": (1e-3, 1e3), "ece_before": (0, 1), "ece": (0, 1), "total": (1, 2**53)}
        if self.twin is not None:
            check_sum("calibration.twin", self.twin)
            ranges["test_ece"] = (0, 1)
        elif self.test_ece is not None:
            raise UsageError(f"calibration.test_ece is {reprlib.repr(self.test_ece)}: without calibration.twin, it must be left out.")
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if type(value) not in ((int,) if name == "total" else (int, float)) or not math.isfinite(value) or not least <= value <= most:
                raise UsageError(f"calibration.{name} is {reprlib.repr(value)}: it must be a number from {least:g} to {most:g}.")
        check_sum("calibration.fingerprint", self.fingerprint)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return the calibration that `to_dict` gave `data` for.

        Raises:
            UsageError: no object, an unknown or missing key, or a value that is not allowed.
        """
        return cls(**check_object("calibration", data, cls))
