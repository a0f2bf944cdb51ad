"""Datasets of the Hub, through the unmodified client, from the tests' own Hub."""

import errno
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pyarrow as arrow
import pytest
from pyarrow import parquet
from tests.hub_server import HubServer, connect

from reslight.data.image_folder.hub_dataset import fetch, is_remote
from reslight.data.image_folder.image_set import find_image_set


def shard(*images: bytes) -> bytes:
    file = BytesIO()
    cells = [{"bytes": data, "path": None} for data in images]
    parquet.write_table(arrow.table({"image": cells, "label": [number % 2 for number in range(len(images))]}), file)
    return file.getvalue()


FILES = {
    "README.md": b"# Pictures",
    "data/train-00000-of-00002.parquet": shard(b"one", b"two"),
    "data/train-00001-of-00002.parquet": shard(b"three"),
    "data/test-00000-of-00001.parquet": shard(b"four", b"five"),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(lfs_threshold=100) as server:
        connect(server, monkeypatch, tmp_path / "hub")
        monkeypatch.setattr("reslight.hub.client.time.sleep", lambda _: None)
        yield server


def test_a_dataset_by_its_name(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    first = hub.create("acme/pictures", FILES)
    found = find_image_set("acme/pictures")
    assert [found.splits["train"].images.read(n) for n in range(3)] == [b"one", b"two", b"three"]
    assert found.splits["test"].labels.tolist() == [0, 1]
    assert not any("README" in request.path for request in hub.requests), "nothing else is downloaded"
    hub.commit("acme/pictures", {"data/train-00001-of-00002.parquet": shard(b"other")})
    assert find_image_set("acme/pictures").splits["train"].images.read(2) == b"other"
    assert find_image_set(f"acme/pictures@{first}").splits["train"].images.read(2) == b"three"
    taken = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_image_set("acme/pictures").splits["train"].images.read(2) == b"other"
    assert len(hub.requests) == taken, "offline no request is sent"


def test_gated_and_private_datasets_need_a_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    hub.create("acme/gated", FILES, gated="manual")
    hub.create("acme/private", FILES, private=True)
    monkeypatch.setenv("HF_TOKEN", hub.stranger)
    with pytest.raises(PermissionError, match=f"acme/gated is gated. Accept its terms at {hub.endpoint}/datasets/acme/gated"):
        fetch("acme/gated")
    with pytest.raises(FileNotFoundError, match=r"has no dataset acme/private, or it is private. Check the name, or .* set HF_TOKEN"):
        fetch("acme/private")
    hub.admitted.add("other")
    assert find_image_set("acme/gated").splits["train"].images.read(0) == b"one"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert find_image_set("acme/private").splits["train"].images.read(0) == b"one"
    monkeypatch.setenv("HF_TOKEN", "hf_nonsense")
    with pytest.raises(PermissionError, match=r"does not know the token. To fix it, .* set HF_TOKEN"):
        fetch("acme/gated")


def test_a_local_folder_comes_first(hub: HubServer, tmp_path: Path):
    (tmp_path / "acme/pictures").mkdir(parents=True)
    assert not is_remote("acme/pictures")
    assert is_remote("acme/other@refs/convert/parquet")
    assert not any(is_remote(name) for name in ("pictures", "a/b/c", "./a/b", "/a", "~/a", "a/"))


@pytest.mark.parametrize("lfs", [True, False])
def test_bytes_that_are_not_the_hubs(hub: HubServer, lfs: bool):
    hub.lfs_threshold = 100 if lfs else 10_000_000
    hub.create("acme/pictures", FILES)
    name = "data/train-00001-of-00002.parquet"
    hub.fault("GET", f"/{name}", "corrupt", times=2)
    with pytest.raises(ValueError, match=f"{name} of acme/pictures was downloaded twice and is not the file that the Hub lists"):
        find_image_set("acme/pictures")
    assert find_image_set("acme/pictures").splits["train"].images.read(0) == b"one"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("acme/nothing", "data.root is acme/nothing: there is no such folder, and http.* has no dataset acme/nothing"),
        ("acme/pictures@v9", "acme/pictures has no branch, tag or commit v9. http.*/datasets/acme/pictures/tree/main shows which"),
        ("acme/gated", "acme/gated is gated. Accept its terms at .* set HF_TOKEN"),
        ("acme/empty", "acme/empty has no parquet files. Most datasets have them at acme/empty@refs/convert/parquet"),
        ("acme/a--b", "data.root is acme/a--b: there is no such folder, and 'acme/a--b' is not the name of a dataset on the Hub"),
        ("acme/odd", "data.root is acme/odd: no name of its parquet files begins with train, validation or test"),
    ],
)
def test_mistakes_are_one_line(hub: HubServer, name: str, says: str):
    hub.create("acme/pictures", FILES)
    hub.create("acme/gated", FILES, gated="manual")
    hub.create("acme/empty", {"README.md": b"nothing"})
    hub.create("acme/odd", {"all.parquet": FILES["data/test-00000-of-00001.parquet"]})
    with pytest.raises((ValueError, OSError), match=says) as caught:
        find_image_set(name)
    assert "\n" not in str(caught.value)


def test_no_hub_and_nothing_kept(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="acme/pictures is not in the cache, and HF_HUB_OFFLINE is set"):
        fetch("acme/pictures")


def test_offline_with_nothing_but_the_card(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import hf_hub_download

    hub.create("acme/pictures", FILES)
    hf_hub_download("acme/pictures", "README.md", repo_type="dataset")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="acme/pictures is not in the cache, and HF_HUB_OFFLINE is set"):
        fetch("acme/pictures")


def test_a_hub_that_cannot_be_reached(hub: HubServer):
    hub.create("acme/pictures", FILES)
    hub.fault("GET", "/api/datasets/acme/pictures", "reset", times=100)
    with pytest.raises(ConnectionError, match=r"no such folder, and .* cannot be reached .* Check the network") as caught:
        fetch("acme/pictures")
    assert "\n" not in str(caught.value)


def test_a_network_that_ends_in_the_middle(hub: HubServer):
    hub.create("acme/pictures", FILES)
    hub.fault("HEAD", "/data/train-00001", "status", times=100, status=503)
    with pytest.raises(ConnectionError, match=f"downloading data/train-00001.* failed: {hub.endpoint} answered with status 503"):
        fetch("acme/pictures")


def test_a_server_error_that_passes_is_waited_for(hub: HubServer):
    hub.create("acme/pictures", FILES)
    hub.fault("HEAD", "/data/train-00001", "status", times=2, status=503)
    assert len(list(fetch("acme/pictures").rglob("*.parquet"))) == 3


def test_a_full_disk(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.create("acme/pictures", FILES)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(OSError, match=r"No space left on device\). Free some space, or set HF_HOME"):
        fetch("acme/pictures")
