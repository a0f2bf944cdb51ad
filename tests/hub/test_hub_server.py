"""The tests' Hub against the unmodified client: what it stores and serves, whom it refuses, and every fault it can be told to have."""

import hashlib
import http.client
import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_hf_file_metadata, model_info
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tests.hub_server import HubServer, connect

NAME = "acme/net"
CARD = b"""---
license: apache-2.0
library_name: reslight
pipeline_tag: image-classification
tags: [resnet]
datasets: [uoft-cs/cifar10]
model-index:
- name: net
  results:
  - task: {type: image-classification}
    dataset: {type: uoft-cs/cifar10, name: CIFAR-10}
    metrics: [{type: accuracy, value: 92.5}]
---
# net
"""
WEIGHTS = bytes(range(256)) * 800
FILES = {"config.json": b'{"architecture": "resnet20"}', "model.safetensors": WEIGHTS, "README.md": CARD, "a/b/c.txt": b"hello\n"}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
HELLO = "ce013625030ba8dba906f756967f9e9ca394464a"  # what `git hash-object` says of "hello\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[HubServer]:
    with HubServer(**getattr(request, "param", {})) as server:
        server.slept = connect(server, monkeypatch, tmp_path / "hub")
        yield server


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def anyone(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture
def stranger(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.stranger)


def add(**files: Any) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(name.replace("__", "."), data) for name, data in files.items()]


def status(call: Callable[..., object], *arguments: Any, **named: Any) -> int:
    with pytest.raises(HfHubHTTPError) as raised:
        call(*arguments, **named)
    return raised.value.response.status_code


def asked(hub: HubServer, method: str, part: str) -> int:
    return sum(request.method == method and part in request.path for request in hub.requests)


# Storing and reading back


GIVEN: dict[str, Callable[[Path], Any]] = {"bytes": Path.read_bytes, "stream": lambda path: io.BytesIO(path.read_bytes()), "path": str}


@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN)
def test_push_and_pull(hub: HubServer, api: HfApi, tmp_path: Path, give: Callable[[Path], Any]) -> None:
    (tmp_path / "given").write_bytes(WEIGHTS)
    url = api.create_repo(NAME, private=True)
    assert (url.repo_id, str(url)) == (NAME, f"{hub.endpoint}/{NAME}")
    first = hub.head(NAME)
    operations = add(
        model__safetensors=give(tmp_path / "given"), config__json=FILES["config.json"], README__md=CARD, empty__safetensors=b""
    )
    made = api.create_commit(NAME, operations, commit_message="Publish", commit_description="Why", parent_commit=first)
    assert (made.oid, made.repo_url.repo_id, made.pr_url) == (hub.head(NAME), NAME, None)
    assert [(commit.id, commit.title, commit.message) for commit in hub.commits(NAME)[:1]] == [(made.oid, "Publish", "Why")]
    assert hub.commits(NAME)[1].id == first
    there = hub.files(NAME)
    assert there == {
        name: there.get(name) for name in (".gitattributes", "model.safetensors", "config.json", "README.md", "empty.safetensors")
    }
    assert there["model.safetensors"] == WEIGHTS
    assert there["README.md"] == CARD
    assert asked(hub, "PUT", SHA256) == asked(hub, "POST", "verify") == 1
    assert [request.headers["authorization"] for request in hub.requests if request.method == "PUT"] == [None]

    assert Path(api.hf_hub_download(NAME, "model.safetensors")).read_bytes() == WEIGHTS
    folder = Path(api.snapshot_download(NAME, revision="main"))
    assert folder.name == made.oid
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == there
    (row,) = api.get_paths_info(NAME, ["model.safetensors", "not there"])
    assert (row.lfs.sha256, row.lfs.size, row.size) == (SHA256, len(WEIGHTS), len(WEIGHTS))
    assert api.model_info(NAME).private


