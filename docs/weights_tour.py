"""Weights, the whole way, in a minute: train, export, push, pull, verify, and load them in four ways.

    python docs/weights_tour.py

Everything is as on the Hugging Face Hub, but on this machine: a small server of the tests stands in for it (`pip install
-e '.[dev]'`), and caches, runs and weights lie in a temporary folder. To publish for real, leave HF_ENDPOINT alone, log in
with `hf auth login` and put your own name in place of acme.
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
"""A network that timm has itself comes last: with random weights here."""


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.hub_server import HubServer

    with HubServer() as hub, tempfile.TemporaryDirectory() as folder:
        ours = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": f"{folder}/cache", "HF_HUB_DISABLE_XET": "1"}
        environment = os.environ | ours | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        for line in STEPS.strip().splitlines():
            print(f"\n$ {line}", flush=True)
            words = shlex.split(line.replace("PATH", str(ROOT)))
            program = [sys.executable, *(["-m", "reslight"] if words[0] == "reslight" else [])]
            done = subprocess.run([*program, *words[1:]], cwd=folder, env=environment, check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
