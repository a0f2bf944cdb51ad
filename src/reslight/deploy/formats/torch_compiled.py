"""torch, compiled: a package of AOTInductor, machine code for CPUs like this one, which the same version of torch runs."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from reslight.deploy.formats import Format, Session
from reslight.deploy.formats.about import KEY
from reslight.deploy.formats.pixels import PixelsToProbabilities
from reslight.deploy.formats.quiet import quiet
from reslight.deploy.formats.torch_export import in_torch, program_of
from reslight.messages import UsageError, visible

COMPILED = Format("torch", ".pt2", "torch_compiled")
"""Not in the table of formats: it is found by what is in a .pt2 file."""
TRUST = "RESLIGHT_TRUST_COMPILED"
"""Environment variable: 1 runs the machine code in compiled files."""
_COMPILERS = ("g++", "clang++", "c++")


def build(network: PixelsToProbabilities, about: str, calibration: Sequence[Tensor] | None) -> Mapping[str, bytes]:
    """Return the file's content; see `formats.FormatModule`. It takes a minute or more.

    Raises:
        UsageError: int8, or no C++ compiler.
    """
    if calibration is not None:
        raise UsageError("--compile is given with --int8: it compiles float32 only. Leave one of them out.")
    if not os.environ.get("CXX") and not any(map(shutil.which, _COMPILERS)):
        raise UsageError(f"--compile needs a C++ compiler: none of {', '.join(_COMPILERS)} is installed. Install one, or leave it out.")
    program = program_of(network)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt2"
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs={"aot_inductor.metadata": {KEY: about}})
        return {".pt2": path.read_bytes()}


def open_session(path: Path, threads: int, workers: int) -> Session:
    """Load the machine code; see `formats.FormatModule`."""
    with quiet():
        package = torch._inductor.aoti_load_package(str(path))
    return Session(package.get_metadata().get(KEY, ""), in_torch(package, threads), f"torch {torch.__version__}, compiled")


def is_compiled(path: Path) -> bool:
    """Return whether a file is a package of AOTInductor."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/data/aotinductor/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, EOFError):
        return False


def check_trust(path: Path) -> None:
    """Check that the user trusts compiled files: nothing in them can be checked.

    Raises:
        UsageError: a user who has not said so.
    """
    if os.environ.get(TRUST) != "1":
        raise UsageError(
            f"{visible(path, 1000)} holds machine code, which would run with your rights: only files of your own can be trusted. "
            f"Set {TRUST}=1 if it is one."
        )
