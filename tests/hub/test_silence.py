"""A Hub that takes a request and never answers: every wait ends in time, is said, and ends at once on Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import reslight as package
from reslight.hub import client
from reslight.weights import push
from reslight.weights.listing import remote

FOREVER = {"kind": "slow", "times": 1000, "seconds": 600}
CALLS = [
    ("pull", "GET", "/api/models/acme/net", "looking up acme/net"),
    ("pull", "POST", "/paths-info/", "listing the files of acme/net"),
    ("pull", "HEAD", "/resolve/", "downloading config.json of acme/net"),
    ("pull", "GET", "/resolve/.*golden", "downloading golden.safetensors of acme/net"),
    ("push", "GET", "/api/models/acme/new", "looking up acme/new"),
    ("push", "POST", "/api/repos/create", "creating acme/new"),
    ("push", "POST", "/preupload/", "sending model.safetensors to acme/new"),
    ("push", "PUT", "/lfs/", "sending model.safetensors to acme/new"),
    ("push", "POST", "/api/validate-yaml|/commit/", "publishing acme/new"),
    ("remote", "GET", "/api/models[?]", "listing the repositories of acme"),
]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 0.3)
    monkeypatch.setattr(client, "SLOW", 0.05)
    monkeypatch.setattr(client, "SLOWEST", 1e9)


def do(call: str, folder: Path) -> None:
    {
        "pull": lambda: package.pull("acme/net", "copy"),
        "push": lambda: package.push(folder, "acme/new"),
        "remote": lambda: list(remote("acme")),
    }[call]()


@pytest.mark.parametrize(("call", "method", "pattern", "what"), CALLS)
def test_every_wait_ends_and_is_said(hub, pushed, impatient, caplog, call, method, pattern, what):
    hub.blobs.clear()  # so that they are sent
    hub.fault(method, pattern, **FOREVER)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"{what} failed: .* \(no answer within \d s\)\. Check the network") as stopped:
        do(call, pushed)
    assert time.monotonic() - start < 20
    assert "\n" not in str(stopped.value)
    assert f"{what}: still waiting after 0 s" in caplog.text
    assert not Path("copy").exists()


def test_the_cache_serves_where_the_hub_is_silent(hub, pushed, impatient, caplog):
    package.load("acme/net")
    hub.fault("GET|POST|HEAD", "", **FOREVER)
    assert package.load("acme/net").config.depths == (1, 1, 1)
    assert f"Using commit {hub.head('acme/net')[:12]} from the cache" in caplog.text


def test_a_byte_now_and_then_is_no_answer():
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0 s"):
        client.in_time(lambda: [time.sleep(0.05) for _ in range(100)], "trickling", 0.2)
    assert time.monotonic() - started < 2


def test_a_large_file_may_take_longer():
    assert client.transfer_seconds(100_000_000) == 3 * 20 + 2_000


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_ctrl_c_ends_the_wait_at_once(hub, folder, method):
    hub.fault(method, "" if method == "GET" else "/lfs/", **FOREVER)
    pressed = []

    def press():
        while not any(request.method == method for request in hub.requests):
            time.sleep(0.02)
        time.sleep(0.1)
        pressed.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        push.push(folder, "acme/net")
    assert time.monotonic() - pressed[0] < 1


def test_a_process_that_sends_files_ends_at_once_on_ctrl_c(hub, folder):
    """Also at its exit, where Python waits for the threads of pools."""
    hub.fault("PUT", "/lfs/", **FOREVER)
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(Path("home").resolve()), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "reslight", "push", "w", "acme/net"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not any(request.method == "PUT" for request in hub.requests):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert time.monotonic() - pressed < 10
        assert process.stderr.read().endswith("reslight: interrupted\n")
