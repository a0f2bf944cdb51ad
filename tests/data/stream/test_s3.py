"""Chunks on S3: moto's server, and a server that cuts connections, is silent, or refuses credentials."""

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from tests.data.stream.test_stream import make, make_set
from tests.data.test_trainer import Recorder, SaveAt, make_trainer, same

pytest.importorskip("litdata")
pytest.importorskip("boto3")

from reslight.data.stream import chunk_store, s3
from reslight.data.stream.chunk_store import stream_cache
from reslight.messages import MissingPackageError, UsageError

pytestmark = pytest.mark.slow  # boto3 takes half a second to make a client

ERRORS = {
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "signature": (403, "SignatureDoesNotMatch", "The request signature we calculated does not match"),
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "no bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
}


class Server(ThreadingHTTPServer):
    """The files of a folder as the bucket `set`, with faults."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fault, self.only, self.times = "", "", 10**6
        self.asked: list[str] = []

    def fail(self, fault: str, only: str = "", times: int = 10**6) -> None:
        """Have the next requests of files whose names contain `only` fail."""
        self.fault, self.only, self.times = fault, only, times


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix("/set/")
        self.server.asked.append(name)
        path = self.server.folder / name
        fails = self.server.times > 0 and self.server.only in name
        fault = self.server.fault if fails else ""
        self.server.times -= fails
        if fault == "silent":
            time.sleep(5)
        elif fault in ERRORS or not path.is_file():
            status, code, message = ERRORS.get(fault, (404, "NoSuchKey", "The specified key does not exist."))
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            body = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
            if fault == "cut":
                self.close_connection = True
                self.connection.close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(chunk_store, "_FREE_SHARE", 0)  # else chunks are deleted where the disk of the tests is nearly full
    server = Server(make_set(tmp_path / "set"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield server
    server.shutdown()
    server.server_close()


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    values = {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "the-secret", "REGION": "us-east-1"}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(s3, "WAITS", (0, 0))


def train(root: str, checkpoint: Path | None = None, **settings) -> Recorder:
    torch.manual_seed(0)
    module = Recorder()
    make_trainer(**settings).fit(module, make(root), ckpt_path=checkpoint)
    return module


def test_a_bucket_gives_the_run_of_a_folder_and_each_chunk_is_downloaded_once(server: Server):
    folder, bucket = train(server.folder), train("s3://set")
    assert same(folder.seen["train"], bucket.seen["train"])
    assert all(torch.equal(value, bucket.state_dict()[key]) for key, value in folder.state_dict().items())
    chunks = [name for name in server.asked if "chunk" in name]
    assert len(chunks) == len(set(chunks)) == 9 + 2
    assert not [name for name in server.asked if name.startswith("test/chunk")]
    # When the dataset is written again, nothing of the old one is used.
    shutil.rmtree(server.folder)
    make_set(server.folder, train=20)
    data = make("s3://set")
    data.setup("fit")
    assert len(data.splits["train"]) == 20
    assert len(list(data.train_dataloader())) == 2
    assert len(list(stream_cache().iterdir())) == 1


def test_processes_of_a_machine_share_the_downloads(server: Server):
    ranks = [make("s3://set") for _ in range(3)]
    for data in ranks:
        data.setup("fit")
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(lambda data: [batch.indices.tolist() for batch in data.train_dataloader()], ranks))
    assert seen[0] == seen[1] == seen[2]
    chunks = [name for name in server.asked if "chunk" in name]
    assert len(chunks) == len(set(chunks)) == 9


def test_a_cache_that_is_smaller_than_the_dataset(server: Server):
    largest = max(path.stat().st_size for path in (server.folder / "train").glob("*.bin"))
    data = make("s3://set", batch_size=1, shuffle_chunks=1, cache_gb=5 * largest / 1e9)
    data.setup("fit")
    for _ in range(2):
        assert len(list(data.train_dataloader())) == 43
        assert sum(path.stat().st_size for path in stream_cache().glob("*/*.chunk")) <= 5 * largest
    assert len([name for name in server.asked if "train/chunk" in name]) > 9
    with pytest.raises(UsageError, match=r"data.cache_gb is .*: downloads need .* Increase it"):
        make("s3://set", cache_gb=1e-9)


@pytest.mark.parametrize("fault", ["cut", "busy", "silent"])
def test_a_short_failure_is_tried_again(server: Server, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(s3, "SILENCE", 0.2)
    server.fail(fault, "chunk-0-1.bin", times=2)
    data = make("s3://set")
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 5
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 2
    assert all(line.startswith("s3://set/train/chunk-0-1.bin: ") and line.endswith("next attempt in 0 s") for line in lines)


FAILURES = {
    "cut": (ConnectionError, r"s3://set/train/chunk-0-1.bin cannot be read: .* Try again, or resume with --ckpt_path last."),
    "silent": (ConnectionError, r"s3://set/train/chunk-0-1.bin cannot be read: Read timeout.* Try again, or resume"),
    "busy": (ConnectionError, "cannot be read: SlowDown: Please reduce your request rate. Try again"),
    "expired": (PermissionError, "the AWS credentials have expired. Renew them, then resume with --ckpt_path last."),
    "denied": (
        PermissionError,
        "cannot be read: AccessDenied: Access Denied. Check the AWS credentials, such as AWS_PROFILE, and data.root.",
    ),
    "signature": (PermissionError, "cannot be read: SignatureDoesNotMatch: .* Check the AWS credentials"),
    "no bucket": (FileNotFoundError, "s3://set/train: there is no such bucket. Check data.root and AWS_ENDPOINT_URL."),
}


@pytest.mark.parametrize(
    "fault", [fault if fault in ("cut", "expired") else pytest.param(fault, marks=pytest.mark.nightly) for fault in FAILURES]
)
def test_a_failure_is_one_line_and_loses_nothing(server: Server, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch):
    kind, message = FAILURES[fault]
    monkeypatch.setattr(s3, "SILENCE", 0.2)
    whole = train("s3://set")
    shutil.rmtree(stream_cache())
    # The chunk is not one of the first window.
    server.fail(fault, "train/chunk-0-1.bin")
    monkeypatch.setattr(chunk_store, "DOWNLOADS", 1)
    saved = tmp_path / "saved.ckpt"
    began = time.monotonic()
    with pytest.raises(kind, match=message) as raised:
        train("s3://set", callbacks=[SaveAt("on_train_batch_end", 1, saved)])
    assert time.monotonic() - began < 5
    assert "\n" not in str(raised.value)
    assert "the-secret" not in str(raised.value)
    server.fail("", times=0)
    rest = train("s3://set", saved if saved.exists() else None)
    assert same(whole.seen["train"][-len(rest.seen["train"]) :], rest.seen["train"])
    assert all(torch.equal(value, rest.state_dict()[key]) for key, value in whole.state_dict().items())


def test_a_chunk_with_other_bytes_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch):
    chunk = server.folder / "train/chunk-0-0.bin"
    train_split = {"counts": [15, 14, 14], "fingerprint": "f", "checksums": {"chunk-0-0.bin": "0"}}
    (server.folder / "reslight.json").write_text(json.dumps({"classes": ["a", "b", "c"], "splits": {"train": train_split}}))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    data = make("s3://set", classes=None)
    data.setup("fit")
    with pytest.raises(UsageError, match=r"s3://set/train/chunk-0-0.bin has other bytes than when it was written. Copy the dataset again."):
        list(data.train_dataloader())
    assert not list(stream_cache().glob("*/chunk-0-0.bin.chunk"))


def test_nobody_answers_and_no_credentials(server: Server, monkeypatch: pytest.MonkeyPatch):
    server.fail("denied")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    with pytest.raises(PermissionError, match=r"s3://set/reslight.json cannot be read: AccessDenied"):
        make("s3://set")
    server.fail("", times=0)
    make("s3://set")  # a public bucket
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(UsageError, match=r"s3://set cannot be opened: .*missing.* Check the settings of AWS, such as AWS_PROFILE"):
        make("s3://set")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"s3://set/reslight.json cannot be read: Could not connect to the endpoint URL"):
        make("s3://set")


def test_without_boto3(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(MissingPackageError, match=r"data.root is s3://set: S3 needs the package boto3"):
        make("s3://set")


def test_on_the_server_of_moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server_of = pytest.importorskip("moto.server")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        use(f"http://127.0.0.1:{server.get_host_and_port()[1]}", monkeypatch)
        from boto3.session import Session

        client = Session().client("s3")
        client.create_bucket(Bucket="bucket")
        root = make_set(tmp_path / "set")
        for path in root.rglob("*.*"):
            client.upload_file(str(path), "bucket", f"deep/er/{path.relative_to(root)}")
        folder, bucket = train(str(root)), train("s3://bucket/deep/er/")
        assert same(folder.seen["train"], bucket.seen["train"])
        with pytest.raises(UsageError, match=r"data.root is s3://bucket/deep: it has neither train/index.json nor index.json"):
            make("s3://bucket/deep")
        with pytest.raises(FileNotFoundError, match=r"s3://other: there is no such bucket"):
            make("s3://other")
    finally:
        server.stop()
