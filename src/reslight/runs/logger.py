"""Write metrics.csv and TensorBoard events of a run; a resumed run continues both."""

import csv
import io
import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from reslight.atomic import write_files
from reslight.runs.folder import Run

FIRST_COLUMNS = ["epoch", "step"]
HPARAMS_METRICS = ("val/acc1", "val/loss", "train/acc1", "train/loss")
"""Metrics in TensorBoard's table of hyper-parameters; it shows the last value of each."""


class RunLogger(Logger):
    """Writes one row a step to metrics.csv, and the same values as TensorBoard scalars.

    `step` counts optimizer steps done, `epoch` counts from 1. Values of one step share a row; a column without a value at that step is
    empty. A Trainer needs its loggers before the run has a folder: values that are logged before `open` are dropped.

    Args:
        tensorboard: Write TensorBoard events, too.
    """

    def __init__(self, tensorboard: bool = True) -> None:
        super().__init__()
        self._run = Run(Path())
        self._columns = list(FIRST_COLUMNS)
        self._row: dict[str, Any] = {}
        self._row_start = 0
        self._is_open = False
        self._resumed_at: int | None = None
        self._tensorboard = tensorboard
        self._writer: Any = None

    def open(self, run: Run, resumed_at: int | None = None) -> None:
        """Write to the folder of a run from now on.

        Args:
            run: The run.
            resumed_at: Optimizer steps done in the checkpoint that training resumes from. Later rows are removed: these steps are
                trained again.
        """
        self._run, self._resumed_at, self._is_open = run, resumed_at, True
        if resumed_at is not None:
            self._cut(resumed_at)

    @property
    def name(self) -> str:
        """The name of the configuration."""
        return self._run.folder.parent.name

    @property
    def version(self) -> str:
        """The number of the run."""
        return self._run.folder.name

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._run.folder)

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._run.folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write the settings for TensorBoard, which shows them beside the last metrics; the configuration has them as a file."""
        if not (self._is_open and self._tensorboard):
            return
        from torch.utils.tensorboard.summary import hparams  # takes half a second to import

        items = (vars(params) if isinstance(params, Namespace) else params).items()
        settings = {name: value if isinstance(value, int | float | str) else str(value) for name, value in items}
        parts: Any = hparams(settings, dict.fromkeys(HPARAMS_METRICS, 0.0))  # type: ignore[no-untyped-call]  # of torch
        for part in parts:
            self._events().file_writer.add_summary(part)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the values of a step at once, so that a run that is killed loses none.

        Raises:
            OSError: metrics.csv cannot be written.
        """
        if not self._is_open:
            return
        try:
            self._log(metrics, step or 0)
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # what write_files makes a sentence of
            reason = cause.strerror or cause
            fix = "resume with --ckpt_path last" if self._run.checkpoint().is_file() else "train again: there is no checkpoint yet"
            raise OSError(f"{self._run.metrics} cannot be written: {reason}. Make room and {fix}.") from error

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        step = max(step, self._row.get("step", 0))  # a callback may log with a smaller number of its own: rows rise
        same = self._row.get("step") == step
        self._row = (self._row if same else {}) | {"step": step, **metrics}
        new = [name for name in self._row if name not in self._columns]
        if new or not self._run.metrics.exists():
            rows = self._rows()
            self._columns += new
            self._rewrite(rows[:-1] if same else rows)
        elif not same:
            self._row_start = self._run.metrics.stat().st_size
        self._write_row()
        if self._tensorboard:
            writer = self._events()
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file of TensorBoard events."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _events(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes half a second to import

            purge = None if self._resumed_at is None else self._resumed_at + 1
            self._writer = SummaryWriter(str(self._run.folder), purge_step=purge)
        return self._writer

    def _rows(self) -> list[dict[str, str]]:
        if not self._run.metrics.exists():
            return []
        with self._run.metrics.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @rank_zero_only
    def _cut(self, step: int) -> None:
        """Remove the rows after `step`, and a row that a crash left incomplete."""
        rows = self._rows()
        if rows:
            self._columns = [name for name in rows[0] if name]
            whole = [row for row in rows if None not in row.values() and None not in row and row["step"].isdigit()]
            kept = [row for row in whole if int(row["step"]) <= step]
            self._rewrite(kept[:-1])
            if kept:  # more values of this step may follow
                self._row = {**kept[-1], "step": int(kept[-1]["step"])}
                self._write_row()

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Replace the file by these rows under the current columns; the next row is appended."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
        write_files({self._run.metrics: content})
        self._row_start = len(content)

    def _write_row(self) -> None:
        """Write the current row over its earlier state."""
        with self._run.metrics.open("r+", newline="", encoding="utf-8") as file:
            file.seek(self._row_start)
            file.truncate()
            csv.DictWriter(file, self._columns, restval="").writerow({name: _text(value) for name, value in self._row.items()})


def _text(value: Any) -> str:
    """Return a number as text that reads back as the same number."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)
