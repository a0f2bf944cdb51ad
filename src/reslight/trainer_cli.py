"""fit, validate, test and predict: Lightning's command line over reslight's classes, runs and checkpoints."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from reslight import recipes
from reslight.data import ImageDataModule
from reslight.explain import Parser, UsageError, explain
from reslight.training import (
    AtomicCheckpointIO,
    Checkpoints,
    ImageClassifier,
    PredictionWriter,
    Progress,
    RunFolder,
    RunLogger,
    Runs,
)
from reslight.training.resume import compare, read_checkpoint, run_of

log = logging.getLogger(__name__)

MORE = "All settings below can stand in a --config file. --print_config shows what would be used, --data.help Digits a data set's own settings."
DESCRIPTION = {
    "fit": f"Train a network. What the run makes goes to runs/<config>/<n>. {MORE}",
    "validate": f"Measure a run's network on the validation images. {MORE}",
    "test": f"Measure a run's network on the test images. {MORE}",
    "predict": f"Write what a run's network answers for the test images to predictions.csv. {MORE}",
}
HELP = {
    "ckpt_path": "last or best of the newest run of this configuration, a checkpoint file, or a run's folder. Training begins anew if null; "
    "the other commands take last. The configuration stays what it says, whatever the checkpoint was trained with.",
    "trainer.default_root_dir": "Where runs are kept. (default: runs)",
    "trainer.logger": "Loggers beside the run's own metrics.csv and TensorBoard events. (default: null)",
}
"""Where Lightning's own help would say something else than what happens here."""


class CLI(LightningCLI):
    """LightningCLI with runs as folders, and checkpoints that never change a configuration.

    Args:
        args: The command and its arguments; configuration files as existing paths.
        runs: Where this configuration's runs are.
    """

    def __init__(self, args: list[str], runs: Runs) -> None:
        self.command = args[0]
        self.run_folder: RunFolder | None = None
        self.root_was_typed = any(word.startswith("--trainer.default_root_dir") for word in args)
        self.runs = runs
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=Parser,
            parser_kwargs={self.command: {"description": DESCRIPTION[self.command]}},
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
            raise ValueError(f"seed_everything is {seed}; it must be a whole number from 0 to {2**32 - 1}")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint."""
        settings = self.config[self.subcommand]
        root = settings.trainer.default_root_dir
        if root and (self.runs.number is None or self.root_was_typed):  # a run's own configuration lies where its run is
            self.runs = self.runs.under(Path(root))
        self.checkpoint = self.runs.checkpoint(settings.ckpt_path, resume=self.subcommand == "fit")
        settings.ckpt_path = self.checkpoint and str(self.checkpoint)

    def after_instantiate_classes(self) -> None:
        """Compare the checkpoint with the configuration."""
        if self.checkpoint is None:
            return
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
            return super()._instantiate_trainer(config, callbacks)
        except (ValueError, TypeError) as error:  # a setting that Lightning refuses is the person's
            raise ValueError(str(error)) from error

    def after_fit(self) -> None:
        """Say where things are and what to type next."""
        folder = self.run_folder.path if self.run_folder else None
        if self.run_folder is None or getattr(self.trainer, "fast_dev_run", False):
            return
        if folder is None:
            log.info("done   nothing: the run was over before its first step (trainer.max_epochs, trainer.max_steps)")
            return
        if not self.trainer.is_global_zero:
            return
        best = next(
            (c for c in self.trainer.checkpoint_callbacks if isinstance(c, Checkpoints) and c.best_score is not None),
            None,
        )
        score = f"; best {best.monitor} {best.best_score:.4f} at step {best.best_step}" if best else ""
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name)
        log.info("done   %d steps%s", self.trainer.global_step, score)
        log.info("files  %s: %s", folder, ", ".join(files))
        log.info("next   reslight test --config %s", self.run_folder.config)

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
        folder = run_of(self.checkpoint) if self.checkpoint else None
        return (folder or Path()) / name

    def _report(self, split: str, name: str) -> None:
        counts = self.model.counts
        if counts is None or not self.trainer.is_global_zero:
            return
        hits = {"acc1": counts.correct1, "acc5": counts.correct5}
        for metric, value in counts.fractions().items():
            of = f" ({hits[metric]} of {counts.total})" if metric in hits else ""
            log.info("%s/%s %.4f%s", split, metric, value, of)
        path = self._results(name)
        report = {
            "checkpoint": str(self.checkpoint),
            "step": self.step,
            "metrics": {f"{split}/{metric}": value for metric, value in counts.fractions().items()},
            "counts": asdict(counts),
            "data": self.datamodule.describe(),
            "precision": str(self.trainer.precision),
        }
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        log.info("written %s", path)


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
    arguments, configs = _find_configs(arguments)
    for path in configs:
        _check_yaml(path)
    try:
        CLI(arguments, Runs.of(configs[0] if configs else None))
    except UsageError as error:
        raise ValueError(str(error) if debug else explain(str(error), configs)) from error
    except ValueError as error:
        if "Does not validate" not in str(error):
            raise
        raise ValueError(explain(str(error), configs)) from error  # one of ours, which jsonargparse has wrapped
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error


def _find_configs(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Replace the names of packaged configurations by their paths."""
    result, configs = [], []
    words = iter(arguments)
    for word in words:
        option, equals, name = word.partition("=")
        if option in ("-config", "-conf", "--conf"):
            raise ValueError(f"{option} is no option; did you mean --config?")
        if option in ("--config", "-c"):
            name = name if equals else next(words, "")
            if not name:
                raise ValueError("--config needs the name of a file, such as --config digits")
            configs.append(recipes.find(name))
            result += ["--config", str(configs[-1])]
        else:
            result.append(word)
    return result, configs


def _check_yaml(path: Path) -> None:
    """A mistake in the file's form is named with its line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: this is not YAML ({error.problem})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a text file in YAML") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings; it must be a mapping such as `model: {{net: resnet20}}`")
    if odd := [key for key in _keys(content) if not isinstance(key, str)]:
        raise ValueError(f"{path} has {odd[0]} where the name of a setting belongs; a decimal number has a point, as in 0.1")
    data = content.get("data")
    stray = sorted(set(data) - {"class_path", "init_args", "dict_kwargs"}) if isinstance(data, dict) and "class_path" in data else []
    if stray:
        raise ValueError(f"{path} has {', '.join(stray)} beside data.class_path; a data set's settings go into data.init_args")


def _keys(content: Any) -> list[Any]:
    """The keys of all mappings in a configuration."""
    if isinstance(content, dict):
        return [*content, *(key for value in content.values() for key in _keys(value))]
    return [key for value in content for key in _keys(value)] if isinstance(content, list) else []
