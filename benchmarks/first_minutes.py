"""Time the first minutes of a new user: a fresh virtual environment, a first prediction, a first training, a first fine-tuning.

Each command runs once (n = 1), as a user types it, in a temporary folder. How long the installation takes depends on the network: pip
downloads some gigabytes, mostly PyTorch with its GPU libraries. `--environment` uses an environment that has reslight already.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import machine
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
COLORS = ("crimson", "gold", "teal", "navy")
TRAIN = "reslight fit --config configs/digits.yaml"
PREDICT = "reslight classify resnet56.cifar100 mine.jpg"
TUNE = "reslight fit --config finetune --data.root PHOTOS --model.init_from resnet20.cifar100"
USE = "reslight classify runs/finetune/1/weights mine.jpg"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        draw_pictures(folder)
        environment = options.environment or folder / "venv"
        steps: dict[str, float] = {}

        def timed(command: str, where: Path = folder, *more: str) -> float:
            steps[command] = _seconds(" ".join([command, *more]), where, environment)
            print(f"{steps[command]:7.1f} s  {command}", flush=True)
            return steps[command]

        setup = timed("git clone", folder, "-q", "--no-hardlinks", shlex.quote(str(ROOT)), "copy")
        if options.environment is None:
            setup += timed("python -m venv venv")
            setup += timed("pip install ./copy", folder, "--quiet", *options.pip)
        totals = {
            "a first prediction": setup + timed(PREDICT),
            "a trained network": setup + timed(TRAIN, folder / "copy", *options.more),
            "fine-tuned on 60 pictures": setup + timed(TUNE, folder, *options.more) + timed(USE),
        }
        print()
        for name, seconds in totals.items():
            print(f"{seconds:7.1f} s  from nothing to {name}")
    if options.json:
        record = {"machine": machine(), "steps": steps, "totals": totals}
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def draw_pictures(folder: Path) -> None:
    """Draw PHOTOS, 20 pictures of 320 x 240 pixels in each of three classes, and mine.jpg."""
    for number in range(60):
        picture = Image.new("RGB", (320, 240), (10 * (number % 7), 40, 60))
        box = (20 + number, 15 + number, 160 + number, 135 + number)
        pen, color, shape = ImageDraw.Draw(picture), COLORS[number % 4], number % 3
        if shape == 2:
            pen.polygon([(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) // 2, box[1])], color)
        else:
            (pen.ellipse if shape else pen.rectangle)(box, color)
        target = folder / "PHOTOS" / ("square", "circle", "triangle")[shape]
        target.mkdir(parents=True, exist_ok=True)
        picture.save(target / f"{number:02}.jpg")
    picture.save(folder / "mine.jpg")


def _seconds(command: str, folder: Path, environment: Path) -> float:
    """Return how long a command takes that finds the environment's programs first."""
    if command.startswith("python -m venv"):
        command = f"{shlex.quote(sys.executable)} -m venv {shlex.quote(str(environment))}"
    begun = time.perf_counter()
    path = f"export PATH={shlex.quote(str(environment / 'bin'))}:$PATH; {command}"
    done = subprocess.run(["bash", "-c", path], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - begun


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="use this environment, which has reslight, instead of a fresh one")
    parser.add_argument("--pip", action="append", default=[], metavar="WORD", help="a further word for pip, such as --pip=--no-cache-dir")
    parser.add_argument("--more", action="append", default=[], metavar="WORD", help="a further word for each fit")
    parser.add_argument("--json", type=Path, help="write machine, steps and totals to this file, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
