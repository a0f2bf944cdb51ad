"""Export a network as one ONNX file, and compare it with the network in onnxruntime before it is written."""

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reslight.atomic import write_files
from reslight.messages import MissingPackageError, UsageError
from reslight.models import ResNet
from reslight.version import __version__
from reslight.weights.logits import LogitComparison, compare_logits

TOLERANCE = 1e-4
"""Largest difference of a logit: absolute, or relative to the largest logit if that is above 1."""


def export_onnx(net: ResNet, path: Path, *, license: str | None = None) -> list[str]:
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
    if path.suffix != ".onnx" or path.is_dir():
        raise UsageError(f"the output file is {path}: an ONNX file's name ends with .onnx. Use {path.with_suffix('.onnx')}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} is missing. Create {path.parent}.")
    single = copy.deepcopy(net).float().eval()
    with torch.no_grad():  # the last layer divides the logits: a file has no other place for the temperature that all runtimes use
        single.fc.weight.div_(net.temperature)
        single.fc.bias.div_(net.temperature)
    model = _trace(single)
    kind = "sigmoid" if net.multi_label else None  # without it, softmax, as in files of earlier versions
    metadata = {
        "activation": kind,
        "preprocess": json.dumps(net.preprocess.to_dict()),
        "labels": net.labels and json.dumps(net.labels),
        "license": license,
        "temperature": str(net.temperature) if net.temperature != 1 else None,
    }
    for key, value in metadata.items():
        if value:
            model.metadata_props.add(key=key, value=value)
    content = model.SerializeToString(deterministic=True)
    found = _compare_with_onnxruntime(content, single)
    write_files({path: content})
    return [
        f"written {path}: {len(content) / 1e6:.2f} MB, ONNX opset {model.opset_import[0].version}",
        f"checked with onnxruntime: largest difference of a logit {found.max_difference:.1e}"
        if found
        else "not checked: onnxruntime is not installed. Run pip install 'reslight[onnx]'.",
    ]


def _trace(net: ResNet) -> Any:
    """Trace a network and return the ModelProto, without torch's warnings and log lines."""
    try:
        import onnxscript  # noqa: F401  # torch's own error has twenty lines
    except ImportError:
        raise MissingPackageError("onnxscript is not installed: ONNX export needs it. Run pip install 'reslight[onnx]'.") from None
    torch_log = logging.getLogger("torch.onnx")
    level = torch_log.level
    try:
        torch_log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                net,
                (_images(net, 2),),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
                dynamo=True,
                verbose=False,
            )
    finally:
        torch_log.setLevel(level)
    assert program is not None
    model: Any = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # they name the folders of the source code on this machine
    model.producer_name, model.producer_version = "reslight", __version__
    return model


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
