"""Milliseconds of an optimizer's step beside those of a whole training step of ResNet-20.

    python benchmarks/optimizers.py --threads 1

One network on one random batch: the whole step has a forward pass, a backward pass and SGD's step. Each round measures the same number of
steps of every optimizer, so that their ratios mean something on a machine that is not quiet.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from harness import add_cpu_time, alternate, introduce, keep, parser, show, use_threads

from reslight.models import create_model
from reslight.training import OptimConfig
from reslight.training.optim import build_optimizer

WHOLE = "forward, backward, step of sgd"
NAMES = ("sgd", "adamw", "lamb", "muon")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    introduce(f"Optimizers: {options.net}, batch {options.batch_size}, fp32 channels_last, {options.steps} steps a round")
    clock = time.process_time if options.cpu_time else time.perf_counter
    net = create_model(options.net).to(memory_format=torch.channels_last).train()
    images = torch.randn(options.batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (options.batch_size,))
    optimizers = {name: build_optimizer(OptimConfig(name, lr=1e-9), net) for name in NAMES}

    def train() -> None:
        optimizers["sgd"].zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizers["sgd"].step()

    def milliseconds(step: Callable[[], object]) -> float:
        begin = clock()
        for _ in range(options.steps):
            step()
        return 1000 * (clock() - begin) / options.steps

    train()  # the gradients that all optimizers step along
    for optimizer in optimizers.values():
        optimizer.step()  # makes their state
    sides = {WHOLE: lambda: milliseconds(train)}
    sides |= {f"step of {name}": lambda one=optimizer: milliseconds(one.step) for name, optimizer in optimizers.items()}
    values = alternate(sides, options.rounds)
    show("One step", "ms", values, base=WHOLE, digits=3)
    share = [(muon - sgd) / whole for muon, sgd, whole in zip(values["step of muon"], values["step of sgd"], values[WHOLE], strict=True)]
    print(f"\nWhat Muon adds to a whole step: {sorted(share)[len(share) // 2]:.1%} (median; {min(share):.1%} to {max(share):.1%})")
    keep(options, {"ms": values, "share": share})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=7)
    made.add_argument("--net", default="resnet20", help="an architecture for 32 x 32 images (default: resnet20)")
    made.add_argument("--steps", type=int, default=10, help="steps per round (default: 10)")
    made.add_argument("--batch-size", type=int, default=128, help="images per batch (default: 128)")
    add_cpu_time(made)
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
