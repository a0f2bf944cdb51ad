"""`reslight convert`: files of other libraries to folders and back."""

import argparse
import errno
import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

import reslight as package
from reslight.weights.folder import read_description
from reslight.weights.interop.labels import read_labels
from reslight.weights.interop.weight_file import read_weights


@pytest.fixture
def theirs() -> torch.nn.Module:
    torch.manual_seed(2)
    return torchvision.models.resnet18(num_classes=5).eval()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_there_and_back(reslight, theirs, name):
    state = theirs.state_dict()
    torch.save(state, name) if name.endswith(".pth") else save_file(state, name)
    answer = reslight("convert", name, "out", "--from", "torchvision", "--check")
    assert answer.code == 0, answer.err
    assert "written out: 11,179,077 parameters, 5 classes" in answer.out
    assert "images 224 x 224, mean [0.485, 0.456, 0.406]" in answer.out
    assert "largest difference of a logit 0.0e+00, the same class in 100%" in answer.out
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(package.load("out")(x), theirs(x))
    for back in ("back.pth", "back.safetensors"):
        assert reslight("convert", "out", back, "--to", "torchvision").code == 0
        found = torch.load(back, weights_only=True) if back.endswith(".pth") else load_file(back)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], value) for key, value in state.items())


def test_mean_and_std_of_the_training_are_given(reslight):
    net = package.create_model("resnet20")
    state = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, "model.th")
    assert reslight("convert", "model.th", "out", "--from", "akamaster", "--mean", 0.5, 0.5, 0.5, "--std", 0.2, 0.2, 0.2).code == 0
    back = package.load("out")
    assert (back.preprocess.size, back.preprocess.mean, back.preprocess.std) == (32, (0.5,) * 3, (0.2,) * 3)
    assert back.config == net.config


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hacked"),)


def test_nothing_in_a_file_is_executed(reslight):
    torch.save({"state_dict": Hostile()}, "w.pth")
    answer = reslight("convert", "w.pth", "out", "--from", "timm")
    assert answer.code == 2
    assert "w.pth needs pathlib.Path.touch: only tensors and plain containers are read" in answer.err or "w.pth needs " in answer.err
    assert "trust" not in answer.err, "a function is not offered for allowing"
    assert not Path("hacked").exists()
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nothing.pth out --from timm", "nothing.pth is missing"),
        ("w.pth out --from kuangliu", ", which no ResNet of kuangliu has. They fit "),
        ("w.pth out --from keras", "--from is keras: there is no such value. Choose one of torchvision, timm, transformers"),
        ("w.pth out", "one of the arguments --from --to is required"),
        ("resnet8.digits x.pth --to torchvision", "torchvision cannot build this network: "),
        ("resnet8.digits x.txt --to akamaster", "x.txt: its name must end with .safetensors, or with .pt, .pth"),
        ("resnet8.digits x.pth --to akamaster --check", "library is akamaster"),
        ("tensor.pth out --from timm", "tensor.pth holds a Tensor: it must hold a state dict"),
        ("w.pth out --from torchvision --mean 0.5", "preprocess.mean has 1 numbers: it must have 3"),
        ("w.pth out --from torchvision --mean 125 122 113", "--mean is 125 122 113: the values of images are 0 to 1. Divide them by 255."),
        ("w.pth out --from torchvision --std -1 0.2 0.2", "--std is -1 0.2 0.2: the values of images are 0 to 1. Give"),
        ("w.pth out --from torchvision --labels none.txt", "--labels is none.txt: there is no such file"),
        ("w.pth out --from torchvision --labels w.pth", "w.pth has 44,"),
        ("resnet8.digits x.pth --to akamaster --labels x", "--labels describes a file that is read with --from"),
    ],
)
def test_a_mistake_is_one_line(reslight, theirs, words, says):
    torch.save(theirs.state_dict(), "w.pth")
    torch.save(torch.zeros(3), "tensor.pth")
    answer = reslight("convert", *words.split())
    assert answer.code == 2
    assert says in answer.err
    assert answer.err.count("\n") == 1


def test_a_folder_is_no_file():
    Path("folder").mkdir()
    with pytest.raises(ValueError, match=r"folder is a folder: .* folder/model\.safetensors"):
        read_weights(Path("folder"))


