"""`reslight convert`: files of other libraries to folders and back."""

import errno
import os
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

import reslight as package
from reslight.weights.interop.exchange import read_file


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
    assert "w.pth cannot be read with weights_only=True" in answer.err
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
        read_file(Path("folder"))


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
    assert "fc.weight in sparse.pth is a sparse or meta tensor" in reslight("convert", "sparse.pth", "out", "--from", "torchvision").err
    torch.save(package.create_model("resnet18", in_channels=1).state_dict(), "gray.pth")
    answer = reslight("convert", "gray.pth", "out", "--from", "torchvision")
    assert "gray.pth has 1 input channels: mean and std have 3 numbers" in answer.err
    assert reslight("convert", "gray.pth", "out", "--from", "torchvision", "--mean", 0.5, "--std", 0.2).code == 0
    answer = reslight("convert", "gray.pth", "none", "--from", "akamaster", "--check")
    assert "library is akamaster" in answer.err
    assert not Path("none").exists()
