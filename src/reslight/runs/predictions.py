"""Write predictions.csv: the predicted class of each image."""

import csv
import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from reslight.atomic import write_files
from reslight.multi_label import THRESHOLD

BETWEEN = "|"
"""Text between several classes of an image."""


class PredictionWriter(Callback):
    """Writes a row `image,label,probability,path,true_label` for each image, in the order of the images, on any number of devices.

    `image` is the number of the image, and `label` its most probable class. `path` is empty for images that have no files of their own,
    and `true_label` where the class is not known. Images that cannot be read have no row. If an image may have several classes, `label`
    has all with a probability above 0.5, their probabilities in the same order, and `|` between.

    Args:
        path: The file; an earlier one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[int, list[int], list[float], list[int]]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the best class of each image or, if it may have several, those with a probability above 0.5."""
        indices: Tensor
        probabilities: Tensor
        indices, probabilities = outputs
        if getattr(pl_module, "multi_label", False):
            classes = [row.nonzero().flatten().tolist() for row in probabilities > THRESHOLD]
        else:
            classes = probabilities.argmax(dim=1, keepdim=True).tolist()
        values = [row[found].tolist() for row, found in zip(probabilities, classes, strict=True)]
        self._rows += zip(indices.tolist(), classes, values, _labels_of(batch, probabilities.shape), strict=True)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the rows of all devices and write them."""
        gathered = [self._rows]
        if trainer.world_size > 1:
            gathered = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self._rows)
        if not trainer.is_global_zero:
            return
        data: dict[str, Any] = getattr(pl_module, "data_info", {})
        module: Any = pl_module
        names = data.get("labels") or range(module.config.num_classes)
        path_of = getattr(getattr(trainer, "datamodule", None), "path_of", lambda _: None)  # a user's own data module has none
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["image", "label", "probability", "path", "true_label"])
        for index, classes, values, true in sorted(row for rows in gathered for row in rows):
            texts = ([names[one] for one in classes], [f"{value:.6f}" for value in values], [names[one] for one in true])
            label, probability, true_label = (BETWEEN.join(map(str, text)) for text in texts)
            writer.writerow([index, label, probability, path_of(index) or "", true_label])
        write_files({self.path: text.getvalue().encode("utf-8", "surrogateescape")})


def _labels_of(batch: Any, shape: torch.Size) -> list[list[int]]:
    """Return the classes of each image of a batch with predictions `(N, num_classes)`; none where they are not known."""
    labels = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    if isinstance(labels, Tensor) and labels.shape == shape:
        return [row.nonzero().flatten().tolist() for row in labels > THRESHOLD]
    if isinstance(labels, Tensor) and labels.shape == shape[:1] and not labels.is_floating_point():
        return [[one] if 0 <= one < shape[1] else [] for one in labels.tolist()]
    return [[] for _ in range(shape[0])]
