"""OpenVINO: the exported file answers as the network does, and nothing else is taken for such a file."""

import hashlib
import json
import sys

import pytest
import torch
from tests.concurrent_calls import assert_threads_agree

import reslight
from reslight.data import Digits
from reslight.deploy.formats import FORMATS
from reslight.deploy.formats import openvino as openvino_format
from reslight.deploy.formats.export import export_file
from reslight.deploy.formats.opened import open_file
from reslight.deploy.formats.pixels import PixelsToProbabilities, sample_pixels
from reslight.weights.folder import read_description
from reslight.weights.locate import bundled

pytest.importorskip("openvino_telemetry", reason="openvino is not installed")
ABOUT = {"record": {"labels": None, "preprocess": {}, "license": None}}


@pytest.fixture(scope="module")
def digits():
    data = Digits()
    data.setup("fit")
    data.setup("test")
    return data.splits


@pytest.fixture(scope="module")
def record():
    return read_description(bundled("resnet8.digits")).record


@pytest.fixture(scope="module")
def exported(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("openvino") / "digits.xml"
    lines = export_file(reslight.load("resnet8.digits"), record, "0" * 64, path, FORMATS["openvino"])
    return path, lines


def correct(path, split):
    found = open_file(path, threads=1).probabilities(list(split.images))
    return int((found.argmax(1) == split.labels).sum())


def test_several_threads_get_what_one_gets(exported):
    assert_threads_agree(exported[0])


def copied(path, folder):
    for file in (path, path.with_suffix(".bin")):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / path.name


def test_the_file_is_as_accurate_as_the_card_says(exported, digits, record):
    path, lines = exported
    assert "MB, openvino, float32, preprocessing inside" in lines[0]
    assert correct(path, digits["test"]) == record.metrics[0].correct1


def test_metadata_has_what_other_programs_look_for(exported, record):
    import openvino

    path, _ = exported
    model = openvino.Core().read_model(path)
    assert [model.input("pixels").element_type, model.output("probabilities").element_type] == [openvino.Type.u8, openvino.Type.f32]
    assert json.loads(model.get_rt_info(["labels"]).astype(str)) == list(record.labels)
    assert model.get_rt_info(["activation"]).astype(str) == "softmax"
    assert json.loads(model.get_rt_info(["reslight"]).astype(str))["sha256"] == "0" * 64


def test_the_libraries_cannot_report_their_use(exported):
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
    before = sys.modules.get("openvino_telemetry")
    with openvino_format.without_telemetry(), pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401  # the import is what is tested
    assert sys.modules.get("openvino_telemetry") is before


@pytest.mark.slow
def test_images_of_16_bits(tmp_path):
    net = reslight.create_model("resnet8", num_classes=3, in_channels=2).eval()
    net.preprocess = reslight.Preprocess(size=12, mean=(0.4, 0.5), std=(0.2, 0.3), bits=16)
    network = PixelsToProbabilities(net)
    for suffix, content in openvino_format.build(network, json.dumps(ABOUT), None).items():
        (tmp_path / f"deep{suffix}").write_bytes(content)
    session = openvino_format.open_session(tmp_path / "deep.xml", threads=1, workers=1)
    pixels = sample_pixels(net.preprocess, 3, 30, 17)
    assert pixels.dtype == torch.uint16
    torch.testing.assert_close(session.run(pixels), network(pixels), atol=1e-4, rtol=0)


DAMAGES = {
    "no .bin file": (lambda path: path.with_suffix(".bin").unlink(), r"digits\.bin is missing: .* Keep the two files together\."),
    "weights of another export": (
        lambda path: path.with_suffix(".bin").write_bytes(path.with_suffix(".bin").read_bytes()[:-1] + b"\x7f"),
        r"digits\.bin is not the file that was exported with .*digits\.xml: its sha256 differs\. Export both again\.",
    ),
    "short .bin file": (lambda path: path.with_suffix(".bin").write_bytes(b"1234"), r"digits\.(bin is not|xml cannot be opened)"),
    "half of the .xml file": (lambda path: path.write_bytes(path.read_bytes()[:9000]), r"digits\.xml cannot be opened as openvino: "),
    "no .xml file": (lambda path: path.write_bytes(b"\0" * 100), r"digits\.xml cannot be opened as openvino: "),
    "empty .xml file": (lambda path: path.write_bytes(b""), r"digits\.xml "),
    "another description": (
        lambda path: path.write_text(path.read_text(encoding="utf-8").replace('reslight value="', 'reslight value="x'), encoding="utf-8"),
        r"the metadata of .*digits\.xml",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_one_line(exported, tmp_path, damage):
    change, message = DAMAGES[damage]
    path = copied(exported[0], tmp_path)
    change(path)
    with pytest.raises((reslight.UsageError, FileNotFoundError), match=message) as caught:
        open_file(path, threads=1)
    assert "\n" not in str(caught.value)


def test_files_of_other_programs_are_refused(tmp_path):
    import openvino
    from openvino import opset15

    values = opset15.parameter([1, 2], openvino.Type.f32)
    openvino.save_model(openvino.Model([opset15.relu(values)], [values]), tmp_path / "relu.xml")
    with pytest.raises(
        reslight.UsageError, match=r"relu\.xml has no preprocessing inside that reslight wrote\. Export it: reslight export"
    ):
        open_file(tmp_path / "relu.xml", threads=1)


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_a_missing_package_is_one_line(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    net = reslight.load("resnet8.digits")
    with pytest.raises(reslight.UsageError, match=rf"^{package} is not installed: the format OpenVINO needs it\. Run pip install"):
        openvino_format.build(PixelsToProbabilities(net), "{}", [sample_pixels(net.preprocess, 1)])


@pytest.mark.slow
def test_int8_loses_little_and_is_smaller(exported, tmp_path, digits, record, capfd):
    path = tmp_path / "int8.xml"
    images = digits["train"].images.permute(0, 2, 3, 1).contiguous()
    lines = export_file(reslight.load("resnet8.digits"), record, "0" * 64, path, FORMATS["openvino"], images[:200].split(20))
    assert capfd.readouterr() == ("", "")
    assert "openvino, int8" in lines[0]
    assert open_file(path, threads=1).description.split(", ")[1] == "int8"
    assert correct(path, digits["test"]) >= record.metrics[0].correct1 - 2
    assert path.with_suffix(".bin").stat().st_size < 0.4 * exported[0].with_suffix(".bin").stat().st_size
    assert hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest() in path.read_text(encoding="utf-8")
