"""The server: what it answers, what it refuses, and how it stops."""

import asyncio
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from unittest.mock import Mock

import httpx
import pytest
import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from uvicorn.server import ServerState

import reslight
from reslight import UsageError
from reslight.cli import main
from reslight.deploy.listen import bind
from reslight.deploy.serve import server
from reslight.deploy.serve.app import Service
from reslight.deploy.serve.batches import Batches
from reslight.deploy.serve.limits import Limits, Rates
from reslight.deploy.serve.server import _Protocol, serve
from reslight.deploy.serve.upload import FORMATS, ImageFile, check_images


def encoded(width: int = 8, height: int = 8, kind: str = "PNG", mode: str = "L") -> bytes:
    """The bytes of an image with a gradient."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(file, kind)
    return file.getvalue()


PNG = encoded()


@pytest.fixture(scope="module")
def classifier() -> reslight.Classifier:
    return reslight.Classifier("resnet8.digits", threads=1)


@pytest.fixture
def service(classifier) -> Iterator[Service]:
    service = Service(classifier, "resnet8.digits", Limits(rate=0))
    yield service
    service.close()


def ask(service: Service, path: str = "/predict", method: str = "POST", **options: object) -> httpx.Response:
    return ask_all(service, (path, method, options))[0]


def ask_all(service: Service, *requests: tuple[str, str, dict]) -> list[httpx.Response]:
    """Send requests at the same time."""

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(service.app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.request(method, path, **options) for path, method, options in requests))

    return asyncio.run(send())


def test_the_answers_are_those_of_classifier(service):
    images = {
        "a.png": PNG,
        "b.jpg": encoded(640, 480, "JPEG", "RGB"),
        "c.webp": encoded(30, 50, "WEBP", "RGB"),
        "d.bmp": encoded(9, 9, "BMP"),
    }
    answer = ask(service, "/predict?top=3", files=[("any", one) for one in images.items()]).json()["predictions"]
    assert [one["file"] for one in answer] == list(images)
    for one, prediction in zip(answer, service.classifier.predict(list(images.values()), top=3), strict=True):
        assert [(row["label"], row["probability"]) for row in one["classes"]] == [
            (k, pytest.approx(v, abs=1e-6)) for k, v in prediction.classes
        ]


def test_a_port_that_another_program_took_during_the_start_is_one_line(monkeypatch):
    with bind("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        ours = bind("127.0.0.1", port)  # two programs may bind a port at once
        other.listen()
        monkeypatch.setattr(server, "bind", lambda *_: ours)
        with pytest.raises(UsageError, match=rf"^--port is {port}: another program uses it\. Choose another port"):
            serve("resnet8.digits", port=port, say=lambda _: None)


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", None])
def test_a_body_is_one_image(service, kind):
    answer = ask(service, content=PNG, headers={"content-type": kind} if kind else {})
    label, probability = service.classifier.predict(PNG).classes[0]
    assert answer.json()["predictions"][0]["classes"][0] == {"label": label, "probability": pytest.approx(probability, abs=1e-6)}
    assert len(answer.json()["predictions"][0]["classes"]) == 5


def test_health_and_info(service):
    assert ask(service, "/health", "GET").json() == {"status": "ok"}
    info = ask(service, "/info", "GET").json()
    assert info["labels"] == [str(digit) for digit in range(10)]
    assert info["preprocess"] == service.classifier.preprocess.to_dict() | {"mean": [0.3051], "std": [0.3755]}
    assert (info["name"], info["backend"], info["version"]) == ("resnet8.digits", service.classifier.backend, reslight.__version__)
    assert info["limits"]["max_mb"] == 20


FORM = {"content-type": "multipart/form-data; boundary=x"}
REFUSED = {
    "a form of text": (422, "The field a of the form is text", {"data": {"a": "b"}, "files": {"f": PNG}}),
    "a form without files": (422, "The form has no files", {"content": b"--x--\r\n", "headers": FORM}),
    "a form that is none": (422, "The form cannot be read", {"content": b"junk", "headers": FORM}),
    "a form with a charset that decodes nothing": (
        422,
        "The form cannot be read (its charset)",
        {
            "content": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
            "headers": {"content-type": "multipart/form-data; boundary=x; charset=undefined"},
        },
    ),
    "a form without boundary": (422, "Missing boundary", {"content": b"junk", "headers": {"content-type": "multipart/form-data"}}),
    "too many files": (413, "more than 16 files", {"files": [("f", ("a.png", PNG))] * 17}),
    "JSON": (415, "Content-Type is application/json", {"json": {"a": 1}}),
    "compressed": (415, "Content-Encoding is gzip", {"content": PNG, "headers": {"content-encoding": "gzip"}}),
    "nothing": (422, "The body is empty", {"content": b""}),
    "no image": (415, "The image is not an image, or is damaged: send JPEG, PNG, WEBP or BMP.", {"content": b"junk" * 100}),
    "HEIC": (415, "The image is HEIC, which phones write", {"content": b"\0\0\0\x18ftypheic" + bytes(99)}),
    "GIF": (415, "The image is not an image", {"content": encoded(kind="GIF")}),
    "a cut header": (422, "The image is damaged: its header cannot be read.", {"content": PNG[:20]}),
    "a cut image": (422, "b.png cannot be read", {"files": [("f", ("a.png", PNG)), ("f", ("b.png", encoded(300, 300)[:-200]))]}),
    "a declared length": (413, "larger than 20 MB", {"content": bytes(20_000_001)}),
    "an unknown length": (413, "larger than 20 MB", {"content": "chunks"}),
    "a bomb": (413, "more pixels than are ever decoded", {"content": PNG[:16] + struct.pack(">II", 60_000, 60_000) + PNG[24:]}),
}


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(30):
        yield bytes(1_000_000)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(service, name):
    status, reason, options = REFUSED[name]
    if options.get("content") == "chunks":
        options = {"content": chunks()}
    if name == "a bomb":  # with the checksum of its header
        data = bytearray(options["content"])
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
        options = {"content": bytes(data)}
    answer = ask(service, **options)
    assert answer.status_code == status
    assert reason in answer.json()["error"]
    assert "\n" not in answer.text
    assert ask(service, content=PNG).status_code == 200  # and others go on


@pytest.mark.parametrize(
    ("path", "method", "status", "reason"),
    [
        ("/predict?top=0", "POST", 422, "top is 0: it must be a whole number from 1"),
        ("/predict?top=" + "0" * 9 + "1" * 5_000, "POST", 422, "it must be a whole number from 1"),  # more digits than int takes
        ("/predict?top=1e3", "POST", 422, "top is 1e3"),
        ("/predict?tpo=3", "POST", 422, "tpo is no option"),
        ("/predict", "GET", 405, "/predict does not take GET"),
        ("/x", "GET", 404, "/x is no page: POST /predict, GET /health and GET /info are."),
    ],
)
def test_what_is_refused_unread(service, path, method, status, reason):
    answer = ask(service, path, method)
    assert answer.status_code == status
    assert reason in answer.json()["error"]


def test_images_are_refused_by_their_pixels_together(classifier):
    images = [ImageFile("a", encoded(1000, 600)), ImageFile("b", encoded(1000, 400))]
    assert check_images(images, Limits(max_megapixels=1)) == 1_000_000
    with pytest.raises(HTTPException, match=r"413: The images have more than 0\.9 million pixels"):
        check_images(images, Limits(max_megapixels=0.9))


def test_images_that_take_long_to_decode_are_refused():
    jpeg = encoded(kind="JPEG")
    assert check_images([ImageFile("", jpeg + b"\xff\xda" * 99)], Limits()) == 64
    with pytest.raises(HTTPException, match="422: The image has 101 scans"):
        check_images([ImageFile("", jpeg + b"\xff\xda" * 100)], Limits())
    chunk = struct.pack(">I4s", 0, b"teSt") + zlib.crc32(b"teSt").to_bytes(4)
    assert check_images([ImageFile("", PNG[:33] + chunk * 9_990 + PNG[33:])], Limits()) == 64
    many = jpeg[:2] + b"\xff\xef\0\4ab" * 900 + jpeg[2:]
    assert check_images([ImageFile("", many)], Limits()) == 64
    for more in (b"\xff\xef\0\2" * 1_000, b"\xff" * 1_000, b"\xff\xf0\xff\xff" + bytes(1_000)):
        with pytest.raises(HTTPException, match="422: The image has more than 1,000 segments"):
            check_images([ImageFile("", jpeg[:2] + more + jpeg[2:])], Limits())
    profile = struct.pack(">I4s", 3, b"iCCP") + b"x\0\0" + zlib.crc32(b"iCCPx\0\0").to_bytes(4)
    for image in (PNG[:33] + 2 * profile + PNG[33:], PNG[:33] + profile + PNG[33:-12] + profile + PNG[-12:]):
        with pytest.raises(HTTPException, match="422: The image has several color profiles"):
            check_images([ImageFile("", image)], Limits())
    bmp = encoded(kind="BMP")
    with pytest.raises(HTTPException, match="415: The image is a compressed BMP image: send it as PNG"):
        check_images([ImageFile("", bmp[:30] + b"\1" + bmp[31:])], Limits())
    with pytest.raises(HTTPException, match="422: The image has more than 10,000 chunks"):
        check_images([ImageFile("", PNG[:33] + chunk * 10_000 + PNG[33:])], Limits())


def test_tiff_is_for_networks_of_many_channels():
    image = ImageFile("a.tif", encoded(kind="TIFF"))
    assert check_images([image], Limits(), tiff=True) == 64
    with pytest.raises(HTTPException, match=r"415: a\.tif is not an image"):
        check_images([image], Limits())
    assert "TIFF" not in FORMATS


def test_a_slow_sender_is_refused(classifier):
    async def slowly() -> AsyncIterator[bytes]:
        yield PNG[:10]
        await asyncio.sleep(10)

    service = Service(classifier, "", Limits(rate=0, timeout=0.05))
    slow, quick = ask_all(service, ("/predict", "POST", {"content": slowly()}), ("/predict", "POST", {"content": PNG}))
    assert (slow.status_code, quick.status_code) == (408, 200)
    assert slow.json()["error"] == "The request did not arrive within 0.05 s (--timeout): send it faster."
    service.close()


def test_a_client_that_asks_too_often_is_refused(classifier):
    service = Service(classifier, "", Limits(rate=0.5))
    first, second = ask(service, content=PNG), ask(service, content=PNG)
    assert (first.status_code, second.status_code, second.headers["retry-after"]) == (200, 429, "2")
    assert "More than 0.5 requests per second came from your address (--rate)" in second.json()["error"]
    service.close()


def test_rates_by_hand():
    now = 0.0
    rates = Rates(2, clock=lambda: now)
    assert [rates.wait("10.0.0.1") for _ in range(4)] == [0] * 4  # those of two seconds at once
    assert rates.wait("10.0.0.1") == pytest.approx(0.5)
    assert rates.wait("10.0.0.2") == 0
    now = 0.5
    assert rates.wait("10.0.0.1") == 0
    assert rates.wait("10.0.0.1") == pytest.approx(0.5)
    assert [rates.wait(f"2001:db8:0:1::{host}") for host in range(5)] == [0, 0, 0, 0, pytest.approx(0.5)]  # one subscriber
    assert rates.wait("2001:db8:0:2::1") == 0
    assert [rates.wait(f"::ffff:10.0.1.{host}") for host in range(5)] == [0] * 5  # IPv4 at `--host ::`: five clients
    now = 100.0
    assert [bool(rates.wait("10.0.0.1")) for _ in range(5)] == [False] * 4 + [True]


def test_rates_remember_a_bounded_number_of_clients(monkeypatch):
    monkeypatch.setattr("reslight.deploy.serve.limits._CLIENTS", 3)
    now = 0.0
    rates = Rates(1, clock=lambda: now)
    assert [rates.wait(client) for client in "abcd"] == [0, 0, 0, 1]
    now = 2.0
    assert [rates.wait(client) for client in "defg"] == [0, 0, 0, 1]


def test_no_more_requests_than_allowed_are_in_work(classifier, monkeypatch):
    service = Service(classifier, "", Limits(rate=0, max_requests=2))
    hosts = map(str, range(5))
    monkeypatch.setattr("reslight.deploy.serve.app.network", lambda _: next(hosts))  # five clients
    answers = ask_all(service, *[("/predict", "POST", {"content": PNG})] * 5)
    assert sorted(one.status_code for one in answers) == [200, 200, 503, 503, 503]
    assert (service.requests, service.answered, service.refused) == (0, 2, 3)
    service.close()


def test_one_client_has_at_most_half_of_the_requests_in_work(classifier):
    """As many slow senders as --max-requests stopped everybody else."""
    service = Service(classifier, "", Limits(rate=0, max_requests=4, timeout=0.5))

    async def slowly() -> AsyncIterator[bytes]:
        yield PNG[:10]
        await asyncio.sleep(10)

    async def post(host: str, content: object) -> httpx.Response:
        transport = httpx.ASGITransport(service.app(), raise_app_exceptions=False, client=(host, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/predict", content=content)

    async def send() -> list[httpx.Response]:
        return await asyncio.gather(*(post("10.0.0.1", slowly()) for _ in range(4)), post("10.0.0.2", PNG), post("10.0.0.2", PNG))

    *slow, first, second = asyncio.run(send())
    assert sorted(one.status_code for one in slow) == [408, 408, 429, 429]
    assert (first.status_code, second.status_code) == (200, 200)
    assert "2 requests of your address are in work, half of --max-requests" in next(one.text for one in slow if one.status_code == 429)
    assert (service.requests, service._of_client.total()) == (0, 0)
    service.close()


def test_one_client_has_at_most_half_of_the_connections(monkeypatch):
    """Idle connections of one client stopped everybody else."""
    monkeypatch.setattr("reslight.deploy.serve.server._CONNECTIONS", 5)
    config = uvicorn.Config(Starlette(), http=type("_Limited", (_Protocol,), {"share": 2}), ws="none", lifespan="off", log_config=None)

    async def connect() -> list[bool]:
        config.load()
        state, aborted = ServerState(), []
        for host in ("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"):
            transport = Mock()
            transport.get_extra_info = lambda name, host=host: (host, 1) if name == "peername" else None
            protocol = config.http_protocol_class(config, state, {})
            protocol.connection_made(transport)
            aborted.append(transport.abort.called)
            if aborted[-1]:
                protocol.connection_lost(None)
        return aborted

    assert asyncio.run(connect()) == [False, False, True, False]


def test_predictions_that_take_too_long_are_refused(classifier, monkeypatch):
    service = Service(classifier, "", Limits(rate=0, timeout=0.1))
    monkeypatch.setattr(classifier, "decode", lambda *_: time.sleep(0.3))
    answer = ask(service, content=PNG)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "took longer than 0.1 s" in answer.json()["error"]
    service.close()


def test_a_failure_is_one_line(service, monkeypatch):
    monkeypatch.setattr(service.classifier, "decode", lambda *_: 1 / 0)
    answer = ask(service, content=PNG)
    assert (answer.status_code, answer.json()) == (500, {"error": "The server failed; its log says why."})
    assert service.requests == 0


def test_many_requests_at_once_get_their_own_answers(service):
    shades = [encoded(8, 8 + number) for number in range(16)]
    answers = ask_all(service, *[("/predict", "POST", {"content": one}) for one in shades])
    expected = [prediction.classes[0] for prediction in service.classifier.predict(shades)]
    found = [(row["label"], row["probability"]) for one in answers for row in one.json()["predictions"][0]["classes"][:1]]
    assert found == [(label, pytest.approx(value, abs=1e-3)) for label, value in expected]  # bfloat16: batches differ in the last bits


class Slow:
    """Computes means, and remembers the sizes of batches; a negative image raises an error."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def compute(self, pixels):
        time.sleep(0.05)
        self.sizes.append(len(pixels))
        if any(bool((one < 0).any()) for one in pixels):
            raise UsageError("negative")
        return torch.stack([one.mean()[None] for one in pixels]), None


