"""fit, validate, test and predict: Lightning's command line over reslight's classes, runs and checkpoints."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from reslight.analysis import draw_measurement, save
from reslight.cli.allocator import keep_freed_blocks
from reslight.cli.errors import Parser, ParsingError, explain, raised_inside
from reslight.cli.parser import TRAINER_COMMANDS
from reslight.cli.settings import Setting, check_settings, read_command
from reslight.data import ImageDataModule
from reslight.data.image_folder.folder import IMAGENET
from reslight.messages import MissingPackageError, UsageError
from reslight.runs import config_files as recipes
from reslight.runs.callback import RunFolder
from reslight.runs.export import export
from reslight.runs.folder import Runs, run_of
from reslight.runs.logger import RunLogger
from reslight.runs.predictions import PredictionWriter
from reslight.runs.report import ending, measurement, scores, to_json
from reslight.training import AtomicCheckpointIO, Checkpoints, ImageClassifier, Progress, StopSignals
from reslight.training.resume import compare, read_checkpoint
from reslight.weights.folder import read_description
from reslight.weights.locate import locate

log = logging.getLogger(__name__)

MORE = "All settings below can be in a --config file. --print_config shows what would be used, --data.help NAME the settings of a dataset."
HELP = {
    "trainer.default_root_dir": "Where runs are kept. (default: runs)",
    "trainer.logger": "Loggers beside the run's own metrics.csv and TensorBoard events. (default: null)",
}
"""Where Lightning's own help does not describe what reslight does."""
CKPT_PATH = (
    "last or best of the newest run of this configuration, a checkpoint file, or a run's folder. Training starts from the beginning if "
    "null; the other commands take last. The configuration keeps its settings, whatever the checkpoint was trained with."
)
EXPORT = "After fit, evaluate the weights on the validation images and write them to the folder `weights` of the run."


