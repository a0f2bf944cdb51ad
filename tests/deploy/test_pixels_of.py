"""Decoded images of a split, as a classifier's user has them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslight.data import Folder
from reslight.deploy.pixels_of import pixels_of
from reslight.messages import UsageError
from reslight.preprocess import Preprocess


def test_images_that_cannot_be_read_are_skipped_in_order(tmp_path, caplog):
    for name in ("a", "b"):
        for number in range(6):
            path = tmp_path / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 10 * number + (100 if name == "b" else 0), dtype=np.uint8)).save(path)
    data = Folder(str(tmp_path), preprocess=Preprocess(size=8, mean=(0.5,) * 3, std=(0.5,) * 3), val_size=0)
    data.setup("fit")
    split = data.splits["train"]
    numbers = [split.images.name(int(split.numbers[number])) for number in range(12)]
    whole = list(pixels_of(split, range(12), data.preprocess))
    Path(tmp_path / "train" / "a" / "3.png").write_bytes(b"no image")
    broken = next(number for number, name in enumerate(numbers) if str(name).endswith("a/3.png"))
    found = list(pixels_of(split, range(12), data.preprocess, skip=True))
    assert torch.equal(torch.stack(found), torch.stack(whole[:broken] + whole[broken + 1 :]))
    assert caplog.messages == [next(message for message in caplog.messages if "3.png" in message and message.startswith("skipped: "))]
    with pytest.raises(UsageError, match=r"3\.png"):
        list(pixels_of(split, range(12), data.preprocess))