def test_names_of_contents(hub: HubServer, api: HfApi) -> None:
    head = hub.create(NAME, FILES)
    rows = {row.path: row for row in api.list_repo_tree(NAME, recursive=True)}
    assert {*rows} == {*FILES, ".gitattributes", "a", "a/b"}
    assert (rows["a/b/c.txt"].blob_id, rows["a/b/c.txt"].lfs) == (HELLO, None)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize {len(WEIGHTS)}\n".encode()
    in_git = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    assert (rows["model.safetensors"].blob_id, rows["model.safetensors"].lfs.pointer_size) == (in_git, len(pointer))
    assert {row.path for row in api.list_repo_tree(NAME)} == {*FILES, ".gitattributes", "a"} - {"a/b/c.txt"}
    assert [row.path for row in api.list_repo_tree(NAME, "a/b")] == ["a/b/c.txt"]
    files = {file.rfilename: file for file in api.model_info(NAME, files_metadata=True).siblings}
    assert (files["model.safetensors"].lfs.sha256, files["a/b/c.txt"].blob_id) == (SHA256, HELLO)
    assert {file.size for file in api.model_info(NAME).siblings} == {None}
    for name, etag in {"model.safetensors": SHA256, "a/b/c.txt": HELLO}.items():
        told = get_hf_file_metadata(f"{hub.endpoint}/{NAME}/resolve/main/{name}")
        assert (told.etag, told.size, told.commit_hash) == (etag, len(FILES[name]), head)
    assert not asked(hub, "GET", "/resolve/")


def test_a_commit_never_changes(hub: HubServer, api: HfApi) -> None:
    old = hub.create(NAME, FILES)
    new = hub.commit(NAME, {"config.json": b"{}"}, delete=["a/b/c.txt"])
    assert Path(api.hf_hub_download(NAME, "config.json", revision=old)).read_bytes() == FILES["config.json"]
    assert Path(api.hf_hub_download(NAME, "config.json")).read_bytes() == b"{}"
    assert not api.file_exists(NAME, "a/b/c.txt")
    assert api.file_exists(NAME, "a/b/c.txt", revision=old)
    assert [commit.commit_id for commit in api.list_repo_commits(NAME)] == [new, old, hub.commits(NAME)[-1].id]
    assert hub.files(NAME, old)["a/b/c.txt"] == b"hello\n"


def test_nothing_new_is_no_commit(hub: HubServer, api: HfApi) -> None:
    head = hub.create(NAME, FILES)
    again = [CommitOperationAdd(path, data) for path, data in FILES.items()]
    assert api.create_commit(NAME, again, commit_message="Again").oid == head
    assert not asked(hub, "POST", "/commit/")
    api.create_commit(NAME, add(copy__safetensors=WEIGHTS), commit_message="The same bytes under another name")
    assert hub.files(NAME)["copy.safetensors"] == WEIGHTS
    assert not asked(hub, "PUT", "/lfs/")


def test_deleting_files(hub: HubServer, api: HfApi) -> None:
    head = hub.create(NAME, FILES)
    api.create_commit(NAME, [CommitOperationDelete("a/"), CommitOperationDelete("config.json")], commit_message="Less")
    assert {*hub.files(NAME)} == {".gitattributes", "model.safetensors", "README.md"}
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        api.create_commit(NAME, [CommitOperationDelete("a/b/c.txt")], commit_message="Twice")
    assert hub.commits(NAME)[1].id == head


def test_branches_and_tags(hub: HubServer, api: HfApi) -> None:
    first = hub.create(NAME, FILES)
    api.create_branch(NAME, branch="feature/x")
    api.create_tag(NAME, tag="v1.0", tag_message="The first")
    assert status(api.create_branch, NAME, branch="feature/x") == status(api.create_tag, NAME, tag="v1.0") == 409
    api.create_branch(NAME, branch="feature/x", exist_ok=True)
    api.create_tag(NAME, tag="v1.0", exist_ok=True)
    second = api.create_commit(NAME, add(config__json=b"[]"), commit_message="On a branch", revision="feature/x").oid
    assert (hub.head(NAME), hub.head(NAME, "feature/x"), hub.head(NAME, "v1.0")) == (first, second, first)
    assert Path(api.hf_hub_download(NAME, "config.json", revision="feature/x")).read_bytes() == b"[]"
    refs = api.list_repo_refs(NAME)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {"main": first, "feature/x": second}
    assert [(tag.name, tag.ref, tag.target_commit) for tag in refs.tags] == [("v1.0", "refs/tags/v1.0", first)]
    assert status(api.create_commit, NAME, add(a=b"a"), commit_message="On a tag", revision="v1.0") == 400
    api.delete_tag(NAME, tag="v1.0")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(NAME, tag="v1.0")
    api.delete_branch(NAME, branch="feature/x")
    assert status(api.delete_branch, NAME, branch="main") == 403
    assert [branch.name for branch in api.list_repo_refs(NAME).branches] == ["main"]
    if hasattr(api, "resolve_revision"):
        assert api.resolve_revision(NAME).resolved == first


