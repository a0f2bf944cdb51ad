"""The folder of weights: the same bytes twice, the same values back, and a clear line for whatever is wrong with it."""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.nets import scrambled
from torch import nn
from torch.optim.swa_utils import AveragedModel

import reslight
from reslight import Preprocess, create_model
from reslight.deploy.formats import FORMATS
from reslight.deploy.formats.sources import load_to_export
from reslight.messages import UsageError
from reslight.models import VARIANTS
from reslight.training import ImageClassifier
from reslight.weights.catalog import CATALOG, bundled
from reslight.weights.folder import FILES, check_folder
from reslight.weights.locate import EXPORTED, locate
from reslight.weights.results import EvalResult

LARGE = re.compile("101|152|200|1001|1202|wide")
"""Variants that only differ from others in the number or the width of their layers."""
SMALL = Preprocess(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    reslight.save(scrambled(create_model("resnet8")), tmp_path / "w", preprocess=SMALL, labels=[f"class {n}" for n in range(10)])
    return tmp_path / "w"


def test_twice_gives_the_same_bytes_whatever_the_number_of_threads(tmp_path):
    net = scrambled(create_model("resnet20"))
    threads = torch.get_num_threads()
    try:
        for name, count in (("a", 1), ("b", 2)):
            torch.set_num_threads(count)
            reslight.save(net, tmp_path / name, preprocess=SMALL)
    finally:
        torch.set_num_threads(threads)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(FILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly) if LARGE.search(name) else name for name in VARIANTS])
def test_every_variant_comes_back_to_the_bit(name, tmp_path, monkeypatch):
    # The golden logits of large networks take long and are another test's matter
    monkeypatch.setattr(
        "reslight.weights.golden.logits_of", lambda net, preprocess, pixels, dtype: torch.zeros(len(pixels), net.config.num_classes)
    )
    net = create_model(name)
    preprocess = Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    reslight.save(net, tmp_path / "w", preprocess=preprocess)
    back = reslight.load(tmp_path / "w")
    assert not back.training
    assert back.config == net.config
    assert back.preprocess == preprocess
    state = net.state_dict()
    assert list(back.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in back.state_dict().items())


def test_an_independent_reader_finds_the_same(folder):
    """safetensors itself, and a header read by hand."""
    state = reslight.load(folder).state_dict()
    found = safetensors.torch.load_file(folder / "model.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    text = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", text[:8])
    assert json.loads(text[8 : 8 + length])["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)]
)
def test_no_precision_loses_a_bit(tmp_path, dtype, kept):
    net = create_model("resnet8").to(dtype)
    reslight.save(net, tmp_path / "w", preprocess=SMALL)
    back = reslight.load(tmp_path / "w")
    assert back.fc.weight.dtype == kept
    assert all(
        torch.equal(value.to(dtype), net.state_dict()[name]) for name, value in back.state_dict().items() if value.is_floating_point()
    )


