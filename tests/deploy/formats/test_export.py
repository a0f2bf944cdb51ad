"""Exported ONNX and torch files: compared before they are written, opened again, and refused where they are damaged, foreign or hostile."""

import io
import json
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.concurrent_calls import assert_threads_agree

import reslight as package
from reslight.deploy.formats import FORMATS, Session, format_of
from reslight.deploy.formats import export as exporting
from reslight.deploy.formats.about import About
from reslight.deploy.formats.export import export_file
from reslight.deploy.formats.opened import FileBackend, open_file
from reslight.deploy.formats.sources import load_to_export
from reslight.messages import UsageError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits network in both formats: made once, copied by whoever changes a file."""
    folder = tmp_path_factory.mktemp("exported")
    net, record, sha256 = load_to_export("resnet8.digits", license="mit")
    made = {}
    for name in ("onnx", "torch"):
        made[name] = folder / f"net{FORMATS[name].suffix}"
        lines = export_file(net, record, sha256, made[name], FORMATS[name])
        assert lines[0].startswith(f"written {made[name]}: ")
        assert "largest difference of a probability" in lines[1]
    return made


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_file_gives_the_probabilities_of_the_network_for_images_of_any_size(files, name):
    net, file = package.load("resnet8.digits"), open_file(files[name], threads=1)
    assert (file.labels, file.preprocess, file.multi_label) == (net.labels, net.preprocess, False)
    assert file.description.endswith(", float32, 1 thread")
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, size, dtype=np.uint8) for size in ((8, 8), (50, 30), (8, 8), (1, 3), (300, 200))]
    found = file.probabilities([torch.from_numpy(image)[None] for image in images])
    with torch.inference_mode():
        expected = torch.stack([net(net.preprocess(Image.fromarray(image))[None])[0].softmax(0) for image in images])
    assert found.dtype == torch.float32
    assert (found - expected)[[0, 2]].abs().max() < 1e-5, "images that fit"
    assert (found - expected).abs().max() < 0.02
    with pytest.raises(UsageError, match=r"\(1, H, W\)"):
        file.probabilities([torch.zeros(3, 8, 8, dtype=torch.uint8)])
    assert file.probabilities([]).shape == (0, 10)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_several_threads_get_what_one_gets(files, name):
    assert_threads_agree(files[name])


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_file_says_what_it_is_and_nothing_of_this_machine(files, name):
    about = open_file(files[name]).about
    _, record, sha256 = load_to_export("resnet8.digits", license="mit")
    assert (about.sha256, about.precision, about.version) == (sha256, "float32", package.__version__)
    assert (about.record.license, about.record.metrics, about.record.recipe) == ("mit", record.metrics, {})
    assert About.from_json(about.to_json(), "it") == about
    assert str(Path(package.__file__).parent).encode() not in files[name].read_bytes()


def test_the_onnx_file_explains_itself_to_other_runtimes(files):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(files["onnx"].read_bytes())
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("pixels", "tensor(uint8)", ["batch", "height", "width", 1])
    assert (returned.name, returned.shape) == ("probabilities", ["batch", 10])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == list("0123456789")
    assert (metadata["activation"], metadata["license"]) == ("softmax", "mit")


def test_a_file_with_other_probabilities_is_not_written(monkeypatch):
    net, record, sha256 = load_to_export("resnet8.digits")
    path, torch_file = Path("net.pt2"), FORMATS["torch"]

    class Wrong:
        def build(self, network, about, calibration):
            return {".pt2": b"x"}

    monkeypatch.setattr(type(torch_file), "module", lambda self: Wrong())

    def opened(path, threads, format, value):
        about = About.of(record, sha256, "float32", "1")
        return FileBackend(path, about, Session(about.to_json(), lambda pixels: torch.full((len(pixels), 10), value), "it 1.0"), 1)

    for value, calibration in ((0.1, None), (float("nan"), None), (0.1, [torch.randint(0, 256, (40, 8, 8, 1), dtype=torch.uint8)])):
        monkeypatch.setattr(exporting, "open_file", partial(opened, value=value))
        with pytest.raises(UsageError, match="Nothing was written"):
            export_file(net, record, sha256, path, torch_file, calibration)
    assert not list(Path().iterdir())


def test_int8_keeps_the_preprocessing_and_the_classes(reslight):
    answer = reslight("export", "resnet8.digits", "small.onnx", "--int8")  # digits come with scikit-learn
    assert answer.code == 0, answer.err
    assert "onnx, int8, preprocessing inside" in answer.out
    assert "of 512 calibration images have the class that float32 gives" in answer.out
    file = open_file(Path("small.onnx"))
    assert file.about.precision == "int8"
    import onnx

    model = onnx.load("small.onnx")
    produced = {value: node for node in model.graph.node for value in node.output}
    for node in model.graph.node:
        if node.op_type == "MatMul":  # the two of the resizing
            assert all(produced[value].op_type != "DequantizeLinear" for value in node.input if value in produced)
        if node.op_type == "Conv":
            assert produced[node.input[0]].op_type == produced[node.input[1]].op_type == "DequantizeLinear"


def test_options_that_do_not_go_together_are_one_line(reslight, monkeypatch):
    for words, says in (
        (("resnet20.cifar10", "net.onnx", "--int8"), "--int8 is given without images"),
        (("resnet8.digits", "net.pt2", "--normalized-input"), "--normalized-input is given for the format torch"),
        (("resnet8.digits", "net.onnx", "--calibrate", "data"), "--calibrate is given for the format onnx: it is for --int8"),
        (("runs/1", "out", "--int8"), "--int8 is given for the format safetensors"),
        (("resnet8.digits", "net.onnx", "--format", "torch"), "ends with .pt2. Use net.pt2."),
        (("resnet8.digits", "no/net.pt2"), "the folder of no/net.pt2 is missing"),
        (("resnet8.digits", "net.pt2", "--raw"), "resnet8.digits is not a checkpoint"),
        (("nothing", "net.pt2"), "there is no folder and no published weight nothing"),
    ):
        answer = reslight("export", *words)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert says in answer.err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    answer = reslight("export", "resnet8.digits", "net.onnx")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert "onnxscript is not installed: the format ONNX needs it. Run pip install 'reslight[onnx]'." in answer.err


def one_line(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        open_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_damaged_and_foreign_files_are_one_line(files, name, monkeypatch):
    content, suffix = files[name].read_bytes(), FORMATS[name].suffix
    for number, damaged in enumerate((b"", b"hello", content[:100], content[: len(content) // 2], content[:-300])):
        path = Path(f"{number}{suffix}")
        path.write_bytes(damaged)
        assert path.name in one_line(path)
    with pytest.raises(FileNotFoundError):
        open_file(Path(f"missing{suffix}"))
    Path(f"folder{suffix}").mkdir()
    assert "it must be a regular file" in one_line(Path(f"folder{suffix}"))
    assert "is no exported file" in one_line(Path("net.foo"))
    if name == "onnx":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert "onnxruntime is not installed" in one_line(files["onnx"])


def test_a_foreign_onnx_file_has_no_preprocessing_of_reslight():
    import onnx

    node = onnx.helper.make_node("Identity", ["pixels"], ["probabilities"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("pixels", "probabilities")]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, "foreign.onnx")
    assert "has no preprocessing inside that reslight wrote" in one_line(Path("foreign.onnx"))
    for text, says in (("{", "is not standard JSON"), ("{}", "missing the keys"), ('{"format": 2}', "missing the keys")):
        del model.metadata_props[:]
        model.metadata_props.add(key="reslight", value=text)
        onnx.save(model, "foreign.onnx")
        assert says in one_line(Path("foreign.onnx"))


def test_an_onnx_file_with_weights_in_another_file_is_refused(files, tmp_path, monkeypatch):
    """They could be replaced after the file was verified."""
    onnx = pytest.importorskip("onnx")
    onnx.save_model(onnx.load(files["onnx"]), tmp_path / "net.onnx", save_as_external_data=True, location="w.data", size_threshold=100)
    assert "cannot be opened as onnx" in one_line(tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    assert "cannot be opened as onnx" in one_line(Path("net.onnx"))


def test_what_the_metadata_say_is_checked(files):
    about = json.loads(open_file(files["torch"]).about.to_json())
    for change, says in (
        ({"format": 2}, "this reslight reads 1"),
        ({"precision": "int4"}, "it must be float32 or int8"),
        ({"sha256": "0"}, "64 hexadecimal digits"),
        ({"version": "\x1b[2J"}, "one line of text"),
        ({"record": []}, "it must be an object"),
        ({"record": about["record"] | {"labels": ["one"]}}, "the network has 10 classes"),
        ({"more": 1}, "unknown key"),
    ):
        with pytest.raises(UsageError, match=says):
            About.from_json(json.dumps(about | change), "it")


def changed(source: Path, target: Path, entries: dict[str, bytes], stored: bool = True) -> Path:
    """Copy a file of torch.export with other entries, or more of them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in entries:
                new.writestr(name, old.read(name))
        for name, content in entries.items():
            new.writestr(name, content, None if stored else zipfile.ZIP_DEFLATED)
    return target


