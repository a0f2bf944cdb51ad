"""metrics.csv and TensorBoard events of one run, which a resumed run continues instead of starting over."""

import csv
import math
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

FIRST_COLUMNS = ["epoch", "step"]


class RunLogger(Logger):
    """Writes one row a step to metrics.csv, and the same values as TensorBoard scalars.

    `step` counts optimizer steps done, `epoch` counts from 1. Values of one step share a row; a value that was not measured at that step
    is empty.

    Made without a place, so that a Trainer has a logger from the start; what is logged before `open` is not kept.

    Args:
        tensorboard: Write events too.
    """

    def __init__(self, tensorboard: bool = True) -> None:
        super().__init__()
        self._folder = Path()
        self._columns = list(FIRST_COLUMNS)
        self._row: dict[str, Any] = {}
        self._row_start = 0
        self._is_open = False
        self._resumed_at: int | None = None
        self._tensorboard = tensorboard
        self._writer: Any = None

    def open(self, folder: Path, resumed_at: int | None = None) -> None:
        """Write to a folder from now on.

        Args:
            folder: The run's folder.
            resumed_at: Optimizer steps done in the checkpoint from which the run goes on: later rows are cut, they will come again.
        """
        self._folder, self._resumed_at, self._is_open = folder, resumed_at, True
        if resumed_at is not None:
            self._cut(resumed_at)

    @property
    def _file(self) -> Path:
        return self._folder / "metrics.csv"

    @property
    def name(self) -> str:
        """The name of the configuration."""
        return self._folder.parent.name

    @property
    def version(self) -> str:
        """The number of the run."""
        return self._folder.name

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._folder)

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's folder holds its whole configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the values of a step, at once: a run that is killed has lost none.

        Raises:
            OSError: They cannot be written.
        """
        if not self._is_open:
            return
        try:
            self._log(metrics, step or 0)
        except OSError as error:
            raise OSError(
                f"{self._file} cannot be written ({error.strerror or error}). Make room and go on with --ckpt_path last"
            ) from error

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        same = self._row.get("step") == step
        self._row = (self._row if same else {}) | {"step": step, **metrics}
        new = [name for name in self._row if name not in self._columns]
        if new or not self._file.exists():
            rows = self._rows()
            self._columns += new
            self._rewrite(rows[:-1] if same else rows)
        elif not same:
            self._row_start = self._file.stat().st_size
        self._write_row()
        if self._tensorboard:
            writer = self._events()
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the events."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _events(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # half a second, and only a run that logs needs it

            purge = None if self._resumed_at is None else self._resumed_at + 1
            self._writer = SummaryWriter(str(self._folder), purge_step=purge)
        return self._writer

    def _rows(self) -> list[dict[str, str]]:
        if not self._file.exists():
            return []
        with self._file.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @rank_zero_only
    def _cut(self, step: int) -> None:
        """Drop the rows beyond `step`, and one that a crash left half-written."""
        rows = self._rows()
        if rows:
            self._columns = [name for name in rows[0] if name]
            whole = [row for row in rows if None not in row.values() and None not in row and row["step"].isdigit()]
            kept = [row for row in whole if int(row["step"]) <= step]
            self._rewrite(kept[:-1])
            if kept:  # the present row, which more values of its step may still join
                self._row = {**kept[-1], "step": int(kept[-1]["step"])}
                self._write_row()

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Replace the file by these rows under the present columns; the next row goes behind them."""
        beside = self._file.with_name(f".{self._file.name}.tmp")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._file)
        self._row_start = self._file.stat().st_size

    def _write_row(self) -> None:
        """Put the present row at its place, over an earlier state of it."""
        with self._file.open("r+", newline="", encoding="utf-8") as file:
            file.seek(self._row_start)
            file.truncate()
            csv.DictWriter(file, self._columns, restval="").writerow({name: _text(value) for name, value in self._row.items()})


def _text(value: Any) -> str:
    """A number as text that reads back as the same number."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)
