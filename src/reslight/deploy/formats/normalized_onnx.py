"""Export a network without its preprocessing as ONNX: normalized images -> logits, for pipelines that prepare images themselves."""

import copy
import json
from pathlib import Path

import torch
from torch import Tensor

from reslight.atomic import write_files
from reslight.deploy.formats import FORMATS
from reslight.deploy.formats.export import check_target
from reslight.deploy.formats.onnx import add_metadata, trace
from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.weights.logits import LogitComparison, compare_logits

TOLERANCE = 1e-4
"""Largest difference of a logit: absolute, or relative to the largest logit if that is above 1."""


def export_normalized(net: ResNet, path: Path, *, license: str | None = None) -> list[str]:
    """Write a network as ONNX: `images` (batch, channels, height, width), normalized -> `logits` (batch, classes).

    The batch may have any size; height and width are those of `net.preprocess`. The file's metadata holds `net.preprocess` and
    `net.labels` as JSON, and with several labels for each image `activation`: the sigmoid of a logit is the probability of its class.

    Args:
        net: A network that `load` returned; it is not changed.
        path: The file to write, ending with .onnx.
        license: An SPDX identifier, for the metadata.

    Returns:
        Lines for the user: what was written, and how far onnxruntime's logits are from the network's.

    Raises:
        MissingPackageError: onnxscript is not installed.
        UsageError: a path that does not end with .onnx, or an ONNX file with other logits than the network's.
        OSError: a file that cannot be written.
    """
    check_target(path, FORMATS["onnx"])
    single = copy.deepcopy(net).float().eval()
    with torch.no_grad():  # the last layer divides the logits: a file has no other place for the temperature that all runtimes use
        single.fc.weight.div_(net.temperature)
        single.fc.bias.div_(net.temperature)
    model = trace(single, _images(single, 2), "images", "logits", {0: torch.export.Dim("batch")})
    kind = "sigmoid" if net.multi_label else None  # without it, softmax, as in files of earlier versions
    metadata: dict[str, str | None] = {
        "activation": kind,
        "preprocess": json.dumps(net.preprocess.to_dict()),
        "labels": json.dumps(net.labels) if net.labels else None,
        "license": license,
        "temperature": str(net.temperature) if net.temperature != 1 else None,
    }
    add_metadata(model, metadata)
    content = model.SerializeToString(deterministic=True)
    found = _compare_with_onnxruntime(content, single)
    write_files({path: content})
    return [
        f"written {path}: {len(content) / 1e6:.2f} MB, ONNX opset {model.opset_import[0].version}",
        f"checked with onnxruntime: largest difference of a logit {found.max_difference:.1e}"
        if found
        else "not checked: onnxruntime is not installed. Run pip install 'reslight[onnx]'.",
    ]


def _compare_with_onnxruntime(content: bytes, net: ResNet) -> LogitComparison | None:
    """Compare onnxruntime's logits with the network's, on batches of 1 and 3 images; None without onnxruntime.

    Raises:
        UsageError: a difference above `TOLERANCE`.
    """
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        return None
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    batches = [_images(net, 1), _images(net, 3)]  # the batch axis must be dynamic
    with torch.inference_mode():
        reference = torch.cat([net(images) for images in batches])
    logits = torch.cat([torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0]) for images in batches])
    found = compare_logits(logits, reference)
    # Not `>`: NaN must be refused, too.
    if not found.max_difference <= TOLERANCE * max(1.0, found.max_reference):
        raise UsageError(
            f"the difference of onnxruntime's logits from the network's is {found.max_difference:.1e}: {TOLERANCE:.0e} is allowed. "
            "Nothing was written; try other versions of torch, onnxscript and onnxruntime."
        )
    return found


def _images(net: ResNet, count: int) -> Tensor:
    """Return noise that is the same on every call, float32 `(count, in_channels, H, W)`."""
    return torch.randn(count, net.config.in_channels, *net.preprocess.shape, generator=torch.Generator().manual_seed(count))