def test_a_torch_file_that_could_run_code_is_refused_before_torch_reads_it(files, monkeypatch):
    monkeypatch.setattr(torch.export, "load", lambda *args, **kwargs: pytest.fail("torch read the file"))
    model, weights = "models/model.json", "data/weights/model_weights_config.json"
    with zipfile.ZipFile(files["torch"]) as archive:
        prefix = archive.namelist()[0].partition("/")[0]
        texts = {name: archive.read(f"{prefix}/{name}").decode() for name in (model, weights)}
    call = "torch.ops.aten.conv2d.default"
    symbol = texts[model].split('"expr_str": "')[1].split('"')[0]
    hostile = {
        "calls 'torch.load'": {model: texts[model].replace(call, "torch.load")},
        "calls torch.ops.aten.from_file": {model: texts[model].replace(call, "torch.ops.aten.from_file.default")},
        "has the expression": {model: texts[model].replace(symbol, "__import__(chr(111)+chr(115)).abort()")},
        "has the expression 9**9**9": {model: texts[model].replace(symbol, "9**9**9")},
        "has the text p=print()": {model: texts[model].replace('"pixels"', '"p=print()"')},  # torch writes it into the code of forward
        "has the name p=print()": {model: texts[model].replace('["pixels"]', '["p=print()"]')},
        "has the key": {model: texts[model].replace('"sym_size_int', '"p=print();')},
        "has the treespec": {model: texts[model].replace('"context\\": \\"[]\\"', '"context\\": \\"[{}]\\"')},  # may import a module
        "has the guard": {model: texts[model].replace('"guards_code": []', '"guards_code": ["__import__(\'os\').abort()"]')},
        "holds a pickle": {weights: texts[weights].replace('"use_pickle": false', '"use_pickle": true')},
        "refers to": {weights: texts[weights].replace('"weight_0"', '"opaque_obj_0"')},
        "holds 'archive/data/weights/model.pt'": {"data/weights/model.pt": "x"},
        "holds a pickle ": {"data/sample_inputs/model.pt": "x"},
    }
    for number, (says, entries) in enumerate(hostile.items()):
        path = changed(files["torch"], Path(f"{number}.pt2"), {f"{prefix}/{name}": text.encode() for name, text in entries.items()})
        message = one_line(path)
        assert says.strip().replace("'torch.load'", "torch.load") in message, message
        assert "it could run code on this machine" in message
    bomb = changed(files["torch"], Path("bomb.pt2"), {f"{prefix}/extra/labels": b"0" * 10**6}, stored=False)
    assert "holds" in one_line(bomb)
    twice = changed(files["torch"], Path("twice.pt2"), {})
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(f"{prefix}/{model}", texts[model])
    assert "holds entries twice" in one_line(twice)


