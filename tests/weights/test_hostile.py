"""Hostile folders: each is refused in one line, within two seconds of CPU time and 300 MB, and nothing is written."""

import hashlib
import json
import math
import pickle
import re
import struct
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.clean_process import cost_of_allocating, cost_of_loading

import reslight
from reslight import Preprocess, create_model
from reslight.messages import has_control
from reslight.models import VARIANTS
from reslight.preprocess import middle
from reslight.weights.card import END, merged, own_text
from reslight.weights.folder import check_folder
from reslight.weights.header import read_header
from reslight.weights.record import Record
from reslight.weights.strict_json import parse_json

MB = 2**20


@pytest.fixture
def folder() -> Path:
    torch.manual_seed(0)
    reslight.save(create_model("resnet8"), "w", preprocess=Preprocess(size=32, mean=(0.5,) * 3, std=(0.2,) * 3))
    return Path("w")


def test_the_measure_of_memory_measures():
    assert 90 * MB < cost_of_allocating(100 * MB).nbytes < 200 * MB


def header(text: bytes, rest: int = 0, length: int | None = None) -> Callable[[Path], None]:
    """A safetensors file with this header, and `rest` bytes behind it."""

    def write(path: Path) -> None:
        with (path / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text) if length is None else length) + text)
            file.truncate(8 + len(text) + rest)  # sparse: takes no room

    return write


def one(**fields: Any) -> bytes:
    return json.dumps({"conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | fields}).encode()


def config(text: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / "config.json").write_bytes(text)

    return write


def edited(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        found = json.loads((path / "config.json").read_text())
        edit(found["reslight"])
        (path / "config.json").write_text(json.dumps(found))

    return write


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hacked"),)


def pickled(path: Path) -> None:
    (path / "model.safetensors").write_bytes(pickle.dumps(Hostile()))


def moved(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """The weights with another header, for which config.json vouches."""

    def write(path: Path) -> None:
        model = path / "model.safetensors"
        content = model.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        there = json.loads(content[8 : 8 + length])
        edit(there)
        text = json.dumps(there).encode()
        model.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        edited(lambda r: r["sha256"].update({"model.safetensors": hashlib.sha256(model.read_bytes()).hexdigest()}))(path)

    return write


def of_timm(**fields: Any) -> Callable[[Path], None]:
    """What timm could have written."""
    preprocess = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.2] * 3}
    written = {"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": preprocess} | fields
    return config(json.dumps(written).encode())


RESULT = {
    "split": "test",
    "total": 1,
    "correct1": 1,
    "correct5": 1,
    "nll": 0.1,
    "precision": "32-true",
    "batch_size": 1,
    "fingerprint": None,
}

CORPUS: dict[str, Callable[[Path], None]] = {
    "a header of 2^63 bytes": header(b"{}", length=2**63),
    "a header longer than the file": header(b"{}", length=1000),
    "a header of 100 MB": header(b"{" + b" " * 100 * MB + b"}"),
    "a header of 300,000 empty tensors": header(
        json.dumps({f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(300_000)}).encode()
    ),
    "a header nested 2,000 deep": header(b'{"a":' * 2_000 + b"1" + b"}" * 2_000),
    "a header that is a list": header(b"[]"),
    "a header that is no UTF-8": header(b'{"\xff": 1}'),
    "a name twice": header(b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "a": {"dtype": "F32"}}', 4),
    "a shape below zero": header(one(shape=[-1]), 4),
    "a shape that is true": header(one(shape=[True]), 4),
    "a shape of 2^62": header(one(shape=[2**62]), 4),
    "a shape of a thousand dimensions": header(one(shape=[1] * 1000), 4),
    "a dtype that is a list": header(one(dtype=["F32"]), 4),
    "a file of 4 GiB with nothing in it": header(b"{}", 2**32),
    "a tensor of 4 GiB that is not there": header(one(shape=[2**30]), 2**32),
    "a pickle under another name": pickled,
    "a config.json of 100 MB": config(b"{" + b" " * 100 * MB + b"}"),
    "nested 100,000 deep": config(b'{"reslight":' * 100_000 + b"1" + b"}" * 100_000),
    "lists nested 100,000 deep": config(b"[" * 100_000),
    "a key twice": config(b'{"reslight": 1, "reslight": 2}'),
    "NaN": config(b'{"reslight": {"format": NaN}}'),
    "a number of 5,000 digits": config(b'{"reslight": {"format": ' + b"9" * 5000 + b"}}"),
    "no UTF-8": config(b"\xff\xfe{}"),
    "a text": config(b'"reslight"'),
    "2,000 blocks": edited(lambda r: r["net"].update(depths=[2000 - 2, 1, 1])),
    "a million blocks": edited(lambda r: r["net"].update(depths=[10**6, 1, 1])),
    "a million stages": edited(lambda r: r["net"].update(depths=[1] * 10**6, widths=[1] * 10**6)),
    "a width of 10^18": edited(lambda r: r["net"].update(widths=[10**18] * 3)),
    "10^9 classes": edited(lambda r: r["net"].update(num_classes=10**9)),
    "a million classes": edited(lambda r: r["net"].update(num_classes=10**6)),
    "a stem that is code": edited(lambda r: r["net"].update(stem="__import__('os')")),
    "a name that is a path": edited(lambda r: r.update(name="../../etc/passwd\0")),
    "a name of a megabyte": edited(lambda r: r.update(name="a" * MB)),
    "images of a million pixels": edited(lambda r: r["preprocess"].update(size=10**6)),
    "images of 4,096 pixels for a network of 300 kB": edited(lambda r: r["preprocess"].update(size=4096)),
    "20,000 results": edited(lambda r: r.update(metrics=[RESULT] * 20_000)),
    "a recipe of 1 MB": edited(lambda r: r.update(recipe={f"key{number}": "x" * 80 for number in range(10_000)})),
    "a deviation of zero": edited(lambda r: r["preprocess"].update(std=[0, 0, 0])),
    "tensors at wrong places": moved(lambda h: h["fc.bias"].update(data_offsets=[0, 40])),
    "places that are texts": moved(lambda h: h["fc.bias"].update(data_offsets=["0", "40"])),
    "no places": moved(lambda h: h["fc.bias"].pop("data_offsets")),
    "places beyond the end": moved(lambda h: h["fc.bias"].update(data_offsets=[2**62, 2**62 + 40])),
    "metadata that are a number": moved(lambda h: h.update(__metadata__=1)),
    "metadata of numbers": moved(lambda h: h.update(__metadata__={"a": 1})),
    "timm with 2,000 blocks": of_timm(model_args={"layers": [1990, 1, 1, 1]}),
    "timm with a network of reslight that is not": of_timm(architecture="reslight_resnet9000"),
    "timm with arguments of reslight that are not": of_timm(architecture="reslight_resnet20", model_args={"depths": [10**9] * 3}),
    "labels that are objects": edited(lambda r: r.update(labels=[{}] * 10)),
}


@pytest.mark.parametrize("name", CORPUS)
def test_it_is_refused_in_one_line_at_once(folder, name):
    CORPUS[name](folder)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    cost = cost_of_loading(folder)
    assert cost.error == "UsageError", cost
    assert cost.seconds < 2
    assert cost.nbytes < 300 * MB
    assert "\n" not in cost.message
    assert 0 < len(cost.message) < 700
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
GOOD = Record(net=create_model("resnet8").config, preprocess=Preprocess(size=8, mean=(0.5,) * 3, std=(0.2,) * 3)).to_dict()
KEYS = [(key,) for key in GOOD] + [("net", key) for key in GOOD["net"]] + [("preprocess", key) for key in GOOD["preprocess"]]


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from(KEYS), value=values)
def test_a_record_is_read_whole_or_refused_by_a_value_error(key, value):
    there = {name: dict(inner) if isinstance(inner, dict) else inner for name, inner in GOOD.items()}
    (there if len(key) == 1 else there[key[0]])[key[-1]] = value
    with suppress(ValueError):  # anything else is a bug
        read = Record.from_dict(there)
        assert Record.from_dict(json.loads(json.dumps(read.to_dict()))) == read


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=60), length=st.integers(0, 100) | st.none(), rest=st.integers(0, 20))
def test_any_bytes_are_a_header_or_a_value_error(tmp_path, text, length, rest):
    header(text, rest, length)(tmp_path)
    with suppress(ValueError):  # anything else is a bug
        assert all(name in text.decode() or "\\" in text.decode() for name in read_header(tmp_path / "model.safetensors", 1000))


