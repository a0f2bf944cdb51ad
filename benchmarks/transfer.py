"""Compare pretrained networks as the start of training on few images of something else: five small datasets, several seeds.

    python benchmarks/transfer.py resnet20.cifar100 WEIGHTS

The datasets are from packages or are drawn here, and none has images of CIFAR: handwritten digits (scikit-learn), faces and what is none
(scikit-image), pieces of ten photographs (scikit-image; train and test have different halves), letters in the fonts of Matplotlib (train
and test have different fonts), and ten shapes on textures. Each network is fine-tuned on 50 images of a class, a fifth of them for
validation, by `reslight fit --config finetune`; the last side is the architecture of the first one with random weights. Needs
scikit-image.
"""

import argparse
import json
import math
import statistics
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from finetune import accuracy, preprocess_words
from harness import machine
from pictures import picture
from PIL import Image, ImageDraw, ImageFont

import reslight

Named = tuple[str, Image.Image]
Outline = list[tuple[float, float]]
TRAIN, TEST = 50, 100
"""Images of a class, fewer in the test where there are no more."""
SETTINGS = ("--data.crop.scale", "[0.6, 1.0]", "--data.augment.flip", "none")
"""A mirrored or cut letter is another one."""
SCRATCH = "from scratch"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    folder: Path = options.output
    for name in options.sets:
        write(folder / "images" / name, SETS[name])
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    net = {key: value for key, value in reslight.load(options.weights[0]).config.to_dict().items() if key != "num_classes"}
    sides = {name: ["--model.init_from", name] for name in options.weights}
    sides[SCRATCH] = ["--model.net", json.dumps(net), "--model.optim.backbone_lr", "1"]
    sides[SCRATCH] += preprocess_words(options.weights[0])
    results: dict[str, dict[str, list[float]]] = {name: {} for name in options.sets}
    print(f"test accuracy in percent, mean and deviation of {options.seeds} seeds\n{'':10}" + "".join(f"{side:>26}" for side in sides))
    for name in options.sets:
        for side, words in sides.items():
            runs = folder / name / side.replace("/", "_").replace(" ", "_")
            shared = ["--data.root", str(folder / "images" / name), "--trainer.enable_progress_bar", "false", *SETTINGS]
            results[name][side] = [100 * accuracy(runs, [*words, *shared], seed) for seed in range(1, options.seeds + 1)]
        print(f"{name:10}" + "".join(f"{_spread(values):>26}" for values in results[name].values()), flush=True)
    means = [statistics.fmean(statistics.fmean(results[name][side]) for name in options.sets) for side in sides]
    print(f"{'mean':10}" + "".join(f"{mean:>26.2f}" for mean in means))
    record = {"machine": machine(), "settings": {"seeds": options.seeds}, "accuracy": results}
    (folder / "results.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write(folder: Path, images: Callable[[str], Iterator[Named]]) -> None:
    """Write the images of a dataset as class folders."""
    if folder.exists():
        return
    for split in ("train", "test"):
        for number, (label, image) in enumerate(images(split)):
            path = folder / split / label / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(path)


def digits(split: str) -> Iterator[Named]:
    from sklearn.datasets import load_digits

    found = load_digits()
    for digit in range(10):
        images = found.images[found.target == digit]
        for image in images[:TRAIN] if split == "train" else images[TRAIN : TRAIN + TEST]:
            yield str(digit), Image.fromarray((image * 15.9).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)


def faces(split: str) -> Iterator[Named]:
    from skimage.data import lfw_subset

    # 100 faces, then 100 images without one
    images = lfw_subset()  # type: ignore[no-untyped-call]  # scikit-image declares no types here
    for label, some in (("face", images[:100]), ("none", images[100:])):
        for image in some[:TRAIN] if split == "train" else some[TRAIN:]:
            yield label, Image.fromarray((image * 255).astype(np.uint8))


def photographs(split: str) -> Iterator[Named]:
    from skimage import data

    draw = np.random.default_rng(split == "train")
    names = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "rocket")
    for name in names:
        pixels = np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))
        height, middle = pixels.shape[0], pixels.shape[1] // 2
        half = pixels[:, :middle] if split == "train" else pixels[:, middle:]
        for _ in range(TRAIN if split == "train" else TEST):
            side = int(draw.integers(48, 96))
            top, left = draw.integers(height - side), draw.integers(half.shape[1] - side)
            yield name, Image.fromarray(half[top : top + side, left : left + side])


def letters(split: str) -> Iterator[Named]:
    from matplotlib import get_data_path

    draw = np.random.default_rng(20 + (split == "train"))
    families = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cm[brst]")
    files = sorted({file for family in families for file in Path(get_data_path(), "fonts", "ttf").glob(f"{family}*.ttf")})
    files = [file for file in files if "Display" not in file.name and "cmsy" not in file.name]  # which have few letters
    fonts = [ImageFont.truetype(str(file), size=40) for file in files[split == "train" :: 2]]
    for number in range(TRAIN if split == "train" else TEST):
        for letter in string.ascii_uppercase:
            ink, paper = (tuple(int(value) for value in draw.integers(0, 256, 3)) for _ in range(2))
            canvas = Image.new("RGB", (64, 64), paper)
            place = draw.uniform(26, 38, size=2)
            ImageDraw.Draw(canvas).text((place[0], place[1]), letter, fill=ink, font=fonts[number % len(fonts)], anchor="mm")
            yield letter, canvas.rotate(float(draw.uniform(-15, 15)), Image.Resampling.BILINEAR, fillcolor=paper)


def shapes(split: str) -> Iterator[Named]:
    draw = np.random.default_rng(10 + (split == "train"))
    for _ in range(TRAIN if split == "train" else TEST):
        for name, outline in SHAPES.items():
            canvas = picture(int(draw.integers(1_000_000)), 64, 64)
            radius, turn = draw.uniform(14, 26), draw.uniform(0, 2 * math.pi)
            center = draw.uniform(radius + 2, 62 - radius, size=2)
            colour = tuple(int(value) for value in draw.integers(0, 256, 3))
            points = [(center[0] + radius * r * math.cos(turn + a), center[1] + radius * r * math.sin(turn + a)) for a, r in outline]
            ImageDraw.Draw(canvas).polygon(points, fill=colour)
            yield name, canvas


def _outline(points: int, inner: float = 1.0) -> Outline:
    """A polygon; with `inner` below 1, a star whose inner corners are so near to the center."""
    angles = [math.pi * number / points for number in range(2 * points)]
    return [(angle, inner if number % 2 else 1.0) for number, angle in enumerate(angles) if inner < 1 or number % 2 == 0]


SHAPES: dict[str, Outline] = {
    **{f"polygon {corners}": _outline(corners) for corners in (3, 4, 5, 6)},
    **{f"star {corners}": _outline(corners, 0.45) for corners in (3, 4, 5, 6)},
    "circle": _outline(60),
    "half circle": [(math.pi * number / 30, 1.0) for number in range(31)],
}
SETS = {"digits": digits, "faces": faces, "photographs": photographs, "letters": letters, "shapes": shapes}


def _spread(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.2f} +- {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="pretrained networks: names or folders of weights")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="datasets (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"), help="where images and runs are saved")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