def test_torch_gets_what_was_checked_not_what_it_would_find_in_the_file(files, monkeypatch):
    """Python believes the end of an archive, torch the offset that is written there: a file may be two archives."""
    given = []
    monkeypatch.setattr(torch.export, "load", lambda file, **_: given.append(file.getvalue()))
    one_line(files["torch"])
    with zipfile.ZipFile(files["torch"]) as archive, zipfile.ZipFile(io.BytesIO(given[0])) as copy:
        assert {name: copy.read(name) for name in copy.namelist()} == {name: archive.read(name) for name in archive.namelist()}


def test_a_file_of_another_program_beside_the_export_is_not_replaced(tmp_path):
    (tmp_path / "net.bin").write_bytes(b"other")
    with pytest.raises(UsageError, match=r"net\.bin is another program's file: the export of .*net\.xml would replace it"):
        exporting.check_target(tmp_path / "net.xml", FORMATS["openvino"])
    (tmp_path / "net.xml").touch()
    exporting.check_target(tmp_path / "net.xml", FORMATS["openvino"])


def test_the_format_is_found_by_the_suffix():
    assert format_of(Path("a/net.onnx")) is FORMATS["onnx"]
    assert format_of(Path("net.pt2")) is FORMATS["torch"]
    assert format_of(Path("out")) is None


def test_compiled_files_are_opened_for_users_who_trust_them(files, reslight, monkeypatch):
    with zipfile.ZipFile(files["torch"]) as archive:
        prefix = archive.namelist()[0].partition("/")[0]
    path = changed(files["torch"], Path("compiled.pt2"), {f"{prefix}/data/aotinductor/model/model.so": b"x"})
    assert "holds machine code, which would run with your rights" in one_line(path)
    monkeypatch.setenv("RESLIGHT_TRUST_COMPILED", "1")
    assert "cannot be opened as torch" in one_line(path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    answer = reslight("export", "resnet8.digits", "net.pt2", "--compile")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert "--compile needs a C++ compiler" in answer.err
    assert "--half is given for the format onnx: it is for a folder" in reslight("export", "resnet8.digits", "net.onnx", "--half").err
    assert "it is for --format torch" in reslight("export", "resnet8.digits", "net.onnx", "--compile").err


@pytest.mark.nightly
def test_a_compiled_file_gives_the_probabilities_of_the_network(reslight, monkeypatch):
    answer = reslight("export", "resnet8.digits", "net.pt2", "--compile")
    assert answer.code == 0, answer.err
    monkeypatch.setenv("RESLIGHT_TRUST_COMPILED", "1")
    answer = reslight("verify", "net.pt2")
    assert answer.code == 0, answer.out
    assert "the same prediction as in torch for 360" in answer.out
