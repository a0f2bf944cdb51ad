"""Milliseconds that training waits for one last.ckpt with weights, momentum, average and the rest of a run's state.

last.ckpt is written as `reslight fit` writes it: to a temporary file, flushed to the disk, renamed. It is compared with torch.save alone
for the same contents in the same folder.
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import alternate, introduce, keep, parser, show, use_threads
from images import RandomImages
from lightning.pytorch import Callback, Trainer

from reslight.training import AtomicCheckpointIO, ImageClassifier, OptimConfig

WHOLE, BASE = "last.ckpt", "torch.save alone"


class Writing(Callback):
    """Measures how long checkpoints take at the end of a run."""

    def __init__(self, folder: str, rounds: int) -> None:
        self.path, self.rounds = Path(folder) / "last.ckpt", rounds
        self.ms: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path)
        contents = torch.load(self.path, weights_only=True)
        sides = {
            WHOLE: lambda: _ms(lambda: trainer.save_checkpoint(self.path)),
            BASE: lambda: _ms(lambda: torch.save(contents, self.path.with_name("plain.ckpt"))),
        }
        self.ms = alternate(sides, self.rounds)


def _ms(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    introduce(f"One checkpoint of {options.net}, SGD with momentum, EMA of the weights")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, warnings.catch_warnings(action="ignore"):
        writing = Writing(folder, options.rounds)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(max_epochs=1, plugins=[AtomicCheckpointIO()], callbacks=[writing], default_root_dir=folder, **quiet)
        model = ImageClassifier(options.net, OptimConfig(lr=0.1, nesterov=True), ema=0.999)
        trainer.fit(model, datamodule=RandomImages(count=4, size=32, batch_size=4, pad=4))
        size = writing.path.stat().st_size
    show(f"{size / 1e6:.1f} MB", "ms", writing.ms, base=WHOLE, digits=1)
    keep(options, {"ms": writing.ms, "bytes": size})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=25)
    made.add_argument("--net", default="resnet20", help="architecture (default: resnet20)")
    made.add_argument("--folder", type=Path, help="folder on the file system to measure (default: the system's temporary folder)")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
