"""torch: a program of torch.export, run by torch; batch norms are folded into the convolutions."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reslight.deploy.formats import Session
from reslight.deploy.formats.about import KEY, readable
from reslight.deploy.formats.pixels import PixelsToProbabilities, sample_pixels, sizes_that_vary
from reslight.deploy.formats.program_check import check_program
from reslight.deploy.formats.quiet import quiet
from reslight.deploy.inference import folded
from reslight.deploy.torch_threads import torch_threads
from reslight.messages import UsageError, visible


def build(network: PixelsToProbabilities, about: str, calibration: Sequence[Tensor] | None) -> Mapping[str, bytes]:
    """Return the file's content; see `formats.FormatModule`.

    Raises:
        UsageError: int8.
    """
    if calibration is not None:
        raise UsageError("--int8 is given for the format torch: it writes float32 only. Use --format onnx, openvino or executorch.")
    program, file = program_of(network), io.BytesIO()
    program.example_inputs = None  # they would be stored as a pickle
    with quiet():
        torch.export.save(program, file, extra_files={KEY: about, **{key: value for key, value in readable(about).items() if value}})
    return {".pt2": file.getvalue()}


def program_of(network: PixelsToProbabilities) -> Any:
    """Return the ExportedProgram of a network, for images of any size and batches of any length."""
    network.net = folded(network.net)
    example = sample_pixels(network.pixels.preprocess, 2)
    with quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=(sizes_that_vary(),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of this machine
    return program


def open_session(path: Path, threads: int, workers: int) -> Session:
    """Open a file in torch; see `formats.FormatModule`.

    Raises:
        UsageError: a file that reslight did not export, or one that could run other code than a network.
    """
    from reslight.deploy.formats import torch_compiled

    if torch_compiled.is_compiled(path):
        torch_compiled.check_trust(path)
        return torch_compiled.open_session(path, threads, workers)
    extra = {KEY: ""}
    checked = check_program(path)
    with quiet():
        module = torch.export.load(checked, extra_files=extra).module()
    if not extra[KEY]:
        name = visible(path, 1000)
        raise UsageError(f"{name} has no preprocessing inside that reslight wrote. Export it: reslight export WEIGHTS {name}")
    return Session(extra[KEY], in_torch(module, threads), f"torch {torch.__version__}")


def in_torch(module: Callable[[Tensor], Tensor], threads: int) -> Callable[[Tensor], Tensor]:
    """Return a function that calls another with this many threads of torch."""

    def run(pixels: Tensor) -> Tensor:
        with torch.inference_mode(), torch_threads(threads):
            return module(pixels)

    return run
