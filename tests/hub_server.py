"""A Hugging Face Hub on this machine, for the tests of what talks to one.

It answers what an unmodified `huggingface_hub` asks for model repositories. Repositories are real ones: branches, tags and
pull requests point to commits, and a commit never changes. A test can change a repository between two requests, as somebody
else would, and order faults for requests to come. `connect` turns this process's client to it; as a fixture:

    @pytest.fixture
    def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
        with HubServer() as server:
            server.slept = connect(server, monkeypatch, tmp_path / "hub")
            yield server

Data sets and Spaces are served as models are, from the same names. Left out: xet (but for its uploads to a folder), multipart
uploads, settings, discussions other than the pull requests of `create_commit`.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import socket
import struct
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pytest
import yaml

FAULTS = ("status", "reset", "cut", "cut_reset", "corrupt", "lost", "slow", "etag", "no_headers", "nonsense")
REQUIRED = ("X-Repo-Commit", "ETag", "X-Linked-Etag", "X-Linked-Size")
# A list tells only these of a model, unless asked for more.
LISTED = {"id", "createdAt", "downloads", "likes", "private", "tags", "pipeline_tag", "library_name"}
FULL = {"sha", "author", "lastModified", "gated", "siblings"}
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class Request(NamedTuple):
    """What a client sent; `headers["authorization"]` finds a header however it was written, and is None without one."""

    method: str
    path: str
    headers: Message


class Answer(NamedTuple):
    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = {}


class Refused(Exception):
    """`code` decides which exception the client raises; without one it is an HfHubHTTPError."""

    def __init__(self, status: int, message: str, code: str | None = None, body: Mapping[str, Any] = {}, **headers: str) -> None:
        named = {"X-Error-Message": ascii(message)[1:-1], **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.answer = Answer({"error": message, **body}, status, named | ({"X-Error-Code": code} if code else {}))


class Blob:
    """The bytes of a file, and the names that git and LFS give them."""

    def __init__(self, data: bytes, lfs: bool) -> None:
        self.data, self.sha256, stored = data, hashlib.sha256(data).hexdigest(), data
        if lfs:  # git holds a pointer instead
            stored = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        self.lfs = {"size": len(data), "pointerSize": len(stored)} if lfs else None
        self.sha1 = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
        self.etag = self.sha256 if lfs else self.sha1

    def row(self, path: str) -> dict[str, Any]:
        row = {"type": "file", "path": path, "size": len(self.data), "oid": self.sha1}
        return row | ({"lfs": {"oid": self.sha256, **self.lfs}} if self.lfs else {})

    def sibling(self, path: str) -> dict[str, Any]:
        row = {"rfilename": path, "size": len(self.data), "blobId": self.sha1}
        return row | ({"lfs": {"sha256": self.sha256, **self.lfs}} if self.lfs else {})


@dataclass(frozen=True)
class Commit:
    id: str
    parent: "Commit | None"
    files: Mapping[str, Blob]
    title: str
    message: str
    author: str
    date: str

    def history(self) -> "Iterator[Commit]":
        yield self
        if self.parent:
            yield from self.parent.history()

    def tree(self) -> dict[str, dict[str, Any]]:
        rows = {path: blob.row(path) for path, blob in self.files.items()}
        for folder in {str(folder) for path in self.files for folder in PurePosixPath(path).parents} - {"."}:
            inside = sorted((path, blob.sha1) for path, blob in self.files.items() if path.startswith(f"{folder}/"))
            rows[folder] = {"type": "directory", "path": folder, "oid": hashlib.sha1(repr(inside).encode()).hexdigest()}
        return dict(sorted(rows.items()))


@dataclass
class Repo:
    name: str
    private: bool
    gated: str | bool
    created: str
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def ref(self, revision: str) -> str | None:
        return next((ref for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision) if ref in self.refs), None)

    def find(self, revision: str) -> Commit:
        commit = self.commits.get(self.refs.get(self.ref(revision) or "", revision))
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def info(self, commit: Commit) -> dict[str, Any]:
        card = front_matter(commit.files["README.md"].data) if "README.md" in commit.files else None
        card = card if isinstance(card, dict) else {}
        kinds = {"": "tags", "dataset:": "datasets", "license:": "license", "base_model:": "base_model"}
        tags = [card.get("library_name"), card.get("pipeline_tag")]
        for prefix, key in kinds.items():
            values = card.get(key) or []
            tags += [f"{prefix}{value}" for value in (values if isinstance(values, list) else [values])]
        return {
            **{"id": self.name, "author": self.owner, "sha": commit.id, "createdAt": self.created, "lastModified": commit.date},
            **{"private": self.private, "gated": self.gated, "downloads": 0, "likes": 0, "cardData": card},
            **{key: card.get(key) for key in ("library_name", "pipeline_tag", "model-index")},
            "tags": [tag for tag in tags if tag],
            "siblings": [blob.sibling(path) for path, blob in sorted(commit.files.items())],
            "safetensors": counted(commit.files["model.safetensors"].data) if "model.safetensors" in commit.files else None,
        }


def counted(weights: bytes) -> dict[str, Any] | None:
    """Numbers in a file's tensors by their dtype; None for a file that is not safetensors."""
    try:
        header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    except ValueError:
        return None
    parameters: dict[str, int] = {}
    for tensor in (value for name, value in header.items() if name != "__metadata__"):
        parameters[tensor["dtype"]] = parameters.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
    return {"parameters": parameters, "total": sum(parameters.values())}


