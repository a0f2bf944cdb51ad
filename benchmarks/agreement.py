"""Compare predictions on images from reslight's decoder and resizer with those from torchvision's reference transforms.

CIFAR's test images are enlarged to random sizes and shapes and saved as JPEG, then preprocessed in both ways for the same weights. The
reference decodes and resizes with Pillow (Resize, CenterCrop, ToTensor, Normalize); reslight decodes with torchvision's decoder and resizes
tensors with antialiasing.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from harness import machine
from PIL import Image
from torchvision import transforms

import reslight
from reslight.data import CIFAR
from reslight.data.augment.crop import Center
from reslight.data.loading.decode import decode


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    net = reslight.load(options.weights)
    preprocess, name = net.preprocess, "cifar100" if net.config.num_classes == 100 else "cifar10"
    split = CIFAR(name, str(options.data), val_size=0).load_split("test")
    numbers = list(range(len(split)))[: options.images]
    files = write(split.images[numbers], options.folder)
    side = preprocess.resize or preprocess.size
    reference = transforms.Compose(
        [
            transforms.Resize(side),
            transforms.CenterCrop(preprocess.size),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    ours = Center(preprocess.size, side, preprocess.interpolation)
    outputs: dict[str, list[torch.Tensor]] = {"torchvision's reference": [], "reslight": []}
    pixels = []
    for some in torch.tensor(numbers).split(250):
        slow = torch.stack([reference(Image.open(files[n]).convert("RGB")) for n in some.tolist()])
        fast = torch.stack([ours(decode(bytearray(files[n].read_bytes()), str(files[n])), torch.empty(0)) for n in some.tolist()])
        fast = preprocess.normalize(fast)
        std = torch.tensor(preprocess.std).view(-1, 1, 1)
        pixels.append(((fast - slow) * std * 255).abs().flatten())
        outputs["torchvision's reference"].append(net(slow))
        outputs["reslight"].append(net(fast))
    logits = {way: torch.cat(each) for way, each in outputs.items()}
    labels, (slow, fast) = split.labels[numbers], logits.values()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"{len(numbers):,} JPEG images of the dataset of {options.weights}, n = 1")
    for way, each in logits.items():
        correct = int((each.argmax(1) == labels).sum())
        print(f"{way:24} {correct:6,} of {len(labels):,} correct: {correct / len(labels):.2%}")
    same = int((slow.argmax(1) == fast.argmax(1)).sum())
    difference = (slow - fast).abs()
    print(f"the same prediction      {same:6,} of {len(labels):,}: {same / len(labels):.2%}")
    print(f"difference of a logit    mean {difference.mean():.3f}, largest {difference.max():.2f}; std of the logits {slow.std():.2f}")
    shift = torch.cat(pixels)
    print(f"difference of a pixel    mean {shift.mean():.4f}, largest {shift.max():.0f} of 255")


def write(images: torch.Tensor, folder: Path) -> list[Path]:
    """Save each image as a JPEG file of quality 90 with random sides of 48 to 200 pixels, one at most twice as long as the other."""
    draw, files = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(images):
        height = int(draw.integers(48, 201))
        width = int(np.clip(height * 2 ** draw.uniform(-1, 1), 48, 200))
        files.append(folder / f"{number:05}.jpg")
        if not files[-1].exists():
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights of a CIFAR network, see reslight.load")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR (default: data)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: 10000)")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_agreement"), help="where the images are saved")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