def test_a_full_disk_leaves_the_old_file(reslight, monkeypatch):
    for name in ("w.pth", "w.safetensors"):
        assert reslight("convert", "resnet8.digits", name, "--to", "akamaster").code == 0
        before = Path(name).read_bytes()
        with monkeypatch.context() as full:
            full.setattr("reslight.atomic.Path.replace", no_room)
            answer = reslight("convert", "resnet8.digits", name, "--to", "akamaster")
        assert answer.code == 2
        assert answer.err.startswith(f"reslight: error: {name} cannot be written: No space left on device. Make room")
        assert Path(name).read_bytes() == before
    assert {path.name for path in Path().iterdir()} == {"w.pth", "w.safetensors"}


def no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
def test_the_config_beside_a_file_of_transformers_is_read(reslight):
    """Names and shapes do not show which convolution of a bottleneck has the stride."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    described = transformers.ResNetConfig(hidden_sizes=[64, 128], depths=[1, 2], downsample_in_bottleneck=True, num_labels=3)
    theirs = transformers.ResNetForImageClassification(described).eval()
    theirs.save_pretrained("theirs")
    answer = reslight("convert", "theirs/model.safetensors", "out", "--from", "transformers", "--check")
    assert "network from the config.json beside the file" in answer.out, answer.err
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert (package.load("out")(x) - theirs(x).logits).abs().max() < 1e-5
    Path("theirs/config.json").unlink()
    answer = reslight("convert", "theirs/model.safetensors", "other", "--from", "transformers")
    assert "bottlenecks are assumed to have their stride on the 3x3" in answer.out
    assert not torch.allclose(package.load("other")(x), package.load("out")(x), atol=1e-3)


def test_odd_tensors_and_channels_are_refused(reslight):
    torch.save({"fc.weight": torch.zeros(3, 3).to_sparse()}, "sparse.pth")
    assert (
        "fc.weight in sparse.pth is a sparse, nested, quantized or meta tensor"
        in reslight("convert", "sparse.pth", "out", "--from", "torchvision").err
    )
    torch.save(package.create_model("resnet18", in_channels=1).state_dict(), "gray.pth")
    answer = reslight("convert", "gray.pth", "out", "--from", "torchvision")
    assert "gray.pth has 1 input channels: mean and std have 3 numbers" in answer.err
    assert reslight("convert", "gray.pth", "out", "--from", "torchvision", "--mean", 0.5, "--std", 0.2).code == 0
    answer = reslight("convert", "gray.pth", "none", "--from", "akamaster", "--check")
    assert "library is akamaster" in answer.err
    assert not Path("none").exists()


def test_the_record_names_the_source_and_the_labels(reslight):
    torch.save(package.create_model("resnet20", shortcut="B", num_classes=100).state_dict(), "cifar100.pt")
    Path("names.txt").write_text("\ufeff" + "".join(f"class {number}\r\n" for number in range(100)), encoding="utf-8", newline="")
    answer = reslight("convert", "cifar100.pt", "out", "--from", "chenyaofo", "--labels", "names.txt")
    assert answer.code == 0, answer.err
    record = read_description(Path("out")).record
    sha256 = hashlib.sha256(Path("cifar100.pt").read_bytes()).hexdigest()
    assert record.run == {"converted from": {"library": "chenyaofo", "file": "cifar100.pt", "sha256": sha256}}
    assert record.labels == tuple(f"class {number}" for number in range(100))
    assert record.preprocess.mean == (0.507, 0.4865, 0.4409), "its CIFAR-100 networks have statistics of their own"
    assert f"file cifar100.pt, sha256 {sha256}" in Path("out/README.md").read_text()


@pytest.mark.parametrize(
    ("text", "says"), [("a\n\nc\n", "line 2 is empty"), ("a\nb\n", "it has 2 lines, and the network has 3 classes"), ("", "it has 1 lines")]
)
def test_labels_that_do_not_fit(text, says):
    Path("names.txt").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"--labels is names.txt: {says}"):
        read_labels(Path("names.txt"), 3)


def test_weights_of_training_scripts(reslight):
    """timm's and torchvision's checkpoints with an average, and Lightning's of a module that has more than the network."""
    net = package.create_model("resnet20", shortcut="B")
    state = net.state_dict()
    average = state | {"fc.weight": state["fc.weight"] / 2}
    arguments = argparse.Namespace(lr=0.1)
    torch.save({"state_dict": state, "state_dict_ema": average, "args": arguments}, "timm.pth")
    in_average = {"n_averaged": torch.tensor(9)} | {f"module.{name}": value for name, value in average.items()}
    torch.save({"model": state, "model_ema": in_average, "args": arguments}, "torchvision.pth")
    compiled = {f"model._orig_mod.{name}": value for name, value in state.items()}
    torch.save({"state_dict": compiled | {"loss.weight": torch.ones(10)}, "global_step": 3}, "lightning.ckpt")
    torch.save({"model_state_dict": {f"net.{name}": value for name, value in state.items()}, "epoch": 1}, "loop.pt")
    for name, key in {"timm.pth": "state_dict_ema", "torchvision.pth": "model_ema", "loop.pt": "model_state_dict"}.items():
        kind = "average" if "ema" in key else "other"
        answer = reslight("convert", name, f"out_{name}", "--from", "chenyaofo")
        assert answer.code == 0, answer.err
        assert f"weights from {key}" in answer.out
        expected = average if kind == "average" else state
        assert torch.equal(package.load(f"out_{name}").fc.weight, expected["fc.weight"])
        assert read_description(Path(f"out_{name}")).record.weights == kind
        assert ("the moving average" in answer.out) == (kind == "average")
    assert "left out loss.weight: not in the network" in reslight("convert", "lightning.ckpt", "out", "--from", "chenyaofo").out


