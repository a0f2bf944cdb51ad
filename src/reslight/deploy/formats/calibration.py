"""The images that int8 is calibrated with: they show which range the values of each layer have."""

from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from reslight.analysis.datasets import datamodule_of, training_data
from reslight.deploy.pixels_of import pixels_of
from reslight.messages import UsageError, data_root_called
from reslight.weights.record import Record

_BATCH = 64


def calibration_images(record: Record, root: str | None, labels: str | None, count: int) -> list[Tensor]:
    """Return training images, evenly spread over the training split, in batches of one size: uint8 or uint16 `(N, H, W, C)`.

    Images that cannot be read are left out, with a line for each.

    Noise, or the golden images, would do for no network: the ranges would be those of noise.

    Args:
        record: The description of the weights.
        root: The folder of their dataset; None for one that needs none.
        labels: The label file of the images.
        count: Number of images; all if there are fewer.

    Raises:
        UsageError: no folder, or images with other channels than the network's.
    """
    data = training_data(record)
    if root is None and data.get("name") != "digits":
        raise UsageError("--int8 is given without images: it needs training images to find the ranges of values. Give --calibrate ROOT.")
    with data_root_called("--calibrate"):
        module = datamodule_of(data, record.preprocess, root or str(Path("data")), labels, record.labels)
        if module.in_channels != record.net.in_channels:
            raise UsageError(
                f"--calibrate is {root}: its images have {module.in_channels} channels, the network takes {record.net.in_channels}. "
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
