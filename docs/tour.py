"""The whole road in a few minutes: train, evaluate, predict, export in each format, verify, compare, serve, report, publish.

    python docs/tour.py

Each command is printed before it runs, and the first one that fails ends the tour. Everything is saved in a temporary folder. The tour
needs all packages (`pip install -e '.[nightly]'`); instead of the Hugging Face Hub it uses a small local server from the tests. To
publish on the Hub, do not set HF_ENDPOINT, log in with `hf auth login`, and use your own name instead of acme.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.request import Request, urlopen

from PIL import Image
from sklearn.datasets import load_digits

from reslight.deploy.formats import FORMATS

ROOT = Path(__file__).resolve().parents[1]
FILES = [f"digits{one.suffix}" for one in FORMATS.values()]
LINES = "\n".join
TRAIN = """
reslight fit --config digits --trainer.max_epochs 10 --trainer.enable_progress_bar false
reslight test --config digits
reslight export runs/digits/1 digits --license apache-2.0
reslight calibrate digits
"""
USE = """
reslight predict digits pictures --top 2 -o predictions.csv
python -c 'import reslight; print(reslight.Classifier("digits").predict("pictures/3.png", top=2))'
reslight explain digits pictures/3.png pictures/8.png -o explained.png
"""
DEPLOY = f"""
{LINES(f"reslight export digits {name}" for name in FILES)}
reslight export digits digits-int8.onnx --int8
{LINES(f"reslight verify {name} --record digits" for name in FILES)}
reslight predict digits.onnx pictures -o predictions-onnx.csv
reslight bench digits {" ".join(FILES)} digits-int8.onnx --data data --rounds 3
"""
SEE = """
reslight report runs/digits/1 -o report.html
"""
PUBLISH = """
reslight push digits acme/digits
reslight pull acme/digits copy
reslight verify acme/digits
python -c 'import reslight; net = reslight.load("acme/digits"); print(net.labels, net.preprocess)'
python -c 'import torch; print(torch.hub.load("PATH", "resnet8", weights="acme/digits", source="local").fc)'
python -c 'import reslight as r; r.save(r.create_model("resnet18"), "wide", preprocess=r.Preprocess(224, (0.5,) * 3, (0.2,) * 3))'
python -c 'import reslight.weights.timm, timm; print(timm.create_model("hf-hub:acme/digits", pretrained=True).fc)'
reslight push wide acme/wide
python -c 'import timm; print(timm.create_model("hf-hub:acme/wide", pretrained=True).fc)'
"""
"""The last two commands use a network that timm has itself, with random weights."""


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.hub_server import HubServer

    with HubServer() as hub, tempfile.TemporaryDirectory() as folder:
        local = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": f"{folder}/cache", "HF_HUB_DISABLE_XET": "1"}
        environment = os.environ | local | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        draw(Path(folder, "pictures"))
        for steps in (TRAIN, USE, DEPLOY, "serve", SEE, PUBLISH):
            code = serve(folder, environment) if steps == "serve" else run(steps, folder, environment)
            if code:
                return code
    return 0


def draw(folder: Path) -> None:
    """Save twenty handwritten digits as image files."""
    folder.mkdir()
    for number, image in enumerate(load_digits().images[:20]):
        Image.fromarray((image * 16).clip(0, 255).astype("uint8")).save(folder / f"{number}.png")


def run(steps: str, folder: str, environment: Mapping[str, str]) -> int:
    """Run commands until one fails, and return its exit code."""
    for line in steps.strip().splitlines():
        print(f"\n$ {line}", flush=True)
        if code := subprocess.run(words(line), cwd=folder, env=environment, check=False).returncode:
            return code
    return 0


def words(line: str) -> list[str]:
    """Return a command as this Python runs it."""
    program, *rest = shlex.split(line.replace("PATH", str(ROOT)))
    return [sys.executable, *(["-m", "reslight"] if program == "reslight" else []), *rest]


def serve(folder: str, environment: Mapping[str, str]) -> int:
    """Start a server, ask it, stop it as a system does, and return its exit code."""
    line = "reslight serve digits.onnx --port 0"
    print(f"\n$ {line} &", flush=True)
    with subprocess.Popen(words(line), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            for said in server.stdout:
                print(said, end="", flush=True)
                if found := re.search(r"http://[\w.:]+", said):
                    break
            else:
                return server.wait() or 1
            print(f"\n$ curl --data-binary @pictures/3.png '{found[0]}/predict?top=2'", flush=True)
            with urlopen(Request(f"{found[0]}/predict?top=2", Path(folder, "pictures/3.png").read_bytes()), timeout=60) as answer:
                print(json.dumps(json.load(answer)))
        finally:
            server.send_signal(signal.SIGTERM)
        print("\n$ kill %1", flush=True)
        print(server.stdout.read(), end="", flush=True)
    return server.returncode


if __name__ == "__main__":
    sys.exit(main())
