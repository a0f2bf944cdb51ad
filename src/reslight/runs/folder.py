"""The folders of runs: `runs/<config>/<n>`, their checkpoints, the newest one."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = "runs"
"""Where runs are kept unless trainer.default_root_dir says otherwise."""


@dataclass(frozen=True)
class Runs:
    """The runs of one configuration.

    Args:
        root: Where runs are kept; `runs` by default, or trainer.default_root_dir.
        name: The configuration's name: `digits`, `cifar10/resnet20`.
        number: Look for checkpoints in this run alone, not in the newest.
    """

    root: Path
    name: str
    number: int | None = None

    @classmethod
    def of(cls, config: Path | None, name: str) -> "Runs":
        """The runs of a configuration file of that name. One that lies in a run's folder means that run."""
        if config is None:
            return cls(Path(ROOT), name)
        folder = config.resolve().parent
        if folder.name.isdecimal() and config.stem.split(".")[0] == "config":
            here = Path.cwd()
            root = folder.parents[1]
            return cls(root.relative_to(here) if root.is_relative_to(here) else root, folder.parent.name, int(folder.name))
        return cls(Path(ROOT), name)

    @property
    def folder(self) -> Path:
        """Holds one folder a run."""
        return self.root / self.name

    def numbers(self) -> list[int]:
        """Numbers of the runs that are there, rising."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    def newest(self, checkpoint: str) -> Path:
        """That checkpoint of the newest run, or of run `number`.

        Raises:
            FileNotFoundError: There is no run, or it has none: an older one is only offered, lest it be taken for the newest.
        """
        numbers = self.numbers()
        wanted = self.number or (numbers[-1] if numbers else None)
        paths = {number: self.folder / str(number) / "checkpoints" / checkpoint for number in numbers}
        if wanted in paths and paths[wanted].is_file():
            return paths[wanted]
        fix = "train one with `reslight fit`, or give the path of a checkpoint as --ckpt_path"
        if older := [path for number, path in paths.items() if number != wanted and path.is_file()]:
            fix = f"give the path of one as --ckpt_path, such as {older[-1]}"
        which = f"run {wanted} in {self.folder} has" if wanted in paths else f"no run in {self.folder} has"
        raise FileNotFoundError(f"{which} {'no' if wanted in paths else 'a'} checkpoint {checkpoint}; {fix}")

    def under(self, root: Path) -> "Runs":
        """The same configuration's runs elsewhere; the same runs where they are in that folder already, however deep."""
        here, folder = root.resolve(), self.folder.resolve()
        name = folder.relative_to(here).as_posix() if self.number and folder.is_relative_to(here) else self.name
        return replace(self, root=root, name=name)

    def checkpoint(self, wanted: str | None, *, resume: bool) -> Path | None:
        """The checkpoint that a command means.

        Args:
            wanted: `last` or `best` of the newest run (or of `number`), a file, or None.
            resume: For training, where None means a new run; to measure, None means `last`.

        Raises:
            FileNotFoundError: There is none.
        """
        if wanted is None and resume:
            return None
        if wanted not in (None, "last", "best"):
            file = Path(wanted)
            if file.is_dir():  # a run
                file = file / "checkpoints" / "last.ckpt"
            if not file.is_file():
                raise FileNotFoundError(f"no checkpoint {wanted}; give the path of one, or last or best for the newest run's")
            return file
        return self.newest(f"{wanted or 'last'}.ckpt")

    def create(self) -> Path:
        """Make the folder of the next run; two processes never get the same one.

        Raises:
            PermissionError: The folder cannot be made there.
        """
        while True:
            path = self.folder / str(max(self.numbers(), default=0) + 1)
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if self.folder.is_dir():
                    continue  # another process was faster
                raise
            except OSError as error:
                raise PermissionError(
                    f"no run can be kept in {self.folder} ({error.strerror}); choose another place with --trainer.default_root_dir"
                ) from error
            return path


def run_of(checkpoint: Path) -> Path | None:
    """The run's folder in which a checkpoint lies; None for a checkpoint that lies elsewhere."""
    folder = checkpoint.parent if checkpoint.parent.name == "checkpoints" else checkpoint.resolve().parent
    return folder.parent if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file() else None


def find_run(path: str | Path) -> Path:
    """The run's folder that a path means: itself, a file in it, or the newest run in a configuration's folder.

    Raises:
        FileNotFoundError: It is none of these.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    if any((folder / name).is_file() for name in ("config.yaml", "metrics.csv")):
        return folder
    if numbers := _numbers(path):
        return path / str(numbers[-1])
    known = _below(Path("runs"))
    near = _below(path) or [name for name in known if Path(name) == Path("runs", path)]
    near = near or difflib.get_close_matches(path.as_posix(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else "give the folder of one, such as runs/digits/1, or runs/digits for its newest"
    raise FileNotFoundError(f"{path} is no run; {hint}")


def _numbers(folder: Path) -> list[int]:
    """Numbers of the runs in a configuration's folder, rising."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal() and path.is_dir())


def _below(root: Path) -> list[str]:
    """Where runs are kept: the folders of the configurations, such as `digits` or `cifar10/resnet20`, and the runs in them."""
    folders = [path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)) if _numbers(path)]
    return [path.as_posix() for folder in folders for path in (folder, *(folder / str(number) for number in _numbers(folder)))]
