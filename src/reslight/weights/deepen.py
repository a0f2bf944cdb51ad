"""Deepen a folder of weights: more layers, the same function."""

from pathlib import Path
from typing import Any

import torch

from reslight.models import ResNet, deepen
from reslight.weights.catalog import CATALOG
from reslight.weights.folder import load_network, read_description
from reslight.weights.golden import golden_pixels, logits_of
from reslight.weights.loading import save
from reslight.weights.locate import locate
from reslight.weights.logits import LogitComparison, compare_logits
from reslight.weights.saving import check_target


def deepen_folder(source: str, folder: Path, to: str) -> tuple[ResNet, ResNet, LogitComparison]:
    """Write the weights of a deeper network that computes the same, see `reslight.deepen`.

    The folder keeps what is known of the training. It gets no evaluation results: those are of the weights of `source`.

    Args:
        source: A folder of weights, the name of a published weight, or a repository of the Hub.
        folder: The folder to write.
        to: Name of the deeper architecture.

    Returns:
        The network, the deeper network, and the comparison of their logits on the golden images.

    Raises:
        OSError: missing weights, or a folder that cannot be written.
        UsageError: damaged weights, an architecture that is not a deeper version of the network, or a folder that
            holds other files.
    """
    described = read_description(locate(source))
    check_target(folder)
    record = described.record
    net = load_network(described)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same call must write the same bytes
        deeper = deepen(net, to)
    kept: dict[str, Any] = {name: dict(getattr(record, name)) for name in ("data", "recipe", "run")}
    kept["recipe"]["deepened_from"] = source if source in CATALOG else record.name
    kept |= {name: getattr(record, name) for name in ("preprocess", "labels", "multi_label", "calibration", "license")}
    save(deeper, folder, **kept)
    pixels, dtype = golden_pixels(record.preprocess), net.fc.weight.dtype
    after, before = (logits_of(one, record.preprocess, pixels, dtype) for one in (deeper, net))
    return net, deeper, compare_logits(after, before)
