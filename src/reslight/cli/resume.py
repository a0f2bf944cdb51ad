"""What the command line checks and reports where training resumes: its length, which the checkpoint does not hold."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reslight.messages import UsageError
from reslight.runs.folder import Run
from reslight.runs.yaml_file import read


def check_epochs(checkpoint: Path, contents: Mapping[str, Any], max_epochs: int | None) -> None:
    """Check that training does not end before the checkpoint.

    Args:
        checkpoint: The file.
        contents: What is in it.
        max_epochs: The setting trainer.max_epochs.

    Raises:
        UsageError: the checkpoint is behind the last epoch.
    """
    epoch = contents["epoch"] + 1
    if max_epochs is not None and max_epochs >= 0 and epoch > max_epochs + 1:
        raise UsageError(f"trainer.max_epochs is {max_epochs}: {checkpoint} is of epoch {epoch}. Use a number above {epoch}.")


def changes_of_length(checkpoint: Path, trainer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each setting of the length of training that is not as in the last configuration of the checkpoint's run."""
    run = Run.of_checkpoint(checkpoint)
    if run is None:
        return
    config = run.last_config()
    before = _settings(config, "trainer")
    for name in ("max_epochs", "max_steps"):
        if name in before and before[name] != trainer[name]:
            now = f"trainer.{name} is {trainer[name]}"
            yield f"{now}: it was {before[name]} in {config}, so the learning rate follows another schedule now."


def data_root_of(checkpoint: Path) -> str | None:
    """Return the folder of the data that a run was trained on; None without a run, or for a dataset without a folder."""
    root = data_settings_of(checkpoint).get("root")
    return root if isinstance(root, str) else None


def data_settings_of(checkpoint: Path) -> Mapping[str, Any]:
    """Return the settings of the data that a run was trained on; empty for a checkpoint outside of a run."""
    run = Run.of_checkpoint(checkpoint)
    return _settings(run.config, "data", "init_args") if run else {}


def _settings(config: Path, *keys: str) -> Mapping[str, Any]:
    """Return the settings under some keys of a run's configuration; none if it has no such mapping, as after an edit."""
    found: Mapping[str, Any] = read(config)
    for key in keys:
        inner = found.get(key)
        found = inner if isinstance(inner, Mapping) else {}
    return found
