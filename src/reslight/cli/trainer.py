"""fit, validate, test and predict: Lightning's command line over reslight's classes, runs and checkpoints."""

import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from reslight.cli.allocator import keep_freed_blocks
from reslight.cli.blame import origin
from reslight.cli.class_names import complete_classes
from reslight.cli.command_line import Setting, read_command
from reslight.cli.errors import Parser, ParsingError, explain, one_line, raise_in_one_line, raised_by
from reslight.cli.limits import check_checkpointing, check_monitors, check_strategy, check_trainer, environment_warning
from reslight.cli.loggers import Loggers
from reslight.cli.net import begin_with_weights, check_net_of_run, check_net_values
from reslight.cli.other_images import use_other_images
from reslight.cli.outputs import finish_fit, output_file, report_evaluation
from reslight.cli.parser import TRAINER_COMMANDS
from reslight.cli.refusals import Refusals
from reslight.cli.resume import changes_of_length, check_epochs, data_root_of
from reslight.cli.saved_config import save_config
from reslight.cli.settings import check_classes_to_help_with, check_settings
from reslight.data import ImageDataModule
from reslight.lightning_private import callbacks_of, is_from_restoring, order_number_types
from reslight.messages import UsageError, as_sentence
from reslight.runs import config_files
from reslight.runs.callback import RunFolder
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.logger import RunLogger
from reslight.runs.predictions import PredictionWriter
from reslight.runs.trackers import remember_ids
from reslight.training import AtomicCheckpointIO, Checkpoints, ImageClassifier, Progress, StopSignals
from reslight.training.checkpoint_file import check_fit, read_checkpoint
from reslight.training.gpu import MatmulPrecision, set_up_gpu
from reslight.training.resume import check_classes, check_resumable
from reslight.training.threads import Threads

log = logging.getLogger(__name__)

MORE = "All settings below can be in a --config file. --print_config shows what would be used, --data.help NAME the settings of a dataset."
HELP = {
    "seed_everything": "Seed of everything random: a whole number, or true for a random one. (default: 1)",
    "trainer.default_root_dir": "Where runs are kept. (default: runs)",
    "trainer.logger": "Loggers beside the run's own metrics.csv and TensorBoard events. (default: null)",
}
"""Where Lightning's own help does not describe what reslight does."""
CKPT_PATH = (
    "last or best of the newest run of this configuration, a checkpoint file, or a run's folder. Training starts from the beginning if "
    "null; the other commands take last. The configuration keeps its settings, whatever the checkpoint was trained with."
)
THREADS = (
    "Threads of torch on the CPU. Null: OMP_NUM_THREADS; or as in the checkpoint that training resumes from; or all cores that this "
    "process may use, and fewer where a small network is trained faster with fewer. docs/results/performance.md says how they are compared."
)
MATMUL_PRECISION = (
    "Precision of matrix products of float32 on a GPU, as in torch.set_float32_matmul_precision. high computes in TF32, as cuDNN's "
    "convolutions do by torch's default."
)
EXPORT = "After fit, evaluate the weights on the validation images and write them to the folder `weights` of the run."


