"""The networks of a report, and the images that each is evaluated on."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reslight.analysis.datasets import check_left_out, datamodule_of, other_images, training_data
from reslight.messages import UsageError, counted, data_root_called, visible
from reslight.models import ResNet
from reslight.runs.folder import Run, find_run_or_weights
from reslight.runs.history import History, read_run
from reslight.runs.trained import net_of_run
from reslight.weights.calibration import Calibration
from reslight.weights.catalog import CATALOG
from reslight.weights.interop.timm_folder import read_any_description
from reslight.weights.loading import load
from reslight.weights.locate import locate

if TYPE_CHECKING:
    from reslight.data import ImageDataModule

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Source:
    """A network, its dataset, and what is known of its training.

    Attributes:
        net: The network.
        data: The dataset of the images.
        trained_on: What is known of the training data.
        title: What the network is called.
        calibration: Its temperature, if it has one.
        history: The curves of its run, if it is one.
    """

    net: ResNet
    data: "ImageDataModule"
    trained_on: Mapping[str, Any]
    title: str
    calibration: Calibration | None
    history: History | None


def open_source(source: str, root: str, labels: str | None) -> Source:
    """Load a network, and find its images.

    Args:
        source: A run, folder or name of weights.
        root: The folder of the images.
        labels: The label file of the images; None for class folders, or for `metadata.csv` and the like.

    Raises:
        OSError: missing weights, runs or images.
        UsageError: images that do not fit the network, or of which some may be training images.
    """
    if run := find_run_or_weights(source):
        net, about = net_of_run(run)
        title, history, calibration = run.name, _history(run), None
    else:
        record = read_any_description(locate(source)).record
        net, about, history = load(source), training_data(record), None
        title, calibration = source if source in CATALOG else record.name, record.calibration
    with data_root_called("--data"):
        others = other_images(about, net.labels, net.preprocess, root, labels)
        data = others or datamodule_of(about, net.preprocess, root, labels, net.labels)
    if others and others.is_unsplit:
        raise UsageError(
            f"--data is {root}: its images are not in splits, and not those of the training, so that training images may be among them. "
            "Put images that the network has not seen in its folder test."
        )
    if data.num_classes != net.config.num_classes or (net.labels is not None and tuple(net.labels) != tuple(data.labels)):
        raise UsageError(
            f"--data is {root}: its {counted(data.num_classes, 'class', 'classes')}, such as {visible(data.labels[0])}, are not those of "
            f"{source}. Give the dataset of the network."
        )
    if net.multi_label != getattr(data, "multi_label", False):
        kinds = ("several labels", "one label") if net.multi_label else ("one label", "several labels")
        raise UsageError(
            f"--data is {root}: it has {kinds[1]} for each image, and {source} gives {kinds[0]}. Give the dataset of the network."
        )
    return Source(net, data, about, title, calibration, history)


def _history(run: Run) -> History | None:
    """Return the curves of a run; None, with a warning, if it has none, for instance before the end of its first epoch."""
    try:
        return read_run(run)
    except (FileNotFoundError, UsageError) as error:
        log.warning("the report has no curves: %s", error)
        return None


def load_images(opened: Sequence[Source], root: str) -> str:
    """Load the images of each source, and return the name of the split to evaluate.

    Raises:
        UsageError: no images that were not trained on.
    """
    first = opened[0].data
    if len(opened) == 1 and getattr(first, "has_test", True):
        first.setup("test")
        if first.has_training:
            with suppress(OSError):  # CIFAR's test images alone
                first.setup("fit")  # for the class histogram and near copies
        elif first.has_validation:
            first.setup("validate")
        return "test"
    for source in opened:
        if not source.data.has_validation:
            raise UsageError(
                f"{source.title} has no validation images in {root}: a report is about images that were not trained on. Add some."
            )
        source.data.setup("fit")
        check_left_out(source.trained_on, source.data.splits["val"].fingerprint, root)
    prints = [source.data.splits["val"].fingerprint for source in opened]
    if len(set(prints)) < len(prints):
        raise UsageError("two of the runs have the same validation images: several runs must be those of a cross-validation. Give one run.")
    return "val"
