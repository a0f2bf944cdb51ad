"""What a power cut can leave of files: record what a program does to them, and make every state that a crash at any moment allows.

A write lasts once its file is flushed (fsync), and a name once its folder is. Before that there are two models of a file system:

- ordered: names change in the order of the calls, and flushing any file makes all earlier names last, as on ext4. Of a file that is not
  flushed, any first part of what was written is there.
- strict: what POSIX promises. Each name may be old or new, whatever the others are. Of the writes to a file that is not flushed, any may
  be missing, cut in half, or zeros.

Files whose name begins with a dot are unfinished and not part of a state.
"""

import builtins
import io
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

Contents = dict[str, bytes]
"""Files by path relative to the recorded folder."""


@dataclass(frozen=True)
class Op:
    """A change of a file or of names, or a moment that the program marks.

    Args:
        kind: `write`, `size`, `sync`, `folder` (a new one), `names`, `sync names` or `mark`.
        inode: The file, or the folder to sync.
        names: With `names`, the inode of each path that changed; None for a path that was removed.
    """

    kind: str
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    names: Mapping[str, int | None] = field(default_factory=dict)
    mark: Any = None


class Recorder:
    """Records what Python code does to the files below a folder; what a library writes without Python's files is noticed by `check`.

    Args:
        root: The folder, which is empty.
        ignored: Starts of the names of files that are left out.
    """

    def __init__(self, root: Path, ignored: tuple[str, ...] = ()) -> None:
        self.root, self.ignored, self.ops = root.resolve(), ignored, list[Op]()
        self._names: dict[str, int | None] = {}
        self._numbers = itertools.count(1)
        self._folders = {0}
        self._known = {_identity(self.root.stat()): 0}  # the recorded number of each file and folder

    def mark(self, value: Any) -> None:
        """Note a moment."""
        self.ops.append(Op("mark", mark=value))

    def check(self) -> None:
        """Check that the record leads to the files that are there.

        Raises:
            AssertionError: something was written that was not recorded.
        """
        found = {str(path.relative_to(self.root)): path for path in self.root.rglob("*") if path.is_file()}
        actual = {name: path.read_bytes() for name, path in found.items() if not path.name.startswith((".", *self.ignored))}
        assert actual == uncut(self.ops), "some files were written in a way that was not recorded"

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the end of the block."""
        changes = {name: self._naming(name) for name in ("rename", "replace", "unlink", "remove", "mkdir", "rmdir")}
        with (
            mock.patch.multiple(os, fsync=self._fsync(os.fsync), truncate=self._truncate(os.truncate), **changes),
            mock.patch.object(io, "open", self._opener(io.open)),
            mock.patch.object(builtins, "open", self._opener(io.open)),
        ):
            yield

    def _path(self, path: Any) -> str | None:
        """Return a path relative to the folder; None if it is not recorded."""
        if isinstance(path, int):
            return None
        place = Path(os.fsdecode(path)).absolute()
        inside = place.is_relative_to(self.root) and not place.name.startswith(self.ignored)
        return str(place.relative_to(self.root)) if inside else None

    def _set(self, names: dict[str, int | None]) -> None:
        self._names |= names
        self.ops.append(Op("names", names=names))

    def _naming(self, name: str) -> Any:
        real = getattr(os, name)

        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            result = real(path, *arguments, **more)
            source = self._path(path)
            if source is None:
                return result
            if name in ("rename", "replace"):
                target = self._path(arguments[0])
                assert target is not None, "moved out of the folder"
                self._set({source: None, target: self._names[source]})
            elif name == "mkdir":
                number = self._known[_identity(Path(path).stat())] = next(self._numbers)
                self._folders.add(number)
                self.ops.append(Op("folder", number))
                self._set({source: number})
            else:
                self._set({source: None})
            return result

        return call

    def _fsync(self, real: Any) -> Any:
        def call(descriptor: int) -> None:
            real(descriptor)
            number = self._known.get(_identity(os.fstat(descriptor)))
            if number is not None:
                self.ops.append(Op("sync names" if number in self._folders else "sync", number))

        return call

    def _truncate(self, real: Any) -> Any:
        def call(path: Any, length: int) -> None:
            real(path, length)
            if (name := self._path(path)) is not None:
                self.ops.append(Op("size", self._names[name] or 0, length))

        return call

    def _opener(self, real: Any) -> Any:
        recorder = self

        class File(io.FileIO):
            number = 0

            def write(self, data: Any) -> int:
                count = super().write(data)
                recorder.ops.append(Op("write", self.number, self.tell() - count, bytes(data)[:count]))
                return count

            def truncate(self, size: int | None = None) -> int:
                size = super().truncate(size)
                recorder.ops.append(Op("size", self.number, size))
                return size

        def call(
            file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None, *more: Any
        ) -> Any:
            name = self._path(file)
            if name is None or not set(mode) & set("wax+"):
                return real(file, mode, buffering, encoding, errors, newline, *more)
            is_new = not Path(file).exists()
            raw = File(file, mode.replace("b", "").replace("t", ""))
            if is_new:
                raw.number = next(self._numbers)
                self._set({name: raw.number})
            else:
                raw.number = self._names[name] or 0
                if "w" in mode:
                    self.ops.append(Op("size", raw.number, 0))
            self._known[_identity(os.fstat(raw.fileno()))] = raw.number
            if buffering == 0:
                return raw
            buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

        return call


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def uncut(ops: list[Op]) -> Contents:
    """Return the files after all operations, without a crash."""
    names: dict[str, int | None] = {}
    for op in ops:
        names |= op.names
    return _files(names, {inode: _applied(b"", _writes(ops, inode)) for inode in _shown(ops, names)})


def survivors(ops: list[Op], *, ordered: bool) -> Iterator[Contents]:
    """Yield the states of the files that a crash after the last of these operations can leave.

    Args:
        ops: What the program did until then.
        ordered: Take the model `ordered`, not `strict`; see the module.
    """
    for names in _ordered_names(ops) if ordered else _strict_names(ops):
        inodes = _shown(ops, names)
        for contents in itertools.product(*(_contents(_writes(ops, inode), ordered=ordered) for inode in inodes)):
            yield _files(names, dict(zip(inodes, contents, strict=True)))


def _files(names: Mapping[str, int | None], contents: Mapping[int, bytes]) -> Contents:
    """Return the files whose folders are there, too."""
    found = {name for name, inode in names.items() if inode}
    reached = {name for name in found if all(str(parent) in found for parent in Path(name).parents if str(parent) != ".")}
    return {name: contents[inode] for name in reached if (inode := names[name] or 0) in contents and not Path(name).name.startswith(".")}


def _shown(ops: list[Op], names: Mapping[str, int | None]) -> list[int]:
    """Return the files, not folders, that have a name without a dot."""
    folders = {op.inode for op in ops if op.kind == "folder"}
    return sorted({inode for name, inode in names.items() if inode and not Path(name).name.startswith(".")} - folders)


def _ordered_names(ops: list[Op]) -> Iterator[dict[str, int | None]]:
    synced = max((number for number, op in enumerate(ops) if op.kind in ("sync", "sync names")), default=0)
    names: dict[str, int | None] = {}
    for number, op in enumerate(ops):
        names |= op.names
        if number == synced or (number > synced and op.names) or number + 1 == len(ops):
            yield dict(names)


def _strict_names(ops: list[Op]) -> Iterator[dict[str, int | None]]:
    folders = {0: "."}
    choices: dict[str, list[int | None]] = {}
    for op in ops:
        for name, inode in op.names.items():
            choices.setdefault(name, [None]).append(inode)
            folders[inode or -1] = name
        if op.kind == "sync names":
            for name, values in choices.items():
                if str(Path(name).parent) == folders[op.inode]:
                    del values[:-1]
    paths = sorted(choices)
    for chosen in itertools.product(*(dict.fromkeys(choices[path]) for path in paths)):
        yield dict(zip(paths, chosen, strict=True))


def _writes(ops: list[Op], inode: int) -> list[Op]:
    return [op for op in ops if op.inode == inode and op.kind in ("write", "size", "sync")]


def _contents(writes: list[Op], *, ordered: bool) -> list[bytes]:
    """Return what a crash can leave in a file."""
    synced = max((number + 1 for number, op in enumerate(writes) if op.kind == "sync"), default=0)
    base, rest = _applied(b"", writes[:synced]), writes[synced:]
    found = [base, *(_applied(base, rest[: number + 1]) for number in range(len(rest)))]
    found += [_applied(base, [*rest[:number], _half(op)]) for number, op in enumerate(rest) if op.kind == "write"]
    if not ordered:
        for number, op in enumerate(rest):
            zeros = Op("write", op.inode, op.offset, bytes(len(op.data)))
            found += [_applied(base, [*rest[:number], *changed, *rest[number + 1 :]]) for changed in ([], [zeros], [_half(op)])]
            found.append(_applied(base, [op]))
    return list(dict.fromkeys(found))


def _half(op: Op) -> Op:
    return Op(op.kind, op.inode, op.offset, op.data[: len(op.data) // 2])


def _applied(content: bytes, ops: list[Op]) -> bytes:
    result = bytearray(content)
    for op in ops:
        if op.kind == "size":
            result = result[: op.offset].ljust(op.offset, b"\0")
        elif op.kind == "write":
            result = result.ljust(op.offset, b"\0")
            result[op.offset : op.offset + len(op.data)] = op.data
    return bytes(result)
