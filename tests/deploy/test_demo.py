"""The demo's page, in a real browser, and the Space that shows it."""

import platform
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import httpx
import pytest
import torch
from PIL import Image
from tests.hub_server import front_matter

import reslight
from reslight.cli import main
from reslight.deploy.demo import space
from reslight.deploy.demo.space import requirements, space_files

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A photo that is turned by its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


@pytest.mark.nightly
@pytest.mark.skipif(CHROMIUM is None, reason="needs /usr/bin/chromium")
def test_the_page_classifies_what_is_dropped_on_it_without_the_internet(picture):
    sync_api = pytest.importorskip("playwright.sync_api")
    (Path("text.png")).write_text("no image")
    words = [sys.executable, "-m", "reslight", "demo", "resnet8.digits", "--port", "0", "--examples", str(picture)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("the demo of resnet8.digits is at http://127.0.0.1:")
        with sync_api.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            asked, errors = set(), []
            page.on("request", lambda request: asked.add(request.url))
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.goto(url := line.split()[6].rstrip(";"))
            page.set_input_files("input[type=file]", picture)
            page.wait_for_selector("[data-testid=label-output-value]")
            (label, probability), *_ = reslight.Classifier("resnet8.digits", exact=True).predict(picture).classes
            assert page.locator("[data-testid=label-output-value]").inner_text().strip() == label
            assert f"Grad-CAM: {label}" in page.inner_text("body")
            assert f"{probability:.0%}" in page.inner_text("body")
            assert errors == []
            page.goto(url)
            page.set_input_files("input[type=file]", "text.png")
            page.wait_for_selector("text=is not an image that Pillow can read")
            assert {one for one in asked if one.startswith("http") and not one.startswith(url)} == set()
            browser.close()
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=20)
        assert (out, err, server.returncode) == ("stopped\n", "", 0)
    finally:
        server.kill()


@pytest.mark.slow
def test_files_that_were_not_uploaded_are_not_shown(picture):
    """A request may name any path; without `meta`, gradio itself checks none."""
    pytest.importorskip("gradio")
    from reslight.deploy.demo.page import launch, make_page

    launch(page := make_page(reslight.load("resnet8.digits"), "digits", [picture]), "127.0.0.1")
    with httpx.Client(base_url=page.local_url, timeout=20) as client:

        def ask(path: str) -> str:
            event = client.post("/gradio_api/call/classify", json={"data": [{"path": path}]}).json()["event_id"]
            return client.get(f"/gradio_api/call/classify/{event}").text

        assert "The image was not uploaded to this page." in ask(str(picture))
        assert "The image was not uploaded to this page." in ask("/etc/passwd")
        (uploaded,) = client.post("/gradio_api/upload", files={"files": ("a.jpg", picture.read_bytes())}).json()
        assert "event: complete" in ask(uploaded)
    page.close(verbose=False)