def test_half_is_a_file_of_half_the_size_with_the_nearest_values_of_float16(folder, tmp_path):
    net = reslight.load(folder)
    reslight.save(net, tmp_path / "half", half=True)
    file = tmp_path / "half" / "model.safetensors"
    assert file.stat().st_size < 0.55 * (folder / "model.safetensors").stat().st_size
    layers = {name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    whole, saved = net.state_dict(), safetensors.torch.load_file(file)
    expected = {name: value.numpy().astype("float16") if name.removesuffix(".weight") in layers else value for name, value in whole.items()}
    assert all(torch.equal(saved[name], torch.as_tensor(value)) for name, value in expected.items())
    back = reslight.load(tmp_path / "half")
    assert {value.dtype for value in back.state_dict().values()} == {torch.float32, torch.int64}
    assert all(torch.equal(value, torch.as_tensor(expected[name]).to(value.dtype)) for name, value in back.state_dict().items())
    check_folder(tmp_path / "half")  # its golden logits are those of the rounded weights
    reslight.save(back, tmp_path / "again", half=True)
    assert all((tmp_path / "half" / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in FILES)
    assert "MB of float32, with convolutions and classifier stored as float16" in (tmp_path / "half" / "README.md").read_text()
    result = EvalResult(split="test", total=2, correct1=1, correct5=2, nll=1.0, precision="32-true", batch_size=2, fingerprint=None)
    reslight.save(back, tmp_path / "again", half=True, metrics=[result])
    with pytest.raises(ValueError, match="metrics has results of the weights before rounding"):
        reslight.save(net, tmp_path / "large", half=True, metrics=[result])
    net.conv1.weight.data[0, 0, 0, 0] = 70_000
    with pytest.raises(ValueError, match=r"conv1.weight has 70,000: float16 ends at 65,504. Save the weights without half"):
        reslight.save(net, tmp_path / "large", half=True)
    with pytest.raises(ValueError, match=r"half is given for weights of float64. Leave it out"):
        reslight.save(net.double(), tmp_path / "large", half=True)
    assert not (tmp_path / "large").exists()


def test_a_new_head_is_new_and_logged(folder, caplog):
    whole, net = reslight.load(folder), reslight.load(folder, num_classes=3)
    assert net.fc.weight.shape == (3, 64)
    assert net.labels is None
    assert "replaced the 10-class head with a new 3-class head" in caplog.text
    assert torch.equal(net.layer3[0].conv2.weight, whole.layer3[0].conv2.weight)
    caplog.clear()
    assert torch.equal(reslight.load(folder, num_classes=10).fc.weight, whole.fc.weight)
    assert not caplog.text


def test_the_file_may_be_replaced_while_the_network_is_in_use(folder):
    net = reslight.load(folder)
    x = torch.randn(2, 3, 32, 32)
    before = net(x)
    (folder / "model.safetensors").write_bytes(b"")
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("half", [False, True])
def test_timm_builds_and_loads_it(tmp_path, half):
    timm = pytest.importorskip("timm")
    net = scrambled(create_model("resnet18", num_classes=7))
    preprocess = Preprocess(size=64, resize=72, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bicubic")
    reslight.save(net, tmp_path / "w", preprocess=preprocess, labels=list("abcdefg"), half=half)
    net = reslight.load(tmp_path / "w") if half else net
    theirs = timm.create_model(f"local-dir:{tmp_path / 'w'}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(theirs(x), net.eval()(x))
    config = timm.data.resolve_data_config(model=theirs)
    assert (tuple(config["input_size"]), config["interpolation"], config["crop_pct"]) == ((3, 64, 64), "bicubic", 64 / 72)
    assert (tuple(config["mean"]), tuple(config["std"])) == (preprocess.mean, preprocess.std)


def test_other_things_are_not_written_over(tmp_path):
    (tmp_path / "README.md").write_text("my project")
    with pytest.raises(ValueError, match=r"holds other files than weights of reslight.*Give a new folder"):
        reslight.save(create_model("resnet8"), tmp_path, preprocess=SMALL)
    assert (tmp_path / "README.md").read_text() == "my project"


@pytest.mark.parametrize("more", [(), ("model.safetensors", "README.md"), ("notes.txt",)])
def test_an_export_that_was_cut_short_can_be_repeated(tmp_path, more):
    for name in (".config.json.0a1b.tmp", *more):
        (tmp_path / name).write_text("cut")
    with pytest.raises(ValueError, match="holds other files") if "notes.txt" in more else nullcontext():
        reslight.save(create_model("resnet8"), tmp_path, preprocess=SMALL)
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("value", "says"), [(float("nan"), "a NaN or an infinity in conv1.weight"), (float("inf"), "a NaN or an infinity")]
)
@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path, value, says, half):
    net = create_model("resnet8")
    net.conv1.weight.data[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=says):
        reslight.save(net, tmp_path / "w", preprocess=SMALL, half=half)
    assert not (tmp_path / "w").exists()


def test_a_network_without_a_preprocess_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"preprocess is None.*Give save\(\) one"):
        reslight.save(create_model("resnet8"), tmp_path / "w")


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def altered(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Other tensors, with a config.json that knows of them."""
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    edit(state)
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})
    change(folder, lambda config: config["reslight"]["sha256"].update({path.name: hashlib.sha256(path.read_bytes()).hexdigest()}))


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an unknown key": (lambda c: c["reslight"].update(extra=1), "reslight has the unknown key 'extra': its keys are"),
    "a missing key": (lambda c: c["reslight"].pop("labels"), "reslight is missing the key 'labels': its keys are"),
    "an unknown field": (lambda c: c["reslight"]["net"].update(width=1), "ResNetConfig has the unknown key 'width': did you mean widths"),
    "a later format": (lambda c: c["reslight"].update(format=2), "reslight.format is 2: .* reads 1. Install a newer reslight"),
    "no format": (lambda c: c["reslight"].update(format=True), "The folder is damaged: get it again"),
    "labels too few": (lambda c: c["reslight"].update(labels=["a"]), "labels has 1 name: the network has 10 classes"),
    "a label with a line break": (lambda c: c["reslight"].update(labels=["a\n"] * 10), r"labels has 'a\\n': it must be one line of text"),
    "other channels": (
        lambda c: c["reslight"]["preprocess"].update(mean=[0.5], std=[0.5]),
        "preprocess has 1 channel: the network takes 3",
    ),
    "a text for an object": (lambda c: c["reslight"].update(net="resnet20"), "reslight.net is 'resnet20': it must be an object"),
    "a number for a text": (lambda c: c["reslight"].update(name=5), "name has 5: it must be one line of text"),
    "a sum that is none": (lambda c: c["reslight"]["sha256"].update({"model.safetensors": "../x"}), "it must be 64 hexadecimal digits"),
    "sums of other files": (lambda c: c["reslight"]["sha256"].update({"x": "0" * 64}), "sha256 has the unknown key 'x'"),
    "no sums": (lambda c: c["reslight"].pop("sha256"), "sha256 is None: it must be an object"),
    "metrics that cannot be": (
        lambda c: c["reslight"].update(
            metrics=[dict(split="test", total=1, correct1=2, correct5=None, nll=0.0, precision="32-true", batch_size=1, fingerprint=None)]
        ),
        r"metrics count 2 \(top-1\) and None \(top-5\) of 1 images correct",
    ),
    "2,000 blocks": (
        lambda c: c["reslight"]["net"].update(depths=[1998, 1, 1]),
        "holds 3 blocks: the network of its config.json has 2000",
    ),
    "billions of weights": (lambda c: c["reslight"]["net"].update(widths=[10**6] * 3, shortcut="B"), "more than 1,000,000,000 weights"),
    "other classes": (
        lambda c: c["reslight"].update(labels=None) or c["reslight"]["net"].update(num_classes=11),
        r"has fc.weight as F32 \[10, 64\] instead of F32 \[11, 64\]",
    ),
    "projections": (lambda c: c["reslight"]["net"].update(shortcut="B"), "is missing layer2.0.downsample.0.weight"),
    "nothing of ours": (lambda c: (c.pop("reslight"), c.pop("pretrained_cfg")), "`reslight` and `pretrained_cfg` .* missing"),
}
TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "one too few": (lambda s: s.pop("bn1.bias"), "is missing bn1.bias"),
    "one too many": (lambda s: s.update(extra=torch.zeros(1)), "also has extra"),
    "another shape": (lambda s: s.update({"fc.bias": torch.zeros(10, 1)}), r"has fc.bias as F32 \[10, 1\] instead of F32 \[10\]"),
    "another dtype": (lambda s: s.update({"fc.bias": torch.zeros(10).double()}), "has fc.bias as F64"),
    "a dtype that is none of ours": (
        lambda s: s.update({"fc.bias": torch.zeros(10, dtype=torch.complex64)}),
        r"has fc.bias as C64 \[10\] instead of F32",
    ),
    "NaN": (lambda s: s["fc.bias"].fill_(float("nan")), "has a NaN or an infinity in fc.bias"),
    "infinity": (lambda s: s["conv1.weight"].view(-1)[0].fill_(float("inf")), "has a NaN or an infinity in conv1.weight"),
    "a negative variance": (lambda s: s["bn1.running_var"][0].fill_(-1), "has a negative number in bn1.running_var"),
    "a negative count": (lambda s: s["bn1.num_batches_tracked"].fill_(-1), "has a negative number in bn1.num_batches_tracked"),
}


def refused(folder: Path, says: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=says) as stopped:
        reslight.load(folder)
    assert "\n" not in str(stopped.value)
    assert len(str(stopped.value)) < 600


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_does_not_fit_is_refused(folder, name):
    edit, says = CONFIGS[name]
    change(folder, edit)
    refused(folder, says)


@pytest.mark.parametrize("name", TENSORS)
def test_weights_that_do_not_fit_are_refused(folder, name):
    edit, says = TENSORS[name]
    altered(folder, edit)
    refused(folder, says)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda text: text[:-1], "is damaged, or is not a safetensors file .*. Get it again"),
        (lambda text: text + b"x", "is damaged, or is not a safetensors file .*. Get it again"),
        (lambda text: text[:100], "was cut short, or is not a safetensors file"),
        (lambda text: b"", "was cut short, or is not a safetensors file"),
        (lambda text: text[:-1] + bytes([text[-1] ^ 1]), "was changed: its sha256 is [0-9a-f]{12}..., config.json has"),
    ],
    ids=["a byte too few", "a byte too many", "the beginning", "empty", "a flipped bit"],
)
def test_a_damaged_file_is_refused(folder, edit, says):
    path = folder / "model.safetensors"
    path.write_bytes(edit(path.read_bytes()))
    refused(folder, says)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_said(folder, name):
    (folder / name).unlink()
    refused(folder, f"has no {name}")


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"no published weight resnet8\.digit: did you mean resnet8.digits"):
        reslight.load("resnet8.digit")


@pytest.mark.parametrize("label", ["می\u200cشود", "👩\u200d🔬", "12\u00a0kg", "a b"])
def test_labels_of_any_language(tmp_path, label):
    net = create_model("resnet8", num_classes=1)
    reslight.save(net, tmp_path / "w", preprocess=SMALL, labels=[label])
    assert reslight.load(tmp_path / "w").labels == (label,)


@pytest.mark.parametrize("label", ["a\nb", "a\x1b[2Jb", "a\u202eb", "a\u2028b", "", "\ud800"])
def test_labels_that_would_break_a_line_are_refused(tmp_path, label):
    with pytest.raises(ValueError, match="labels has"):
        reslight.save(create_model("resnet8", num_classes=1), tmp_path / "w", preprocess=SMALL, labels=[label])


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"run": {"seed": 10**30}}, "a number has 31 digits"),
        ({"run": {"loss": float("nan")}}, "NaN is not a number in JSON"),
        ({"run": {"file": Path("x")}}, "Path"),
        ({"data": {"name": ["x"]}}, r"data.name has \['x'\]"),
        ({"data": {"splits": {"train": 5}}}, "data.splits is"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path, about, says):
    with pytest.raises(ValueError, match=says):
        reslight.save(create_model("resnet8"), tmp_path / "w", preprocess=SMALL, **about)
    assert not (tmp_path / "w").exists()


def test_a_network_that_is_not_what_it_says_is_refused(tmp_path):
    net = create_model("resnet8")
    with pytest.raises(TypeError, match=r"net is a Sequential: it must be a ResNet"):
        reslight.save(torch.nn.Sequential(net), tmp_path / "w", preprocess=SMALL)
    with pytest.raises(TypeError, match=r"net is a DataParallel with a Linear: it must be a ResNet"):
        reslight.save(torch.nn.DataParallel(torch.nn.Linear(2, 2)), tmp_path / "w", preprocess=SMALL)
    net.fc = torch.nn.Linear(64, 3)
    with pytest.raises(ValueError, match=r"the network does not match its config: it has fc.weight as F32"):
        reslight.save(net, tmp_path / "w", preprocess=SMALL)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_network_is_saved_out_of_its_wrapper(tmp_path):
    net = scrambled(create_model("resnet8"))
    classifier = ImageClassifier("resnet8", num_classes=10)
    classifier.net = net
    wrappers = [nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel, torch.compile, lambda _: classifier]
    wrappers += [lambda net: torch.compile(nn.DataParallel(net)), lambda net: nn.DataParallel(torch.compile(net))]
    reslight.save(net, tmp_path / "w", preprocess=SMALL)
    expected = (tmp_path / "w" / "model.safetensors").read_bytes()
    for number, wrap in enumerate(wrappers):
        reslight.save(wrap(net), tmp_path / str(number), preprocess=SMALL)
        assert (tmp_path / str(number) / "model.safetensors").read_bytes() == expected, number


def test_tied_weights_are_saved_for_each_of_their_names(tmp_path):
    net = scrambled(create_model("resnet8"))
    net.layer1[0].conv2.weight = net.layer1[0].conv1.weight
    reslight.save(net, tmp_path / "w", preprocess=SMALL)
    back = reslight.load(tmp_path / "w")
    assert torch.equal(back.layer1[0].conv2.weight, back.layer1[0].conv1.weight)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(back(images), net.eval()(images))


def test_a_card_that_is_no_text_is_not_lost(folder):
    (folder / "README.md").write_bytes(b"\xff\xfe caf\xe9")
    with pytest.raises(ValueError, match=r"README.md is not UTF-8 text: what you wrote in it would be lost"):
        reslight.save(create_model("resnet8"), folder, preprocess=SMALL)


def test_nothing_is_half_replaced(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real = Path.open

    def full(path, *arguments, **named):
        if "golden" in path.name and "w" in "".join(arguments):
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"golden.safetensors cannot be written: No space left on device\. Make room"):
        reslight.save(create_model("resnet8"), folder, preprocess=SMALL)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


TAMPERED = {
    "a label": (lambda c: c["label_names"].__setitem__(0, "dog"), 'has label_names ["dog", "class 1"'),
    "the mean": (
        lambda c: c["pretrained_cfg"]["mean"].__setitem__(0, 0.9),
        "has pretrained_cfg.mean [0.9, 0.4, 0.3]: .* have [0.5, 0.4, 0.3]",
    ),
    "the architecture": (lambda c: c.update(architecture="resnet18"), 'has architecture "resnet18"'),
    "the number of classes": (lambda c: c.update(num_classes=10.0), "has num_classes 10.0: .* have 10. Get"),
    "no number of classes": (lambda c: c.pop("num_classes"), "is missing num_classes: "),
    "code to run": (lambda c: c.update(auto_map={"AutoModel": "evil.Model"}), "has the key auto_map.AutoModel: .* no such key"),
    "an empty object": (lambda c: c.update(auto_map={}), "has the key auto_map: "),
    "a key in an object": (lambda c: c["pretrained_cfg"].update(file="x\x1b[2J"), "has the key pretrained_cfg.file"),
    "a key with an escape": (lambda c: c.update({"\x1b[2J": 1}), r"has the key \\x1b\[2J"),
    "a model type": (lambda c: c.update(model_type="bert"), "has the key model_type"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_timm_and_transformers_read_is_what_reslight_writes(folder, name, reslight):
    edit, says = TAMPERED[name]
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=says.replace("[0", r"\[0").replace('["', r'\["')) as refused:
        check_folder(folder)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("Get the folder again, or export it again.")
    if name == "code to run":
        answer = reslight("verify", str(folder))
        assert answer.code == 1
        assert "DIFFERS" in answer.out
        assert "auto_map" in answer.out


def test_the_order_of_keys_does_not_matter(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    check_folder(folder)


def test_weights_of_the_package_are_as_reslight_writes_them():
    for name in CATALOG:
        check_folder(bundled(name))


def test_an_exported_file_is_not_taken_for_weights(tmp_path):
    assert {one.suffix for one in FORMATS.values()} == set(EXPORTED)
    for suffix in EXPORTED:
        there = tmp_path / f"net{suffix}"
        there.touch()
        for load in (locate, load_to_export):
            with pytest.raises(UsageError) as refused:
                load(str(there))
            assert str(refused.value) == f"{there} is a file: weights are loaded from a folder. Give the weights that it was exported from."
        with pytest.raises(FileNotFoundError, match=f"^there is no file models/net{suffix}. Check the name.$"):  # and no repository
            locate(f"models/net{suffix}")