class CLI(LightningCLI):
    """LightningCLI with runs as folders, and checkpoints that never change a configuration.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        words: The arguments for jsonargparse, see `read_command`.
        settings: The same as settings, to be checked.
        runs: Where this configuration's runs are.
        signals: Those that end the command; None leaves that to the checkpoints.
    """

    def __init__(self, command: str, words: list[str], settings: Sequence[Setting], runs: Runs, signals: StopSignals | None = None) -> None:
        self.command, self.settings, self.runs = command, settings, runs
        self.signals = signals or StopSignals()
        self.run_folder: RunFolder | None = None
        self.root_is_set = any(setting.key == "trainer.default_root_dir" and setting.file is None for setting in settings)
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            run=False,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"reslight {command}",
                "usage": f"reslight {command} --config NAME [--config OVERLAY ...] [--any.setting VALUE ...]",
                "description": f"{TRAINER_COMMANDS[command].capitalize()}. {MORE}",
            },
            trainer_defaults={"enable_model_summary": False},
            args=words,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the settings that are not Lightning's; the network's input channels and classes come from the data."""
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        # All commands have both, since they read the configuration of a run.
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=CKPT_PATH)
        parser.add_argument("--export", type=bool, default=False, help=EXPORT)
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.in_channels", "model.in_channels", apply_on="instantiate")
        for action in parser._actions:
            action.help = HELP.get(action.dest, action.help)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check the keys, then have jsonargparse parse the values.

        Raises:
            UsageError: an unknown key, or a value that its setting does not allow.
        """
        defaults = parser.get_defaults()
        asks_for_help = isinstance(args, list) and any(word in ("-h", "--help") or word.endswith(".help") for word in args)
        if not asks_for_help:
            check_settings(self.settings, list(defaults.keys()))
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]  # run() gives a list of words
        except ParsingError as error:
            raise UsageError(explain(error, self.settings, defaults)) from error
        seed = self.config.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UsageError(f"seed_everything is {seed}: it must be a whole number from 0 to {2**32 - 1}")

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint."""
        config = self.config
        if root := config.trainer.default_root_dir:
            config.trainer.default_root_dir = root = str(Path(root).expanduser())
        if root and (self.runs.number is None or self.root_is_set):  # a run's own configuration belongs to the folder of the run
            self.runs = self.runs.under(Path(root))
        self.checkpoint = self.runs.checkpoint(config.ckpt_path, resume=self.command == "fit")
        config.ckpt_path = self.checkpoint and str(self.checkpoint)
        self.init_from = config.model.init_from
        if self.init_from:
            self._begin_with_weights(config)

    def _begin_with_weights(self, settings: Any) -> None:
        """Put the network of the weights, and how it is fed, into the configuration, which stands on its own from then on."""
        if self.checkpoint:  # it has its own weights: those that it began with may be gone
            contents = read_checkpoint(self.checkpoint)
            net, weights = contents["hyper_parameters"]["net"], contents["reslight"]["data"]["preprocess"]
            settings.model.init_from = None
        else:
            record = read_description(locate(self.init_from), accept_timm=True).record
            net, weights = record.net.to_dict(), record.preprocess.to_dict()
        if settings.model.net is None:
            settings.model.net = {key: value for key, value in net.items() if key not in ("num_classes", "in_channels")}
        if "preprocess" in (data := settings.data.init_args):
            usual = asdict(IMAGENET)
            for name, value in vars(data.preprocess).items():
                if value in (usual[name], _as_list(usual[name])):  # what a person set otherwise stays
                    data.preprocess[name] = weights[name]

    def after_instantiate_classes(self) -> None:
        """Compare the checkpoint with the configuration."""
        if self.checkpoint is None:
            return
        self.config.model.init_from = self.model.hparams["init_from"] = self.init_from  # for those who ask later
        contents = read_checkpoint(self.checkpoint)
        self.step = int(contents["global_step"])
        log.info("checkpoint %s, step %d", self.checkpoint, self.step)
        for line in compare(self.checkpoint, contents, dict(self.model.hparams), resume=self.command == "fit"):
            log.warning("%s", line)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, with what every run needs beside what the configuration lists.

        Raises:
            UsageError: a setting that Lightning refuses.
        """
        config: dict[str, Any] = {**vars(self.config_init["trainer"]), **kwargs}
        if not config["barebones"]:  # Lightning's own mode for timing: nothing is logged, shown or saved
            self._add_parts(config)
        try:
            trainer = Trainer(**config)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UsageError(str(error)) from error
        if self.command != "fit" and trainer.strategy.root_device.type == "cpu":  # training gains nothing
            keep_freed_blocks()
        return trainer

    def _add_parts(self, config: dict[str, Any]) -> None:
        """Add the loggers, callbacks and plugins of every run to the Trainer's arguments."""
        checkpoints: Checkpoints = self.config_init["checkpoint"]
        loggers = [] if isinstance(config["logger"], bool) else _as_list(config["logger"])
        config["logger"] = [*loggers, RunLogger()] if self.command == "fit" else loggers
        if config["profiler"] is not None:  # its report is a log line of Lightning's
            logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
        checkpoints.signals = self.signals
        callbacks = _as_list(config["callbacks"])
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if config["enable_checkpointing"] is not False:
            callbacks.append(checkpoints)
        if config["enable_progress_bar"] is not False and not has_bar:
            callbacks.append(Progress())
        if self.command == "fit":
            self.run_folder = RunFolder(self.runs, self._write_config, self.checkpoint)
            callbacks.append(self.run_folder)
        if self.command == "predict":
            callbacks.append(PredictionWriter(self._results("predictions.csv")))
        config["callbacks"] = callbacks
        config["plugins"] = [*_as_list(config["plugins"]), AtomicCheckpointIO()]

    def run_command(self) -> None:
        """Train, evaluate or predict, and report."""
        method = getattr(self.trainer, self.command)
        options = {"validate": {"verbose": False}, "test": {"verbose": False}, "predict": {"return_predictions": False}}
        method(self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path, **options.get(self.command, {}))
        getattr(self, f"after_{self.command}")()

    def after_fit(self) -> None:
        """Say where things are and what to type next."""
        if self.run_folder is None or getattr(self.trainer, "fast_dev_run", False):
            return
        folder, config = self.run_folder.path, self.run_folder.config
        if folder is not None and self.config.export:
            self._export(folder)
        if not self.trainer.is_global_zero:
            return
        if folder is None or config is None:
            log.info("done   nothing: the run was over before its first step (trainer.max_epochs, trainer.max_steps)")
            return
        log.info("%s", "\n".join(ending(self.trainer, folder, config)))

    def _export(self, folder: Path) -> None:
        """Measure the run's last weights as `reslight validate` would, all devices together, and write them as `reslight export` would."""
        self.checkpoint, self.step = folder / "checkpoints" / "last.ckpt", self.trainer.global_step
        # a checkpoint's weights are the average already; the callback would swap them for the raw ones when it is done
        # (type: ignore: Lightning sets the list unseen by mypy)
        kept = [one for one in self.trainer.callbacks if not isinstance(one, WeightAveraging)]  # type: ignore[attr-defined]
        self.trainer.callbacks = kept  # type: ignore[attr-defined]
        if self.datamodule.has_validation:
            self.trainer.validate(self.model, self.datamodule, ckpt_path=str(self.checkpoint), weights_only=True, verbose=False)
            self.after_validate()
        if self.trainer.is_global_zero:
            log.info("%s", "\n".join(export(self.checkpoint, folder / "weights")))

    def after_validate(self) -> None:
        """Print and keep the numbers."""
        self._report("val", "validate.json")

    def after_test(self) -> None:
        """Print and keep the numbers."""
        self._report("test", "test.json")

    def after_predict(self) -> None:
        """Say where the answers are."""
        if self.trainer.is_global_zero:
            log.info("written %s", self._results("predictions.csv"))

    def _write_config(self, path: Path) -> None:
        config = self.config.clone()
        config.ckpt_path = None  # else the run's configuration would resume whenever it is used again
        self.parser.save(config, path, skip_none=False, multifile=False)

    def _results(self, name: str) -> Path:
        """A file beside the run that is measured; here for a checkpoint that lies outside a run."""
        folder = run_of(self.checkpoint) if self.checkpoint else None
        return (folder or Path()) / name

    def _report(self, split: str, name: str) -> None:
        counts, details = self.model.counts, self.model.details
        if counts is None or details is None or not self.trainer.is_global_zero:
            return
        views = self.model.described.get("test_views", "centre")
        path = self._results(name if views == "centre" else name.replace(".json", f".{views}.json"))
        report = {"checkpoint": str(self.checkpoint), "step": self.step, **measurement(split, counts, details, self.model)}
        path.write_text(to_json(report), encoding="utf-8")
        picture = path.with_suffix(".png")
        try:
            save(draw_measurement(report), picture)
        except ValueError as error:  # matplotlib is an extra
            log.info("no picture: %s", error)
            written = str(path)
        else:
            written = f"{path} and {picture.name}"
        seen = [] if views == "centre" else [f"views  {views}: probabilities averaged"]
        log.info("%s", "\n".join([*seen, *scores(split, counts, details), f"written {written}"]))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def run(arguments: list[str], *, debug: bool = False) -> None:
    """Run one of the Trainer's commands.

    Args:
        arguments: The command and its arguments as typed.
        debug: Show jsonargparse's messages whole.

    Raises:
        ValueError: The command line or a configuration does not parse.
        FileNotFoundError: A configuration or a checkpoint is not there.
    """
    command = arguments[0]
    words, settings, configs = read_command(arguments[1:])
    runs = Runs.of(configs[0], recipes.name_of(configs[0])) if configs else Runs.of(None, "custom")
    try:
        with StopSignals().listening() as signals:
            CLI(command, words, settings, runs, signals).run_command()
    except (MisconfigurationException, ImportError, ValueError) as error:
        if debug or isinstance(error, UsageError):
            raise
        if own := raised_inside(error, UsageError):
            raise UsageError(str(own)) from error
        if missing := raised_inside(error, ImportError):
            raise MissingPackageError(f"{_one_line(missing)}. Install the package, or remove the setting that needs it") from error
        if isinstance(error, MisconfigurationException) or _raised_by_lightning(error):
            raise UsageError(_one_line(error)) from error
        raise


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether an error comes from Lightning's own checks of its settings, such as trainer.val_check_interval above an epoch's batches."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("lightning.")


def _one_line(error: BaseException, most: int = 300) -> str:
    text = " ".join(str(error).split()).removesuffix(".")
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + " ..."
