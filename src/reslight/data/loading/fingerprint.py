"""Canonical order and fingerprint of images, independent of the format that they come in.

An archive, a parquet file and a folder of PNGs list the images of a dataset in different orders. Order and augmentation
are functions of an image's number, so the numbers must not depend on the source: a split is sorted by the sha256 of each
image's pixels, and identified by the sha256 over those keys and the labels.
"""

import hashlib

import torch
from torch import Tensor

KEY_BYTES = hashlib.sha256().digest_size


def image_keys(images: Tensor) -> Tensor:
    """Return the sha256 of every image's bytes in (H, W, C) order.

    Args:
        images: uint8 `(N, C, H, W)` on the CPU.

    Returns:
        uint8 `(N, 32)`.
    """
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    digests = b"".join(hashlib.sha256(row).digest() for row in rows)
    # bytearray, because torch needs a writable buffer
    return torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(len(rows), KEY_BYTES)


def canonical_order(keys: Tensor, labels: Tensor) -> Tensor:
    """Return the order that sorts by ascending key, ties by label.

    Args:
        keys: uint8 `(N, 32)` of `image_keys`.
        labels: int64 `(N,)`, or uint8 `(N, num_classes)`.

    Returns:
        int64 `(N,)`: the number, before sorting, of each image. Images with equal keys and labels are interchangeable.
    """
    key_bytes = [row.tobytes() for row in keys.numpy()]
    label_list = labels.tolist()
    return torch.tensor(sorted(range(len(label_list)), key=lambda i: (key_bytes[i], label_list[i])), dtype=torch.int64)


def fingerprint(keys: Tensor, labels: Tensor) -> str:
    """Return the sha256, in hexadecimal, over all keys and then all labels as little-endian int64.

    Args:
        keys: uint8 `(N, 32)`, in canonical order.
        labels: int64 `(N,)`, or uint8 `(N, num_classes)`, in the same order.
    """
    digest = hashlib.sha256(keys.numpy().tobytes())
    digest.update(labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