def test_requests_that_come_while_others_are_computed_make_a_batch():
    slow = Slow()
    batches = Batches(slow)

    async def send() -> list:
        first = asyncio.create_task(batches.probabilities([torch.full((2,), 7.0)]))
        await asyncio.sleep(0.02)
        rest = [batches.probabilities([torch.full((2,), float(value)), torch.full((2,), value + 0.5)]) for value in (1, -2, 3)]
        return await asyncio.gather(first, *rest, return_exceptions=True)

    found = asyncio.run(send())
    assert slow.sizes == [1, 6, 2, 2, 2]  # the batch with an error is computed again, each request by itself
    assert [one if isinstance(one, UsageError) else one.flatten().tolist() for one in found] == [[7], [1, 1.5], found[2], [3, 3.5]]
    assert isinstance(found[2], UsageError)
    batches.close()
    assert not batches.is_alive()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--port", "70000"), "--port is 70000: it must be 0 to 65535. Use 8000, or 0 for any free one."),
        (("--host", "no.such.host.invalid"), "--host is no.such.host.invalid: it must be an address or a name of this machine."),
        (("--host", "192.0.2.1"), "--host is 192.0.2.1: Cannot assign requested address."),
        (("--max-mb", "0"), "--max-mb is 0.0: it must be above 0, and finite. Use 20."),
        (("--rate", "nan"), "--rate is nan: it must be 0 or more, and finite. Use 20."),
    ],
)
def test_options_that_cannot_be(words, message, capsys):
    assert main(["serve", "resnet8.digits", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use_is_one_line(capsys):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "no such weights", "--port", str(port)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def send(port: int, data: bytes) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port), timeout=20)
    opened.sendall(data)
    return opened


