"""fit, validate, test and predict: Lightning's command line over reslight's classes, runs and checkpoints."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from reslight.analysis import draw_evaluation, save
from reslight.cli.allocator import keep_freed_blocks
from reslight.cli.errors import Parser, ParsingError, explain
from reslight.cli.parser import TRAINER_COMMANDS
from reslight.data import ImageDataModule
from reslight.data.image_folder.folder import IMAGENET
from reslight.messages import UsageError
from reslight.models import resolve_config
from reslight.runs import config_files as recipes
from reslight.runs.callback import RunFolder
from reslight.runs.eval_results import REPORTS, evaluation_report, score_lines, to_json
from reslight.runs.export import export
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.logger import RunLogger
from reslight.runs.predictions import PredictionWriter
from reslight.runs.report import end_lines
from reslight.training import AtomicCheckpointIO, Checkpoints, ImageClassifier, Progress, StopSignals
from reslight.training.resume import compare, read_checkpoint
from reslight.weights.folder import read_description
from reslight.weights.locate import locate

log = logging.getLogger(__name__)

MORE = "All settings below can stand in a --config file. --print_config shows what would be used, --data.help Digits a data set's."
HELP = {
    "ckpt_path": "last or best of the newest run of this configuration, a checkpoint file, or a run's folder. "
    "Training begins anew if null; the other commands take last. "
    "The configuration stays what it says, whatever the checkpoint was trained with.",
    "trainer.default_root_dir": "Where runs are kept. (default: runs)",
    "trainer.logger": "Loggers beside the run's own metrics.csv and TensorBoard events. (default: null)",
}
"""Where Lightning's own help would say something else than what happens here."""
EXPORT = "When fit is done, measure the weights on the validation images and write them as a folder, `weights` in the run's."


