"""The images that int8 is calibrated with: they show which range the values of each layer have."""

from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from reslight.analysis.datasets import datamodule_of, training_data
from reslight.deploy.pixels_of import pixels_of
from reslight.messages import UsageError, data_root_called, shortened
from reslight.weights.record import Record

_BATCH = 64


def calibration_images(record: Record, root: str | None, labels: str | None, count: int, option: str = "--calibrate") -> list[Tensor]:
    """Return training images, evenly spread over the training split, in batches of one size: uint8 or uint16 `(N, H, W, C)`.

    Images that cannot be read are left out, with a line for each.

    Noise, or the golden images, would do for no network: the ranges would be those of noise.

    Args:
        record: The description of the weights.
        root: The folder of their dataset; None for one that needs none.
        labels: The label file of the images.
        count: Number of images; all if there are fewer.
        option: What is `root` on the command line, for messages.

    Raises:
        UsageError: no folder, too few images, or images with other classes or channels than the network's.
    """
    data = training_data(record)
    if root is None and data.get("name") != "digits":
        raise UsageError(f"--int8 is given without images: it needs training images to find the ranges of values. Give {option} ROOT.")
    with data_root_called(option):
        try:
            module = datamodule_of(data, record.preprocess, root or str(Path("data")), labels, record.labels)
        except UsageError as error:
            if not str(error).startswith("data.val_size"):
                raise
            raise UsageError(  # the card's value, which the command cannot change
                f"{option} is {root}: training left out {data['val_size']:,} images, and it has no more than these. "
                "Give the dataset of the training."
            ) from error
        if record.labels is not None and not set(module.labels) & set(record.labels):
            raise UsageError(
                f"{option} is {root}: its classes are {shortened(module.labels)}, and the network knows {shortened(record.labels)}. "
                "Give the dataset of the training."
            )
        if module.in_channels != record.net.in_channels:
            raise UsageError(
                f"{option} is {root}: its images have {module.in_channels} channels, the network takes {record.net.in_channels}. "
                "Give the dataset of the training."
            )
        module.setup("fit")
    split = module.splits["train"]
    numbers = [number * len(split) // count for number in range(count)] if len(split) > count else list(range(len(split)))
    found = pixels_of(split, numbers, record.preprocess, whole=False, skip=True)
    batches = []
    for _, images in groupby(found, key=lambda image: image.shape):
        batches += [batch.permute(0, 2, 3, 1).contiguous() for batch in torch.split(torch.stack(list(images)), _BATCH)]
    return batches
