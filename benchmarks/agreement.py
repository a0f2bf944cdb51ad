"""What the fast road changes: the same weights on reslight's decoder and resizer, and on torchvision's reference transforms.

CIFAR's test images are enlarged to pictures of random size and shape, with JPEG's losses, and go both roads back to what the network
takes. The reference decodes and resizes with Pillow (Resize, CenterCrop, ToTensor, Normalize); reslight decodes with torchvision's decoder
and resizes its tensor, antialiased.
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
    feed, name = net.preprocess, "cifar100" if net.config.num_classes == 100 else "cifar10"
    split = CIFAR(name, str(options.data), val_size=0).load_split("test")
    numbers = list(range(len(split)))[: options.images]
    files = write(split.images[numbers], options.folder)
    side = feed.resize or feed.size
    reference = transforms.Compose(
        [
            transforms.Resize(side),
            transforms.CenterCrop(feed.size),
            transforms.ToTensor(),
            transforms.Normalize(feed.mean, feed.std),
        ]
    )
    ours = Center(feed.size, side, feed.interpolation)
    answers: dict[str, list[torch.Tensor]] = {"torchvision's reference": [], "reslight": []}
    pixels = []
    for some in torch.tensor(numbers).split(250):
        slow = torch.stack([reference(Image.open(files[n]).convert("RGB")) for n in some.tolist()])
        fast = torch.stack([ours(decode(bytearray(files[n].read_bytes()), str(files[n])), torch.empty(0)) for n in some.tolist()])
        fast = feed.normalize(fast)
        std = torch.tensor(feed.std).view(-1, 1, 1)
        pixels.append(((fast - slow) * std * 255).abs().flatten())
        answers["torchvision's reference"].append(net(slow))
        answers["reslight"].append(net(fast))
    logits = {road: torch.cat(each) for road, each in answers.items()}
    labels, (slow, fast) = split.labels[numbers], logits.values()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"{len(numbers):,} JPEG pictures of {options.weights}'s data, n = 1")
    for road, each in logits.items():
        right = int((each.argmax(1) == labels).sum())
        print(f"{road:24} {right:6,} of {len(labels):,} right: {right / len(labels):.2%}")
    same = int((slow.argmax(1) == fast.argmax(1)).sum())
    difference = (slow - fast).abs()
    print(f"the same answer          {same:6,} of {len(labels):,}: {same / len(labels):.2%}")
    print(f"difference of a logit    mean {difference.mean():.3f}, largest {difference.max():.2f}; their deviation is {slow.std():.2f}")
    shift = torch.cat(pixels)
    print(f"difference of a pixel    mean {shift.mean():.4f}, largest {shift.max():.0f} of 255")


def write(images: torch.Tensor, folder: Path) -> list[Path]:
    """Each image as a JPEG of quality 90, its sides drawn from 48 to 200 pixels, at most twice as long as each other."""
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
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("weights", help="weights of a CIFAR network, see reslight.load")
    made.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR (default: data)")
    made.add_argument("--images", type=int, default=10_000, help="test images (default: 10000)")
    made.add_argument("--folder", type=Path, default=Path("runs/benchmark_agreement"), help="where the pictures are kept")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