class CLI(LightningCLI):
    """LightningCLI with runs as folders, and checkpoints that never change a configuration.

    Args:
        args: The command and its arguments; configuration files as existing paths.
        config: The first configuration file, which names the run; None without one.
        purpose: What the command is for.
        signals: Those that end the command; None leaves that to the checkpoints.
    """

    def __init__(self, args: list[str], config: Path | None, purpose: str, signals: StopSignals | None = None) -> None:
        self.command = args[0]
        self.signals = signals or StopSignals()
        self.run_folder: RunFolder | None = None
        self.root_was_typed = any(word.startswith("--trainer.default_root_dir") for word in args)
        self.first_config = config
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=Parser,
            parser_kwargs={self.command: {"description": f"{purpose.capitalize()}. {MORE}"}},
            trainer_defaults={"enable_model_summary": False},
            args=args,
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.usage = f"reslight {subcommand} --config NAME [--config OVERLAY ...] [--any.setting VALUE ...]"
        for action in parser._actions:
            action.help = HELP.get(action.dest, action.help)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints as a group of settings of their own; the network's two ends come from the data."""
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_argument("--export", type=bool, default=False, help=EXPORT)  # for all, as they read a run's own configuration
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.in_channels", "model.in_channels", apply_on="instantiate")

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """The one that was typed: to describe the settings of all four would take three times as long."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse what the person typed, configurations already found."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # run() gives a list of words

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's: there the checkpoint's settings win over the person's."""

    def _set_seed(self) -> None:
        seed = self.config[self.subcommand].seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UsageError(f"seed_everything is {seed}; it must be a whole number from 0 to {2**32 - 1}")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Find the runs of this configuration and network, and the checkpoint."""
        settings = self.config[self.subcommand]
        if name := recipes.net_name(settings.model.net):
            resolve_config(name)  # an unknown network is reported as such, not as runs that do not exist
        self.runs = RunDirectory.for_config(self.first_config, recipes.run_name(self.first_config, settings.model.net))
        root = settings.trainer.default_root_dir
        if root and (self.runs.number is None or self.root_was_typed):  # a run's own configuration lies where its run is
            self.runs = self.runs.relocate(Path(root))
        self.checkpoint = self.runs.checkpoint(settings.ckpt_path, resume=self.subcommand == "fit")
        settings.ckpt_path = self.checkpoint and str(self.checkpoint)
        self.init_from = settings.model.init_from
        if self.init_from:
            self._begin_with_weights(settings)

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
        self.config[self.subcommand].model.init_from = self.model.hparams["init_from"] = self.init_from  # for those who ask later
        contents = read_checkpoint(self.checkpoint)
        self.step = int(contents["global_step"])
        log.info("checkpoint %s, step %d", self.checkpoint, self.step)
        for line in compare(self.checkpoint, contents, dict(self.model.hparams), resume=self.subcommand == "fit"):
            log.warning("%s", line)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add what every run needs to what the configuration lists."""
        if config["barebones"]:  # Lightning's own mode for timing: nothing is logged, shown or kept
            return super()._instantiate_trainer(config, [])
        loggers = [] if isinstance(config["logger"], bool) else _as_list(config["logger"])
        config["logger"] = [*loggers, RunLogger()] if self.subcommand == "fit" else loggers
        if config["profiler"] is not None:  # its report is a log line of Lightning's
            logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
        if config["enable_checkpointing"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoints)]
        for callback in callbacks:
            if isinstance(callback, Checkpoints):
                callback.signals = self.signals
        theirs = _as_list(config["callbacks"])
        if config["enable_progress_bar"] is not False and not any(isinstance(callback, ProgressBar) for callback in theirs):
            callbacks.append(Progress())
        if self.subcommand == "fit":
            self.run_folder = RunFolder(self.runs, self._write_config, self.checkpoint)
            callbacks.append(self.run_folder)
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter(self._results("predictions.csv")))
        config["plugins"] = [*_as_list(config["plugins"]), AtomicCheckpointIO()]
        try:
            trainer = super()._instantiate_trainer(config, callbacks)
        except (ValueError, TypeError) as error:  # a setting that Lightning refuses is the person's
            raise UsageError(str(error)) from error
        if self.subcommand != "fit" and trainer.strategy.root_device.type == "cpu":  # training gains nothing
            keep_freed_blocks()
        return trainer

    def after_fit(self) -> None:
        """Say where things are and what to type next."""
        if self.run_folder is None or getattr(self.trainer, "fast_dev_run", False):
            return
        run, config = self.run_folder.run, self.run_folder.config
        if run is not None and self.config[self.subcommand].export:
            self._export(run)
        if not self.trainer.is_global_zero:
            return
        if run is None or config is None:
            log.info("done   nothing: the run was over before its first step (trainer.max_epochs, trainer.max_steps)")
            return
        log.info("%s", "\n".join(end_lines(self.trainer, run, config)))

    def _export(self, run: Run) -> None:
        """Measure the run's last weights as `reslight validate` would, all devices together, and write them as `reslight export` would."""
        self.checkpoint, self.step = run.checkpoint(), self.trainer.global_step
        # a checkpoint's weights are the average already; the callback would swap them for the raw ones when it is done
        # (type: ignore: Lightning sets the list unseen by mypy)
        kept = [one for one in self.trainer.callbacks if not isinstance(one, WeightAveraging)]  # type: ignore[attr-defined]
        self.trainer.callbacks = kept  # type: ignore[attr-defined]
        if self.datamodule.has_validation:
            self.trainer.validate(self.model, self.datamodule, ckpt_path=str(self.checkpoint), weights_only=True, verbose=False)
            self.after_validate()
        if self.trainer.is_global_zero:
            log.info("%s", "\n".join(export(self.checkpoint, run.weights)))

    def after_validate(self) -> None:
        """Print and keep the numbers."""
        self._report("val")

    def after_test(self) -> None:
        """Print and keep the numbers."""
        self._report("test")

    def after_predict(self) -> None:
        """Say where the answers are."""
        if self.trainer.is_global_zero:
            log.info("written %s", self._results("predictions.csv"))

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand in ("validate", "test"):
            kwargs["verbose"] = False  # the numbers are reported with their counts
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return kwargs

    def _write_config(self, path: Path) -> None:
        config = self.config[self.subcommand].clone()
        config.ckpt_path = None  # else the run's configuration would resume whenever it is used again
        self._parser(self.subcommand).save(config, path, skip_none=False, multifile=False)

    def _results(self, name: str) -> Path:
        """A file beside the run that is measured; here for a checkpoint that lies outside a run."""
        run = Run.of_checkpoint(self.checkpoint) if self.checkpoint else None
        return (run.folder if run else Path()) / name

    def _report(self, split: str) -> None:
        counts, details = self.model.counts, self.model.details
        if counts is None or details is None or not self.trainer.is_global_zero:
            return
        views = self.model.described.get("test_views", "center")
        path = self._results(REPORTS[split] if views == "center" else REPORTS[split].replace(".json", f".{views}.json"))
        report = {"checkpoint": str(self.checkpoint), "step": self.step, **evaluation_report(split, counts, details, self.model)}
        path.write_text(to_json(report), encoding="utf-8")
        picture = path.with_suffix(".png")
        try:
            save(draw_evaluation(report), picture)
        except ValueError as error:  # matplotlib is an extra
            log.info("no picture: %s", error)
            written = str(path)
        else:
            written = f"{path} and {picture.name}"
        seen = [] if views == "center" else [f"views  {views}: probabilities averaged"]
        log.info("%s", "\n".join([*seen, *score_lines(split, counts, details), f"written {written}"]))


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
    arguments, configs = recipes.find_all(arguments)
    for path in configs:
        recipes.read(path)
    try:
        with StopSignals().listening() as signals:
            CLI(arguments, configs[0] if configs else None, TRAINER_COMMANDS[arguments[0]], signals)
    except ParsingError as error:
        raise UsageError(str(error) if debug else explain(str(error), configs)) from error
    except ValueError as error:
        if "Does not validate" not in str(error):
            raise
        raise UsageError(explain(str(error), configs)) from error  # one of ours, which jsonargparse has wrapped
    except MisconfigurationException as error:
        raise UsageError(str(error)) from error