class CLI(LightningCLI):
    """LightningCLI with runs as folders, and checkpoints that never change a configuration.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        words: The arguments for jsonargparse, see `read_command`.
        settings: The same as settings, to be checked.
        config: The configuration file that names the run; None without one.
        signals: Those that end the command; None leaves that to the checkpoints.
    """

    def __init__(
        self, command: str, words: list[str], settings: Sequence[Setting], config: Path | None, signals: StopSignals | None = None
    ) -> None:
        self.command, self.words, self.settings, self.first_config = command, words, settings, config
        self.signals = signals or StopSignals()
        self.run_folder: RunFolder | None = None
        self.checkpoint_io = AtomicCheckpointIO()
        # The text under a setting's field is its help. To read it takes half of the parsing time, so only help does.
        self.asks_for_help = any(_asks_for_help(word) for word in words)
        order_number_types()
        set_parsing_settings(docstring_parse_attribute_docstrings=self.asks_for_help)
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
        """Add the settings that are not Lightning's; the network's channels and classes, and the kind of labels, come from the data."""
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        # All commands have both, since they read the configuration of a run.
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=CKPT_PATH)
        parser.add_argument("--export", type=bool, default=False, help=EXPORT)
        parser.add_argument("--float32_matmul_precision", type=MatmulPrecision, default="high", help=MATMUL_PRECISION)
        parser.add_argument("--threads", type=int | None, default=None, help=THREADS)
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.in_channels", "model.in_channels", apply_on="instantiate")
        parser.link_arguments("data.multi_label", "model.multi_label", apply_on="instantiate")
        for action in parser._actions:
            action.help = HELP.get(action.dest, action.help)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check the keys, then have jsonargparse parse the values.

        Raises:
            UsageError: an unknown key, or a value that its setting does not allow.
        """
        defaults = parser.get_defaults()
        if self.asks_for_help:
            check_classes_to_help_with(self.words)
        else:
            only_prints = any(word.startswith("--print_config") for word in self.words)
            check_settings(self.settings, list(defaults.keys()), complete=not only_prints)
        try:
            self.config = parser.parse_args(self.words)
        except ParsingError as error:
            raise UsageError(explain(error, self.settings, defaults)) from error
        seed = self.config.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UsageError(f"seed_everything is {seed}: it must be a whole number from 0 to {2**32 - 1}.")

    def before_instantiate_classes(self) -> None:
        """Find the runs of this configuration and network, and the checkpoint."""
        config = self.config
        check_trainer(vars(config.trainer), self.command)
        if config.export and config.trainer.enable_checkpointing is False and self.command == "fit":
            raise UsageError("trainer.enable_checkpointing is false: --export needs the run's checkpoint. Leave one of them out.")
        if config.model.net is not None:
            check_net_values(config.model.net)
        if root := config.trainer.default_root_dir:
            config.trainer.default_root_dir = root = str(Path(root).expanduser())
        is_of_run = self.first_config and Run.of_config(self.first_config)  # which may have been moved since it was saved
        chosen_root = Path(root) if root and (self._is_typed("trainer.default_root_dir") or not is_of_run) else None
        name = config_files.run_name(self.first_config, config.model.net)
        self.runs = RunDirectory.for_config(self.first_config, name, chosen_root)
        if is_of_run and self.command != "fit" and config.ckpt_path in (None, "last", "best"):
            check_net_of_run(config.model.net, is_of_run)
        self.checkpoint = self.runs.checkpoint(config.ckpt_path, resume=self.command == "fit")
        config.ckpt_path = self.checkpoint and str(self.checkpoint)
        run = Run.of_checkpoint(self.checkpoint) if self.checkpoint else None
        self.loggers = Loggers(config.trainer, run)
        self.init_from = config.model.init_from
        if self.init_from:
            begin_with_weights(config, self.contents)
        if self.command != "fit" and self.checkpoint and self.contents:
            use_other_images(config, self.command, self.checkpoint, self.contents, has_typed_labels=self._is_typed("data.labels"))

    def _is_typed(self, key: str) -> bool:
        """Return whether a setting was typed, rather than read from a file."""
        return any(setting.key == key and setting.file is None for setting in self.settings)

    @cached_property
    def contents(self) -> dict[str, Any] | None:
        """What is in the checkpoint, read once: a running fit may replace the file at any time. None without a checkpoint."""
        return read_checkpoint(self.checkpoint) if self.checkpoint else None

    def after_instantiate_classes(self) -> None:
        """Check what callbacks monitor, and compare the checkpoint with the configuration."""
        trainer = self.config.trainer
        if self.command == "fit":
            validates = self.datamodule.has_validation and trainer.limit_val_batches != 0
            kind: dict[str, Any] = {"classes": self.datamodule.num_classes, "multi_label": self.datamodule.multi_label}
            check_monitors(callbacks_of(self.trainer), **kind, validates=validates)
        contents = self.contents
        if self.checkpoint is None or contents is None:
            return
        self.config.model.init_from = self.model.hparams["init_from"] = self.init_from  # the resumed run records it, too
        if self.command != "fit":  # which reads the file once more when it has locked the run
            self.checkpoint_io.provide(self.checkpoint, contents)
        self.step = int(contents["global_step"])
        log.info("checkpoint %s, step %d", self.checkpoint, self.step)
        self.threads.resumed = contents.get("reslight", {}).get("environment", {})
        check_classes(contents, self.datamodule.data_info(), getattr(self.datamodule, "root", None), data_root_of(self.checkpoint))
        # The classifier checks this, too, but only when the data are prepared.
        check_resumable(self.checkpoint, contents, self.model.hparams, resume=self.command == "fit")
        if self.model.strict_loading:
            # A subclass may make further modules later, in configure_model.
            net = {name: value for name, value in contents["state_dict"].items() if str(name).startswith("net.")}
            check_fit(self.checkpoint, net, self.model.net.state_dict(prefix="net."))
        if self.command == "fit":
            check_epochs(self.checkpoint, contents, trainer.max_epochs)
            for line in changes_of_length(self.checkpoint, vars(trainer)) if self.model.schedule.name == "cosine" else ():
                log.warning("%s", line)

    def instantiate_classes(self) -> None:
        """Make all classes of the configuration, the Trainer and the model.

        Raises:
            UsageError: a class that refuses its settings, or one of reslight's own.
        """
        refusals = Refusals(self.parser)
        try:
            super().instantiate_classes()
        except Exception:
            refusals.raise_first()
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, with what every run needs beside what the configuration lists.

        Raises:
            UsageError: a setting that Lightning refuses.
        """
        config: dict[str, Any] = {**vars(self.config_init["trainer"]), **kwargs}
        self.threads = Threads(self.config_init["threads"])
        config["callbacks"] = [*_as_list(config["callbacks"]), self.threads]
        check_checkpointing(config["callbacks"], enabled=config["enable_checkpointing"] is not False)
        if not config["barebones"]:  # Lightning's own mode for timing: nothing is logged, shown or saved
            self._add_parts(config)
        try:
            trainer = Trainer(**config)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UsageError(one_line(error)) from error
        check_strategy(trainer.strategy, sync_batchnorm=config["sync_batchnorm"])
        may_measure = self.command == "fit" and config["benchmark"] is None and not config["deterministic"]
        set_up_gpu(trainer.strategy.root_device, self.config_init["float32_matmul_precision"], has_fixed_sizes=may_measure)
        if self.command != "fit" and trainer.strategy.root_device.type == "cpu":  # training gains nothing
            keep_freed_blocks()
        return trainer

    def _add_parts(self, config: dict[str, Any]) -> None:
        """Add the loggers, callbacks and plugins of every run to the Trainer's arguments."""
        checkpoints: Checkpoints = self.config_init["checkpoint"]
        loggers = [] if isinstance(config["logger"], bool) else _as_list(config["logger"])
        config["enable_autolog_hparams"] = False  # RunFolder logs all settings once, not only the model's
        if self.command == "fit":
            config["logger"] = [*loggers, RunLogger()]
        else:
            config["logger"] = [*loggers, *self.loggers.make(output_file(self.checkpoint, ""))]
        if config["profiler"] is not None or any(isinstance(one, ModelSummary) for one in _as_list(config["callbacks"])):
            # What they print are log lines of Lightning.
            logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
        checkpoints.signals = self.signals
        callbacks = _as_list(config["callbacks"])
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if config["enable_checkpointing"] is not False:
            callbacks.append(checkpoints)
        if config["enable_progress_bar"] is not False and not has_bar:
            callbacks.append(Progress())
        if self.command == "fit":
            self.run_folder = RunFolder(self.runs, self._write_config, self.checkpoint, self.loggers.make)
            callbacks.append(self.run_folder)
        if self.command == "predict":
            callbacks.append(PredictionWriter(output_file(self.checkpoint, "predictions.csv")))
        config["callbacks"] = callbacks
        config["plugins"] = [*_as_list(config["plugins"]), self.checkpoint_io]

    def run_command(self) -> None:
        """Train, evaluate or predict, and report."""
        method = getattr(self.trainer, self.command)
        options = {"validate": {"verbose": False}, "test": {"verbose": False}, "predict": {"return_predictions": False}}
        try:
            returned = method(self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path, **options.get(self.command, {}))
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            is_other = isinstance(error, UsageError) or (isinstance(error, RuntimeError) and "state_dict" not in str(error))
            if is_other or not is_from_restoring(error) or origin(error):
                raise
            damage = f"{type(error).__name__}: {as_sentence(one_line(error))}"
            raise UsageError(f"{self.checkpoint} cannot be restored: {damage} Choose another checkpoint.") from error
        if self.command == "fit":
            if self.run_folder and not getattr(self.trainer, "fast_dev_run", False):
                finish_fit(self.trainer, self.model, self.datamodule, self.run_folder, export=self.config.export)
        elif self.checkpoint and self.command in ("validate", "test"):
            if (run := Run.of_checkpoint(self.checkpoint)) and self.trainer.is_global_zero:
                remember_ids(self.trainer.loggers, run)
            report_evaluation(self.model, "test" if self.command == "test" else "val", self.checkpoint, self.step, returned)
        elif self.trainer.is_global_zero:
            log.info("written %s", output_file(self.checkpoint, "predictions.csv"))

    def _write_config(self, path: Path) -> None:
        config = self.config.clone()
        config.trainer.logger = self.loggers.configured  # without the ids of the tracker runs
        config.ckpt_path = None  # else the run's configuration would resume each time it is used
        # A LearningRateFinder or BatchSizeFinder may have changed these.
        config.model.optim.lr, config.model.optim.sgd_lr = self.model.optim.lr, self.model.optim.sgd_lr
        if "batch_size" in (config.data.get("init_args") or {}):
            config.data.init_args.batch_size = self.datamodule.batch_size
        save_config(self.parser, config, path)


def _asks_for_help(word: str) -> bool:
    option, _, value = word.partition("=")
    return option in ("-h", "--help") or option.endswith(".help") or (option == "--print_config" and "comments" in value)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def run(arguments: list[str]) -> Trainer:
    """Run one of the Trainer's commands; return its Trainer.

    Args:
        arguments: The command and its arguments as typed.

    Raises:
        UsageError: a command line or a configuration that does not parse, or a setting that Lightning refuses.
        FileNotFoundError: a configuration or a checkpoint that is missing.
    """
    command = arguments[0]
    if warning := environment_warning(os.environ):
        log.warning("%s", warning)
    words, settings, configs = read_command(arguments[1:])
    words, settings = complete_classes(words, settings)
    try:
        with StopSignals().listening() as signals:
            cli = CLI(command, words, settings, config_files.naming_file(configs), signals)
            cli.run_command()
            return cli.trainer
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise_in_one_line(error)
    except RuntimeError as error:
        if not raised_by(error, "lightning.pytorch.callbacks."):  # such as a metric to stop on that the user's own module does not log
            raise
        raise UsageError(one_line(error)) from error