def test_a_page_of_a_folder_is_headed_as_its_card(folder, monkeypatch):
    pytest.importorskip("gradio")
    from reslight.deploy.demo import page

    made = Mock(side_effect=InterruptedError)
    monkeypatch.setattr(page, "make_page", made)
    for source in (str(folder), "resnet8.digits"):
        with pytest.raises(InterruptedError):
            page.demo(source, "127.0.0.1", 0, [], say=print)
    (_, title, _), (_, name, _) = (call.args for call in made.call_args_list)
    assert f"# {title}\n" in (folder / "README.md").read_text()
    assert name == "resnet8.digits"


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--port", "-1"), "--port is -1: it must be 0 to 65535."), (("--examples", "no.png"), "no.png is missing")],
)
@pytest.mark.slow
def test_a_demo_that_cannot_be(words, message, capsys):
    pytest.importorskip("gradio")
    assert main(["demo", "resnet8.digits", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_files_of_a_space(folder):
    pytest.importorskip("gradio")
    files = space_files(folder, "net-demo")
    assert set(files) == {
        *("README.md", "app.py", "requirements.txt"),
        *(f"weights/{one}" for one in ("model.safetensors", "golden.safetensors", "config.json", "README.md")),
    }
    front = front_matter(files["README.md"], strict=True)
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == version("gradio")
    assert front["python_version"] == ".".join(platform.python_version_tuple()[:2])  # a string: 3.10 is no number
    assert (front["app_file"], front["license"], front["title"]) == ("app.py", "mit", "net-demo")
    compile(files["app.py"], "app.py", "exec")
    lines = files["requirements.txt"].decode().splitlines()
    assert lines[0].startswith("--extra-index-url https://download.pytorch.org/whl/cpu")
    assert lines[1:] == requirements()


def test_a_space_offers_the_images_among_its_examples(folder, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    from reslight.deploy.demo import page

    monkeypatch.setattr(page, "make_page", made := Mock())
    (tmp_path / "examples").mkdir()
    for name in ("b.JPG", "a.webp", ".gitkeep", "._b.jpg", "README.md"):
        (tmp_path / "examples" / name).touch()
    shutil.copytree(folder, tmp_path / "weights")
    exec(compile(space_files(folder, "net-demo")["app.py"], "app.py", "exec"), {"__file__": str(tmp_path / "app.py"), "__name__": "app"})
    assert [path.name for path in made.call_args.args[2]] == ["a.webp", "b.JPG"]


def test_a_space_names_exact_versions():
    pytest.importorskip("gradio")
    pinned = dict(line.split("==") for line in requirements())
    assert pinned["reslight[demo]"] == reslight.__version__
    assert pinned["torch"] == torch.__version__.partition("+")[0]
    assert {"gradio", "torch", "torchvision", "huggingface-hub", "pillow"} <= set(pinned)
    assert not {"onnx", "matplotlib", "pytest"} & set(pinned)


def test_a_space_is_pushed_in_one_commit(hub, folder, capsys):
    pytest.importorskip("gradio")
    assert main(["push", str(folder), "acme/net-demo", "--space", "--dry-run"]) == 0
    assert "nothing was sent (dry run); the Space acme/net-demo would be created" in capsys.readouterr().out
    assert "acme/net-demo" not in hub.repos
    assert main(["push", str(folder), "acme/net-demo", "--space"]) == 0
    assert f"done  {hub.endpoint}/spaces/acme/net-demo, commit {hub.head('acme/net-demo')}" in capsys.readouterr().out
    assert len(hub.commits("acme/net-demo")) == 2  # the first is the server's own
    pushed = hub.files("acme/net-demo")
    assert pushed["weights/model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert {name for name in pushed if name != ".gitattributes"} == set(space_files(folder, "net-demo"))
    assert all(
        "/spaces/" in one.path or "/lfs/" in one.path or "/repos/create" in one.path or "validate" in one.path for one in hub.requests
    )
    assert main(["push", str(folder), "acme/net-demo", "--space"]) == 0
    assert "has the same files already" in capsys.readouterr().out


@pytest.mark.parametrize("origin", [None, '{"url": "file:///reslight", "dir_info": {}}'])
def test_a_space_of_a_copy_of_the_repository_waits_for_pypi(hub, folder, monkeypatch, origin):
    pytest.importorskip("gradio")
    monkeypatch.setattr(space, "distribution", lambda name: SimpleNamespace(read_text={"direct_url.json": origin}.get))
    notes = [line for line in space.push_space(folder, "acme/net-demo", dry_run=True) if line.startswith("note:")]
    expected = f"note: requirements.txt names reslight {reslight.__version__}: the Space starts once this version is on PyPI"
    assert notes == ([expected] if origin else [])


def test_a_space_has_no_branches(folder, capsys):
    assert main(["push", str(folder), "acme/net-demo@dev", "--space"]) == 2
    assert "acme/net-demo@dev names a branch: a Space runs what is on its branch main. Write acme/net-demo." in capsys.readouterr().err


@pytest.mark.nightly
def test_the_app_of_a_space_runs_and_answers(folder, picture, monkeypatch):
    """As the Hub runs it: `python app.py` beside the files, with the address in the environment."""
    from gradio_client import Client, handle_file

    from reslight.deploy.listen import bind

    for name, content in space_files(folder, "net-demo").items():
        (Path("space") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("space") / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("GRADIO_SERVER_PORT", str(port))
    server = subprocess.Popen([sys.executable, "app.py"], cwd="space", stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(600):
            try:
                client = Client(f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False)
                break
            except Exception:
                assert server.poll() is None, server.stderr.read()
                time.sleep(0.1)
        best, heat = client.predict(handle_file(picture), api_name="/classify")
        expected = reslight.Classifier(folder, exact=True).predict(picture).classes
        assert {one["label"]: one["confidence"] for one in best["confidences"]} == {k: pytest.approx(v, abs=1e-5) for k, v in expected}
        assert Image.open(heat["value"]).size == (128, 128)
    finally:
        server.kill()
