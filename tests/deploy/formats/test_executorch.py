"""ExecuTorch: the exported file answers as the network does, and nothing else is taken for such a file."""

import sys

import pytest
import torch
from tests.concurrent_calls import assert_threads_agree

import reslight
from reslight.data import Digits
from reslight.deploy.formats import FORMATS
from reslight.deploy.formats import executorch as executorch_format
from reslight.deploy.formats.export import export_file
from reslight.deploy.formats.opened import open_file
from reslight.deploy.formats.pixels import PixelsToProbabilities, sample_pixels
from reslight.models import ResNetConfig
from reslight.weights import Record
from reslight.weights.folder import read_description
from reslight.weights.locate import bundled

pytest.importorskip("executorch.version")
RUNTIME, _ = executorch_format._runtime()
PACKAGES = {"build": "executorch.exir", "open_session": "executorch.version"}


@pytest.fixture(scope="module")
def net():
    """The smallest network: ExecuTorch takes 20 seconds for one with shortcuts without weights."""
    torch.manual_seed(1)
    net = reslight.create_model(ResNetConfig(depths=(1,), widths=(4,), block="basic", shortcut="B", stem="small", num_classes=3)).eval()
    net.preprocess = reslight.Preprocess(size=12, mean=(0.4,) * 3, std=(0.2,) * 3)
    return net


@pytest.fixture(scope="module")
def record(net):
    return Record(net=net.config, preprocess=net.preprocess, labels=("a", "b", "c"), dtype="float32")


@pytest.mark.nightly
@pytest.mark.slow
def test_the_file_answers_as_the_network(tmp_path, net, record, capfd):
    path = tmp_path / "small.pte"
    lines = export_file(net, record, "0" * 64, path, FORMATS["executorch"])
    assert "MB, executorch, float32, preprocessing inside" in lines[0]
    file = open_file(path, threads=1)
    open_file(path, threads=2)  # which must not replace the threads of the file that is open
    assert (file.labels, file.preprocess) == (record.labels, record.preprocess)
    for count, *size in ((3, 12, 12), (1, 4096, 5), (2, 1, 4096), (1, 1, 1)):
        pixels = sample_pixels(net.preprocess, count, *size)
        torch.testing.assert_close(file.session.run(pixels), PixelsToProbabilities(net)(pixels), atol=1e-2, rtol=0)
    with pytest.raises(reslight.UsageError, match=r"an image has 4097 x 8 pixels: .*small\.pte takes at most 4096 x 4096\."):
        file.session.run(sample_pixels(net.preprocess, 1, 8, 4097))
    assert_threads_agree(path)

    assert RUNTIME._load_program(str(path)).load_method("activation")(()) == ["softmax"]
    content = path.read_bytes()
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])  # such files have crashed the process
    with pytest.raises(reslight.UsageError, match=r"small\.pte is damaged, or reslight did not write it\. Export it: "):
        open_file(path, threads=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.nightly
def test_int8_has_the_classes_of_float32(tmp_path, digits):
    path, net = tmp_path / "int8.pte", reslight.load("resnet8.digits")
    images = digits["train"].images.permute(0, 2, 3, 1).contiguous()
    record = read_description(bundled("resnet8.digits")).record
    lines = export_file(net, record, "0" * 64, path, FORMATS["executorch"], images[:200].split(20))
    assert "executorch, int8" in lines[0]
    assert path.stat().st_size < 200_000
    found = open_file(path, threads=1).probabilities(list(digits["test"].images))
    assert int((found.argmax(1) == digits["test"].labels).sum()) >= record.metrics[0].correct1 - 2


@pytest.fixture(scope="module")
def digits():
    data = Digits()
    data.setup("fit")
    data.setup("test")
    return data.splits


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"hello"])
def test_other_files_are_one_line(tmp_path, content, capfd):
    (tmp_path / "x.pte").write_bytes(content)
    with pytest.raises(reslight.UsageError, match=r"x\.pte is damaged, or reslight did not write it") as caught:
        open_file(tmp_path / "x.pte", threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("step", PACKAGES)
def test_a_missing_package_is_one_line(monkeypatch, tmp_path, step):
    monkeypatch.setitem(sys.modules, PACKAGES[step], None)
    network = PixelsToProbabilities(reslight.load("resnet8.digits"))
    arguments = {"build": (network, "{}", None), "open_session": (tmp_path / "x.pte", 1, 1)}[step]
    with pytest.raises(reslight.UsageError, match=r"^executorch is not installed: the format ExecuTorch needs it\. Run pip install"):
        getattr(executorch_format, step)(*arguments)