def test_pull_request(hub: HubServer, stranger: HfApi) -> None:
    head = hub.create(NAME, FILES)
    assert status(stranger.create_commit, NAME, add(a=b"a"), commit_message="Not mine") == 403
    made = stranger.create_commit(NAME, add(b__safetensors=b"bb", a=b"a"), commit_message="Offer", create_pr=True)
    assert (made.pr_num, made.pr_revision, made.oid) == (1, "refs/pr/1", hub.head(NAME, "refs/pr/1"))
    assert hub.head(NAME) == head
    assert Path(stranger.hf_hub_download(NAME, "b.safetensors", revision="refs/pr/1")).read_bytes() == b"bb"
    later = hub.commit(NAME, {"a": b"aa"}, revision="refs/pr/1")
    (ref,) = stranger.list_repo_refs(NAME, include_pull_requests=True).pull_requests
    assert (ref.ref, ref.target_commit) == ("refs/pr/1", later)
    again = stranger.create_commit(NAME, add(a=b"c"), commit_message="From before", create_pr=True, parent_commit=hub.commits(NAME)[1].id)
    assert (again.pr_num, {*hub.files(NAME, "refs/pr/2")}) == (2, {".gitattributes", "a"})


def test_somebody_else_was_faster(hub: HubServer, api: HfApi) -> None:
    seen = hub.create(NAME, FILES)
    theirs = hub.commit(NAME, {"config.json": b"theirs"})
    assert status(api.create_commit, NAME, add(config__json=b"mine"), commit_message="Late", parent_commit=seen) == 412
    assert hub.head(NAME) == theirs
    api.create_commit(NAME, add(config__json=b"mine"), commit_message="Now", parent_commit=theirs)
    assert hub.files(NAME)["config.json"] == b"mine"


def test_validated_cards(hub: HubServer, api: HfApi) -> None:
    hub.create(NAME)
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.create_commit(NAME, add(README__md=b"---\na: [\n---\n"), commit_message="Bad YAML")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.create_commit(NAME, add(README__md=b"# net\n"), commit_message="No YAML")
    assert hub.files(NAME)["README.md"] == b"# net\n"


def test_model_info_and_lists(hub: HubServer, api: HfApi, anyone: HfApi) -> None:
    head = hub.create(NAME, FILES)
    hub.create("acme/other", {"README.md": b"---\ntags: [resnet, other]\nlibrary_name: timm\n---\n"})
    hub.create("acme/secret", {"README.md": CARD}, private=True)
    hub.create("other/net", {"README.md": CARD})
    info = model_info(NAME)
    assert (info.id, info.author, info.sha, info.library_name, info.pipeline_tag) == (
        NAME,
        "acme",
        head,
        "reslight",
        "image-classification",
    )
    assert {"resnet", "license:apache-2.0", "dataset:uoft-cs/cifar10", "reslight"} <= {*info.tags}
    assert info.card_data.license == "apache-2.0"
    assert info.card_data.eval_results[0].metric_value == info.model_index[0]["results"][0]["metrics"][0]["value"] == 92.5
    assert model_info(NAME, expand=["cardData"]).sha is None

    def ids(of: HfApi, **query: Any) -> list[str]:
        return [model.id for model in of.list_models(**query)]

    assert ids(api, author="acme") == [NAME, "acme/other", "acme/secret"]
    assert ids(anyone, author="acme") == [NAME, "acme/other"]
    assert ids(anyone, author="acme", filter="reslight") == [NAME]
    assert ids(anyone, filter=["resnet", "reslight"]) == [NAME, "other/net"]
    assert ids(anyone, search="other") == ["acme/other", "other/net"]
    assert ids(anyone, sort="last_modified")[0] == "other/net"
    assert ids(anyone, author="nobody") == []
    (plain,), (full,), (card,), (expanded,) = (
        anyone.list_models(author="acme", filter="reslight", **more)
        for more in ({}, {"full": True}, {"cardData": True}, {"expand": ["sha"]})
    )
    assert (plain.sha, plain.card_data, plain.siblings, plain.library_name) == (None, None, None, "reslight")
    assert (full.sha, {file.rfilename for file in full.siblings}) == (head, {*FILES, ".gitattributes"})
    assert card.card_data.library_name == "reslight"
    assert (expanded.sha, expanded.tags) == (head, None)