class Settings:
    """A class of somebody's training script."""


def test_a_class_that_a_file_needs_is_named(reslight):
    torch.save({"state_dict": {}, "settings": Settings()}, "w.pth")
    error = reslight("convert", "w.pth", "out", "--from", "timm").err
    name = f"{Settings.__module__}.Settings"
    assert f"w.pth needs {name}: only tensors and plain containers are read" in error
    assert f"if you trust {name}, write one: with torch.serialization.safe_globals([{name}]): torch.save(torch.load('w.pth'" in error
    assert "weights_only=False" not in error
    assert error.count("\n") == 1


def test_files_that_ask_for_memory_or_are_not_weights_are_refused(recwarn):
    odd = {
        "expanded": torch.zeros(1).expand(10**6, 10**6),
        "float8": torch.zeros(4).to(torch.float8_e4m3fn),
        "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
        "scripted": torch.jit.script(torch.nn.Linear(2, 2)),
    }
    for name, value in odd.items():
        torch.jit.save(value, f"{name}.pth") if name == "scripted" else torch.save({"fc.weight": value}, f"{name}.pth")
    save_file({"fc.weight": odd["float8"]}, "float8.safetensors")
    torch.save({"fc.weight": torch.zeros(9)}, "whole.pth")
    with zipfile.ZipFile("whole.pth") as whole, zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.namelist():
            bomb.writestr(entry, bytes(10**6) if entry.endswith("data/0") else whole.read(entry))
    Path("short.pth").write_bytes(Path("whole.pth").read_bytes()[:300])
    Path("page.pth").write_text("<html>")
    os.mkfifo("pipe.pth")
    recwarn.clear()
    for name, says in {
        "expanded.pth": "the tensors of expanded.pth have 4,000,000,000,000 bytes (fc.weight): the file has ",
        "float8.pth": "fc.weight in float8.pth is float8_e4m3fn: float64, float32",
        "float8.safetensors": "fc.weight in float8.safetensors is float8_e4m3fn",
        "nested.pth": "fc.weight in nested.pth is a sparse, nested, quantized or meta tensor",
        "scripted.pth": "scripted.pth is a TorchScript archive, which holds code",
        "bomb.pth": "that unpack to 1,0",
        "short.pth": "short.pth is damaged, or was not written by torch.save",
        "page.pth": "page.pth is damaged, or was not written by torch.save",
        "pipe.pth": "pipe.pth is not a regular file",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            read_weights(Path(name))
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not recwarn.list
