"""Write metrics.csv and TensorBoard events of a run; a resumed run continues both."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from reslight.runs.folder import Run
from reslight.runs.metrics_table import MetricsTable

HPARAMS_METRICS = ("val/acc1", "val/loss", "train/acc1", "train/loss")
"""Metrics in TensorBoard's table of hyper-parameters; it shows the last value of each."""


class RunLogger(Logger):
    """Writes one row a step to metrics.csv, and the same values as TensorBoard scalars.

    `step` counts optimizer steps done, `epoch` counts from 1. A row is written when it is complete, see `MetricsTable`, and before each
    checkpoint, when RunFolder calls `flush`. A Trainer needs its loggers before the run has a folder: values that are logged before
    `open` are dropped.

    Args:
        tensorboard: Write TensorBoard events, too.
    """

    def __init__(self, tensorboard: bool = True) -> None:
        super().__init__()
        self._run = Run(Path())
        self._table: MetricsTable | None = None
        self._first_step: int | None = None  # that a resumed run logs
        self._tensorboard = tensorboard
        self._writer: Any = None

    def open(self, run: Run, resumed_at: int | None = None, row: Mapping[str, str] | None = None) -> None:
        """Write to the folder of a run from now on.

        Args:
            run: The run.
            resumed_at: Optimizer steps done in the checkpoint that training resumes from. Later rows are removed: these steps are
                trained again.
            row: What replaces the row of `resumed_at`, see `row_of`; None to keep that row.
        """
        self._run, self._table = run, MetricsTable(run.metrics)
        self._first_step = None if resumed_at is None else resumed_at + (row is None)
        if resumed_at is not None:
            self._cut(resumed_at, row)

    def row_of(self, step: int) -> dict[str, str]:
        """Return the values of a step so far, as text; none if another step is the last one."""
        return self._table.row_of(step) if self._table else {}

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
        if self._table is None or not self._tensorboard:
            return
        from torch.utils.tensorboard.summary import hparams  # takes half a second to import

        items = (vars(params) if isinstance(params, Namespace) else params).items()
        settings = {name: value if isinstance(value, int | float | str) else str(value) for name, value in items}
        parts: Any = hparams(settings, dict.fromkeys(HPARAMS_METRICS, 0.0))  # type: ignore[no-untyped-call]  # of torch
        for part in parts:
            self._events().file_writer.add_summary(part)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take the values of a step.

        Raises:
            OSError: metrics.csv cannot be written.
        """
        if self._table is None:
            return
        with self._explained():
            step = self._table.add(metrics, step or 0)
        self._add_scalars(metrics, step)

    def _add_scalars(self, metrics: Mapping[str, float], step: int) -> None:
        if self._tensorboard:
            writer = self._events()
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

    @rank_zero_only
    def flush(self) -> None:
        """Wait until all values so far are on the disk: a checkpoint must never be ahead of its metrics.

        Raises:
            OSError: metrics.csv cannot be written.
        """
        if self._table is not None:
            with self._explained():
                self._table.flush()
        if self._writer is not None:
            self._writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last row, and close the file of TensorBoard events.

        Raises:
            OSError: metrics.csv cannot be written, though training succeeded; a failure has its own error.
        """
        with suppress(*() if status == "success" else (OSError,)):
            self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @rank_zero_only
    def _cut(self, step: int, row: Mapping[str, str] | None) -> None:
        if self._table is None:
            return
        with self._explained():
            self._table.cut(step if row is None else step - 1)
            if row:
                self._table.add(row, step)
        for name, value in (row or {}).items():
            with suppress(ValueError):  # TensorBoard's scalars are numbers
                self._add_scalars({name: float(value)}, step)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Make an error of the file a sentence with what to do."""
        try:
            yield
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # what write_files makes a sentence of
            reason = cause.strerror or cause
            fix = "resume with --ckpt_path last" if self._run.checkpoint().is_file() else "train again: there is no checkpoint yet"
            raise OSError(f"{self._run.metrics} cannot be written: {reason}. Make room and {fix}.") from error

    def _events(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes half a second to import

            self._writer = SummaryWriter(str(self._run.folder), purge_step=self._first_step)
        return self._writer
