"""`reslight.load` and `reslight.save`: from a name to a network, and back."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.models.variants import architecture_of
from reslight.preprocess import Preprocess
from reslight.weights.folder import load_network, plain, read_description, write_folder
from reslight.weights.locate import locate
from reslight.weights.record import Record

log = logging.getLogger(__name__)


def load(source: str | os.PathLike[str], *, num_classes: int | None = None) -> ResNet:
    """A network with its weights, in eval mode, on the CPU; `preprocess` and `labels` say how to use it.

    Args:
        source: A folder that `reslight export` or `save` wrote, the name of a published weight (`reslight weights`), or `OWNER/NAME`
            or `OWNER/NAME@REVISION` on the Hugging Face Hub, such as `timm/resnet50.a1_in1k`: timm's folders load, too, where reslight
            has their network. A folder of that name comes first.
        num_classes: Classes of a new head, with new random weights, for fine-tuning; as they are if None.

    Raises:
        OSError: There is no such folder, name, repository or file, or the Hub cannot be reached.
        ValueError: Something in it is damaged, altered, or does not fit.
    """
    described = read_description(locate(source), accept_timm=True)
    net = load_network(described)
    if num_classes is not None and num_classes != net.config.num_classes:
        before = net.config.num_classes
        net.reset_head(num_classes)
        net.labels = None
        log.warning("the head of %s classes gave way to a new one of %s, with random weights: train it", before, num_classes)
    return net


def save(
    net: ResNet,
    folder: str | os.PathLike[str],
    *,
    preprocess: Preprocess | None = None,
    labels: list[str] | tuple[str, ...] | None = None,
    name: str | None = None,
    **about: Any,
) -> None:
    """Write a network as a folder that `load`, `push` and other libraries read. Twice the same gives the same bytes.

    Args:
        net: The network; half precision is written as float32, which loses nothing.
        folder: Where to. Files of an earlier export there are replaced; a person's own text in README.md stays.
        preprocess: What it must be fed with; `net.preprocess` if None.
        labels: Name of each class; `net.labels` if None.
        name: Of the architecture, for people; from the table of architectures if None.
        **about: Other fields of `reslight.weights.Record`: metrics, data, recipe, run, license.

    Raises:
        ValueError: There is nothing to say of how to feed it, or something does not fit the network or is not finite.
    """
    feed = preprocess or net.preprocess
    if feed is None:
        raise UsageError("nothing says how to feed this network; give save() its preprocess, such as reslight.Preprocess(size=32, ...)")
    known = labels if labels is not None else net.labels
    record = Record(
        net=net.config,
        preprocess=feed,
        labels=None if known is None else tuple(known),
        name=name or architecture_of(net.config) or "custom",
        dtype="float64" if net.fc.weight.dtype == torch.float64 else "float32",
        **{key: plain(value) if isinstance(value, dict) else value for key, value in about.items()},
    )
    write_folder(net, Path(folder), record)
