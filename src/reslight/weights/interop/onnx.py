"""A network as one ONNX file, compared with the network by onnxruntime before it is kept."""

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.models import ResNet

TOLERANCE = 1e-4
"""Of a logit, or of the largest logit where that is more than 1."""


def export_onnx(net: ResNet, path: Path, *, license: str | None = None) -> list[str]:
    """Write a network that `load` gave as ONNX: `images` (batch, channels, size, size), normalised -> `logits` (batch, classes).

    The batch may have any size. What `net.preprocess` and `net.labels` say is in the file's metadata, as JSON.

    Args:
        net: The network; it stays as it is.
        path: The file, ending with .onnx.
        license: An SPDX identifier, for the metadata.

    Returns:
        Lines: what was written, and how far onnxruntime's logits are from the network's.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: The path is none for such a file, or the file's logits are not the network's.
        OSError: It cannot be written.
    """
    if path.suffix != ".onnx" or path.is_dir():
        raise UsageError(f"{path} is no name for the file; give one that ends with .onnx")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for {path.name}; make it")
    single = copy.deepcopy(net).float().eval()
    model = _traced(single)
    told = {"preprocess": json.dumps(net.preprocess.to_dict()), "labels": net.labels and json.dumps(net.labels), "license": license}
    for key, value in told.items():
        if value:
            model.metadata_props.add(key=key, value=value)
    content = model.SerializeToString(deterministic=True)
    difference = _difference(content, single)
    write_files({path: content})
    checked = f"checked with onnxruntime: largest difference of a logit {difference:.1e}" if difference is not None else None
    return [
        f"written {path}: {len(content) / 1e6:.2f} MB, ONNX opset {model.opset_import[0].version}",
        checked or "not checked: onnxruntime is not installed; pip install 'reslight[onnx]'",
    ]


def _traced(net: ResNet) -> Any:
    """The ModelProto."""
    try:
        import onnxscript  # noqa: F401  # torch would say so in twenty lines
    except ImportError:
        raise ImportError("ONNX takes onnx and onnxscript, which are not installed: pip install 'reslight[onnx]'") from None
    chatty = logging.getLogger("torch.onnx")
    level = chatty.level
    try:
        chatty.setLevel(logging.ERROR)
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
        chatty.setLevel(level)
    assert program is not None
    model: Any = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where whose source code lay
    from reslight.version import __version__

    model.producer_name, model.producer_version = "reslight", __version__
    return model


def _difference(content: bytes, net: ResNet) -> float | None:
    """The largest difference of a logit, over batches of 1 and 3; None without onnxruntime.

    Raises:
        ValueError: It is too large.
    """
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        return None
    session, largest = InferenceSession(content, providers=["CPUExecutionProvider"]), 0.0
    for count in (1, 3):
        images = _images(net, count)
        with torch.inference_mode():
            ours = net(images)
        theirs = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        difference = float((ours - theirs).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(ours.abs().max())):
            raise UsageError(f"onnxruntime's logits differ from the network's by {difference:.1e}, {TOLERANCE:.0e} is allowed; not written")
        largest = max(largest, difference)
    return largest


def _images(net: ResNet, count: int) -> Tensor:
    """Noise, the same every time."""
    size = net.preprocess.size
    return torch.randn(count, net.config.in_channels, size, size, generator=torch.Generator().manual_seed(count))