@pytest.mark.parametrize("hub", [{"page_size": 2}], indirect=True)
def test_pages(hub: HubServer, api: HfApi) -> None:
    hub.create(NAME, {f"{number}.txt": b"" for number in range(6)})
    for number in range(4):
        hub.create(f"acme/{number}")
    assert [row.path for row in api.list_repo_tree(NAME)] == [".gitattributes", *(f"{number}.txt" for number in range(6))]
    assert asked(hub, "GET", "/tree/") == 4
    assert [model.id for model in api.list_models(author="acme")] == [NAME, *(f"acme/{number}" for number in range(4))]
    assert [model.id for model in api.list_models(limit=3)] == [NAME, "acme/0", "acme/1"]


@pytest.mark.parametrize("hub", [{"redirect_lfs": True}], indirect=True)
def test_lfs_from_another_origin(hub: HubServer, api: HfApi) -> None:
    hub.create(NAME, FILES, private=True)
    told = get_hf_file_metadata(f"{hub.endpoint}/{NAME}/resolve/main/model.safetensors", token=hub.token)
    assert (told.etag, told.size) == (SHA256, len(WEIGHTS))
    assert told.location.startswith(hub.storage)
    folder = Path(api.snapshot_download(NAME))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    (storage,) = [request for request in hub.requests if request.path.startswith("/lfs/")]
    assert (storage.headers["authorization"], storage.headers["host"]) == (None, urlsplit(hub.storage).netloc)
    assert {request.headers["authorization"] for request in hub.requests if request is not storage} == {f"Bearer {hub.token}"}


@pytest.mark.parametrize("hub", [{"lfs_threshold": 10}], indirect=True)
def test_lfs_threshold(hub: HubServer, api: HfApi) -> None:
    api.create_repo(NAME)
    api.create_commit(NAME, add(small=b"123456789", large=b"1234567890"), commit_message="Both")
    assert {row.path: row.lfs and row.lfs.size for row in api.get_paths_info(NAME, ["small", "large"])} == {"small": None, "large": 10}


# Who may do what


def test_what_is_not_there(hub: HubServer, api: HfApi, anyone: HfApi) -> None:
    head = hub.create(NAME, FILES)
    for reader in (api, anyone):
        assert reader.repo_exists(NAME)
        assert not reader.repo_exists("acme/none")
        assert not reader.file_exists(NAME, "none")
        with pytest.raises(RepositoryNotFoundError):
            reader.hf_hub_download("acme/none", "config.json")
        with pytest.raises(RevisionNotFoundError):
            reader.hf_hub_download(NAME, "config.json", revision="none")
        with pytest.raises(RevisionNotFoundError):
            reader.model_info(NAME, revision="0" * 40)
        with pytest.raises(EntryNotFoundError) as raised:
            reader.hf_hub_download(NAME, "none")
        assert raised.value.response.headers["x-repo-commit"] == head
        with pytest.raises(EntryNotFoundError):
            list(reader.list_repo_tree(NAME, "none"))
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("acme/none")
    api.delete_repo(NAME)
    assert not anyone.repo_exists(NAME)