def read(opened: socket.socket) -> tuple[int, dict]:
    """The status and the JSON of an answer, after which the server closes the connection."""
    with opened, opened.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_a_server_of_its_own_survives_hostile_clients_and_stops_cleanly(stop):
    words = [sys.executable, "-m", "reslight", "serve", "resnet8.digits", "--port", "0", "--timeout", "3", "--threads", "1"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().startswith("serving resnet8.digits: 10 classes; ")
        url = server.stdout.readline().split()[2].rstrip(";")
        port = int(url.rpartition(":")[2])
        head = b"POST /predict HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        late_head, late_body = send(port, b"POST /pre"), send(port, head % 100 + b"abc")
        assert read(send(port, b"\x16\x03\x01 this is TLS\r\n\r\n"))[0] == 400
        assert read(send(port, b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000))[0] == 400
        send(port, head % 1000 + b"abc").close()  # gone before the end
        with httpx.Client(timeout=20) as client:
            assert client.post(f"{url}/predict", content=bytes(100_000_000)).status_code == 413
            assert client.post(f"{url}/predict", content=PNG).status_code == 200
        assert read(late_head) == (408, {"error": "The header of the request did not arrive in time: send it faster."})
        assert read(late_body) == (408, {"error": "The request did not arrive within 3 s (--timeout): send it faster."})
        begun, idle = send(port, head % len(PNG) + PNG[:20]), send(port, b"")
        time.sleep(0.3)
        server.send_signal(stop)
        assert server.stdout.readline() == "stopping; requests in work: 1\n"
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            send(port, b"")
        begun.sendall(PNG[20:])
        assert read(begun)[0] == 200
        idle.close()
        out, err = server.communicate(timeout=20)
        assert (out, err, server.returncode) == ("stopped; requests answered: 2, refused: 3, cut off: 0\n", "", 0)
    finally:
        server.kill()
