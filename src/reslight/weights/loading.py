"""`reslight.load` and `reslight.save`."""

import logging
import os
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reslight.messages import UsageError, shortened
from reslight.models import ResNet
from reslight.models.variants import architecture_of
from reslight.plain import plain
from reslight.preprocess import Preprocess
from reslight.weights.folder import load_network
from reslight.weights.interop.timm_folder import read_any_description
from reslight.weights.locate import locate
from reslight.weights.record import Record
from reslight.weights.saving import write_folder

log = logging.getLogger(__name__)

_WRAPPED = ("_orig_mod", "module", "net")
"""Attributes in which torch.compile, parallel and averaging wrappers, and ImageClassifier have their network."""


def load(source: str | os.PathLike[str], *, num_classes: int | None = None) -> ResNet:
    """Load a network with its weights, in eval mode, on the CPU; `net.preprocess`, `net.labels` and `net.multi_label` come with it.

    Args:
        source: A folder that `reslight export` or `save` wrote, the name of a published weight (`reslight weights`), or `OWNER/NAME`
            or `OWNER/NAME@REVISION` on the Hugging Face Hub, such as `timm/resnet50.a1_in1k`: timm's folders are read, too, if reslight
            has their network. A local folder of that name comes first.
        num_classes: Number of classes of a new head with random weights, for fine-tuning; None keeps the head.

    Raises:
        OSError: a missing folder, name, repository or file, or a Hub that cannot be reached.
        UsageError: a file that is damaged, changed, or does not fit.
    """
    net = load_network(read_any_description(locate(source)))
    if num_classes is not None and num_classes != net.config.num_classes:
        before = net.config.num_classes
        net.reset_head(num_classes)
        net.labels, net.multi_label, net.temperature = None, False, 1.0
        log.warning("replaced the %d-class head with a new %d-class head (random weights); fine-tune before use", before, num_classes)
    return net


def save(
    net: nn.Module,
    folder: str | os.PathLike[str],
    *,
    preprocess: Preprocess | None = None,
    labels: list[str] | tuple[str, ...] | None = None,
    name: str | None = None,
    half: bool = False,
    **about: Any,
) -> None:
    """Write a network to a folder that `load`, `push` and other libraries read. Saving twice gives the same bytes.

    Args:
        net: The network, also inside of DataParallel, DistributedDataParallel, AveragedModel, torch.compile or ImageClassifier; half
            precision is saved as float32, which loses nothing, unless `half` is true.
        folder: The folder to write. Files of an earlier export are replaced; your own text in README.md is kept.
        preprocess: What the network expects to be done to an image; `net.preprocess` if None.
        labels: Name of each class; `net.labels` if None.
        name: Name of the architecture, for display; from the table of architectures if None.
        half: Round convolutions and classifier to float16, for a file of half the size. `load` gives a network of float32 with these
            values. Results in `about` must be of the rounded weights.
        **about: Other fields of `reslight.weights.Record`, such as metrics, data, recipe, run and license; multi_label is
            `net.multi_label` if it is not given.

    Raises:
        TypeError: `net` is not a ResNet.
        UsageError: no preprocess, a value that does not fit the network, a weight that is not finite or, with `half`, above 65504, or
            `half` for a network of float64.
        OSError: the folder is not writable.
    """
    net = _resnet_in(net)
    write_folder(net, Path(folder), record_of(net, preprocess=preprocess, labels=labels, name=name, half=half, **about))


def record_of(
    net: ResNet,
    *,
    preprocess: Preprocess | None = None,
    labels: list[str] | tuple[str, ...] | None = None,
    name: str | None = None,
    half: bool = False,
    **about: Any,
) -> Record:
    """Describe a network; see `save` for the arguments.

    Raises:
        UsageError: no preprocess, a value that does not fit the network, or `half` for a network of float64.
    """
    dtype = "float64" if net.fc.weight.dtype == torch.float64 else "float32"
    if half and dtype == "float64":
        raise UsageError("half is given for weights of float64. Leave it out.")
    if labels is not None:
        _check_labels(labels)
    preprocess = preprocess or net.preprocess
    if preprocess is None:
        raise UsageError("preprocess is None: it is saved with the weights. Give save() one, such as reslight.Preprocess(size=32, ...).")
    known = labels if labels is not None else net.labels
    return Record(
        net=net.config,
        preprocess=preprocess,
        labels=None if known is None else tuple(known),
        name=name or architecture_of(net.config) or "custom",
        dtype="float16" if half else dtype,
        **{key: plain(value) if isinstance(value, dict) else value for key, value in ({"multi_label": net.multi_label} | about).items()},
    )


def _check_labels(labels: Any) -> None:
    """Check labels that somebody gave; those of another library's folder may have a name for two classes.

    Raises:
        UsageError: no list, or a label that is there twice.
    """
    if isinstance(labels, str):
        raise UsageError(f"labels is {reprlib.repr(labels)}: it must be a list, with a name for each class.")
    if double := [label for label, count in Counter(labels).items() if count > 1]:
        raise UsageError(f"labels has {shortened(double)} more than once: each class must have a name of its own.")


def _resnet_in(module: nn.Module) -> ResNet:
    """Return a network itself, or out of the wrappers that compute what it computes.

    Raises:
        TypeError: a module that is not a ResNet.
    """
    inner: Any = module
    while not isinstance(inner, ResNet):
        names = [name for name in _WRAPPED if isinstance(getattr(inner, name, None), nn.Module)]
        if not names:
            what = type(module).__name__ + (f" with a {type(inner).__name__}" if inner is not module else "")
            raise TypeError(f"net is a {what}: it must be a ResNet, or a wrapper of one such as DataParallel.")
        inner = getattr(inner, names[0])
    return inner
