"""How many planted wrong labels of CIFAR-10's test set `reslight report` finds, and how many of its finds were planted.

    python benchmarks/label_errors.py --data ROOT [--weights resnet20.cifar10] [--share 0.02] [--seeds 3]

Each seed changes the labels of a share of the 10,000 test images to another class, at random. Labels that were wrong before count against
the precision.
"""

import argparse

import torch

import reslight
from reslight.analysis.report.label_errors import confident_classes, likely_label_errors
from reslight.analysis.report.outcome import Part
from reslight.analysis.temperature import cross_fitted
from reslight.data import CIFAR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data")
    parser.add_argument("--weights", default="resnet20.cifar10")
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    net = reslight.load(options.weights)
    data = CIFAR("cifar10", options.data)
    data.setup("test")
    part = Part.evaluate(net, data.splits["test"])
    count = round(options.share * len(part.labels))
    print(f"{options.weights}, {count} planted wrong labels of {len(part.labels):,}")
    print("seed  method                                        reported  planted  precision  recall")
    for seed in range(options.seeds):
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randperm(len(part.labels), generator=generator)[:count]
        labels = part.labels.clone()
        labels[numbers] = (
            labels[numbers] + torch.randint(1, net.config.num_classes, (count,), generator=generator)
        ) % net.config.num_classes
        probabilities = cross_fitted(part.logits, labels)[0].softmax(dim=1)
        raw = confident_classes(part.logits.double().softmax(dim=1), labels)
        for method, found in (
            ("confident learning", ((raw >= 0) & (raw != labels)).nonzero()[:, 0]),
            ("calibrated, label at most 1 % (the report)", likely_label_errors(probabilities, labels)[0]),
        ):
            hits = int(torch.isin(found, numbers).sum())
            print(f"{seed:4}  {method:44}  {len(found):8}  {hits:7}  {hits / len(found):9.3f}  {hits / count:6.3f}")


if __name__ == "__main__":
    main()
