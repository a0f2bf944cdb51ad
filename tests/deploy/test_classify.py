"""`reslight classify` on image files of every kind."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import reslight as package
from reslight.cli.main import main
from reslight.data import Digits
from reslight.data.loading import converted
from reslight.deploy.images import Read, decoded


def read(path: Path, net: package.ResNet) -> Read:
    return decoded(path, net.preprocess)


def classify(net: package.ResNet, path: str) -> tuple[tuple[str, float], ...]:
    return package.Classifier(net, exact=True).predict(path).classes


@pytest.fixture(scope="module")
def digits() -> package.ResNet:
    return package.load("resnet8.digits")


@pytest.fixture(scope="module")
def color_net(tmp_path_factory) -> package.ResNet:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net")
    preprocess = package.Preprocess(size=8, resize=9, mean=(0.5,) * 3, std=(0.2,) * 3)
    package.save(package.create_model("resnet8", num_classes=3), folder / "w", preprocess=preprocess)
    return package.load(folder / "w")


def test_real_digits_are_named_as_the_network_names_them(digits):
    data = Digits()
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    logits = digits(data.on_after_batch_transfer(batch, 0).images)
    for number, image in enumerate(batch.images[:20]):
        Image.fromarray(image[0].numpy()).save("digit.png")
        answers = classify(digits, "digit.png")
        expected = logits[number].double().softmax(0)
        assert answers[0][0] == str(int(expected.argmax()))
        assert [value for _, value in answers] == pytest.approx(expected.sort(descending=True).values[:5].tolist(), abs=1e-5)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_exif_orientation_is_applied(color_net):
    upright = Image.fromarray(noise(12, 9, 3))
    upright.save("upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=exif)
    one, other = (read(Path(name), color_net) for name in ("upright.png", "turned.png"))
    assert one.image.tobytes() == other.image.tobytes()
    assert (other.steps[0], len(other.steps), other.steps[-1]) == ("12 x 9 RGB", 3, "center 8 x 8")
    assert one.steps == ("9 x 12 RGB", "center 8 x 8")


def test_transparent_is_over_white(color_net):
    pixels = noise(9, 9, 4)
    pixels[..., 3] = 0
    Image.fromarray(pixels).save("clear.png")
    image = read(Path("clear.png"), color_net)
    assert image.image.getextrema() == ((255, 255),) * 3
    assert (image.steps[0], len(image.steps), image.steps[-1]) == ("9 x 9 RGBA", 3, "center 8 x 8")


def test_sixteen_bits_become_eight(color_net):
    Image.fromarray((np.arange(81).reshape(9, 9) * 500).astype(np.uint16)).save("deep.png")
    image = read(Path("deep.png"), color_net)
    assert image.image.getpixel((0, 0)) == (0, 0, 0)
    assert image.image.getpixel((8, 8)) == (round(40_000 / 257),) * 3, "dark images stay dark"
    assert "values 0 to 65535 scaled to 0 to 255" in image.steps


@pytest.mark.parametrize(
    ("values", "text", "first", "last"),
    [
        (np.linspace(0, 1, 81, dtype=np.float32), "0 to 1", 0, 255),
        (np.linspace(0, 200, 81, dtype=np.float32), "0 to 255", 0, 200),
        (np.linspace(-3, 7, 81, dtype=np.float32), "-3 to 7", 0, 255),
        (np.arange(81, dtype=np.int32) * 100_000, "0 to 8e+06", 0, 255),
        (np.full(81, 70_000, np.int32), "70000 to 70000", 0, 0),
        (np.arange(81).astype(">u2") * 257, "0 to 65535", 0, 80),
    ],
)
def test_other_depths_become_eight(color_net, values, text, first, last):
    Image.fromarray(values.reshape(9, 9)).save("deep.tiff")
    image = read(Path("deep.tiff"), color_net)
    assert f"values {text} scaled to 0 to 255" in image.steps
    assert [image.image.getpixel(at)[0] for at in ((0, 0), (8, 8))] == [first, last]


def test_values_that_are_no_numbers_are_refused(color_net):
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save("nan.tiff")
    with pytest.raises(ValueError, match=r"nan.tiff cannot be read: it has values that are not numbers"):
        read(Path("nan.tiff"), color_net)


def test_a_strip_costs_no_gigabytes(color_net):
    Image.fromarray(noise(1, 9000, 3)).save("strip.png")
    one = color_net.preprocess(read(Path("strip.png"), color_net).image)
    assert one.shape == (3, 8, 8)
    assert torch.equal(one, color_net.preprocess(Image.open("strip.png").crop((4484, 0, 4516, 1))))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_is_read_by_both_kinds_of_network(reslight, mode, digits, color_net):
    Image.fromarray(noise(20, 30, 3)).convert(mode).save("image.tiff")
    for net, wanted in ((digits, "L"), (color_net, "RGB")):
        assert read(Path("image.tiff"), net).image.mode == wanted
    answer = reslight("classify", "resnet8.digits", "image.tiff")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"image.tiff  (30 x 20 {mode}, ")
    assert len(answer.out.splitlines()) == 6


def test_a_small_number_of_classes_is_listed_whole(color_net):
    Image.fromarray(noise(9, 9, 3)).save("x.png")
    answers = classify(color_net, "x.png")
    assert sorted(name for name, _ in answers) == ["0", "1", "2"]
    assert sum(value for _, value in answers) == pytest.approx(1)


def test_one_bad_picture_does_not_stop_the_others(reslight):
    Image.fromarray(noise(40, 40, 3)).save("good one.png")
    Path("text.jpg").write_text("not an image")
    Image.fromarray(noise(200, 200, 3)).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:5000])
    Image.fromarray(noise(8, 8)).save("moving.gif", save_all=True, append_images=[Image.new("L", (8, 8), gray) for gray in (0, 255)])
    answer = reslight("classify", "resnet8.digits", "nothing.png", "text.jpg", "cut.png", "moving.gif", "good one.png")
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert [line.split(":")[2].split()[0] for line in lines] == ["nothing.png", "text.jpg", "cut.png"]
    assert "good one.png  (40 x 40 RGB, " in answer.out
    assert "short side resized to 8)" in answer.out
    assert "the first of 3 frames" in answer.out


@pytest.mark.parametrize(("encoding", "café"), [("ascii", r"caf\xe9"), ("cp1252", "café"), ("utf-8", "café")])
def test_a_console_without_the_characters_of_a_label_shows_their_codes(monkeypatch, color_net, encoding, café):
    labels = ["café", "猫", "ok"]
    package.save(color_net, "w", labels=labels)
    Image.fromarray(noise(12, 9, 3)).save("猫.png")
    Path("\udcff.png").write_text("no image")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr("sys.stdout", streams[0])
    monkeypatch.setattr("sys.stderr", streams[1])
    assert main(["classify", "w", "猫.png", "\udcff.png"]) == 1
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams if stream.flush() is None)
    cat = "猫" if encoding == "utf-8" else r"\u732b"
    assert out.splitlines()[0].startswith(f"{cat}.png  (9 x 12 RGB")
    assert sorted(line.split()[-1] for line in out.splitlines()[1:]) == sorted([café, cat, "ok"])
    assert r"\udcff.png" in err


def test_names_of_files_command_no_terminal(capsys):
    Image.fromarray(noise(8, 8)).save(name := "a\x1b[2J\u202e.png")
    Path(broken := "b\x1b]0;x\x07.png").write_bytes(b"no image")
    assert main(["classify", "resnet8.digits", name, broken]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(r"a\x1b[2J\u202e.png  (8 x 8")
    assert r"error: b\x1b]0;x\x07.png is not an image" in printed.err
    assert "\x1b" not in printed.out + printed.err


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 30), (30, 41), (5, 7), (9, 9), (400, 9), (2, 300)])
def test_images_are_resized_part_by_part_as_whole(monkeypatch, shape, interpolation):
    net = SimpleNamespace(preprocess=package.Preprocess(size=8, resize=9, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation=interpolation))
    monkeypatch.setattr(converted, "_PART", 3 * shape[1])  # three rows
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(noise(*shape, 3))
        image.save("image.png", exif=exif)
        expected = net.preprocess(ImageOps.exif_transpose(Image.open("image.png")))
        assert torch.equal(net.preprocess(read(Path("image.png"), net).image), expected), orientation


def test_what_is_not_a_file_is_one_line(reslight):
    os.mkfifo("z.png")
    answer = reslight("classify", "resnet8.digits", "z.png")
    assert answer.code == 1
    assert answer.err == "reslight: error: z.png is a pipe: it must be a regular file. Replace or remove it.\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory in /proc")
def test_a_large_image_is_in_memory_about_once():
    """Pillow holds an RGB image with four bytes a pixel, and decodes PNG only as a whole."""
    side = 4_000
    image = Image.new("RGB", (side, side), "red")
    image.save("RGB.png", compress_level=1)
    image.putalpha(100)
    image.save("RGBA.png", compress_level=1)
    Image.fromarray(np.full((side, side), 500, np.uint16)).save("16 bits.png", compress_level=1)
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from PIL import Image\n"
        "import reslight\n"
        "from reslight.deploy.images import decoded\n"
        "net = SimpleNamespace(preprocess=reslight.Preprocess(size=32, mean=(0.5,) * 3, std=(0.2,) * 3))\n"
        "Image.new('RGB', (60, 60)).save('small.png')\n"
        "net.preprocess(decoded('small.png', net.preprocess).image)\n"
        "def kilobytes(name):\n"
        "    return int(re.search(rf'{name}:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "for name in ('16 bits', 'RGB', 'RGBA'):\n"
        "    Path('/proc/self/clear_refs').write_text('5')\n"  # the peak begins anew
        "    before = kilobytes('VmRSS')\n"
        "    net.preprocess(decoded(f'{name}.png', net.preprocess).image)\n"
        "    print(kilobytes('VmHWM') - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for kilobytes in map(int, done.stdout.split()):
        assert kilobytes * 1024 < 1.7 * 4 * side**2, done.stdout
