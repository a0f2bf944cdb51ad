"""`Crop`: the settings of the part of a training image that the network sees."""

from dataclasses import dataclass
from typing import Literal, get_args

from reslight.data.augment.crop import Center, Geometry, RandomResizedCrop, ScaleJitter
from reslight.messages import UsageError
from reslight.preprocess import Fitting, Preprocess, Size, shape_of

CropKind = Literal["random_resized", "scale_jitter", Fitting]


@dataclass(frozen=True)
class Crop:
    """The part of a training image that the network sees."""

    kind: CropKind = "random_resized"
    """random_resized: a random part of random shape, resized; scale_jitter: a random part of the image after resizing it to a random
    length; center, squash and letterbox: nothing random, see preprocess.crop."""
    size: Size | None = None
    """Height and width in training, in pixels: one number for a square, or [height, width]; preprocess.size if null."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the area (random_resized)."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Least and greatest width divided by height (random_resized)."""
    short_side: tuple[int, int] = (256, 480)
    """Least and greatest length of the short side, in pixels (scale_jitter)."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a field that is out of range.
        """
        if self.kind not in (kinds := get_args(CropKind)):
            raise UsageError(f"data.crop.kind is {self.kind}: it must be {', '.join(kinds[:-1])} or {kinds[-1]}. Use one of them.")
        if self.size is not None and not all(1 <= side <= 4096 for side in shape_of(self.size)):
            raise UsageError(f"data.crop.size is {self.size}: it must be 1 to 4096 pixels. Use null for data.preprocess.size.")
        for name, least, most in (("scale", 0.0, 1.0), ("ratio", 0.0, float("inf")), ("short_side", 0, 8192)):
            low, high = getattr(self, name)
            if not least < low <= high <= most:
                allowed = f"two numbers above {least:g} and at most {most:g}, the smaller one first"
                raise UsageError(f"data.crop.{name} is {[low, high]}: it must be {allowed}. Use {list(getattr(Crop, name))}.")

    def geometry(self, preprocess: Preprocess) -> Geometry:
        """Return the crop of training images for a network with this preprocessing.

        Raises:
            UsageError: a short side that may be shorter than the crop.
        """
        size = self.size or preprocess.size
        if self.kind == "random_resized":
            return RandomResizedCrop(size, self.scale, self.ratio, preprocess.interpolation)
        if self.kind == "scale_jitter":
            if self.short_side[0] < (longest := max(shape_of(size))):
                raise UsageError(
                    f"data.crop.short_side is {list(self.short_side)}: it must begin at the size of the crop, {longest}, or above. "
                    "Increase it, or set data.crop.size."
                )
            return ScaleJitter(size, self.short_side, preprocess.interpolation)
        short, usual = min(shape_of(size)), min(preprocess.shape)
        resize = max(short, round((preprocess.resize or usual) * short / usual))
        return Center(size, resize, preprocess.interpolation, self.kind, preprocess.fill_values)
