"""Compare predictions on images from reslight's decoder and resizer with those from torchvision's reference transforms.

CIFAR's test images are enlarged to random sizes and shapes and saved as JPEG, then preprocessed in both ways for the same weights. The
reference decodes and resizes with Pillow (Resize, CenterCrop, ToTensor, Normalize); reslight decodes with torchvision's decoder and resizes
tensors with antialiasing. With --scaled the images are enlarged five times as much, and are also decoded at a part of their size, as in
training with `data.scaled_decode`.
"""

import argparse
import io
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
from reslight.data.loading.decode import decode, decode_scaled


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    net = reslight.load(options.weights)
    preprocess, name = net.preprocess, "cifar100" if net.config.num_classes == 100 else "cifar10"
    split = CIFAR(name, str(options.data), val_size=0).load_split("test")
    numbers = list(range(len(split)))[: options.images]
    files = write(split.images[numbers], options.folder, 5 if options.scaled else 1)
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
    none = torch.empty(0)

    def scaled(data: bytearray) -> torch.Tensor:
        if reduced := decode_scaled(data, "", 3, lambda *size: ours.reduction(*size, none), ours.largest_reduction):
            return ours.of_reduced(*reduced, none)
        return ours(decode(data, ""), none)

    ways = ["torchvision's reference", "reslight", *(["scaled decode"] if options.scaled else [])]
    outputs: dict[str, list[torch.Tensor]] = {way: [] for way in ways}
    pixels: dict[str, list[torch.Tensor]] = {way: [] for way in ways}
    std = torch.tensor(preprocess.std).view(-1, 1, 1)
    for some in torch.tensor(numbers).split(250):
        data = [bytearray(files[n].read_bytes()) for n in some.tolist()]
        batches = [torch.stack([reference(Image.open(io.BytesIO(one)).convert("RGB")) for one in data])]
        batches += [preprocess.normalize(torch.stack([ours(decode(one, ""), none) for one in data]))]
        if options.scaled:
            batches.append(preprocess.normalize(torch.stack([scaled(one) for one in data])))
        for way, batch in zip(ways, batches, strict=True):
            pixels[way].append(((batch - batches[0]) * std * 255).abs().flatten())
            outputs[way].append(net(batch))
    logits = {way: torch.cat(each) for way, each in outputs.items()}
    labels, slow = split.labels[numbers], logits[ways[0]]
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"{len(numbers):,} JPEG images of the dataset of {options.weights}, n = 1")
    for way, each in logits.items():
        correct = int((each.argmax(1) == labels).sum())
        print(f"{way:24} {correct:6,} of {len(labels):,} correct: {correct / len(labels):.2%}")
        if way == ways[0]:
            continue
        same = int((slow.argmax(1) == each.argmax(1)).sum())
        difference, shift = (slow - each).abs(), torch.cat(pixels[way])
        print(f"  the same prediction    {same:6,} of {len(labels):,}: {same / len(labels):.2%}")
        print(f"  difference of a logit  mean {difference.mean():.3f}, largest {difference.max():.2f}; std of the logits {slow.std():.2f}")
        print(f"  difference of a pixel  mean {shift.mean():.4f}, largest {shift.max():.0f} of 255")


def write(images: torch.Tensor, folder: Path, times: int) -> list[Path]:
    """Save each image as JPEG of quality 90 with random sides of 48 to 200 pixels, or `times` as many, one at most twice the other."""
    draw, files = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(images):
        height = int(draw.integers(48, 201))
        width = int(np.clip(height * 2 ** draw.uniform(-1, 1), 48, 200))
        files.append(folder / f"{number:05}{'' if times == 1 else f'-{times}'}.jpg")
        if not files[-1].exists():
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((width * times, height * times), Image.Resampling.BICUBIC).save(
                files[-1], quality=90
            )
    return files


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights of a CIFAR network, see reslight.load")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR (default: data)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: 10000)")
    parser.add_argument("--scaled", action="store_true", help="larger images, and a scaled decode of them, too")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_agreement"), help="where the images are saved")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
