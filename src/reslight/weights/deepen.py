"""A folder of weights with more layers that computes the same."""

from pathlib import Path
from typing import Any

import torch

from reslight.models import ResNet, deepen
from reslight.weights.catalog import CATALOG
from reslight.weights.folder import check_target, load_network, read_description
from reslight.weights.golden import Golden, logits_of
from reslight.weights.loading import save
from reslight.weights.locate import locate


def deepen_folder(source: str, folder: Path, to: str) -> tuple[ResNet, ResNet, float]:
    """Write the weights of a deeper network, see `reslight.deepen`.

    What is known of the training stays in the folder. What was measured does not: that was of other weights.

    Args:
        source: A folder, a published weight's name, or a repository of the Hub.
        folder: Where to.
        to: The architecture.

    Returns:
        The network, the deeper one, and the largest difference of a logit between them, relative to the largest logit.

    Raises:
        OSError: There are no such weights.
        ValueError: They are damaged, `to` is no deeper version of their network, or `folder` holds other things.
    """
    described = read_description(locate(source))
    check_target(folder)
    record = described.record
    net = load_network(described)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # twice the same gives the same bytes
        deeper = deepen(net, to)
    kept: dict[str, Any] = {name: dict(getattr(record, name)) for name in ("data", "recipe", "run")}
    kept["recipe"]["deepened_from"] = source if source in CATALOG else record.name
    save(deeper, folder, preprocess=record.preprocess, labels=record.labels, license=record.license, **kept)
    pixels, dtype = Golden.of(net, record.preprocess).pixels, net.fc.weight.dtype
    before, after = (logits_of(one, record.preprocess, pixels, dtype) for one in (net, deeper))
    return net, deeper, float((after - before).abs().max() / before.abs().max())
