"""Downloads, over real HTTP, from hosts on this machine that stand for the Hub and for the author's."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest
from huggingface_hub import constants
from torchvision import datasets

from reslight import UsageError
from reslight.data.cifar import download

both_sets = pytest.mark.parametrize("small", ["cifar10", "cifar100"], indirect=True)


class Host:
    """Serves files as the Hub does, which suits others too; or does what `fault` says."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fault = ""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.is_over = threading.Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                host.answer(self)

            do_GET = do_HEAD

            def do_POST(self) -> None:
                host.list_files(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def list_files(self, request: BaseHTTPRequestHandler) -> None:
        """Answer what the Hub answers to /api/datasets/OWNER/NAME/paths-info/COMMIT."""
        owner, name, _, commit = request.path.split("/")[3:]
        (wanted,) = parse_qs(request.rfile.read(int(request.headers["Content-Length"])).decode())["paths"]
        self.asked.append(("POST", f"{request.path} {wanted}", {key.lower(): value for key, value in request.headers.items()}))
        content = self.files.get(f"/datasets/{owner}/{name}/resolve/{commit}/{wanted}")
        lfs = None if content is None else {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100}
        rows = [] if content is None else [{"type": "file", "path": wanted, "size": len(content), "oid": "0" * 40, "lfs": lfs}]
        request.send_response(503 if self.fault == "503" else 200)
        request.end_headers()
        request.wfile.write(b"no" if self.fault == "503" else json.dumps(rows).encode())

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path)
        self.asked.append((request.command, path, {name.lower(): value for name, value in request.headers.items()}))
        if self.fault == "silent":
            self.is_over.wait(30)
            return
        content = b"" if path == "/" else self.files.get(path)
        code = 503 if self.fault == "503" else 404 if content is None or (self.fault == "404" and path != "/") else 200
        body = content if code == 200 and content is not None else b"no"
        request.send_response(code)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        request.send_header("X-Repo-Commit", path.split("/")[5] if "/resolve/" in path else "0" * 40)
        if code == 404:
            request.send_header("X-Error-Code", "EntryNotFound")
        request.end_headers()
        if request.command == "HEAD":
            return
        if self.fault == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        if self.fault in ("cut", "stalled"):
            body = body[: len(body) // 2]
        request.wfile.write(body)
        request.wfile.flush()
        if self.fault == "stalled":
            self.is_over.wait(30)


@contextmanager
def running() -> Iterator[Host]:
    host = Host()
    thread = threading.Thread(target=host.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        host.is_over.set()
        host.server.shutdown()
        host.server.server_close()
        thread.join()


@pytest.fixture
def closed() -> str:
    """An address that refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def online(monkeypatch, closed):
    """Both hosts refuse connections, and retries do not wait."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub_is(closed, monkeypatch)
    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        monkeypatch.setattr(kind, "url", f"{closed}/{kind.filename}")


def hub_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does, which the client reads when it is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    assert template.startswith(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + template.removeprefix(constants.ENDPOINT))
    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.fixture
def hub(small, tmp_path, monkeypatch) -> Iterator[Host]:
    """Has the parquet files at the pinned commit."""
    small.write_shards(tmp_path / "hub", names=small.metadata.labels, columns=("img", "label" if small.name == "cifar10" else "fine_label"))
    with running() as host:
        for name in small.metadata.shards.values():
            path = f"/datasets/{small.metadata.repository}/resolve/{small.metadata.revision}/{name}"
            host.files[path] = (tmp_path / "hub" / Path(name).name).read_bytes()
        hub_is(host.address, monkeypatch)
        yield host


@pytest.fixture
def author(small, tmp_path, monkeypatch) -> Iterator[Host]:
    """Has the archive."""
    content = small.write_archive(tmp_path / "author").read_bytes()
    kind = datasets.CIFAR10 if small.name == "cifar10" else datasets.CIFAR100
    with running() as host:
        host.files[f"/{kind.filename}"] = content
        monkeypatch.setattr(kind, "url", f"{host.address}/{kind.filename}")
        monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(content).hexdigest())
        yield host


def files_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def failure(small, root: Path, kind: type[Exception] = ConnectionError) -> str:
    """Return the message when the images cannot be downloaded."""
    with pytest.raises(kind) as raised:
        small.data(root).load_split("train")
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"data.root is {root}: there are no training images of CIFAR-10 in it or in {root / 'cifar10'}, and ")
    assert text.endswith(
        ". Put the python archive, its folder, the Hub's parquet files, or train/CLASS/IMAGE and test/CLASS/IMAGE there, or set data.root."
    )
    return text


@both_sets
def test_the_hub_comes_first(small, hub, author, tmp_path, monkeypatch):
    root = tmp_path / "new" / "data"
    for part in ("train", "test"):
        assert small.data(root).load_split(part).fingerprint == small.metadata.fingerprints[part]
    assert files_in(root) == sorted(f"{small.name}/{name}" for name in small.metadata.shards.values()), "each split's file and nothing else"
    assert [path for command, path, _ in hub.asked if command == "GET" and "/resolve/" in path] == list(hub.files)
    assert author.asked == []

    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert small.data(root).load_split("train").fingerprint == small.metadata.fingerprints["train"]
    assert hub.asked == []