def test_private_looks_as_if_not_there(hub: HubServer, api: HfApi, anyone: HfApi, stranger: HfApi) -> None:
    hub.create(NAME, FILES, private=True)
    assert api.file_exists(NAME, "config.json")
    for other in (anyone, stranger):
        answers = []
        for name in (NAME, "acme/none"):
            with pytest.raises(RepositoryNotFoundError) as raised:
                other.model_info(name)
            answers.append((raised.value.response.status_code, raised.value.server_message))
            with pytest.raises(RepositoryNotFoundError):
                other.hf_hub_download(name, "config.json")
            with pytest.raises(RepositoryNotFoundError):
                other.create_commit(name, add(a=b"a"), commit_message="Mine now", create_pr=True)
        assert answers[0] == answers[1]


def test_gated(hub: HubServer, api: HfApi, anyone: HfApi, stranger: HfApi) -> None:
    hub.create(NAME, FILES, gated=True)
    assert anyone.model_info(NAME).gated == "auto"
    for other in (anyone, stranger):
        with pytest.raises(GatedRepoError):
            other.hf_hub_download(NAME, "config.json")
    assert api.file_exists(NAME, "config.json")
    hub.admitted.add("other")
    assert Path(stranger.hf_hub_download(NAME, "config.json")).read_bytes() == FILES["config.json"]


def test_tokens(hub: HubServer, api: HfApi, anyone: HfApi) -> None:
    head = hub.create(NAME, FILES)
    assert api.whoami()["name"] == "acme"
    bad, reader = (HfApi(endpoint=hub.endpoint, token=token) for token in ("hf_wrong", hub.reader))
    with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as raised:
        bad.model_info(NAME)
    assert not isinstance(raised.value, RepositoryNotFoundError)
    assert raised.value.response.headers["x-error-message"] == "Invalid credentials in Authorization header"
    assert raised.value.response.status_code == status(bad.whoami) == 401
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    assert reader.file_exists(NAME, "config.json")
    for other, expected in ((reader, 403), (anyone, 401)):
        assert status(other.create_repo, "acme/new") == expected
        assert status(other.delete_repo, NAME) == expected
        assert status(other.create_tag, NAME, tag="v1") == expected
        assert status(other.create_branch, NAME, branch="b") == expected
        assert status(other.create_commit, NAME, add(a=b"a"), commit_message="Mine now") == expected
    assert status(api.create_repo, "other/new") == 403
    assert ([*hub.repos], hub.head(NAME), [*hub.repos[NAME].refs]) == ([NAME], head, ["refs/heads/main"])


def test_repository_that_is_already_there(hub: HubServer, api: HfApi) -> None:
    head = hub.create(NAME, FILES)
    assert status(api.create_repo, NAME) == 409
    assert api.create_repo(NAME, exist_ok=True).repo_id == NAME
    assert hub.head(NAME) == head


def test_upload_that_was_never_made(hub: HubServer) -> None:
    head = hub.create(NAME)
    lines = [{"key": "header", "value": {"summary": "s"}}, {"key": "lfsFile", "value": {"path": "a", "oid": SHA256}}]
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc)
    for method, path, body in (
        ("PUT", f"/lfs/{SHA256}", b"other bytes"),
        ("POST", f"/api/models/{NAME}/commit/main", b"\n".join(json.dumps(line).encode() for line in lines)),
    ):
        connection.request(method, path, body, {"Authorization": f"Bearer {hub.token}"})
        answer = connection.getresponse()
        assert (answer.status, "error" in json.loads(answer.read())) == (400, True)
    connection.close()
    assert hub.head(NAME) == head


def test_one_connection_for_many_requests(hub: HubServer) -> None:
    hub.create(NAME, FILES)
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc)
    ports = set()
    for method, path, body, headers, expected, length in (
        ("HEAD", f"/{NAME}/resolve/main/config.json", None, {}, 200, 0),
        ("HEAD", f"/{NAME}/resolve/main/none", None, {}, 404, 0),
        ("POST", f"/api/models/{NAME}/nothing", b"a body nobody wants", {}, 404, None),
        ("GET", f"/{NAME}/resolve/main/config.json", None, {}, 200, len(FILES["config.json"])),
        ("GET", f"/{NAME}/resolve/main/model.safetensors", None, {"Range": "bytes=10-19"}, 206, 10),
        ("GET", f"/{NAME}/resolve/main/model.safetensors", None, {"Range": "bytes=10-"}, 206, len(WEIGHTS) - 10),
        ("GET", f"/{NAME}/resolve/main/model.safetensors", None, {"Range": f"bytes={len(WEIGHTS)}-"}, 416, None),
        ("GET", f"/{NAME}/resolve/refs%2Fheads%2Fmain/a/b/c.txt", None, {}, 200, 6),
        ("GET", f"/{NAME}/resolve/main%0A%E2%82%AC/a/b/c.txt", None, {}, 404, None),
        ("GET", f"/lfs/{'0' * 64}", None, {}, 403, None),
        ("GET", f"/lfs/{SHA256}", None, {}, 200, len(WEIGHTS)),
    ):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        assert (answer.status, length) in ((expected, None), (expected, len(answer.read())))
        answer.read()
        ports.add(connection.sock.getsockname()[1])
    connection.close()
    assert len(ports) == 1