@settings(max_examples=300, deadline=None)
@given(value=st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_plain_json_is_what_python_writes_without_its_extras(value):
    text = json.dumps(value)
    try:
        found = parse_json(text.encode(), "x")
    except ValueError:
        assert "NaN" in text or "Infinity" in text or any(len(part) > 19 for part in re.findall(r"\d+", text))
    else:
        assert found == value


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["fc.bias", "conv1.weight", "__metadata__", "more"]),
    key=st.sampled_from(["data_offsets", "shape", "dtype", "x"]),
    value=values,
)
def test_a_header_that_was_changed_is_refused_or_loads(folder, name, key, value):
    """Nothing that passes our checks may stumble in the library behind them."""
    original = {path: path.read_bytes() for path in folder.iterdir()}

    def edit(there):
        there.setdefault(name, {})[key] = value

    try:
        moved(edit)(folder)
        with suppress(ValueError):  # anything else is a bug
            reslight.load(folder)
    finally:
        for path, content in original.items():
            path.write_bytes(content)


def begins(count: int) -> str:
    return "<!-- reslight: begin -->\n" * count


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("README.md", b"x" * (MB + 1), r"README.md has 1,048,577 bytes: at most 1,048,576 are read"),
        ("golden.safetensors", b"x" * 100_000, r"golden.safetensors has 100,000 bytes: at most 10,328 are read"),
    ],
)
def test_a_file_that_is_too_large_is_not_read(folder, monkeypatch, name, content, says):
    (folder / name).write_bytes(content)
    monkeypatch.setattr(Path, "read_text", None)
    with pytest.raises(ValueError, match=says):
        check_folder(folder)


