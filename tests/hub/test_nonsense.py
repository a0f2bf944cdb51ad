"""Answers that are not the Hub's, of a proxy, a login page or a server in trouble: errors of the documented types, in one line."""

import re

import pytest

import reslight as package
from reslight import create_model
from reslight.hub import client
from reslight.messages import has_control
from reslight.weights.listing import remote

HTML = b"<html><body>Log in to the network</body></html>"
ANSWERS = {
    "a login page": {"status": 200, "body": HTML, "headers": {"Content-Type": "text/html"}},
    "an empty answer": {"status": 200, "body": b""},
    "an error page": {"status": 503, "body": HTML},
    "an empty error": {"status": 502, "body": b""},
    "an object": {"status": 200, "body": {"message": "hello"}},
    "a list": {"status": 200, "body": [1, None, {"path": 3}]},
    "a list of objects": {"status": 200, "body": [{"type": "file", "path": "config.json", "size": "9", "oid": 3}]},
    "null": {"status": 200, "body": None},
    "a number": {"status": 200, "body": 7},
    "an id that is none": {"status": 200, "body": {"id": 7, "sha": ["x"], "siblings": 3}},
    "an escape": {"status": 200, "body": {"id": "acme/net", "sha": "\x1b[2J"}},
    "a false encoding": {"status": 200, "body": b"not zipped", "headers": {"Content-Encoding": "gzip"}},
    "no UTF-8": {"status": 200, "body": b"\xff\xfe{}"},
    "a redirect to itself": {"status": 302, "body": b"", "headers": {"Location": "/api/models/acme/net"}},
    "a teapot": {"status": 418, "body": HTML},
}
REQUESTS = [("GET", "/api/models/acme/net"), ("POST", "/paths-info/"), ("HEAD", "/resolve/"), ("GET", "/resolve/")]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(("method", "pattern"), REQUESTS)
def test_load_raises_what_it_says(hub, pushed, answer, method, pattern):
    hub.fault(method, pattern, "status", times=100, **ANSWERS[answer])
    with pytest.raises((OSError, package.UsageError)) as refused:
        package.load("acme/net")
    assert not has_control(str(refused.value))
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("answer", ANSWERS)
def test_weights_remote_raises_what_it_says(hub, pushed, answer):
    hub.fault("GET", "/api/models", "status", times=100, **ANSWERS[answer])
    message = ""
    try:
        assert list(remote("acme")) == []
    except (OSError, package.UsageError) as error:
        message = str(error)
    assert not has_control(message)


@pytest.mark.parametrize("answer", ["a login page", "an empty answer", "an error page", "an empty error"])
@pytest.mark.parametrize(("method", "pattern"), [("GET", "/api/models/"), ("POST", "/paths-info/|/api/validate-yaml|/preupload/|/commit/")])
def test_it_is_asked_again(hub, folder, answer, method, pattern):
    hub.create("acme/net")
    hub.fault(method, pattern, "status", **ANSWERS[answer])
    package.push(folder, "acme/net")
    assert hub.faults[0].left == 0
    assert len(hub.commits("acme/net")) == 2
    hub.fault(method, pattern, "status", **ANSWERS[answer])
    package.load("acme/net")


def test_what_a_login_page_is_reported_as(hub, pushed):
    hub.fault("GET", "/api/models/acme/net", "status", times=100, **ANSWERS["a login page"])
    with pytest.raises(ConnectionError, match=rf"looking up acme/net failed: {hub.endpoint} gave an answer that is not the Hub's \(JSON"):
        package.load("acme/net")


def test_a_mistake_of_our_own_is_not_blamed_on_the_hub(hub):
    code = compile("def wrong(): return {}['x']", "ours", "exec")
    exec(code, names := {"__name__": "reslight.x"})
    with pytest.raises(KeyError):
        client.with_retries(names["wrong"], "counting", client.Repository("acme/net"))


def test_lines_of_attempts_show_the_status(hub, pushed, caplog):
    hub.fault("GET", "/api/models/acme/net", "status", status=503)
    hub.fault("GET", "/resolve/.*model", "status", status=500, body=HTML)
    package.load("acme/net")
    assert "looking up acme/net: status 503 (as ordered); next attempt in 1 s" in caplog.text
    assert "downloading model.safetensors of acme/net: status 500 (<html><body>Log in" in caplog.text
    assert "http:" not in caplog.text, "no link to an encyclopedia"


def test_an_endpoint_may_end_with_a_slash(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/")
    lines = package.push(folder, "acme/net")
    assert lines[-2].startswith(f"done  {hub.endpoint}/acme/net/commit/")
    package.load("acme/net")
    assert not any("//" in request.path for request in hub.requests)
    with pytest.raises(FileNotFoundError, match=f"{hub.endpoint} has no model"):
        package.load("acme/other")


@pytest.mark.parametrize("body", [HTML, {}, {"commitOid": "x" * 40, "commitUrl": "y"}, {"commitOid": 3, "commitUrl": None}, None])
def test_a_commit_with_a_nonsense_confirmation_is_found(hub, folder, body):
    hub.create("acme/net")
    hub.fault("POST", "/commit/", "nonsense", body=body)
    lines = package.push(folder, "acme/net")
    assert hub.head("acme/net") in lines[-2]
    assert len(hub.commits("acme/net")) == 2


def test_a_commit_that_cannot_be_confirmed(hub, folder, monkeypatch):
    hub.create("acme/net")
    known = hub.next_fault

    def nothing_after_the_commit(method, path):
        if "/commit/" in path:
            hub.fault("GET", "/api/models/acme/net", "status", times=100)
            return "lost", {}
        return known(method, path)

    monkeypatch.setattr(hub, "next_fault", nothing_after_the_commit)
    with pytest.raises(
        ConnectionError, match=r"publishing acme/net could not be confirmed, and may have succeeded: looking up .* Look at"
    ) as said:
        package.push(folder, "acme/net")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("kind", ["lost", "nonsense"])
def test_one_pull_request_is_opened_though_the_answer_is_lost(hub, pushed, kind):
    hub.create("acme/other")
    hub.fault("POST", "/commit/", kind, body=HTML)
    lines = package.push(pushed, "acme/other", create_pr=True)
    requests = [ref for ref in hub.repos["acme/other"].refs if ref.startswith("refs/pr/")]
    assert requests == ["refs/pr/1"]
    assert lines[-2] == f"done  {hub.endpoint}/acme/other/discussions/1"


def test_what_was_replaced_is_said_when_it_was(hub, folder, caplog, monkeypatch):
    net = create_model("resnet8", in_channels=1)
    with monkeypatch.context() as broken:
        broken.setattr("reslight.weights.saving.write_files", full)
        with pytest.raises(OSError, match="No space"):
            package.save(net, folder, preprocess=package.load(folder).preprocess)
    assert "replaced" not in caplog.text
    package.save(net, "w", preprocess=package.load(folder).preprocess)
    assert re.search(r"w held other weights \(sha256 .*\), which were replaced", caplog.text)


def full(_):
    raise OSError(28, "No space left on device")
