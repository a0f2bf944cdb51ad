"""Write predictions.csv: the predicted class of each image."""

import csv
import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from reslight.atomic import write_files


class PredictionWriter(Callback):
    """Writes a row `image,label,probability` for each image, in the order of the images, on any number of devices.

    `image` is the number of the image in the split, `label` the most probable class.

    Args:
        path: The file; an earlier one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[int, int, float]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the best class of each image."""
        indices: Tensor
        probabilities: Tensor
        indices, probabilities = outputs
        best = probabilities.max(dim=1)
        self._rows += zip(indices.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the rows of all devices and write them."""
        gathered = [self._rows]
        if trainer.world_size > 1:
            gathered = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self._rows)
        if not trainer.is_global_zero:
            return
        data: dict[str, Any] = getattr(pl_module, "data_info", {})
        labels = data.get("labels")
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["image", "label", "probability"])
        for index, label, probability in sorted(row for rows in gathered for row in rows):
            writer.writerow([index, labels[label] if labels else label, f"{probability:.6f}"])
        write_files({self.path: text.getvalue().encode()})