@pytest.mark.parametrize(
    "text",
    [
        begins(40_000),
        "<!-- reslight: begin" * 50_000,
        (begins(1) + END) * 12_000,
        begins(20_000) + END,
        "---\n" * 200_000,
        f"---\ntags: [{'x, ' * 20_000}]\n---\n",
    ],
    ids=["begins", "begins without an end", "pairs", "begins and one end", "dashes", "tags"],
)
def test_a_card_of_a_megabyte_costs_no_time(text):
    start = time.process_time()
    own_text(text)
    assert merged(text, text) is not None
    assert time.process_time() - start < 12  # 1 s here; quadratic would be minutes


def test_yaml_that_is_too_long_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"65,537 characters of YAML are at the beginning of a card: at most 65,536 are read\. Shorten it"):
        own_text(f"---\n{'x' * 65_537}\n---\n")


def test_large_images_are_for_networks_that_can_take_them():
    for name, size in (("resnet50", 1_024), ("wide_resnet101_2", 512), ("wrn28_10", 224)):
        channels = VARIANTS[name].in_channels
        Record(net=VARIANTS[name], preprocess=Preprocess(size=size, mean=(0.5,) * channels, std=(0.2,) * channels))


def test_a_long_image_is_resized_in_bounded_memory():
    preprocess = Preprocess(size=8, resize=8192, mean=(0.5,), std=(0.2,))
    top, left, height, width = middle(1, 10_000, 8192)
    assert (top, left, height, width) == (0, 4_999, 1, 2)
    assert middle(1, 10_000, 224) == (0, 4_984, 1, 32)
    assert preprocess(torch.zeros(1, 1, 10_000, dtype=torch.uint8)).shape == (1, 8, 8)


EVIL = "\x1b[2J\x9b\u202e" + "evil" * 2_000


@pytest.mark.parametrize("key", KEYS, ids=".".join)
@pytest.mark.parametrize("value", [EVIL, [EVIL], {EVIL: EVIL}], ids=["text", "list", "object"])
def test_what_a_record_holds_commands_no_terminal(key, value):
    there = {name: dict(inner) if isinstance(inner, dict) else inner for name, inner in GOOD.items()}
    (there if len(key) == 1 else there[key[0]])[key[-1]] = value
    with suppress_and_check():
        Record.from_dict(there)
    (there if len(key) == 1 else there[key[0]])[EVIL] = value
    with suppress_and_check():
        Record.from_dict(there)


@contextmanager
def suppress_and_check():
    message = ""
    try:
        yield
    except ValueError as error:
        message = str(error)
    assert not has_control(message), repr(message)
    assert len(message) < 700


@pytest.mark.parametrize(
    "name", ["a name", "a dtype", "a key", "timm's architecture", "timm's arguments", "timm's crop", "timm's mean", "labels"]
)
def test_what_a_folder_holds_commands_no_terminal(folder, name):
    change = {
        "a name": moved(lambda h: h.update({EVIL: h.pop("fc.bias")})),
        "a dtype": moved(lambda h: h["fc.bias"].update(dtype=EVIL)),
        "a key": moved(lambda h: h["fc.bias"].update({EVIL: 1})),
        "timm's architecture": of_timm(architecture=f"reslight_{EVIL}"),
        "timm's arguments": of_timm(model_args=EVIL),
        "timm's crop": of_timm(pretrained_cfg={"mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": EVIL}),
        "timm's mean": of_timm(pretrained_cfg={"mean": EVIL}),
        "labels": of_timm(label_names=[EVIL] * 10),
    }
    change[name](folder)
    with suppress_and_check():
        reslight.load(folder)
        assert name == "a key", "which safetensors ignores"


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0], ids=["NaN", "infinity", "zero"])
def test_golden_logits_that_verify_calls_different_are_not_published(folder, value):
    golden = folder / "golden.safetensors"
    tensors = safetensors.torch.load_file(golden)
    safetensors.torch.save_file({**tensors, "logits": torch.full_like(tensors["logits"], value)}, golden)
    edited(lambda r: r["sha256"].update({golden.name: hashlib.sha256(golden.read_bytes()).hexdigest()}))(folder)
    with pytest.raises(ValueError, match=r"the logits of w/model.safetensors differ from those in golden.safetensors by .* of the largest"):
        reslight.push(folder, "acme/net")


def test_weights_whose_logits_are_not_finite(folder):
    net = reslight.load(folder)
    torch.nn.init.constant_(net.fc.weight, 3e38)
    with pytest.raises(ValueError, match="the network's logits for two images of noise are not finite: its weights are too large"):
        reslight.save(net, "large")
    for exact in (True, False):
        with pytest.raises(ValueError, match="the network's probabilities are not finite numbers"):
            reslight.Classifier(net, exact=exact).predict(Image.new("RGB", (32, 32), "red"))