# Faults. What the client makes of them is told in the docs of the protocol; here it shows that they arrive.


def test_fault_status(hub: HubServer, api: HfApi) -> None:
    head = hub.create(NAME, FILES)
    for code in (500, 503, 404):
        hub.fault("GET", "/api/models/", "status", status=code)
        assert status(api.model_info, NAME) == code
    hub.fault("GET", "/api/models/", "status", status=404, headers={"X-Error-Code": "RepoNotFound"})
    assert not api.repo_exists(NAME)
    hub.fault("GET", "/api/models/", "status", status=429, headers={"Retry-After": "3"})
    with pytest.raises(HfHubHTTPError) as raised:
        api.model_info(NAME)
    assert raised.value.response.headers["retry-after"] == "3"
    hub.fault("HEAD", "/resolve/main/config", "status")
    assert status(get_hf_file_metadata, f"{hub.endpoint}/{NAME}/resolve/main/config.json") == 503
    hub.fault("GET", "/resolve/main/model", "status", status=500)
    assert status(api.hf_hub_download, NAME, "model.safetensors") == 500
    hub.fault("POST", "/commit/main", "status", status=412)
    assert status(api.create_commit, NAME, add(a=b"a"), commit_message="Refused") == 412
    assert hub.head(NAME) == head
    assert not any(fault.left for fault in hub.faults)


def test_fault_status_of_an_upload(hub: HubServer, api: HfApi) -> None:
    head = hub.create(NAME)
    hub.fault("PUT", "/lfs/", "status", times=2)
    api.create_commit(NAME, add(a__safetensors=b"a"), commit_message="At the third attempt")
    assert (hub.files(NAME)["a.safetensors"], asked(hub, "PUT", "/lfs/"), hub.commits(NAME)[1].id) == (b"a", 3, head)
    assert hub.slept == [1, 2]
    hub.fault("PUT", "/lfs/", "status", status=403)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'b\.safetensors'") as raised:
        api.create_commit(NAME, add(b__safetensors=b"b"), commit_message="Never")
    assert isinstance(raised.value.__cause__, HfHubHTTPError)
    assert {*hub.files(NAME)} == {".gitattributes", "a.safetensors"}


@pytest.mark.parametrize(("kind", "exception"), [("reset", "ReadError"), ("cut_reset", "ReadError")])
def test_fault_reset(hub: HubServer, api: HfApi, kind: str, exception: str) -> None:
    hub.create(NAME, FILES)
    hub.fault("GET", "/resolve/", kind)
    with pytest.raises(Exception, match="reset by peer") as raised:
        api.hf_hub_download(NAME, "model.safetensors")
    assert (type(raised.value).__name__, isinstance(raised.value, OSError)) == (exception, False)
    assert Path(api.hf_hub_download(NAME, "model.safetensors")).read_bytes() == WEIGHTS


def test_fault_cut(hub: HubServer, api: HfApi) -> None:
    hub.create(NAME, FILES)
    hub.fault("GET", "/resolve/", "cut", times=100)
    half, whole = len(FILES["config.json"]) // 2, len(FILES["config.json"])
    with pytest.raises(Exception, match=rf"peer closed connection .*received {half} bytes, expected {whole}"):
        api.hf_hub_download(NAME, "config.json")


