"""The sheet shows the pixels and labels of training, whatever their normalization."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from reslight.analysis import save
from reslight.analysis.sheet import captions, draw_sheet, pixels
from reslight.data import Augment, Digits, Mix, Synthetic, SyntheticImages
from reslight.preprocess import Preprocess

NAMES = ("cat", "$dog$", "a name that is much too long")
IMAGES = torch.randint(256, (10, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_mean_image", [False, True])
def test_pixels_are_those_from_before_the_normalization(channels, is_mean_image):
    images = IMAGES[:, :channels]
    mean = tuple(torch.linspace(0.2, 0.6, channels * 36 if is_mean_image else channels).tolist())
    preprocess = Preprocess(size=6, mean=mean, std=(1.0,) * channels if is_mean_image else (0.2, 0.3, 0.4)[:channels])
    normal = preprocess.normalizer(torch.device("cpu"), torch.float32)(images)
    assert torch.equal(pixels(normal, preprocess), images)
    assert pixels(normal * 100, preprocess).unique().tolist()[-1] == 255, "values out of range are cut"


def test_captions_name_the_classes_of_a_mixture():
    assert captions(torch.tensor([1, 0, 2]), NAMES) == ["$dog$", "cat", "a name th...o long"]
    mixed = torch.tensor([[0.3, 0.7, 0.0], [1.0, 0.0, 0.0], [0.998, 0.002, 0.0], [0.2, 0.2, 0.6]])
    assert captions(mixed, NAMES) == ["$dog$ 0.70\ncat 0.30", "cat", "cat", "a name th...o long 0.60\n$dog$ 0.20\ncat 0.20"]


def test_everything_is_on_the_sheet():
    figure = draw_sheet(IMAGES, [f"label {number}" for number in range(10)], NAMES, (5, 0, 1200), "ten $images$")
    *grid, histogram = figure.axes
    shown = [axes for axes in grid if axes.images]
    assert len(shown) == 10
    for number, axes in enumerate(shown):
        assert np.array_equal(axes.images[0].get_array(), IMAGES[number].permute(1, 2, 0).numpy())
        assert axes.get_title() == f"label {number}"
    assert [bar.get_height() for bar in histogram.patches] == [5, 0, 1200]
    assert [text.get_text() for text in histogram.texts] == ["5", "0", "1,200"]
    assert [label.get_text() for label in histogram.get_xticklabels()] == ["cat", r"\$dog\$", "a name th...o long"]
    assert figure.subfigs[0]._suptitle.get_text() == r"ten \$images\$"


def test_of_many_classes_the_ends_are_named():
    counts = [*range(1, 60), 500]
    histogram = draw_sheet(IMAGES[:1, :1], ["x"], [f"class {number}" for number in range(60)], counts, "one").axes[-1]
    assert [bar.get_height() for bar in histogram.patches] == sorted(counts, reverse=True)
    assert [label.get_text() for label in histogram.get_xticklabels()] == ["class 59", "class 0"]


def test_images_of_any_channels_and_shape_are_drawn(tmp_path):
    for channels, height, width in ((1, 8, 8), (2, 8, 12), (4, 12, 8)):
        images = torch.zeros(3, channels, height, width, dtype=torch.uint8)
        figure = draw_sheet(images, ["a", "b\nc", "d"], NAMES, (1, 2, 3), "x")
        shown = figure.axes[0].images[0].get_array()
        assert shown.shape == ((height, width, 3) if channels == 4 else (height, width))
    save(figure, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width == 1300


def test_a_training_batch_is_what_the_network_gets():
    augment, mix = Augment(pad=1, flip="random"), Mix(cutmix=1.0)
    data = Synthetic(SyntheticImages(size=8, num_classes=3, train_size=40), val_size=8, batch_size=16, augment=augment, mix=mix, seed=3)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    result = data.training_batch(batch, epoch=2)
    normal = data.preprocess(augment(batch.images, batch.indices, seed=3, epoch=2))
    images, labels = mix(normal, batch.labels, batch.indices, num_classes=3, seed=3, epoch=2)
    assert torch.equal(result.images, images)
    assert torch.equal(result.labels, labels)


@pytest.mark.slow
def test_the_command_draws_the_first_images_of_the_first_step(reslight, monkeypatch):
    drawn = []
    monkeypatch.setattr("reslight.analysis.sheet.draw_sheet", lambda *values: drawn.append(values) or draw_sheet(*values))
    answer = reslight("data", "show", "--config", "digits", "-o", "sheet.png", "--images", 6, "--data.seed", 7, "--data.batch_size=8")
    assert answer.code == 0, answer.err
    assert answer.out == "written sheet.png: 6 of 1,257 training images, and 10 classes\n"
    data = Digits(seed=7, batch_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    expected = data.augment(batch.images, batch.indices, seed=7, epoch=0)
    images, texts, names, counts, title = drawn[0]
    assert torch.equal(images, expected[:6])
    assert texts == [str(label) for label in batch.labels[:6].tolist()]
    assert (names, sum(counts)) == (data.labels, 1257)
    assert title == "digits: 6 of 1,257 training images, as in the first step"
    with Image.open("sheet.png") as image:
        assert image.format == "PNG"


def test_mistakes_are_one_line(reslight, monkeypatch):
    for words, says in (
        (["-o", "x.png"], "ROOT is missing: it is the folder of your images. Add it, or a --config."),
        (["--config", "digits", "-o", "x.gif"], "--output is x.gif: a figure is saved as .png, .pdf or .svg."),
        (["--config", "digits", "-o", "x.png", "--images", 0], "--images is 0: it must be at least 1."),
        (["--config", "digits", "-o", "x.png", "--foo"], "reslight data show has no argument --foo."),
        (["--config", "digits", "-o", "x.png", "--data.sead", "3"], "data.sead is no setting of Digits. Did you mean data.seed?"),
        (["nosuch", "-o", "x.png"], "data.root is nosuch: there is no such folder."),
    ):
        answer = reslight("data", "show", *words)
        assert answer.code == 2
        assert answer.err.startswith(f"reslight: error: {says}")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    answer = reslight("data", "show", "--config", "digits", "-o", "x.png")
    assert answer.code == 2
    assert "Run pip install 'reslight[plot]'" in answer.err
