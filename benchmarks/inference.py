"""Images per second of a network on the CPU: as it is, in float32, against the form that `reslight.Classifier` chooses on this CPU.

The form is timed with what makes its classes those of the network: images whose two best classes are nearly equal are computed again.
The images are noise, of which resnet20.cifar10 is sure. resnet50 has random weights, whose classes are all nearly equal: its first class
gets a bias, so that nothing is computed again.
"""

import time
from collections.abc import Callable

import torch
from harness import add_cpu_time, alternate, introduce, keep, parser, show, use_threads

import reslight
from reslight.deploy.inference import Inference

_NETS = {"resnet20": 32, "resnet50": 224}


def main() -> None:
    made = parser(__doc__, rounds=9)
    made.add_argument("--nets", nargs="+", choices=list(_NETS), default=list(_NETS), help="networks (default: both)")
    made.add_argument("--batch", type=int, default=32, help="images of a batch (default: 32)")
    made.add_argument("--seconds", type=float, default=1.0, help="least time of a measurement (default: 1)")
    add_cpu_time(made)
    options = made.parse_args()
    use_threads(options.threads)
    introduce("Inference on the CPU")
    results = {}
    for name in options.nets:
        net, size = _network(name), _NETS[name]
        images = torch.randint(256, (options.batch, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        forms = [Inference(net, exact=is_exact, threads=torch.get_num_threads()) for is_exact in (True, False)]
        sides = {form.description: _speed(form, images, options) for form in forms}
        (exact, _), (quick, _) = (form(images) for form in forms)
        values = alternate(sides, options.rounds)
        show(f"{name}, batches of {options.batch}, {size} pixels", "images per second", values, base=forms[0].description)
        print(f"  largest difference of a logit: {float((quick - exact).abs().max() / exact.abs().max()):.1e} of the largest")
        results[name] = values
    keep(options, results)


def _network(name: str) -> reslight.ResNet:
    if name == "resnet20":
        return reslight.load("resnet20.cifar10")
    torch.manual_seed(0)
    net = reslight.create_model(name).eval()
    net.preprocess = reslight.Preprocess(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    with torch.no_grad():
        net.fc.weight /= 100  # features are 2,500 long, about a hundred times those of trained weights
        net.fc.bias[0] += 10
    return net


def _speed(form: Inference, images: torch.Tensor, options) -> Callable[[], float]:
    clock = time.process_time if options.cpu_time else time.perf_counter

    def measure() -> float:
        count, start = 0, clock()
        while count == 0 or clock() - start < options.seconds:
            form(images)
            count += len(images)
        return count / (clock() - start)

    form(images)
    return measure


if __name__ == "__main__":
    main()