@pytest.mark.skipif(huggingface_hub.__version__ < "2", reason="the first 1.x clients do not resume")
def test_resumed_download(hub: HubServer, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(NAME, FILES)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fault("GET", "/resolve/", "cut", times=2)
    assert Path(api.hf_hub_download(NAME, "model.safetensors")).read_bytes() == WEIGHTS
    # Half is 102400 bytes, half of the rest 51400; the client keeps whole chunks.
    assert [request.headers["range"] for request in hub.requests if request.method == "GET"] == [None, "bytes=102000-", "bytes=153000-"]


def test_fault_corrupt(hub: HubServer, api: HfApi) -> None:
    hub.create(NAME, FILES)
    hub.fault("GET", "/resolve/", "corrupt")
    got = Path(api.hf_hub_download(NAME, "model.safetensors")).read_bytes()
    assert [(at, one ^ other) for at, (one, other) in enumerate(zip(got, WEIGHTS, strict=True)) if one != other] == [(len(WEIGHTS) // 2, 1)]


def test_fault_lost(hub: HubServer, api: HfApi) -> None:
    head = hub.create(NAME, FILES)
    hub.fault("POST", "/commit/", "lost")
    with pytest.raises(Exception, match="Server disconnected"):
        api.create_commit(NAME, add(a=b"a"), commit_message="Made, but not told")
    made, before, _ = hub.commits(NAME)
    assert (made.title, before.id) == ("Made, but not told", head)
    assert asked(hub, "POST", "/commit/") == 1


def test_fault_slow(hub: HubServer) -> None:
    hub.create(NAME, FILES)
    url = f"{hub.endpoint}/{NAME}/resolve/main/config.json"
    hub.fault("HEAD", "/resolve/", "slow", seconds=5)
    with pytest.raises(Exception, match="timed out"):
        get_hf_file_metadata(url, timeout=0.2)
    hub.fault("HEAD", "/resolve/", "slow", seconds=0.01)
    assert get_hf_file_metadata(url, timeout=5).size == len(FILES["config.json"])


def test_fault_etag(hub: HubServer) -> None:
    hub.create(NAME, FILES)
    hub.fault("HEAD", "/resolve/", "etag", times=2)
    for name in ("config.json", "model.safetensors"):
        assert get_hf_file_metadata(f"{hub.endpoint}/{NAME}/resolve/main/{name}").etag == "../../../evil"


def test_fault_no_headers(hub: HubServer, api: HfApi) -> None:
    hub.create(NAME, FILES)
    for name in ("X-Repo-Commit", "ETag"):
        hub.fault("HEAD", "/config.json", "no_headers", times=2, names=[name])
        with pytest.raises(LocalEntryNotFoundError):
            api.hf_hub_download(NAME, "config.json")
    hub.fault("HEAD", "/model.safetensors", "no_headers")
    told = get_hf_file_metadata(f"{hub.endpoint}/{NAME}/resolve/main/model.safetensors")
    assert (told.etag, told.commit_hash, told.size) == (None, None, len(WEIGHTS))


def test_a_fault_meets_what_it_was_ordered_for(hub: HubServer, anyone: HfApi) -> None:
    hub.create(NAME, FILES)
    hub.create("acme/other", FILES)
    hub.fault("HEAD|GET", f"^/{NAME}/resolve/", "status", times=1)
    assert anyone.file_exists("acme/other", "config.json")
    assert status(anyone.file_exists, NAME, "config.json") == 503
    assert anyone.file_exists(NAME, "config.json")
    with pytest.raises(AssertionError, match="typo"):
        hub.fault("GET", "", "typo")


def test_after_the_server_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as hub:
        connect(hub, monkeypatch, tmp_path)
        hub.create(NAME, FILES)
        api = HfApi(endpoint=hub.endpoint)
        path = api.hf_hub_download(NAME, "config.json")
    before = len(hub.requests)
    # A client of version 1 stumbles over a session that it closed itself
    gone = (LocalEntryNotFoundError, *([RuntimeError] if huggingface_hub.__version__.startswith("1.") else []))
    with suppress(*gone[1:]):
        assert api.hf_hub_download(NAME, "config.json") == path
    with pytest.raises(gone):
        api.hf_hub_download(NAME, "README.md")
    assert len(hub.requests) == before
