"""The data module of a configuration, without its network and Trainer."""

from collections.abc import Sequence

from reslight.cli.class_names import complete_classes
from reslight.cli.command_line import read_command
from reslight.cli.errors import raise_in_one_line
from reslight.cli.net import begin_with_weights
from reslight.cli.trainer import CLI
from reslight.data import ImageDataModule


class _DataCLI(CLI):
    """Parses all settings of `fit`, and makes the data module alone."""

    def before_instantiate_classes(self) -> None:
        """Take the preprocessing of the initial weights, as `fit` does."""
        if self.config.model.init_from:
            begin_with_weights(self.config, None)

    def instantiate_classes(self) -> None:
        """Make the data module."""
        from jsonargparse import ArgumentParser

        parser = ArgumentParser()  # self.parser would make the network, too
        parser.add_subclass_arguments(ImageDataModule, "data", required=True)
        self.datamodule = parser.instantiate_classes(type(self.config)(data=self.config.data)).data

    def after_instantiate_classes(self) -> None:
        """Compare nothing: there is no checkpoint."""


def data_module(arguments: Sequence[str]) -> ImageDataModule:
    """Return the data module that `reslight fit` would use.

    Args:
        arguments: What would be typed behind `reslight fit`.

    Raises:
        UsageError: settings that do not parse, or that the data module refuses.
        OSError: a missing configuration, or missing images.
    """
    words, settings, _ = read_command(arguments)
    words, settings = complete_classes(words, settings)
    try:
        data: ImageDataModule = _DataCLI("fit", words, settings, None).datamodule
    except (ImportError, ValueError) as error:
        raise_in_one_line(error)
    return data
