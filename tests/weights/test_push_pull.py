"""Push and pull through the unmodified client, over HTTP, against the tests' own Hub; and everything that can go wrong."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
import torch

import reslight as package
from reslight import Preprocess, create_model
from reslight.hub import client
from reslight.hub import files as hub_files
from reslight.weights import pull as ours
from reslight.weights import push
from reslight.weights.card import card
from reslight.weights.folder import read_description

PREPROCESS = Preprocess(size=8, mean=(0.5,), std=(0.2,))
FILES = ("README.md", "config.json", "golden.safetensors", "model.safetensors")


def same(folder: Path, files: dict[str, bytes]) -> bool:
    """The same files, and a card that names its repository."""
    size, before = (folder / "model.safetensors").stat().st_size, (folder / "README.md").read_text()
    expected = card(read_description(folder).record, size, before, "acme/net")
    return same_but_card(folder, files) and files["README.md"].decode() == expected


def weights_equal(one, other) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_push_is_one_commit_of_the_whole_folder(hub, folder):
    lines = package.push(folder, "acme/net")
    assert same(folder, hub.files("acme/net"))
    first, *before = hub.commits("acme/net")
    assert len(before) == 1, "the repository's own"
    assert lines[-1].strip() == f"load it with reslight.load('acme/net@{first.id}')"
    assert lines[-2] == f"done  {hub.endpoint}/acme/net/commit/{first.id}"
    assert package.push(folder, "acme/net") == [f"acme/net has the same files already, commit {first.id}"]
    assert len(hub.commits("acme/net")) == 2


def test_the_card_is_valid_to_the_hub(hub, folder):
    package.push(folder, "acme/net")
    assert any(request.path.startswith("/api/validate-yaml") for request in hub.requests)


def test_a_dry_run_sends_nothing(hub, folder):
    lines = package.push(folder, "acme/net", dry_run=True)
    assert lines[-1] == "nothing was sent (dry run); acme/net would be created"
    assert [line.split()[1].rstrip(",") for line in lines[:-1]] == ["model.safetensors", "golden.safetensors", "config.json", "README.md"]
    assert "acme/net" not in hub.repos
    assert {request.method for request in hub.requests} == {"GET"}


def test_private_pull_request_and_branch(hub, folder):
    package.push(folder, "acme/secret", private=True)
    assert hub.repos["acme/secret"].private
    hub.create("acme/net", {"README.md": b"Hello.\n"})
    head = hub.head("acme/net")
    with pytest.raises(ValueError, match="acme/net is public: these weights would not be private"):
        package.push(folder, "acme/net", private=True)
    lines = package.push(folder, "acme/net", create_pr=True)
    assert "/discussions/1" in lines[-2]
    assert hub.head("acme/net") == head
    assert same_but_card(folder, hub.files("acme/net", "refs/pr/1"))
    package.push(folder, "acme/net@next")
    assert hub.head("acme/net") == head
    assert same_but_card(folder, hub.files("acme/net", "next"))


def same_but_card(folder: Path, files: dict[str, bytes]) -> bool:
    return all(files[name] == (folder / name).read_bytes() for name in FILES if name != "README.md")


def test_the_users_text_on_the_hub_is_kept(hub, pushed):
    text = hub.files("acme/net")["README.md"].decode()
    hub.commit("acme/net", {"README.md": f"{text}\n## Mine\n\nBe kind.\n".replace("tags:", "base_model: acme/other\ntags:", 1).encode()})
    package.save(create_model("resnet8", in_channels=1), pushed, preprocess=PREPROCESS)
    package.push(pushed, "acme/net")
    text = hub.files("acme/net")["README.md"].decode()
    assert "## Mine\n\nBe kind." in text
    assert "base_model: acme/other" in text
    assert 'reslight.load("acme/net")' in text
    (pushed / "README.md").write_text((pushed / "README.md").read_text() + "\nOther text.\n")
    head = hub.head("acme/net")
    with pytest.raises(ValueError, match=r"hold different text of yours\. Make them the same"):
        package.push(pushed, "acme/net")
    assert hub.head("acme/net") == head


@pytest.mark.parametrize("front", ["a: [", "!!python/object/apply:os.system [touch evil]", "- 1", "a: *b"])
def test_a_card_on_the_hub_that_cannot_be_read_keeps_its_text(hub, pushed, front):
    hub.commit("acme/net", {"README.md": f"---\n{front}\n---\n# Mine\n\nMy own text.\n".encode()})
    package.save(create_model("resnet8", in_channels=1), "new", preprocess=PREPROCESS)
    package.push("new", "acme/net")
    card = hub.files("acme/net")["README.md"].decode()
    assert "My own text." in card
    assert card.startswith("---\nlibrary_name: reslight")
    assert not Path("evil").exists()


def test_a_damaged_folder_is_not_published(hub, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ValueError, match="was changed"):
        package.push(folder, "acme/net")
    assert not hub.requests


def test_load_takes_the_needed_files_at_one_commit(hub, pushed):
    head = hub.head("acme/net")
    assert weights_equal(package.load("acme/net"), package.load(pushed))
    taken = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert {path.split("/resolve/")[1] for path in taken} == {f"{head}/config.json", f"{head}/model.safetensors"}
    hub.requests.clear()
    package.load(f"acme/net@{head}")
    assert not any(request.path.startswith("/api/models/acme/net/revision") for request in hub.requests), "a commit needs no answer"


def test_a_branch_that_moves_between_two_files_does_not_mix_them(hub, pushed, monkeypatch):
    before = package.load(pushed)
    taking = ours.download

    def meanwhile(api, repository, commit, known):
        path = taking(api, repository, commit, known)
        if known.path == "config.json":
            package.save(create_model("resnet20", in_channels=1), "other", preprocess=PREPROCESS)
            hub.commit("acme/net", {name: (Path("other") / name).read_bytes() for name in FILES})
        return path

    monkeypatch.setattr(ours, "download", meanwhile)
    assert weights_equal(package.load("acme/net"), before)


def test_pull_copies_the_folder(hub, pushed):
    assert package.pull("acme/net", "copy") == Path("copy")
    assert sorted(path.name for path in Path("copy").iterdir()) == sorted(FILES)
    assert same(Path("copy"), hub.files("acme/net"))
    package.pull("acme/net", "copy")
    Path("mine").mkdir()
    Path("mine/thesis.txt").touch()
    with pytest.raises(ValueError, match="holds other files than weights"):
        package.pull("acme/net", "mine")


def test_verify_takes_the_golden_logits_too(hub, pushed, reslight):
    answer = reslight("verify", "acme/net")
    assert answer.code == 0, answer.err
    assert "golden logits: " in answer.out


def test_offline_the_cache_serves(hub, pushed, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"acme/net is not in the cache, and HF_HUB_OFFLINE is set. Unset it."):
        package.load("acme/net")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    package.load("acme/net")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights_equal(package.load("acme/net"), package.load(pushed))
    assert not hub.requests


def test_a_tampered_cache_is_found_and_mended(hub, pushed, caplog):
    package.load("acme/net")
    (cached,) = (Path(os.environ.get("HF_HOME", "hub")).resolve().parent / "hub").rglob("snapshots/*/model.safetensors")
    contents = bytearray(cached.read_bytes())
    contents[-1] ^= 1
    cached.resolve().write_bytes(contents)
    assert weights_equal(package.load("acme/net"), package.load(pushed))
    assert "has other bytes than the Hub lists; downloading it again" in caplog.text


MODEL = "resolve/.*model.safetensors"


@pytest.mark.parametrize(
    ("method", "pattern", "kind", "detail"),
    [
        ("GET", "api/models/acme/net", "status", {"status": 503}),
        ("GET", "api/models/acme/net", "reset", {}),
        ("GET", MODEL, "status", {"status": 503}),
        ("GET", MODEL, "status", {"status": 500}),
        ("GET", MODEL, "reset", {}),
        ("GET", MODEL, "cut", {}),
        ("GET", MODEL, "cut_reset", {}),
        ("GET", MODEL, "corrupt", {}),
        ("POST", "paths-info", "status", {"status": 502}),
    ],
)
def test_transient_errors_are_retried(hub, pushed, method, pattern, kind, detail):
    hub.fault(method, pattern, kind, **detail)
    assert weights_equal(package.load("acme/net"), package.load(pushed))
    assert hub.faults[0].left == 0, "the fault was met"


def test_lasting_errors_end_in_one_line(hub, pushed, caplog):
    hub.fault("GET", MODEL, "status", times=100, status=503)
    with pytest.raises(ConnectionError, match=f"model.safetensors of acme/net failed: {hub.endpoint} answered with status 503") as stopped:
        package.load("acme/net")
    assert "\n" not in str(stopped.value)
    assert "next attempt in 4 s" in caplog.text, "the waiting is logged"
    hub.faults.clear()
    hub.fault("GET", MODEL, "corrupt", times=100)
    with pytest.raises(ValueError, match="was downloaded twice and is not the file that the Hub lists"):
        package.load("acme/net")


@pytest.mark.parametrize(
    ("source", "token", "kind", "says"),
    [
        ("acme/nothing", "token", FileNotFoundError, "has no model acme/nothing, or it is private. Check the name"),
        ("acme/net@v9", "token", FileNotFoundError, "acme/net has no branch, tag or commit v9"),
        ("acme/private", "stranger", FileNotFoundError, "has no model acme/private, or it is private"),
        ("acme/gated", "stranger", PermissionError, "acme/gated is gated. Accept its terms at"),
        ("acme/net", "wrong", PermissionError, "does not know the token. To fix it, log in with `hf auth login`"),
        ("acme/empty", "token", FileNotFoundError, "acme/empty has no config.json and no model.safetensors. Give a repository that"),
        ("acme/../net", "token", FileNotFoundError, "no folder and no published weight acme/../net"),
        ("acme/n et", "token", ValueError, "'acme/n et' is not the name of a model on the Hub. Write OWNER/NAME"),
    ],
)
def test_a_repository_that_cannot_be_downloaded_is_an_error_of_one_line(hub, pushed, monkeypatch, source, token, kind, says):
    hub.create("acme/private", {"config.json": b"{}"}, private=True)
    hub.create("acme/gated", {"config.json": b"{}", "model.safetensors": b"x"}, gated=True)
    hub.create("acme/empty")
    monkeypatch.setenv("HF_TOKEN", getattr(hub, token, "hf_nobody"))
    with pytest.raises(kind, match=says) as stopped:
        package.load(source)
    assert "\n" not in str(stopped.value)


def test_a_hub_that_cannot_be_reached(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for call in (lambda: package.load("acme/net"), lambda: package.push(folder, "acme/net")):
        with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9 cannot be reached .*\. Check the network"):
            call()


PUBLISHING = [
    ("POST", "/preupload/", "status", {"status": 500}),
    ("PUT", "", "status", {"status": 403}),
    ("POST", "/commit/", "status", {"status": 500}),
    ("POST", "/commit/", "status", {"status": 403}),
    ("POST", "/commit/", "reset", {}),
    ("POST", "lfs/objects/batch", "status", {"status": 400}),
]


@pytest.mark.parametrize(("method", "pattern", "kind", "detail"), PUBLISHING)
def test_nothing_is_published_by_half(hub, folder, method, pattern, kind, detail):
    hub.create("acme/net", {"README.md": b"Hello.\n"})
    head = hub.head("acme/net")
    hub.fault(method, pattern, kind, times=100, **detail)
    with pytest.raises(OSError, match="acme/net") as stopped:
        package.push(folder, "acme/net")
    assert "\n" not in str(stopped.value)
    assert hub.head("acme/net") == head
    hub.faults.clear()
    package.push(folder, "acme/net")
    assert same_but_card(folder, hub.files("acme/net"))


@pytest.mark.parametrize(("kind", "detail"), [("status", {"status": 503}), ("reset", {}), ("lost", {})])
def test_a_commit_that_broke_is_made_exactly_once(hub, folder, kind, detail):
    hub.create("acme/net")
    hub.fault("POST", "/commit/", kind, **detail)
    package.push(folder, "acme/net")
    assert same(folder, hub.files("acme/net"))
    assert len(hub.commits("acme/net")) == 2


def test_a_branch_that_moved_is_not_overwritten(hub, pushed, monkeypatch):
    package.save(create_model("resnet8", in_channels=1), pushed, preprocess=PREPROCESS)
    merge = push._merged

    def meanwhile(*arguments):
        hub.commit("acme/net", {"other.txt": b"x"})
        return merge(*arguments)

    monkeypatch.setattr(push, "_merged", meanwhile)
    with pytest.raises(ConnectionError, match=r"acme/net changed in the meantime, and nothing was published. Push again."):
        package.push(pushed, "acme/net")
    assert hub.files("acme/net")["other.txt"] == b"x"


def test_a_token_that_may_only_read(hub, pushed, monkeypatch):
    package.save(create_model("resnet8", in_channels=1), pushed, preprocess=PREPROCESS)
    monkeypatch.setenv("HF_TOKEN", hub.reader)
    with pytest.raises(PermissionError, match=r"the token has no right to do this with acme/net. Use one with write access"):
        package.push(pushed, "acme/net")


def test_weights_too_large_for_their_network_are_not_taken(hub, pushed):
    hub.commit("acme/net", {"model.safetensors": b"\0" * (2**24 + 16 * 75_002 + 1)})
    hub.requests.clear()
    with pytest.raises(ValueError, match=r"model.safetensors of acme/net has 17,977,249 bytes: its network has at most 17,977,248"):
        package.load("acme/net")
    assert not any("/resolve/" in request.path and "model" in request.path for request in hub.requests)


def test_a_hostile_etag_writes_nothing_elsewhere(hub, pushed, tmp_path):
    hub.fault("HEAD", MODEL, "etag", times=100)  # ../../../evil, from where the client keeps its files
    with pytest.raises((OSError, ValueError)):
        package.load("acme/net")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
    with pytest.MonkeyPatch.context() as unguarded:
        unguarded.setattr(hub_files, "_check_etag", lambda *_: None)
        with suppress(OSError, ValueError):
            package.load("acme/net")
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name], "which is what the guard is for"


def test_a_slow_request_is_logged(hub, pushed, monkeypatch, caplog):
    monkeypatch.setattr(client, "SLOW", 1)
    package.load("acme/net")
    assert not caplog.text
    hub.fault("GET", "/api/models/acme/net", "slow", seconds=1.5)
    package.load("acme/net")
    assert "looking up acme/net: still waiting after 1 s, for 20 s at most" in caplog.text


def test_with_xet_it_is_one_commit_too(hub, folder, tmp_path):
    """The Hub's other way to take large files, which is the client's own choice; it can be told to write to a folder."""
    pytest.importorskip("hf_xet")
    if huggingface_hub.__version__.startswith("1."):
        pytest.skip("there the server chooses, and the tests' own does not choose xet")
    hub.xet = tmp_path / "xet"
    model, golden = (folder / "model.safetensors").read_bytes(), (folder / "golden.safetensors").read_bytes()
    hub.blobs |= {hashlib.sha256(content).hexdigest(): content for content in (model, golden)}
    done = subprocess.run(
        [sys.executable, "-m", "reslight", "push", "w", "acme/net"],
        env=os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert len(hub.commits("acme/net")) == 2, "the repository's own, and this"
    assert same(folder, hub.files("acme/net"))
    paths = [request.path for request in hub.requests]
    assert any("xet-write-token" in path for path in paths)
    assert not any("/info/lfs/" in path for path in paths)
    assert sum(path.stat().st_size for path in hub.xet.rglob("*")) > len(model) / 2, "which is where the bytes are"


def test_no_room_for_what_is_pulled_is_one_line_and_nothing_half_written(hub, pushed, tmp_path):
    """A limit on the size of files fails as a full disk does."""
    resource = pytest.importorskip("resource")
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def pull(home: str, to: str, room: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "reslight", "pull", "acme/net", to],
            env=environment | {"HF_HOME": str(tmp_path / home)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
            capture_output=True,
            text=True,
            check=False,
        )

    done = pull("small", "copy", 100_000)
    assert done.returncode == 2
    assert done.stderr == (
        "reslight: error: downloading model.safetensors of acme/net failed (in the cache: File too large). "
        "Free some space, or set HF_HOME to another folder.\n"
    )
    assert not Path("copy").exists()
    assert pull("large", "copy", 10**9).returncode == 0
    Path("copy/model.safetensors").write_bytes(b"before")
    done = pull("large", "copy", 100_000)
    assert done.stderr.startswith("reslight: error: copy/model.safetensors cannot be written: File too large. Make room")
    assert {path.name for path in Path("copy").iterdir()} == set(FILES)
    assert Path("copy/model.safetensors").read_bytes() == b"before"


def test_another_process_pulls_what_was_pushed(hub, pushed, tmp_path):
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "elsewhere"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "reslight", "pull", "acme/net", "copy"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "written copy\n"), done.stderr
    digest = hashlib.sha256(Path("copy/model.safetensors").read_bytes()).hexdigest()
    assert digest == json.loads((pushed / "config.json").read_text())["reslight"]["sha256"]["model.safetensors"]


def test_without_network_the_cache_serves(hub, pushed, monkeypatch, caplog):
    before = package.load("acme/net")
    head = hub.head("acme/net")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("acme/net", f"acme/net@{head}"):
        caplog.clear()
        assert weights_equal(package.load(name), before)
        assert "cannot be reached" in caplog.text
        assert f"Using commit {head[:12]} from the cache" in caplog.text
    with pytest.raises(ConnectionError, match=r"there is no folder acme/other, and .* cannot be reached"):
        package.load("acme/other")


def test_the_cache_may_be_read_only(hub, pushed, monkeypatch):
    package.load("acme/net")
    monkeypatch.setattr("reslight.hub.files.write_files", no_right)
    package.save(create_model("resnet8", in_channels=1), "new", preprocess=PREPROCESS)
    package.push("new", "acme/net")
    assert weights_equal(package.load("acme/net"), package.load("new"))


def no_right(*_):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("revision", ["refs/pr/1", "feature/x"])
def test_revisions_with_a_slash(hub, pushed, revision):
    if revision == "feature/x":
        package.push(pushed, f"acme/net@{revision}")
    else:
        package.save(create_model("resnet8", in_channels=1), pushed, preprocess=PREPROCESS)
        package.push(pushed, "acme/net", create_pr=True)
    assert weights_equal(package.load(f"acme/net@{revision}"), package.load(pushed))


def test_private_is_not_public_on_a_branch_either(hub, pushed):
    with pytest.raises(ValueError, match="acme/net is public: these weights would not be private"):
        package.push(pushed, "acme/net@next", private=True)
    assert "the branch next of acme/net would be created" in package.push(pushed, "acme/net@next", dry_run=True)[-1]
    with pytest.raises(ValueError, match="the branch next of acme/net does not exist, so it cannot get a pull request"):
        package.push(pushed, "acme/net@next", create_pr=True)
    with pytest.raises(ValueError, match=r"is a commit, which cannot change\. Push to a branch"):
        package.push(pushed, f"acme/net@{'0' * 40}")


def test_the_users_tags_on_the_hub_are_kept(hub, pushed):
    card = hub.files("acme/net")["README.md"].replace(b"tags:\n", b"tags:\n- mine\n")
    hub.commit("acme/net", {"README.md": card})
    package.save(create_model("resnet8", in_channels=1), "new", preprocess=PREPROCESS)
    package.push("new", "acme/net")
    assert b"\n- mine\n" in hub.files("acme/net")["README.md"]


def test_pull_writes_over_nothing_of_yours(hub, pushed, caplog):
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"bert holds other files than weights of reslight.* Give a new folder"):
        package.pull("acme/net", "bert")
    package.pull("acme/net", "mine")
    assert not caplog.text
    card = Path("mine/README.md")
    card.write_text(card.read_text() + "\nMy own words.\n")
    package.save(create_model("resnet8", in_channels=1), "new", preprocess=PREPROCESS, run={"seed": 77})
    package.push("new", "acme/net")
    package.pull("acme/net", "mine")
    assert "mine held other weights (sha256" in caplog.text
    assert "My own words." in card.read_text()
    made = hub.files("acme/net")["README.md"].decode()
    assert made[made.index("<!-- reslight: begin") : made.index("<!-- reslight: end")] in card.read_text(), "of the new weights"
    hub.commit("acme/net", {"README.md": hub.files("acme/net")["README.md"] + b"\nTheirs.\n"})
    with pytest.raises(ValueError, match=r"hold different text of yours\. Pull to a new folder"):
        package.pull("acme/net", "mine")


def test_what_is_pulled_is_whole(hub, pushed):
    hub.commit("acme/net", {"golden.safetensors": b"garbage"})
    with pytest.raises(ValueError, match=r"golden.safetensors was changed"):
        package.pull("acme/net", "copy")
    assert not Path("copy").exists()
    hub.commit("acme/net", {"golden.safetensors": b"\0" * 100_000})
    with pytest.raises(ValueError, match=r"golden.safetensors of acme/net has 100,000 bytes: its network has at most"):
        package.pull("acme/net", "copy")


def test_threads_may_pull_to_one_folder(hub, pushed):
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: package.pull("acme/net", "copy"), range(16)))) == 16
    assert weights_equal(package.load("copy"), package.load(pushed))


def test_a_commit_that_cannot_be_read_back_is_reported_as_published(hub, folder, monkeypatch):
    commit = push.commit_files

    def then_the_hub_fails(*arguments):
        done = commit(*arguments)
        hub.fault("POST", "paths-info", "status", status=503, times=99)
        return done

    monkeypatch.setattr(push, "commit_files", then_the_hub_fails)
    with pytest.raises(ConnectionError, match=r"acme/net was published as .* but could not be read back"):
        package.push(folder, "acme/net")
    assert "model.safetensors" in hub.files("acme/net")


def test_an_endpoint_that_is_not_a_url(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "foo")
    with pytest.raises(ValueError, match="HF_ENDPOINT is 'foo': it must begin with http:// or https://"):
        package.load("acme/net")