def test_only_what_is_needed_is_asked_for(small, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    small.data(tmp_path / "data").load_split("test")
    assert hub.asked
    assert not any("train" in path for _, path, _ in hub.asked)
    assert not any("hf_secret" in value for _, _, headers in hub.asked for value in headers.values())


@both_sets
def test_the_authors_host_is_second(small, author, tmp_path):
    root = tmp_path / "data"
    assert small.data(root).load_split("train").fingerprint == small.metadata.fingerprints["train"]
    (name,) = author.files
    assert files_in(root) == [f"{small.name}{name}"]
    author.asked.clear()
    assert small.data(root).load_split("test").fingerprint == small.metadata.fingerprints["test"]
    assert author.asked == [], "the archive has both splits"


@pytest.mark.parametrize("fault", ["404", "503", "cut", "silent"])
def test_a_hub_that_fails_is_passed_over(small, hub, author, fault, tmp_path, monkeypatch):
    hub.fault = fault
    if fault == "silent":
        monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    assert small.data(tmp_path / "data").load_split("train").fingerprint == small.metadata.fingerprints["train"]
    assert hub.asked
    assert files_in(tmp_path / "data") == ["cifar10/cifar-10-python.tar.gz"]


REASONS = {
    "404": ("Client error '404 Not Found'", "HTTP Error 404: Not Found"),
    "503": ("Server error '503 Service Unavailable'", "HTTP Error 503: Service Unavailable"),
    "cut": ("peer closed connection without sending complete message body", "File not found or corrupted"),
    "corrupt": ("Client error '404 Not Found'", "File not found or corrupted"),
    "silent": ("timed out", "timed out"),
}


@pytest.mark.parametrize("fault", REASONS)
def test_when_both_fail_it_is_told_and_nothing_is_left(small, hub, author, fault, tmp_path, monkeypatch):
    hub.fault = "404" if fault == "corrupt" else fault
    author.fault = fault
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    text = failure(small, tmp_path / "new" / "data")
    hubs, authors = REASONS[fault]
    assert f", and no host could be reached and gave the files: {hub.address}/datasets/uoft-cs/cifar10 ({hubs}" in text
    assert f"), https://www.cs.toronto.edu/~kriz/cifar.html ({authors}). Put " in text
    assert not (tmp_path / "new").exists()
    assert socket.getdefaulttimeout() is None


def test_without_a_network_it_is_told_at_once(small, closed, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    text = failure(small, tmp_path / "data")
    assert text.count("refused") == 2
    assert f"{closed}/datasets/uoft-cs/cifar10 (" in text
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]
    assert waited == []


def test_offline_nothing_is_asked(small, hub, author, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ", and nothing was downloaded because HF_HUB_OFFLINE is set. Put " in failure(small, tmp_path / "data", UsageError)
    assert hub.asked == author.asked == []
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_made(small, hub, tmp_path):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    text = failure(small, tmp_path / "taken" / "data")
    assert f", and nothing was downloaded because {tmp_path / 'taken' / 'data' / 'cifar10'} is not writable (" in text
    assert hub.asked == []


@pytest.mark.parametrize("host", ["hub", "author"])
def test_an_interrupted_download_leaves_nothing(small, host, tmp_path, monkeypatch, request):
    root = tmp_path / "data"
    written = []

    def interrupt(*_: object) -> None:
        """Ctrl-C, as the progress is shown."""
        written.extend(files_in(root))
        raise KeyboardInterrupt

    request.getfixturevalue(host)
    monkeypatch.setattr("tqdm.std.tqdm.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        small.data(root).load_split("train")
    assert written
    assert not root.exists()


def test_what_was_there_is_kept(small, hub, tmp_path):
    """A damaged file is not replaced by a download behind one's back."""
    (file := tmp_path / "data" / "cifar10" / "train.parquet").parent.mkdir(parents=True)
    file.write_bytes(b"PAR1")
    assert small.refusal(tmp_path / "data").startswith(f"{file} is damaged or cut short (")
    assert hub.asked == []


# In processes of their own, which read HF_ENDPOINT and can be killed

SCRIPT = """
import sys
from torchvision import datasets
from reslight.data import CIFAR

datasets.CIFAR10.url = sys.argv[1]
print(CIFAR(root="data", val_size=0, allow_modified=True).load_split("train").fingerprint)
"""


def process(hub: str, author: str) -> subprocess.Popen[str]:
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": "hf", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", SCRIPT, f"{author}/cifar-10-python.tar.gz"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_hf_endpoint_is_obeyed(small, hub, closed):
    started = process(hub.address, closed)
    out, err = started.communicate(timeout=600)
    assert (started.returncode, out.strip()) == (0, small.metadata.fingerprints["train"]), err
    assert files_in(Path("data")) == [f"cifar10/{small.metadata.shards['train']}"]


@pytest.mark.slow
def test_what_a_killed_download_leaves_is_not_taken_for_data(small, author, closed, monkeypatch):
    author.fault = "stalled"
    started = process(closed, author.address)
    end = time.monotonic() + 300
    while not (files := files_in(Path("data"))) and started.poll() is None and time.monotonic() < end:
        threading.Event().wait(0.02)
    started.kill()
    _, err = started.communicate()
    assert len(files) == 1, err
    (file,) = files
    assert file.startswith("cifar10/.unfinished-")
    assert file.endswith("/cifar-10-python.tar.gz")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    failure(small, Path("data"), UsageError)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    author.fault = ""
    assert small.data(Path("data")).load_split("train").fingerprint == small.metadata.fingerprints["train"]
