"""Follow weights from training to the Hub and back in a minute: train, export, push, pull, verify, and load them in four ways.

    python docs/weights_tour.py

The script replaces the Hugging Face Hub with a small local server from the tests (`pip install -e '.[dev]'`). Caches, runs and
weights are saved in a temporary folder. To publish on the Hub, do not set HF_ENDPOINT, log in with `hf auth login`, and use
your own name instead of acme.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = """
reslight fit --config digits --trainer.max_epochs 10 --trainer.enable_progress_bar false
reslight test --config digits
reslight export runs/digits/1 digits --license apache-2.0
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
        for line in STEPS.strip().splitlines():
            print(f"\n$ {line}", flush=True)
            words = shlex.split(line.replace("PATH", str(ROOT)))
            program = [sys.executable, *(["-m", "reslight"] if words[0] == "reslight" else [])]
            finished = subprocess.run([*program, *words[1:]], cwd=folder, env=environment, check=False)
            if finished.returncode:
                return finished.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
