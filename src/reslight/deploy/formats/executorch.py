"""ExecuTorch: one .pte file for phones and other small devices, with the kernels of XNNPACK; one image at a time."""

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from reslight.deploy.formats import Session
from reslight.deploy.formats.about import KEY, readable
from reslight.deploy.formats.packages import import_package
from reslight.deploy.formats.pixels import PixelsToProbabilities, sample_pixels
from reslight.deploy.formats.quiet import quiet
from reslight.messages import UsageError, visible

_import = partial(import_package, "ExecuTorch")
LARGEST_SIDE = 4096
"""Of an image, in pixels. The runtime reserves address space for the largest image (250 MB); an image uses as much as it needs."""
_has_threads = threading.Event()
"""Set when the first file is opened: its number of threads is that of the process, as a change would crash the files that are open."""
_MARK = b"reslight"
"""Stands before the sha256 of a file's other bytes, at its end, where ExecuTorch reads nothing. Damaged files would crash the process."""


def build(network: PixelsToProbabilities, about: str, calibration: Sequence[Tensor] | None) -> Mapping[str, bytes]:
    """Return the file's content; see `formats.FormatModule`. Images of 16 bits are int32: ExecuTorch has no uint16.

    Raises:
        MissingPackageError: executorch is not installed.
    """
    with quiet():
        exir = _import("executorch.exir")
        partitioner = _import("executorch.backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner()
        program = _traced(network, network)
        if calibration is not None:
            program = _traced(_quantized(program, calibration), network)
        methods = {key: value for key, value in ({KEY: about} | readable(about)).items() if value}
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner], constant_methods=methods)
        return {".pte": _with_checksum(bytes(lowered.to_executorch().buffer))}


def open_session(path: Path, threads: int, workers: int) -> Session:
    """Open a file with the runtime of ExecuTorch; see `formats.FormatModule`.

    Raises:
        MissingPackageError: executorch is not installed.
        UsageError: a file that reslight did not export, or a damaged one.
    """
    name = visible(path, 1000)
    runtime, version = _runtime()
    content = path.read_bytes()
    if content != _with_checksum(content[: -len(_with_checksum(b""))]):
        raise UsageError(f"{name} is damaged, or reslight did not write it. Export it: reslight export WEIGHTS {name}")
    with _without_native_log():
        if not _has_threads.is_set() and runtime._threadpool_get_thread_count() != threads * workers:
            runtime._unsafe_reset_threadpool(threads * workers)
        _has_threads.set()
        program = runtime._load_program(str(path), program_verification=runtime.Verification.InternalConsistency)
        if KEY not in [program.get_method_name(number) for number in range(program.num_methods())]:
            raise UsageError(f"{name} has no preprocessing inside that reslight wrote. Export it: reslight export WEIGHTS {name}")
        (about,) = program.load_method(KEY)(())
        method = program.load_method("forward")
    _, tall, wide, _ = method.method_meta().input_tensor_meta(0).sizes()
    lock = threading.Lock()  # calls of one method share its memory

    def run(pixels: Tensor) -> Tensor:
        _, height, width, _ = pixels.shape
        if height > tall or width > wide:
            raise UsageError(f"an image has {width} x {height} pixels: {name} takes at most {wide} x {tall}. Make the image smaller.")
        images = pixels.int() if pixels.dtype == torch.uint16 else pixels
        with lock:
            return torch.cat([method((image[None],))[0].clone() for image in images])

    return Session(about, run, f"executorch {version}")


def _with_checksum(content: bytes) -> bytes:
    return content + _MARK + hashlib.sha256(content).digest()


def _traced(module: torch.nn.Module, network: PixelsToProbabilities) -> ExportedProgram:
    """Return the program of a module for one image of any size up to the largest."""
    pixels = sample_pixels(network.pixels.preprocess, 1, 41, 43)
    sides = {number: Dim(name, min=1, max=LARGEST_SIDE) for number, name in ((1, "height"), (2, "width"))}
    return torch.export.export(module, (pixels.int() if pixels.dtype == torch.uint16 else pixels,), dynamic_shapes=(sides,))


def _quantized(program: ExportedProgram, calibration: Sequence[Tensor]) -> torch.nn.Module:
    """Return the program's module with an int8 network; the preprocessing stays float32."""
    pt2e = _import("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = _import("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    quantizer = xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(_is_of_network)
    quantizer.transform_for_annotation = lambda model: model  # it would make numbers of the preprocessing float32 that must be whole
    prepared = pt2e.prepare_pt2e(program.module(), quantizer)
    for batch in calibration:
        for image in batch:
            prepared(image[None].int() if image.dtype == torch.uint16 else image[None])
    module: torch.nn.Module = pt2e.convert_pt2e(prepared)
    return module


def _is_of_network(node: torch.fx.Node) -> bool:
    """Return whether an operation is not one of the preprocessing; the constants of folded batch norms belong to no module."""
    return all(not module.endswith("pixels") for module, _ in node.meta.get("nn_module_stack", {}).values())


def _runtime() -> tuple[Any, str]:
    """Return the module of the runtime, and its version.

    The public `executorch.runtime` hands out the same functions, and imports the compiler, which takes seconds.
    """
    version: str = _import("executorch.version").__version__
    try:
        return import_module("executorch.extension.pybindings._C"), version
    except ImportError:
        return _import("executorch.extension.pybindings.portable_lib"), version


@contextlib.contextmanager
def _without_native_log() -> Iterator[None]:
    """Hide what the runtime writes to the standard error: lines about the CPU, and about bad files, which are in its exceptions, too."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
