"""Outputs of fit, validate, test and predict: what they print and save when they end."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging

from reslight.analysis import draw_evaluation, save
from reslight.data import ImageDataModule
from reslight.lightning_private import remove_callbacks
from reslight.messages import MissingPackageError, visible
from reslight.runs.callback import RunFolder
from reslight.runs.eval_results import evaluation_report, save_report, score_lines
from reslight.runs.export import export
from reslight.runs.folder import REPORTS, Run
from reslight.runs.logger import RunLogger
from reslight.runs.report import end_lines
from reslight.runs.stopped import stopped_by
from reslight.training import ImageClassifier

log = logging.getLogger(__name__)


def output_file(checkpoint: Path | None, name: str) -> Path:
    """Return the path of a file in the folder of a checkpoint's run; in the current folder for a checkpoint outside of a run."""
    run = Run.of_checkpoint(checkpoint) if checkpoint else None
    return (run.folder if run else Path()) / name


def finish_fit(trainer: Trainer, model: ImageClassifier, datamodule: ImageDataModule, run_folder: RunFolder, *, export: bool) -> None:
    """Print where the results of a training are and which command comes next.

    Args:
        trainer: The trainer, at the end of `fit`.
        model: Its model.
        datamodule: Its data.
        run_folder: The callback that saved the run.
        export: Evaluate and export the weights first.
    """
    run, config = run_folder.run, run_folder.config
    if run is not None and export:
        _export(trainer, model, datamodule, run)
    if not trainer.is_global_zero:
        return
    if run is None or config is None:
        reached = stopped_by(trainer) or "trainer.max_epochs or trainer.max_steps"
        log.info("done   nothing: training has reached %s", reached)
        return
    log.info("%s", "\n".join(end_lines(trainer, run, config)))


def _export(trainer: Trainer, model: ImageClassifier, datamodule: ImageDataModule, run: Run) -> None:
    """Evaluate the run's last weights as `reslight validate` does, on all devices, and write them as `reslight export` does."""
    checkpoint, step = run.checkpoint(), trainer.global_step
    # A checkpoint's weights are the average already; the callback would replace them with the raw ones at the end.
    remove_callbacks(trainer, (WeightAveraging,))
    # What training has logged is more precise than what Lightning would log now.
    trainer.loggers = [logger for logger in trainer.loggers if not isinstance(logger, RunLogger)]
    if datamodule.has_validation:
        logged = trainer.validate(model, datamodule, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
        report_evaluation(model, "val", checkpoint, step, logged)
    if trainer.is_global_zero:
        log.info("%s", "\n".join(export(checkpoint, run.weights)))


def report_evaluation(model: ImageClassifier, split: str, checkpoint: Path, step: int, logged: Sequence[Mapping[str, float]] = ()) -> None:
    """Print the results of an evaluation, and save them as JSON and as a figure.

    Args:
        model: The model that was evaluated.
        split: `val` or `test`.
        checkpoint: The checkpoint that was evaluated.
        step: Its optimizer steps.
        logged: What Lightning's `validate` or `test` returned: reslight's metrics, and the values that callbacks logged.
    """
    counts, details = model.counts, model.details
    if counts is None or details is None or not model.trainer.is_global_zero:
        return
    views, info = model.data_info.get("test_views", "center"), model.data_info
    # The run's own result, which a model card has, is of the images of its data.
    parts = [*([info["name"]] if "root" in info else []), *([views] if views != "center" else []), "json"]
    path = output_file(checkpoint, REPORTS[split].replace("json", ".".join(parts)))
    report = {"checkpoint": str(checkpoint), "step": step, **evaluation_report(split, counts, details, model)}
    others = {name: value for values in logged for name, value in values.items() if name not in report["metrics"]}
    report["metrics"] |= others
    save_report(report, path)
    figure = path.with_suffix(".png")
    try:
        save(draw_evaluation(report), figure)
    except MissingPackageError as error:
        log.info("no figure: %s", error)
        written = str(path)
    except Exception as error:  # the numbers are saved, and what follows must not be lost for a figure
        log.warning("no figure: %s: %s", type(error).__name__, visible(error))
        written = str(path)
    else:
        written = f"{path} and {figure.name}"
    lines = [] if views == "center" else [f"views  {views}, their probabilities averaged"]
    lines += [*score_lines(split, counts, details), *(f"{name} {value:.6g}" for name, value in others.items())]
    log.info("%s", "\n".join([*lines, f"written {written}"]))