def front_matter(readme: bytes, strict: bool = False) -> Any:
    """The YAML between two lines of dashes; None without any and, unless `strict`, if it cannot be read."""
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|\Z)", readme.decode(errors="replace"), re.DOTALL)
    try:
        return yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        if strict:
            raise
        return None


def names_only(info: dict[str, Any]) -> dict[str, Any]:
    return info | {"siblings": [{"rfilename": file["rfilename"]} for file in info["siblings"]]} if "siblings" in info else info


ROUTES: list[tuple[list[str], re.Pattern[str], Callable[..., Any]]] = []
REPO, REV, OID = "(?P<repo>[^/]+/[^/]+)", "(?P<rev>[^/]+)", "(?P<oid>[0-9a-f]{64})"  # of the raw path: refs%2Fpr%2F1 is one segment
MODEL = f"/api/models/{REPO}"


def route(methods: str, pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append((methods.split(), re.compile(pattern), function))
        return function

    return register


class Handler(BaseHTTPRequestHandler):
    """One connection. A route returns JSON, bytes or an Answer, or raises Refused."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: "HubServer"

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""

    def serve(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        with self.hub.lock:
            self.hub.requests.append(Request(self.command, self.path, self.headers))
            kind, detail = self.hub.next_fault(self.command, self.path)
        if kind == "reset":
            return self.drop(reset=True)
        if kind == "slow":
            self.hub.closing.wait(detail.get("seconds", 1.0))  # a test may have replaced time.sleep
        ordered = Answer(detail.get("body", {"error": "as ordered"}), detail.get("status", 503), detail.get("headers", {}))
        body, status, headers = ordered if kind == "status" else self.answer()
        if kind == "lost":
            return self.drop()
        if kind == "nonsense":
            body = detail["body"]
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers, "Content-Length": str(len(content))}
        middle = len(content) // 2
        if kind == "etag":
            headers |= dict.fromkeys(("ETag", "X-Linked-Etag"), f'"{detail.get("etag", "../../../evil")}"')
        if kind == "corrupt" and content:
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        self.send_response(status)
        for name, value in headers.items():
            if kind != "no_headers" or name not in detail.get("names", REQUIRED):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:middle] if kind in ("cut", "cut_reset") else content)
        if kind in ("cut", "cut_reset"):
            self.drop(reset=kind == "cut_reset")
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def drop(self, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # close() waits for rfile, and socketserver would send FIN before it

    def answer(self) -> Answer:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        path = re.sub("^/(datasets|spaces)/", "/", re.sub("^/api/(datasets|spaces)/", "/api/models/", url.path))
        try:
            for methods, pattern, function in ROUTES:
                if self.command in methods and (found := pattern.fullmatch(path)):
                    self.authenticate()
                    with self.hub.lock:
                        answer = function(self, **{name: unquote(part) for name, part in found.groupdict().items() if part})
                    return answer if isinstance(answer, Answer) else Answer(answer)
            raise Refused(404, f"Cannot {self.command} {url.path}")
        except Refused as refused:
            return refused.answer
        except Exception as error:  # a mistake in this file: let the client tell of it
            return Answer({"error": f"the test server failed: {error!r}"}, 500)

    def authenticate(self) -> None:
        self.token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        self.user = self.hub.tokens.get(self.token)
        if self.token and self.user is None:
            raise Refused(401, "Invalid credentials in Authorization header")

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("1", "true")

    def repo(self, name: str, write: bool = False, by_anyone: bool = False) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.user != repo.owner):  # a private one looks as if it were not there
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.may_write(None if by_anyone else repo.owner)
        return repo

    def may_write(self, namespace: str | None) -> None:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        if self.token in self.hub.read_only or namespace not in (None, self.user):
            raise Refused(403, f"You don't have the rights to write under the namespace {namespace or self.user}")

    def paged(self, rows: Iterable[Any], limit: int | None = None) -> Answer:
        rows, size, start = list(rows), min(limit or self.hub.page_size, self.hub.page_size), int(self.query.get("cursor", ["0"])[0])
        following = f"{urlsplit(self.path).path}?{urlencode({**self.query, 'cursor': start + size}, doseq=True)}"
        more = {"Link": f'<{self.hub.endpoint}{following}>; rel="next"'} if start + size < len(rows) else {}
        return Answer(rows[start : start + size], headers=more)

    def ranged(self, data: bytes, headers: Mapping[str, str]) -> Answer:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if asked is None:
            return Answer(data, 200, headers)
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            raise Refused(416, "Requested range not satisfiable", Content_Range=f"bytes */{len(data)}")
        return Answer(data[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> Any:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        role = "read" if self.token in self.hub.read_only else "write"
        return {"type": "user", "name": self.user, "orgs": [], "auth": {"accessToken": {"displayName": "test", "role": role}}}

    @route("POST", "/api/validate-yaml")
    def validate(self) -> Any:
        try:
            card = front_matter(self.json()["content"].encode(), strict=True)
        except yaml.YAMLError as error:
            raise Refused(400, "Invalid YAML", body={"errors": [{"message": str(error)}]}) from error
        return {"errors": [], "warnings": [] if card else [{"message": "empty or missing yaml metadata in repo card"}]}

    @route("POST", "/api/repos/create")
    def create_repo(self) -> Any:
        asked = self.json()
        owner = asked.get("organization") or self.user
        self.may_write(owner)
        name, url = f"{owner}/{asked['name']}", f"{self.hub.endpoint}/{owner}/{asked['name']}"
        if asked.get("type", "model") not in ("model", "space"):
            raise Refused(400, "This server creates models and Spaces only")
        if asked.get("type") == "space" and not asked.get("sdk"):
            raise Refused(400, "A Space needs an SDK")
        if name in self.hub.repos:
            raise Refused(409, "You already created this model repo", body={"url": url})
        # 1.x clients send `private`, 2.x clients `visibility`.
        self.hub.create(name, private=asked.get("private") or asked.get("visibility") == "private")
        return {"url": url}

    @route("DELETE", "/api/repos/delete")
    def delete_repo(self) -> Any:
        asked = self.json()
        del self.hub.repos[self.repo(f"{asked.get('organization') or self.user}/{asked['name']}", write=True).name]
        return {}

    @route("GET", "/api/models")
    def models(self) -> Answer:
        asked = {name: self.query.get(name, []) for name in ("author", "search", "filter", "pipeline_tag", "sort", "limit", "expand")}
        rows = [repo.info(repo.find("main")) for repo in self.hub.repos.values() if not repo.private or self.user == repo.owner]
        rows = [row for row in rows if {row["author"]}.issuperset(asked["author"]) and all(word in row["id"] for word in asked["search"])]
        rows = [row for row in rows if {*asked["filter"], *asked["pipeline_tag"]} <= {*row["tags"]}]
        for key in asked["sort"]:
            rows.sort(key=lambda row: row.get(key) or 0, reverse=True)
        keys = LISTED | (FULL if self.flag("full") else set()) | ({"cardData"} if self.flag("cardData") else set())
        keys = {"id", *asked["expand"]} if asked["expand"] else keys
        return self.paged(
            (names_only({key: row[key] for key in row if key in keys}) for row in rows), *(int(limit) for limit in asked["limit"])
        )

    @route("GET", f"{MODEL}(/revision/{REV})?")
    def model(self, repo: str, rev: str = "main") -> Any:
        info = self.repo(repo).info(self.repo(repo).find(rev))
        if "expand" in self.query:
            info = {key: info[key] for key in info if key in ("id", *self.query["expand"])}
        return info if self.flag("blobs") else names_only(info)

    @route("GET", f"{MODEL}/tree/{REV}(/(?P<path>.+))?")
    def tree(self, repo: str, rev: str, path: str = "") -> Answer:
        rows, below = self.repo(repo).find(rev).tree(), f"{path}/" if path else ""
        if path and rows.get(path, {}).get("type") != "directory":
            raise Refused(404, f"{path} does not exist on {rev}", "EntryNotFound")
        names = (name for name in rows if name.startswith(below))
        return self.paged(rows[name] for name in names if self.flag("recursive") or "/" not in name.removeprefix(below))

    @route("POST", f"{MODEL}/paths-info/{REV}")
    def paths_info(self, repo: str, rev: str) -> Any:
        rows = self.repo(repo).find(rev).tree()
        return [rows[path] for path in parse_qs(self.body.decode())["paths"] if path in rows]

    @route("GET", f"{MODEL}/commits/{REV}")
    def list_commits(self, repo: str, rev: str) -> Answer:
        fields = ("id", "title", "message", "date")
        history = self.repo(repo).find(rev).history()
        return self.paged({name: getattr(commit, name) for name in fields} | {"authors": [{"user": commit.author}]} for commit in history)

    @route("GET", f"{MODEL}/refs")
    def list_refs(self, repo: str) -> Any:
        answer: dict[str, list[Any]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        for ref, commit in self.repo(repo).refs.items():
            _, kind, name = ref.split("/", 2)
            key = {"heads": "branches", "tags": "tags", "pr": "pullRequests"}[kind]
            answer[key].append({"name": ref if kind == "pr" else name, "ref": ref, "targetCommit": commit})
        return {key: rows for key, rows in answer.items() if key != "pullRequests" or self.flag("include_prs")}

    @route("POST DELETE", f"{MODEL}/(?P<kind>branch|tag)/{REV}")
    def reference(self, repo: str, kind: str, rev: str) -> Any:
        """`rev` is the name of the branch or tag, but where a tag is made the revision to be tagged."""
        refs, asked, folder = self.repo(repo, write=True).refs, self.json(), f"refs/{'heads' if kind == 'branch' else 'tags'}/"
        if self.command == "DELETE":
            if rev == "main" or folder + rev not in refs:
                raise Refused(*((403, "The branch main is protected") if rev == "main" else (404, f"No {kind} {rev}", "RevisionNotFound")))
            del refs[folder + rev]
            return {}
        name, start = (rev, asked.get("startingPoint") or "main") if kind == "branch" else (asked["tag"], rev)
        if folder + name in refs:
            raise Refused(409, f"Reference already exists: {name}")
        refs[folder + name] = self.repo(repo).find(start).id
        return {}

    @route("POST", f"{MODEL}/preupload/{REV}")
    def preupload(self, repo: str, rev: str) -> Any:
        there = self.repo(repo, write=True, by_anyone=self.flag("create_pr")).find(rev).files
        rows = []
        for path, size in ((file["path"], file["size"]) for file in self.json()["files"]):
            mode, oid = "lfs" if self.hub.is_lfs(path, size) else "regular", there[path].etag if path in there else None
            rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": rows}

    @route("POST", f"/{REPO}[.]git/info/lfs/objects/batch")
    def lfs_batch(self, repo: str) -> Any:
        self.repo(repo, write=True, by_anyone="ref" not in self.json())  # without a ref it is for a pull request
        urls = {"upload": f"{self.hub.endpoint}/lfs/%s", "verify": f"{self.hub.endpoint}/{repo}.git/info/lfs/verify/%s"}
        rows = []
        for oid, size in ((asked["oid"], asked["size"]) for asked in self.json()["objects"]):
            actions = {} if oid in self.hub.blobs else {"actions": {name: {"href": url % oid} for name, url in urls.items()}}
            rows.append({"oid": oid, "size": size, **actions})
        return {"transfer": "basic", "objects": rows}

    @route("PUT", f"/lfs/{OID}")
    def lfs_upload(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "The content is not what its sha256 promised")
        self.hub.blobs[oid] = self.body
        return {}

    @route("POST", f"/{REPO}[.]git/info/lfs/verify/{OID}")
    def lfs_verify(self, repo: str, oid: str) -> Any:
        self.repo(repo, write=True, by_anyone=True)
        if len(self.hub.blobs.get(oid, b"")) != self.json()["size"]:
            raise Refused(404, "The object is not there, or has another size")
        return {}

    @route("HEAD GET", f"/lfs/{OID}")
    def lfs_download(self, oid: str) -> Answer:
        if oid not in self.hub.blobs:
            raise Refused(403, "AccessDenied")
        return self.ranged(self.hub.blobs[oid], {})

    @route("POST", f"{MODEL}/commit/{REV}")
    def create_commit(self, repo: str, rev: str) -> Any:
        found = self.repo(repo, write=True, by_anyone=self.flag("create_pr"))
        header, *operations = ((line["key"], line["value"]) for line in map(json.loads, self.body.splitlines()))
        head, ref, expected = found.find(rev), found.ref(rev), header[1].get("parentCommit")
        if self.flag("create_pr"):
            number = 1 + sum(ref.startswith("refs/pr/") for ref in found.refs)
            head, ref = found.find(expected or rev), f"refs/pr/{number}"
        elif expected not in (None, head.id):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        if ref is None or ref.startswith("refs/tags/"):
            raise Refused(400, f"{rev} is not a branch")
        files = dict(head.files)
        for key, value in operations:
            path = value["path"].rstrip("/")
            if key == "file":
                files[path] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise Refused(400, f"{path}: the LFS object {value['oid']} was not uploaded")
                files[path] = Blob(self.hub.blobs[value["oid"]], lfs=True)
            else:
                gone = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(f"{path}/"))]
                if not gone:
                    raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                files = {name: blob for name, blob in files.items() if name not in gone}
        made = self.hub.add(found, ref, head, files, (header[1]["summary"], header[1].get("description", ""), self.user or ""))
        urls = {"commitOid": made.id, "commitUrl": f"{self.hub.endpoint}/{repo}/commit/{made.id}"}
        return urls | ({"pullRequestUrl": f"{self.hub.endpoint}/{repo}/discussions/{number}"} if self.flag("create_pr") else {})

    @route("GET", f"{MODEL}/xet-write-token/{REV}")
    def xet_write_token(self, repo: str, rev: str) -> Any:
        self.repo(repo, write=True).find(rev)
        if self.hub.xet is None:
            raise Refused(404, "This server has no xet storage")
        return {"casUrl": f"local://{self.hub.xet}", "accessToken": "any", "exp": 4_000_000_000}

    @route("HEAD GET", f"/{REPO}/resolve/{REV}/(?P<path>.+)")
    def resolve(self, repo: str, rev: str, path: str) -> Answer:
        found = self.repo(repo)
        if found.gated and self.user not in {found.owner, *self.hub.admitted}:
            raise Refused(403 if self.user else 401, f"Access to model {repo} is restricted.", "GatedRepo")
        commit = found.find(rev)
        blob = commit.files.get(path)
        if blob is None:
            raise Refused(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.id)
        headers = {"X-Repo-Commit": commit.id, "ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        if blob.lfs and self.hub.redirect_lfs:
            return Answer(b"", 302, headers | {"Location": f"{self.hub.storage}/lfs/{blob.sha256}"})
        return self.ranged(blob.data, headers)


class Listener(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class HubServer:
    """The Hub, at `hub.endpoint` as long as `with HubServer() as hub` lasts.

    `hub.token` may write what belongs to the user acme, `hub.reader` is acme's too but may only read, `hub.stranger` is another
    user's. The users in `hub.admitted` may download from gated repositories. `hub.requests` are all requests so far.

    Args:
        redirect_lfs: Send clients to another origin, `hub.storage`, for LFS files, instead of answering with their bytes.
        lfs_threshold: Files from this size on are LFS, and *.safetensors of any size.
        page_size: Longer lists come in pages.
    """

    def __init__(self, *, redirect_lfs: bool = False, lfs_threshold: int = 10_000_000, page_size: int = 1000) -> None:
        self.redirect_lfs, self.lfs_threshold, self.page_size = redirect_lfs, lfs_threshold, page_size
        self.token, self.reader, self.stranger = "hf_acme", "hf_acme_reader", "hf_other"
        self.tokens = {self.token: "acme", self.reader: "acme", self.stranger: "other"}
        self.read_only, self.admitted = {self.reader}, set[str]()
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # LFS objects by sha256
        self.xet: Path | None = None  # a folder, to which hf_xet then writes; their bytes must be in `blobs` all the same
        self.requests: list[Request] = []
        self.slept: list[float] = []
        self.faults: list[SimpleNamespace] = []
        self.connections = weakref.WeakSet[socket.socket]()
        self.lock, self.closing, self.clock = threading.RLock(), threading.Event(), itertools.count()
        self.listener = Listener(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.endpoint, self.storage = (f"http://{host}:{self.listener.server_port}" for host in ("127.0.0.1", "localhost"))

    def __enter__(self) -> Self:
        threading.Thread(target=self.listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.listener.shutdown()
        self.listener.server_close()
        for connection in list(self.connections):  # or a client that kept one alive would still be answered
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def create(self, name: str, files: Mapping[str, bytes] | None = None, *, private: bool = False, gated: str | bool = False) -> str:
        """A new repository and its head: as on the real Hub the first commit holds .gitattributes, `files` come in a second one."""
        with self.lock:
            repo = self.repos[name] = Repo(name, private, "auto" if gated is True else gated, self.date())
            start = {".gitattributes": Blob(ATTRIBUTES, lfs=False)}
            first = self.add(repo, "refs/heads/main", None, start, ("initial commit", "", repo.owner))
            return self.commit(name, files) if files else first.id

    def commit(self, name: str, files: Mapping[str, bytes], revision: str = "main", delete: Collection[str] = ()) -> str:
        """A commit by somebody else, to which a branch, a pull request (`refs/pr/1`) or even a tag moves on."""
        with self.lock:
            repo = self.repos[name]
            head, ref = repo.find(revision), repo.ref(revision)
            assert ref is not None, f"{revision} is a commit"
            changed = {path: Blob(data, self.is_lfs(path, len(data))) for path, data in files.items()}
            self.blobs |= {blob.sha256: blob.data for blob in changed.values() if blob.lfs}
            kept = {path: blob for path, blob in head.files.items() if path not in delete}
            return self.add(repo, ref, head, kept | changed, (f"Change {', '.join([*files, *delete])}", "", "somebody")).id

    def add(self, repo: Repo, ref: str, parent: Commit | None, files: Mapping[str, Blob], told: tuple[str, str, str]) -> Commit:
        """`told` are the title, the message and the author."""
        date = self.date()
        listing = [parent and parent.id, told, date, sorted((path, blob.sha1) for path, blob in files.items())]
        commit = Commit(hashlib.sha1(repr(listing).encode()).hexdigest(), parent, files, *told, date)
        repo.commits[commit.id], repo.refs[ref] = commit, commit.id
        return commit

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        return {path: blob.data for path, blob in self.repos[name].find(revision).files.items()}

    def head(self, name: str, revision: str = "main") -> str:
        return self.repos[name].find(revision).id

    def commits(self, name: str, revision: str = "main") -> list[Commit]:
        """The newest first."""
        return list(self.repos[name].find(revision).history())

    def fault(self, method: str, pattern: str, kind: str, times: int = 1, **detail: Any) -> None:
        """The next `times` requests with this method ("HEAD|GET") and `pattern` somewhere in their raw path and query meet a fault.

        status: Refused, and not carried out (status=503, headers={}, body={"error": "as ordered"}).
        nonsense: Carried out, but answered with another body (body=...).
        reset: RST before an answer, and not carried out.
        lost: Carried out, but the connection ends before the answer.
        cut, cut_reset: Half of the body under the whole one's Content-Length, then FIN or RST.
        corrupt: One bit of the body is another.
        slow: The server waits first (seconds=1.0).
        etag: A hostile ETag (etag="../../../evil").
        no_headers: Without the headers that a download requires (names=REQUIRED).
        """
        assert kind in FAULTS, kind
        self.faults.append(SimpleNamespace(method=method, pattern=pattern, kind=kind, left=times, detail=detail))

    def next_fault(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        for fault in self.faults:
            if fault.left and re.fullmatch(fault.method, method) and re.search(fault.pattern, path):
                fault.left -= 1
                return fault.kind, fault.detail
        return "", {}

    def is_lfs(self, path: str, size: int) -> bool:
        return size > 0 and (path.endswith(".safetensors") or size >= self.lfs_threshold)

    def date(self) -> str:
        """A second later each time, and the same in every run."""
        return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self.clock))).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def connect(hub: HubServer, monkeypatch: pytest.MonkeyPatch, home: Path) -> list[float]:
    """Turn this process's huggingface_hub to `hub`, as if HF_ENDPOINT and HF_HOME had been set before it was imported.

    Without a token, without xet, and without waiting: returned is a list that grows by the seconds the client would have slept.
    """
    import huggingface_hub
    from huggingface_hub import constants, file_download, hf_api

    values: dict[str, Any] = {
        **{"ENDPOINT": hub.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"},
        **{"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True},
        **{"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HF_TOKEN_PATH": str(home / "token")},
        **{"HF_STORED_TOKENS_PATH": str(home / "stored_tokens"), "AGENT_HARNESSES_PATH": str(home / "agents.json")},
    }
    for name, value in values.items():
        if hasattr(constants, name):
            monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.endpoint)  # the one behind huggingface_hub.model_info and its like
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    slept: list[float] = []
    for module in (file_download, import_module("huggingface_hub.utils._http")):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=slept.append))
    huggingface_hub.close_session()  # no connection kept from an earlier server
    return slept
