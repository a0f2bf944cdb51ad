"""`Calibration`: the temperature of weights, see analysis/temperature.py."""

import math
import reprlib
from dataclasses import asdict, dataclass
from typing import Any, Self

from reslight.messages import UsageError
from reslight.weights.field_checks import check_object, check_sum


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the logits are divided by before the softmax, and the validation images that it was fitted to."""

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

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a value of the wrong type, or an impossible one.
        """
        ranges = {"temperature": (1e-3, 1e3), "ece_before": (0, 1), "ece": (0, 1), "total": (1, 2**53)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if type(value) not in ((int,) if name == "total" else (int, float)) or not math.isfinite(value) or not least <= value <= most:
                raise UsageError(f"calibration.{name} is {reprlib.repr(value)}: it must be a number from {least:g} to {most:g}.")
        check_sum("calibration.fingerprint", self.fingerprint)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return the calibration that `to_dict` gave `data` for.

        Raises:
            UsageError: no object, an unknown or missing key, or a value that is not allowed.
        """
        return cls(**check_object("calibration", data, cls))
