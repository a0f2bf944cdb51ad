"""What an export needs to know of a network: its description and the sha256 of its weights."""

from dataclasses import replace
from pathlib import Path

from reslight.messages import UsageError
from reslight.models import ResNet
from reslight.runs.eval_results import weights_sha256
from reslight.runs.export import net_and_record
from reslight.runs.folder import Run
from reslight.weights.folder import MODEL, load_network
from reslight.weights.interop.timm_folder import read_any_description
from reslight.weights.locate import EXPORTED, locate
from reslight.weights.record import Record


def load_to_export(source: str, *, raw: bool = False, license: str | None = None) -> tuple[ResNet, Record, str]:
    """Load a network that is to be exported.

    Args:
        source: A checkpoint, a run's folder, or what `reslight.load` takes.
        raw: Take the weights of a checkpoint's last step, not their average.
        license: An SPDX identifier; that of the weights if None.

    Returns:
        The network, the description of its weights, and the sha256 of their model.safetensors.

    Raises:
        OSError: a missing checkpoint, or missing weights.
        UsageError: damaged weights, or `raw` without a checkpoint.
    """
    path = Path(source)
    if path.is_dir():
        path = Run(path).checkpoint()
    if path.is_file() and path.suffix not in EXPORTED:  # locate() says what such a file is
        net, record = net_and_record(path, raw=raw, license=license)
        return net, record, weights_sha256(net)
    if raw:
        raise UsageError(f"{source} is not a checkpoint: only checkpoints have both raw and EMA weights. Leave out --raw.")
    description = read_any_description(locate(source))
    net, record = load_network(description), description.record
    if license is not None:
        record = replace(record, license=license)
    return net, record, description.sha256.get(MODEL) or weights_sha256(net)
