"""Links, devices and pipes in a folder of weights: nothing outside of the folder is read, sent or waited for."""

import os
import shutil
from pathlib import Path

import pytest

import reslight as package
from reslight.regular_file import is_regular
from reslight.weights.catalog import bundled
from reslight.weights.folder import CARD, CONFIG, FILES, MODEL, check_folder
from reslight.weights.interop.exchange import read_config_beside

SECRET = "hf_my_secret_token"


def link(path: Path) -> None:
    Path("secret").write_text(SECRET)
    path.unlink(missing_ok=True)
    path.symlink_to(Path("secret").resolve())


@pytest.mark.parametrize("name", FILES)
def test_push_sends_no_file_that_a_link_names(hub, folder, name):
    content = (folder / name).read_bytes()
    link(folder / name)
    Path("secret").write_bytes(content if name != CARD else SECRET.encode())  # even a file that would pass every other check
    for dry_run in (True, False):
        with pytest.raises(ValueError, match=rf"w/{name} is a link: a folder of weights holds regular files only\. Put the file itself"):
            package.push(folder, "acme/net", dry_run=dry_run)
    assert not hub.requests


def test_save_keeps_no_text_that_a_link_names(folder):
    net = package.load(folder)
    link(folder / CARD)
    with pytest.raises(ValueError, match=r"README.md is a link"):
        package.save(net, folder)
    assert Path("secret").read_text() == SECRET
    link(folder / CONFIG)
    with pytest.raises(ValueError, match="holds other files"):
        package.save(net, folder)


def test_pull_keeps_no_text_that_a_link_names(hub, pushed):
    package.pull("acme/net", "mine")
    link(Path("mine") / CARD)
    with pytest.raises(ValueError, match=r"README.md is a link"):
        package.pull("acme/net", "mine")


@pytest.mark.parametrize("name", [CONFIG, MODEL])
def test_load_follows_no_link(folder, name):
    link(folder / name)
    with pytest.raises(ValueError, match=f"{name} is a link"):
        package.load(folder)


def test_verify_reports_a_card_that_is_a_link(folder, reslight):
    link(folder / CARD)
    answer = reslight("verify", "w")
    assert answer.code == 1
    assert "DIFFERS  w/README.md is a link" in answer.out
    assert SECRET not in answer.out + answer.err


@pytest.mark.parametrize(("kind", "make"), [("a pipe", os.mkfifo), ("a folder", os.mkdir)])
@pytest.mark.parametrize("name", FILES)
def test_pipes_are_not_waited_for(folder, kind, make, name):
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(ValueError, match=f"w/{name} is {kind}"):
        check_folder(folder)


def test_a_config_beside_a_file_is_not_a_link(folder):
    link(folder / CONFIG)
    with pytest.raises(ValueError, match="is a link"):
        read_config_beside(folder / MODEL, "timm")


def test_devices_are_not_read():
    with pytest.raises(ValueError, match="/dev/zero is a device"):
        is_regular(Path("/dev/zero"))


def test_only_the_links_of_the_hubs_cache_are_followed(hub, pushed):
    package.load("acme/net")
    (model,) = Path("hub").rglob(f"snapshots/*/{MODEL}")
    if not model.is_symlink():
        pytest.skip("this system has no links")
    assert is_regular(model)
    store = model.parents[2]
    shutil.move(store / "blobs", "elsewhere")
    assert not is_regular(model)
    (store / "blobs").symlink_to(Path("elsewhere").resolve())
    with pytest.raises(ValueError, match="is a link"):
        is_regular(model)
    Path("x").symlink_to("../../blobs/../../../secret")
    with pytest.raises(ValueError, match="is a link"):
        is_regular(Path("x"))


def test_weights_of_the_package_may_be_links_as_some_installers_make_them(monkeypatch):
    source = bundled("resnet8.digits")
    installed = Path("installed/weights/bundled/resnet8.digits")
    installed.mkdir(parents=True)
    for name in FILES:
        (installed / name).symlink_to(source / name)
    monkeypatch.setattr("reslight.weights.catalog.files", lambda _: Path("installed"))
    assert package.load("resnet8.digits").config.depths == (1, 1, 1)
