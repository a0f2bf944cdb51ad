"""A Hub on this machine, and a folder that was pushed to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.hub_server import HubServer, connect

import reslight as package
from reslight import Preprocess, create_model
from reslight.hub import client, commit

PREPROCESS = Preprocess(size=8, mean=(0.5,), std=(0.2,))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        server.slept = connect(server, monkeypatch, tmp_path / "hub")
        for module in (client.time, commit.time):
            monkeypatch.setattr(module, "sleep", server.slept.append)
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


@pytest.fixture
def folder() -> Path:
    torch.manual_seed(3)
    net = create_model("resnet8", in_channels=1)
    package.save(net, "w", preprocess=PREPROCESS, license="mit")
    return Path("w")


@pytest.fixture
def pushed(hub, folder) -> Path:
    package.push(folder, "acme/net")
    hub.requests.clear()
    return folder
