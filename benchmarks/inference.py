"""Images per second of a network on the CPU: as it is, in float32, against the form that `reslight.Classifier` chooses on this CPU.

Published weights compute the first test images of their data set. Part of the form is that images whose two best classes are nearly equal
are computed again; their share is shown. `resnet50` has random weights and noise for images: all its classes are nearly equal, so its
first class gets a bias, and nothing is computed again.
"""

import time
from collections.abc import Callable, Sequence

import torch
from harness import add_cpu_time, alternate, introduce, keep, parser, show, use_threads
from torch import Tensor

import reslight
from reslight.analysis.datasets import datamodule_of
from reslight.data.loading.loaders import EvalLoader
from reslight.deploy.inference import Inference
from reslight.weights.catalog import bundled
from reslight.weights.folder import read_description

RANDOM = "resnet50"


def main() -> None:
    made = parser(__doc__, rounds=9)
    nets = ["resnet20.cifar10", "resnet20.cifar100", RANDOM]
    made.add_argument("--nets", nargs="+", default=nets, help=f"published weights, or {RANDOM} (default: {' '.join(nets)})")
    made.add_argument("--data", default="data", metavar="ROOT", help="folder of the images (default: data)")
    made.add_argument("--batch", type=int, default=32, help="images of a batch (default: 32)")
    made.add_argument("--batches", type=int, default=100, help=f"batches of a round; 1 of {RANDOM} (default: 100)")
    add_cpu_time(made)
    options = made.parse_args()
    use_threads(options.threads)
    introduce("Inference on the CPU")
    clock, results = time.process_time if options.cpu_time else time.perf_counter, {}
    for name in options.nets:
        net, batches = _random(options.batch) if name == RANDOM else _published(name, options.data, options.batch, options.batches)
        forms = [Inference(net, exact=is_exact, threads=torch.get_num_threads()) for is_exact in (True, False)]
        values = alternate({form.description: _speed(form, batches, clock) for form in forms}, options.rounds)
        height, width = net.preprocess.shape
        show(f"{name}, batches of {options.batch}, {height} x {width} pixels", "images per second", values, base=forms[0].description)
        _compare(exact=forms[0], quick=forms[1], batches=batches)
        results[name] = values
    keep(options, results)


def _published(name: str, root: str, size: int, count: int) -> tuple[reslight.ResNet, list[Tensor]]:
    """Return weights and the first batches of their test images."""
    net = reslight.load(name)
    data = datamodule_of(read_description(bundled(name)).record.data, net.preprocess, root)
    data.setup("test")
    loader = EvalLoader(data.splits["test"], batch_size=size, rank=0, devices=1)
    return net, [images for (images, _, _), _ in zip(loader, range(count), strict=False)]


def _random(size: int) -> tuple[reslight.ResNet, list[Tensor]]:
    torch.manual_seed(0)
    net = reslight.create_model(RANDOM).eval()
    net.preprocess = reslight.Preprocess(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    with torch.no_grad():
        net.fc.weight /= 100  # features are 2,500 long, about a hundred times those of trained weights
        net.fc.bias[0] += 10
    return net, [torch.randint(256, (size, 3, 224, 224), dtype=torch.uint8)]


def _speed(form: Inference, batches: Sequence[Tensor], clock: Callable[[], float]) -> Callable[[], float]:
    def measure() -> float:
        form(batches[0])
        start = clock()
        for images in batches:
            form(images)
        return sum(map(len, batches)) / (clock() - start)

    return measure


def _compare(exact: Inference, quick: Inference, batches: Sequence[Tensor]) -> None:
    """Print how far the logits of the two forms are apart, and how many images the quick one computes again in float32."""
    pairs = [(exact(images)[0], quick(images)[0]) for images in batches]
    logits, others = (torch.cat(side) for side in zip(*pairs, strict=True))
    apart, largest = (logits - others).abs().amax(dim=1), float(logits.abs().max())
    print(f"  largest difference of a logit: {float(apart.max()) / largest:.1e} of the largest")
    if "bfloat16" in quick.description:
        print(f"  computed again, as the two best classes are nearly equal: {float((apart < 1e-4 * largest).double().mean()):.1%}")


if __name__ == "__main__":
    main()
