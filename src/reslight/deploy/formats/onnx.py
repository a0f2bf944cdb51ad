"""ONNX, run by onnxruntime: one file, with float32 or int8 layers, and its metadata as JSON."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslight.deploy.formats import Session
from reslight.deploy.formats.about import KEY, readable
from reslight.deploy.formats.packages import import_package
from reslight.deploy.formats.pixels import PixelsToProbabilities, sample_pixels, sizes_that_vary
from reslight.deploy.formats.quiet import quiet
from reslight.messages import UsageError, visible
from reslight.version import __version__

_import = partial(import_package, "ONNX")
INPUT, OUTPUT = "pixels", "probabilities"
_INT8_LAYERS = ("Conv", "Gemm", "Relu", "Add", "ReduceMean", "Pad", "Slice")
"""Operators of the network that get int8 values, so that none between two layers turns them back into float32."""


def build(network: PixelsToProbabilities, about: str, calibration: Sequence[Tensor] | None) -> Mapping[str, bytes]:
    """Return the file's content; see `formats.FormatModule`.

    Raises:
        MissingPackageError: a package of the extra `onnx` is not installed.
    """
    model = trace(network, sample_pixels(network.pixels.preprocess, 2), INPUT, OUTPUT, dynamic=sizes_that_vary())
    if calibration is not None:
        model = _quantized(model, calibration)
    add_metadata(model, {KEY: about, **readable(about)})
    content: bytes = model.SerializeToString(deterministic=True)
    return {".onnx": content}


def open_session(path: Path, threads: int, workers: int) -> Session:
    """Open a file in onnxruntime; see `formats.FormatModule`.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        UsageError: a file that reslight did not export.
    """
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    # Weights in other files are refused, as this folder cannot exist: these files could change after the one here was verified.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", f"{os.devnull}/none")
    session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map.get(KEY)
    if about is None:
        name = visible(path, 1000)
        raise UsageError(f"{name} has no preprocessing inside that reslight wrote. Export it: reslight export WEIGHTS {name}")

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])

    return Session(about, run, f"onnxruntime {runtime.__version__}")


def trace(module: nn.Module, example: Tensor, given: str, returned: str, dynamic: Mapping[int, Any]) -> Any:
    """Trace a module and return the ModelProto, without torch's warnings and log lines.

    Args:
        module: The module, in eval mode.
        example: An input.
        given: Name of the input.
        returned: Name of the output.
        dynamic: The `torch.export.Dim` of each dimension of the input that may vary.

    Raises:
        MissingPackageError: onnxscript is not installed.
    """
    _import("onnxscript")  # torch's own error has twenty lines
    with quiet():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[given],
            output_names=[returned],
            dynamic_shapes=(dict(dynamic),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: Any = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # they name the folders of the source code on this machine
    model.producer_name, model.producer_version = "reslight", __version__
    return model


def add_metadata(model: Any, metadata: Mapping[str, str | None]) -> None:
    """Add key and text to a ModelProto, without those that are empty."""
    for key, value in metadata.items():
        if value:
            model.metadata_props.add(key=key, value=value)


def _quantized(model: Any, calibration: Sequence[Tensor]) -> Any:
    """Return a ModelProto whose network computes with int8; preprocessing and softmax stay float32."""
    quantization = _import("onnxruntime.quantization")
    onnx = _import("onnx")
    names, reached = [], set()
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
        if node.op_type == "Conv" or any(value in reached for value in node.input):  # the first convolution and what comes after
            reached.update(node.output)
            names += [node.name] if node.op_type in _INT8_LAYERS else []

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]  # onnxruntime has no types
        """Hands onnxruntime one batch after the other."""

        def __init__(self) -> None:
            self.batches = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next batch; None after the last."""
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            model,
            path,
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # with int8 weights, what x86 multiplies at once
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=names,
        )
        found = onnx.load(path)
    found.producer_name, found.producer_version = "reslight", __version__
    return found
