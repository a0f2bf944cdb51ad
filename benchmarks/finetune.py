"""Fine-tuning against training from scratch, on few pictures: the same steps, several seeds, mean and standard deviation.

Some pictures of some classes of CIFAR-10 are written as PNG files into folders of their classes, and go the road of a person's own
pictures: `reslight fit --config finetune`, then `reslight test` on all test images of these classes. From scratch is the same with a
network of the same architecture, new weights and, as no trained backbone need be spared, one rate for all.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import machine
from PIL import Image

from reslight.data import CIFAR


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    folder: Path = options.output
    pictures = write_pictures(folder / "pictures", options.data, options.classes, options.pictures)
    said = machine() | {"classes": options.classes, "pictures per class": options.pictures, "seeds": options.seeds}
    print(", ".join(f"{name} {value}" for name, value in said.items()))
    shared = ["--data.root", str(pictures), "--trainer.enable_progress_bar", "false", *options.more]
    sides = {
        "fine-tuned": ["--model.init_from", options.init_from],
        "frozen backbone": ["--model.init_from", options.init_from, "--model.freeze", "backbone"],
        "from scratch": ["--model.net", options.net, "--model.optim.backbone_lr", "1", *_feed(options.init_from)],
    }
    results: dict[str, list[float]] = {}
    for name, words in sides.items():
        results[name] = [accuracy(folder / name.replace(" ", "_"), [*words, *shared], seed) for seed in range(1, options.seeds + 1)]
        values = [100 * value for value in results[name]]
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name:14} {statistics.mean(values):6.2f}{spread} %  (n = {len(values)}: {each})", flush=True)
    (folder / "results.json").write_text(json.dumps({"machine": said, "accuracy": results}, indent=2) + "\n", encoding="utf-8")


def write_pictures(folder: Path, data: Path, classes: Sequence[str], count: int) -> Path:
    """Write `count` training images and all test images of each class; the first ones, in canonical order."""
    if folder.exists():
        return folder
    cifar = CIFAR("cifar10", str(data), val_size=0)
    for part, most in (("train", count), ("test", None)):
        split = cifar.load_split("train" if part == "train" else "test")
        for name in classes:
            target = folder / part / name
            target.mkdir(parents=True)
            numbers = (split.labels == cifar.labels.index(name)).nonzero().flatten()[:most]
            for number in numbers.tolist():
                Image.fromarray(split.images[number].permute(1, 2, 0).numpy()).save(target / f"{number:05}.png")
    return folder


def accuracy(folder: Path, words: Sequence[str], seed: int) -> float:
    """Train a run with this seed and measure its last weights on the test images; a run that is there already is not trained again."""
    run = folder / "finetune" / str(seed)
    if not (run / "test.json").exists():
        _reslight("fit", "--config", "finetune", *words, "--seed_everything", str(seed), "--trainer.default_root_dir", str(folder))
        _reslight("test", "--config", str(run))
    counts = json.loads((run / "test.json").read_text(encoding="utf-8"))["counts"]
    return float(counts["correct1"] / counts["total"])


def _reslight(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "reslight", *words], check=True, stdout=subprocess.DEVNULL)


def _feed(weights: str) -> list[str]:
    """Settings that feed a network as those weights were."""
    from reslight.weights.interop.timm_folder import read_any_description
    from reslight.weights.locate import locate

    feed = read_any_description(locate(weights)).record.preprocess.to_dict()
    return [word for key, value in feed.items() if value is not None for word in (f"--data.preprocess.{key}", json.dumps(value).strip('"'))]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--init-from", required=True, help="weights to begin with, see model.init_from")
    made.add_argument("--net", default="resnet20", help="the same architecture (default: resnet20)")
    made.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10 (default: data)")
    made.add_argument("--classes", nargs="+", default=["airplane", "automobile", "bird", "cat", "deer"], help="classes of CIFAR-10")
    made.add_argument("--pictures", type=int, default=50, help="training pictures of each class (default: 50)")
    made.add_argument("--seeds", type=int, default=3, help="runs of each side (default: 3)")
    made.add_argument("--output", type=Path, default=Path("runs/benchmark_finetune"), help="where pictures and runs are kept")
    made.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="settings of reslight fit for all sides; must come last")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
