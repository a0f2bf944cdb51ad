"""Runs on disk: one folder is one run, `runs/<config>/<n>`, never overwritten and continued by a resume."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reslight.atomic import make_folder
from reslight.messages import nearest
from reslight.runs.json_file import read_json_file

ROOT = "runs"
"""Where runs are saved unless trainer.default_root_dir names another folder."""
REPORTS = {"test": "test.json", "val": "validate.json"}
"""The file of a run in which the results of a split are saved."""


@dataclass(frozen=True)
class Run:
    """One run: its folder and the files in it, which need not exist yet.

    Args:
        folder: `runs/<config>/<n>`, or any other folder that the user moved a run to.
    """

    folder: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "Run | None":
        """Return the run that a checkpoint file belongs to; None for a checkpoint outside of a run."""
        for folder in (*checkpoint.parents[:2], *checkpoint.resolve().parents[:2]):  # of ours, of a ModelCheckpoint, through a link
            if folder.name == "checkpoints" and cls(folder.parent).config.is_file():
                return cls(folder.parent)
        return None

    @classmethod
    def of_config(cls, config: Path) -> "Run | None":
        """Return the run that a configuration was saved in, whatever the user calls its folder now; None for any other file."""
        run = cls(config.resolve().parent)
        is_run = run.number is not None or any(run.checkpoints.glob("*.ckpt"))
        return run if is_run and config.stem.split(".")[0] == "config" else None

    @property
    def number(self) -> int | None:
        """The number of the run in its configuration's folder; None for a folder that is no number."""
        return int(self.folder.name) if self.folder.name.isdecimal() else None

    @property
    def name(self) -> str:
        """Configuration and number, such as `digits/1`."""
        return "/".join(self.folder.resolve().parts[-2:])

    @property
    def shown(self) -> Path:
        """The folder, relative to the current one if it is in it."""
        return _from_here(self.folder.resolve())

    @property
    def config(self) -> Path:
        """The configuration that the run was started with."""
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The table of metrics, a row for each step at which something was logged."""
        return self.folder / "metrics.csv"

    @property
    def summary(self) -> Path:
        """The final metrics and settings of a finished run; any other run has no such file."""
        return self.folder / "summary.json"

    @property
    def trackers(self) -> Path:
        """The ids of the tracker runs (W&B, MLflow, Comet) that the run logs to."""
        return self.folder / "trackers.json"

    @property
    def weights(self) -> Path:
        """The folder of the weights that `fit --export true` writes."""
        return self.folder / "weights"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def more_checkpoints(self) -> Path:
        """The folder of what ModelCheckpoint saves, whose names may be those of reslight's own files."""
        return self.checkpoints / "ModelCheckpoint"

    def checkpoint(self, name: str = "last") -> Path:
        """Return the path of the checkpoint `last` or `best`."""
        return self.checkpoints / f"{name}.ckpt"

    @property
    def step(self) -> int:
        """Optimizer steps done in last.ckpt."""
        return int(self._state()["steps"])

    @property
    def seed(self) -> int | None:
        """The seed of the run; None if none was set."""
        seed: int | None = self._state()["seed"]
        return seed

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the model: network, optimizer, schedule and so on."""
        settings: Mapping[str, Any] = self._state()["settings"]
        return settings

    def next_config(self) -> Path:
        """Return the first free name of config.yaml, config.1.yaml, config.2.yaml ...: a resume saves a configuration of its own."""
        path, number = self.config, 0
        while path.exists():
            number += 1
            path = self.config.with_suffix(f".{number}.yaml")
        return path

    def last_config(self) -> Path:
        """Return the configuration that was saved last."""
        free = self.next_config()
        number = int(free.stem.partition(".")[2] or 0)
        return self.config if number < 2 else self.config.with_suffix(f".{number - 1}.yaml")

    def _state(self) -> Mapping[str, Any]:
        """Read steps, seed and settings from summary.json; from last.ckpt, which takes longer, if the run is not finished."""
        if self.summary.is_file():
            try:
                summary = read_json_file(self.summary, "Remove it.")
            except ValueError:  # damaged, or cut short by a version of reslight that did not write it whole
                summary = {}
            if isinstance(summary.get("steps"), int) and isinstance(summary.get("settings"), dict) and "seed" in summary:
                return summary
        from reslight.training.checkpoint_file import read_checkpoint  # imports Lightning

        contents = read_checkpoint(self.checkpoint())
        seed = contents.get("reslight", {}).get("data", {}).get("seed")
        return {"steps": contents["global_step"], "seed": seed, "settings": contents["hyper_parameters"]}


@dataclass(frozen=True)
class RunDirectory:
    """The runs of one configuration.

    Args:
        root: Where runs are saved: `runs`, or trainer.default_root_dir.
        name: The name of the configuration: `digits`, `cifar10/modern`.
        only: Look for checkpoints in this run only, not in the newest.
    """

    root: Path
    name: str
    only: Run | None = None

    @classmethod
    def for_config(cls, config: Path | None, name: str, root: Path | None = None) -> "RunDirectory":
        """Return the runs of a configuration file. The configuration of a run means that run, and its neighbors for another name.

        Args:
            config: The file; None if there is none.
            name: The name under which its runs are saved.
            root: The folder that the user chose for runs. A run that is in it already stays where it is.
        """
        run = Run.of_config(config) if config else None
        if run is None or not (root is None or run.folder.is_relative_to(root.resolve())):
            return cls(root or Path(ROOT), name)
        if run.number is None:  # not a neighbor of other runs
            return cls(root or Path(ROOT), name, Run(run.shown) if name == run.folder.name else None)
        own = run.folder.parents[len(Path(name).parts)]
        is_same = own / name == run.folder.parent
        return cls(_from_here(own), name, Run(run.shown) if is_same else None)

    @property
    def folder(self) -> Path:
        """The folder that holds a folder for each run."""
        return self.root / self.name

    def runs(self) -> list[Run]:
        """Return the runs by rising number."""
        return runs_in(self.folder)

    def latest_checkpoint(self, name: str = "last") -> Path:
        """Return a checkpoint of the newest run, or of the run `only`.

        Raises:
            FileNotFoundError: there is no run, or it has no such checkpoint. Checkpoints of older runs are suggested, never used.
        """
        runs = self.runs()
        wanted = self.only or (runs[-1] if runs else None)
        if wanted and wanted.checkpoint(name).is_file():
            return wanted.checkpoint(name)
        fix = "Train one with `reslight fit`, or give the path of a checkpoint as --ckpt_path."
        if older := [run.checkpoint(name) for run in runs if run != wanted and run.checkpoint(name).is_file()]:
            fix = f"Give a path as --ckpt_path, such as {older[-1]}."
        which = f"the run {wanted.folder} has no" if wanted else f"no run in {self.folder} has a"
        raise FileNotFoundError(f"{which} checkpoint {name}.ckpt. {fix}")

    def checkpoint(self, wanted: str | None, *, resume: bool) -> Path | None:
        """Return the checkpoint that a command uses; None for a new run.

        Args:
            wanted: `last` or `best` of the newest run (or of the run `only`), a file, the folder of a run, or None.
            resume: For training, where None means a new run; otherwise None means `last`.

        Raises:
            FileNotFoundError: there is no such checkpoint.
        """
        if wanted is None and resume:
            return None
        if wanted in (None, "last", "best"):
            return self.latest_checkpoint(wanted or "last")
        path = Path(wanted)
        file = Run(path).checkpoint() if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"--ckpt_path is {wanted}: there is no such checkpoint. Give a file, a run's folder, last or best.")
        return file

    def next_folder(self) -> Path:
        """Return the folder of the next run, which does not exist yet."""
        return self.folder / str(max((run.number or 0 for run in self.runs()), default=0) + 1)

    def create(self) -> Run:
        """Make the folder of the next run; two processes never get the same one.

        Raises:
            PermissionError: the folder cannot be made.
        """
        while True:
            folder = self.next_folder()
            try:
                make_folder(folder, exist_ok=False)
            except FileExistsError:
                if self.folder.is_dir():
                    continue  # another process was faster
                raise
            except OSError as error:
                raise PermissionError(
                    f"{self.folder} cannot hold a run: {error.strerror}. Choose another folder with --trainer.default_root_dir."
                ) from error
            return Run(folder)


def find_run(path: str | Path) -> Run:
    """Return the run that a path means: its folder, a file in it, or the folder of a configuration for its newest run.

    Raises:
        FileNotFoundError: the path means no run; similar paths are suggested.
    """
    path = Path(path)
    run = Run(path.parent if path.is_file() else path)
    if run.config.is_file() or run.metrics.is_file():
        return run
    if runs := runs_in(path):
        return runs[-1]
    known = _paths_below(Path(ROOT))
    near = _paths_below(path) or [name for name in known if Path(name) == Path(ROOT, path)] or nearest(path.as_posix(), known)
    hint = f"Did you mean {near[0]}?" if near else "Give the folder of one, such as runs/digits/1, or runs/digits for its newest run."
    raise FileNotFoundError(f"{path} is not a run. {hint}")


def find_run_or_weights(source: str) -> Run | None:
    """Return the run that a command's argument means; None if the argument means weights: their folder or their name.

    Raises:
        FileNotFoundError: the argument is a folder of neither.
    """
    path = Path(source)
    return find_run(path) if path.is_dir() and not (path / "config.json").is_file() else None


def _from_here(path: Path) -> Path:
    """Return a path relative to the current folder if it is in it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def runs_in(folder: Path) -> list[Run]:
    """Return the runs in a configuration's folder by rising number."""
    runs = [Run(path) for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(runs, key=lambda run: run.number or 0)


def _paths_below(root: Path) -> list[str]:
    """Return the folders of configurations, such as `runs/digits` or `runs/cifar10/modern`, and of the runs in them."""
    folders = {path: runs_in(path) for pattern in ("*", "*/*") for path in sorted(root.glob(pattern))}
    return [path.as_posix() for folder, runs in folders.items() if runs for path in (folder, *(run.folder for run in runs))]
