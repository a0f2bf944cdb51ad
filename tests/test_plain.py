"""Values as JSON has them."""

import json
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from reslight.plain import plain


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int] = (2, 3)


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    name: str | None = None


def test_every_level_becomes_json_types():
    value = MappingProxyType({1: (Outer(), np.float64(0.5)), "loss": [torch.tensor(2.0), np.int64(3)], "is_on": True})
    result = plain(value)
    assert result == {"1": [{"inner": {"size": [2, 3]}, "name": None}, 0.5], "loss": [2.0, 3], "is_on": True}
    assert json.loads(json.dumps(result)) == result
