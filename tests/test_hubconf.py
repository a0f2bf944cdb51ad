"""hubconf.py as torch.hub uses it: from a folder, from a copy as GitHub sends it, not installed, and without a network."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import reslight
from reslight.models import SOURCES, VARIANTS, cost_of

ROOT = Path(__file__).parents[1]


def hub(entry: str, *words: object, **fields: object) -> torch.nn.Module:
    return torch.hub.load(str(ROOT), entry, *words, source="local", **fields)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What GitHub sends for a repository."""
    path = tmp_path / "main.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.mkdir("reslight-main")
        for name in [ROOT / "hubconf.py", *(ROOT / "src").rglob("*")]:
            if name.is_file() and "__pycache__" not in name.parts:
                file.write(name, f"reslight-main/{name.relative_to(ROOT)}")
    return path


def isolated(script: str, folder: Path) -> str:
    """Return what a script prints in a process that has torch but not our package."""
    head = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):  # hides an editable installation, and Lightning
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightning", "pytorch_lightning"):
            raise ModuleNotFoundError(f"no {name} here")

sys.meta_path.insert(0, Hidden())
if __name__ == "__main__":  # spawned processes have the path of this one
    sys.path = [path for path in sys.path if not path.endswith("src")]
"""
    path = folder / "script.py"
    path.write_text(head + script)
    done = subprocess.run(
        [sys.executable, "-I", str(path)], cwd=folder, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_architecture_has_an_entry_and_nothing_else_has():
    listed = set(re.findall(r"^def ([a-z]\w*)", (ROOT / "hubconf.py").read_text(), re.MULTILINE))
    assert listed == set(VARIANTS)


def test_help_says_what_it_is():
    module = torch.hub._import_module("hubconf", str(ROOT / "hubconf.py"))
    for name, config in VARIANTS.items():
        text = getattr(module, name).__doc__
        size = f"{config.input_size} x {config.input_size}"
        expected = f"{cost_of(config).parameters:,} parameters, {config.num_classes} classes, {size} ({SOURCES[name]})"
        assert expected in text.splitlines()[0]
        assert "weights: Name of published weights" in text


def test_with_weights_and_without():
    net, published = hub("resnet8", pretrained=True), reslight.load("resnet8.digits")
    assert not net.training
    assert all(torch.equal(value, published.state_dict()[name]) for name, value in net.state_dict().items())
    assert hub("resnet8", weights="resnet8.digits", num_classes=3).fc.out_features == 3
    assert hub("resnet20", num_classes=100, shortcut="B").config == reslight.create_model("resnet20", num_classes=100, shortcut="B").config


@pytest.mark.parametrize(
    ("entry", "fields", "says"),
    [
        ("resnet50", {"pretrained": True}, "no weights of resnet50 are published. Use one of resnet20.cifar10, resnet32.cifar10"),
        ("resnet20", {"weights": "resnet8.digits"}, "weights is resnet8.digits: weights of resnet8, not of resnet20"),
        ("resnet8", {"weights": "resnet8.digits", "shortcut": "B"}, "shortcut cannot be changed with weights"),
        ("resnet8", {"depth": 3}, "ResNetConfig has the unknown key 'depth'"),
    ],
)
def test_a_mistake_is_reported(entry, fields, says):
    with pytest.raises(ValueError, match=says):
        hub(entry, **fields)


@pytest.mark.slow
def test_from_a_copy_as_github_gives_it_not_installed_offline_and_with_spawned_workers(archive, tmp_path):
    script = f"""
if __name__ == "__main__":
    import torch
    from pathlib import Path
    torch.hub.set_dir({str(tmp_path / "hub")!r})
    torch.hub._git_archive_link = lambda owner, name, ref: Path({str(archive)!r}).as_uri()
    words = dict(skip_validation=True, trust_repo=True, verbose=False)
    print(sorted(torch.hub.list("owner/reslight:main", **words))[:2])
    print(torch.hub.help("owner/reslight:main", "resnet8", skip_validation=True, trust_repo=True).splitlines()[0])
    net = torch.hub.load("owner/reslight:main", "resnet8", pretrained=True, **words)
    import reslight
    print(Path(reslight.__file__).parent.parent)

    from torch.utils.data import DataLoader
    loader = DataLoader([net, net], batch_size=None, num_workers=1, multiprocessing_context="spawn", collate_fn=type)
    print([kind.__name__ for kind in loader])
    torch.hub._git_archive_link = None  # from here on there is no network
    print(torch.hub.load("owner/reslight:main", "resnet8", pretrained=True, **words).fc.out_features)
"""
    lines = [line for line in isolated(script, tmp_path).splitlines() if not line.startswith("Downloading: ")]
    assert lines[0] == "['plain110', 'plain18']"
    assert lines[1].startswith("Residual network: 75,")
    assert lines[2] == str(tmp_path / "hub" / "owner_reslight_main" / "src")
    assert lines[3:] == ["['ResNet', 'ResNet']", "10"]


def test_another_checkout_is_reported(tmp_path):
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    with pytest.warns(UserWarning, match="reslight is already imported from .*, not from .*; the former is used"):
        torch.hub.load(str(tmp_path), "resnet8", source="local")
