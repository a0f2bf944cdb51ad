"""Where an unexpected error comes from, if not from reslight: code of the user's own, a logger, or a file that hides a module."""

import importlib.machinery
import sys
import sysconfig
import traceback
from pathlib import Path
from types import CodeType, FrameType, ModuleType

_PACKAGE = Path(__file__).parents[1]
_LIBRARIES = tuple({Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_LOGGERS = ("lightning.pytorch.loggers.", "lightning.fabric.loggers.")


def origin(error: BaseException) -> str | None:
    """Return what an error that reslight did not raise on purpose comes from, as the beginning of a message; None for a bug of reslight."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if not _is_library(frame.f_code)]
    if frames and not Path(frames[-1][0].f_code.co_filename).is_relative_to(_PACKAGE):
        frame, line = frames[-1]
        return f"{frame.f_code.co_qualname} ({_short(frame.f_code.co_filename)}, line {line}) failed"
    logger = next((frame for frame, _ in traceback.walk_tb(error.__traceback__) if _is_logger(frame)), None)
    return f"trainer.logger {type(logger.f_locals['self']).__name__} failed" if logger else None


def hiding_file(error: BaseException) -> str | None:
    """Return the file that was imported in place of the module that an error names, such as a random.py of the user's own; None if none."""
    if isinstance(error, ImportError):
        name, _, inner = (error.name or "").partition(".")
        file = getattr(sys.modules.get(name), "__file__", None) or (None if inner else error.path)  # which is that of a module within
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name, file = error.obj.__name__, error.obj.__file__
    else:
        return None
    if not (name and file) or "." in name:
        return None
    path = Path(file)
    folder = path.parents[1] if path.stem == "__init__" else path.parent
    hidden = importlib.machinery.PathFinder.find_spec(name, [one for one in sys.path if Path(one).resolve() != folder.resolve()])
    return _short(file) if hidden and hidden.has_location and hidden.origin != file else None


def _is_library(code: CodeType) -> bool:
    path = Path(code.co_filename)
    if path.is_relative_to(_PACKAGE):
        return False
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(installed) or code.co_filename.startswith("<") or any(path.is_relative_to(one) for one in _LIBRARIES)


def _is_logger(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").startswith(_LOGGERS) and "self" in frame.f_locals


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
