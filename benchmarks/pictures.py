"""JPEG pictures to measure with: textures like those of photographs (as much of each size of detail) under a few plain shapes."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = 10
_SLOPE = 1.2
"""Amplitudes of a photograph's details fall about so with their frequency."""
_TONES = np.array([[0.9, 0.35, 0.2], [0.3, 0.9, 0.3], [0.2, 0.35, 0.9]])
"""Channels of a photograph are alike."""


def write_pictures(folder: Path, count: int, width: int = 500, height: int = 375, quality: int = 90) -> int:
    """Write `folder/train/CLASS/NUMBER.jpg`, unless they are there; returned is their size in bytes."""
    for number in range(count):
        path = folder / "train" / f"class {number % CLASSES}" / f"{number:05}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number, width, height).save(path, quality=quality)
    return sum(path.stat().st_size for path in folder.rglob("*.jpg"))


def picture(number: int, width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(number)
    waves = np.fft.rfft2(draw.normal(size=(height, width, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None, None], np.fft.rfftfreq(width)[None, :, None])
    texture = np.fft.irfft2(waves / (frequency + 1 / width) ** _SLOPE, s=(height, width), axes=(0, 1))
    texture = (texture - texture.mean((0, 1))) / texture.std((0, 1)) @ _TONES
    image = Image.fromarray(np.clip(texture * 45 + 128, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, size = draw.integers(width), draw.integers(height), draw.integers(20, 140)
        colour = tuple(int(value) for value in draw.integers(0, 256, 3))
        if draw.random() < 0.5:
            pen.ellipse([x - size, y - size * 0.7, x + size, y + size * 0.7], fill=colour)
        else:
            pen.polygon([(x, y), (x + size, y + size / 3), (x - size / 2, y + size)], fill=colour)
    return image
