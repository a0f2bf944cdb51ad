"""OpenVINO: an .xml file with the graph and, beside it, a .bin file with its weights."""

import contextlib
import hashlib
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reslight.deploy.formats import Session
from reslight.deploy.formats.about import KEY, readable
from reslight.deploy.formats.packages import import_package
from reslight.deploy.formats.pixels import PixelsToProbabilities, sample_pixels, sizes_that_vary
from reslight.deploy.formats.quiet import quiet
from reslight.messages import UsageError, visible

_import = partial(import_package, "OpenVINO")
INPUT, OUTPUT = "pixels", "probabilities"
_SUM = "reslight_bin_sha256"
"""Name in the .xml of the sha256 of the .bin: with the weights of another export of the same architecture, results would be wrong."""


def build(network: PixelsToProbabilities, about: str, calibration: Sequence[Tensor] | None) -> Mapping[str, bytes]:
    """Return the contents of the .bin and the .xml file: `pixels` uint8 (batch, height, width, channels) -> `probabilities`.

    Raises:
        MissingPackageError: openvino is not installed, or for int8 nncf.
    """
    with without_telemetry(), quiet(), tempfile.TemporaryDirectory() as folder:
        openvino = _import("openvino")
        nncf: Any = None if calibration is None else _import("nncf")
        pixels = sample_pixels(network.pixels.preprocess, 2)
        is_deep = pixels.dtype == torch.uint16  # of which OpenVINO cannot convert a graph
        program = torch.export.export(network, (pixels.int() if is_deep else pixels,), dynamic_shapes=(sizes_that_vary(),))
        model = openvino.convert_model(program)
        if is_deep:
            steps = openvino.preprocess.PrePostProcessor(model)
            steps.input().tensor().set_element_type(openvino.Type.u16)
            model = steps.build()
        if calibration is not None:
            # Convolutions and classifier; resizing with int8 would change the images.
            images, ignored = nncf.Dataset([batch.numpy() for batch in calibration]), nncf.IgnoredScope(names=_before_network(model))
            # Activations get a zero point each, and biases are corrected layer by layer: slower to make, not to run, and more exact.
            exact = {"preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": False}
            model = nncf.quantize(model, images, subset_size=len(calibration), ignored_scope=ignored, **exact)
        model.inputs[0].get_tensor().set_names({INPUT})
        model.outputs[0].get_tensor().set_names({OUTPUT})
        file = Path(folder) / "model.xml"
        openvino.save_model(model, file, compress_to_fp16=False)
        weights = file.with_suffix(".bin").read_bytes()
        for key, value in ({KEY: about} | readable(about)).items():
            if value:
                model.set_rt_info(value, [key])
        model.set_rt_info(hashlib.sha256(weights).hexdigest(), [_SUM])
        openvino.save_model(model, file, compress_to_fp16=False)
        return {".bin": weights, ".xml": file.read_bytes()}


def open_session(path: Path, threads: int, workers: int) -> Session:
    """Open an .xml file, and the .bin file beside it, with OpenVINO.

    Raises:
        MissingPackageError: openvino is not installed.
        UsageError: a file that reslight did not export, or a .bin file of another export.
    """
    with without_telemetry():
        openvino = _import("openvino")
        core = openvino.Core()
        name, weights = visible(path, 1000), path.with_suffix(".bin")
        if not weights.is_file():
            raise FileNotFoundError(f"{visible(weights, 1000)} is missing: it holds the weights of {name}. Keep the two files together.")
        model = core.read_model(path)
        if not (model.has_rt_info([KEY]) and model.has_rt_info([_SUM])):
            raise UsageError(f"{name} has no preprocessing inside that reslight wrote. Export it: reslight export WEIGHTS {name}")
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != model.get_rt_info([_SUM]).astype(str):
            raise UsageError(
                f"{visible(weights, 1000)} is not the file that was exported with {name}: its sha256 differs. Export both again."
            )
        # float32, which OpenVINO would replace by bfloat16 where the CPU has it; a stream is what computes a batch.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads * workers, "NUM_STREAMS": workers}
        compiled = core.compile_model(model, "CPU", settings)
    own = threading.local()  # two calls of one request are an error

    def run(pixels: Tensor) -> Tensor:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return torch.from_numpy(own.request.infer([pixels.numpy()])[0].copy())

    about = model.get_rt_info([KEY]).astype(str)
    return Session(about, run, f"openvino {openvino.__version__.partition('-')[0]}")


def _before_network(model: Any) -> list[str]:
    """Return the names of the operations before the first convolution."""
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() in ("Convolution", "GroupConvolution"))
    todo, found = [first.input_value(0).get_node()], {}
    while todo:
        node = todo.pop()
        if node.get_friendly_name() not in found:
            found[node.get_friendly_name()] = node.get_type_name()
            todo += [value.get_node() for value in node.input_values()]
    return [name for name, kind in found.items() if kind not in ("Parameter", "Constant")]


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Keep OpenVINO and nncf from reporting their use to Intel: they do so unless openvino_telemetry cannot be imported."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # Python's way to have an import fail
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
