"""Compare fine-tuning with training from scratch on few images: the same steps, several seeds, mean and std.

Some images of some classes of CIFAR-10 are written as PNG files into class folders and used like a user's own images: `reslight fit
--config finetune`, then `reslight test` on all test images of these classes. Training from scratch uses the same architecture with random
weights and, as there is no trained backbone to preserve, one learning rate for all layers.
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
    images = write_images(folder / "images", options.data, options.classes, options.images)
    setup = machine() | {"classes": options.classes, "images per class": options.images, "seeds": options.seeds}
    print(", ".join(f"{name} {value}" for name, value in setup.items()))
    shared = ["--data.root", str(images), "--trainer.enable_progress_bar", "false", *options.more]
    sides = {
        "fine-tuned": ["--model.init_from", options.init_from],
        "frozen backbone": ["--model.init_from", options.init_from, "--model.freeze", "backbone"],
        "from scratch": ["--model.net", options.net, "--model.optim.backbone_lr", "1", *preprocess_words(options.init_from)],
    }
    results: dict[str, list[float]] = {}
    for name, words in sides.items():
        results[name] = [accuracy(folder / name.replace(" ", "_"), [*words, *shared], seed) for seed in range(1, options.seeds + 1)]
        values = [100 * value for value in results[name]]
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name:14} {statistics.mean(values):6.2f}{spread} %  (n = {len(values)}: {each})", flush=True)
    (folder / "results.json").write_text(json.dumps({"machine": setup, "accuracy": results}, indent=2) + "\n", encoding="utf-8")


def write_images(folder: Path, data: Path, classes: Sequence[str], count: int) -> Path:
    """Write the first `count` training images of each class, in canonical order, and all of its test images; return the folder."""
    if folder.exists():
        return folder
    cifar = CIFAR("cifar10", str(data), val_size=0)
    for name_of_split, most in (("train", count), ("test", None)):
        split = cifar.load_split("train" if name_of_split == "train" else "test")
        for name in classes:
            target = folder / name_of_split / name
            target.mkdir(parents=True)
            numbers = (split.labels == cifar.labels.index(name)).nonzero().flatten()[:most]
            for number in numbers.tolist():
                Image.fromarray(split.images[number].permute(1, 2, 0).numpy()).save(target / f"{number:05}.png")
    return folder


def accuracy(folder: Path, words: Sequence[str], seed: int) -> float:
    """Return the test accuracy of a run with this seed, which is trained and tested unless an earlier call did so."""
    results = f"finetune*/{seed}/test.json"  # the name of a network is part of the folder's
    if not list(folder.glob(results)):
        if unfinished := list(folder.glob(f"finetune*/{seed}")):  # the next run would have another number
            raise SystemExit(f"{unfinished[0]} was interrupted: remove it, and later ones beside it, and start again")
        _reslight("fit", "--config", "finetune", *words, "--seed_everything", str(seed), "--trainer.default_root_dir", str(folder))
        _reslight("test", "--config", *map(str, folder.glob(f"finetune*/{seed}")))
    [result] = folder.glob(results)
    counts = json.loads(result.read_text(encoding="utf-8"))["counts"]
    return float(counts["correct1"] / counts["total"])


def _reslight(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "reslight", *words], check=True, stdout=subprocess.DEVNULL)


def preprocess_words(weights: str) -> list[str]:
    """Return the settings that preprocess images as these weights need them."""
    from reslight.weights.interop.timm_folder import read_any_description
    from reslight.weights.locate import locate

    preprocess = read_any_description(locate(weights)).record.preprocess.to_dict()
    return [word for key, value in preprocess.items() for word in (f"--data.preprocess.{key}", json.dumps(value).strip('"'))]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init-from", required=True, help="weights to fine-tune, see model.init_from")
    parser.add_argument("--net", default="resnet20", help="the same architecture (default: resnet20)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10 (default: data)")
    parser.add_argument("--classes", nargs="+", default=["airplane", "automobile", "bird", "cat", "deer"], help="classes of CIFAR-10")
    parser.add_argument("--images", type=int, default=50, help="images of each class, a fifth of them for validation (default: 50)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_finetune"), help="where images and runs are saved")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="settings of reslight fit for all sides; must come last")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
