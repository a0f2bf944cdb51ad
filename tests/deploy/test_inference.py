"""The quick form of a network computes what the network does, and `Classifier` takes images of every kind."""

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.cifar.test_metadata import REAL, needs_real_images
from tests.nets import scrambled

import reslight as package
from reslight.deploy import inference
from reslight.deploy.fused import FusedBlock, fuse_blocks, is_supported
from reslight.deploy.inference import Inference, folded

PREPROCESS = package.Preprocess(size=16, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", {"shortcut": "A"}),
        ("resnet8", {"shortcut": "B"}),
        ("resnet20", {"preact": True}),
        ("resnet50", {"widths": (8, 8, 8, 8), "stem_width": 8}),
        ("resnet50d", {"widths": (8, 8, 8, 8), "stem_width": 8}),
        ("resnet50", {"widths": (8, 8, 8, 8), "stem_width": 8, "preact": True}),
    ],
)
def test_folded_batch_norms_change_nothing(name, options):
    torch.manual_seed(0)
    net = scrambled(package.create_model(name, num_classes=5, **options)).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    quick = folded(net)
    norms = [sum(isinstance(one, torch.nn.BatchNorm2d) for one in made.modules()) for made in (net, quick)]
    assert torch.allclose(quick(images), net(images), rtol=1e-9, atol=1e-9)
    before_convolutions = 0 if not net.config.preact else 1 + sum(net.config.depths)
    assert norms[1] == before_convolutions < norms[0]


# Odd sizes, one pixel, and channels that are no multiple of anything: shapes that some of torch's operations refuse.
FUSED = [
    {"block": "basic", "shortcut": "A", "stem_width": 3, "widths": (3, 5, 7)},
    {"block": "basic", "shortcut": "none", "widths": (16, 32)},
    {"block": "basic", "shortcut": "B", "widths": (16, 32)},
    {"block": "bottleneck", "shortcut": "C", "widths": (4, 8)},
    {"block": "bottleneck", "shortcut": "B", "widths": (16, 32), "groups": 4},
]


@pytest.mark.parametrize("size", [1, 3, 16, 33])
@pytest.mark.parametrize("fields", FUSED, ids=lambda fields: f"{fields['block']} {fields['shortcut']}")
def test_fused_blocks_compute_what_the_blocks_do(fields, size):
    torch.manual_seed(0)
    config = package.models.ResNetConfig(depths=(2,) * len(fields["widths"]), stem="small", num_classes=3, **fields)
    net = folded(scrambled(package.create_model(config))).to(torch.bfloat16, memory_format=torch.channels_last)
    images = torch.randn(2, 3, size, size).to(torch.bfloat16, memory_format=torch.channels_last)
    fused = copy.deepcopy(net)
    fuse_blocks(fused)
    for name in config.stage_names:
        assert all(isinstance(block, FusedBlock) == is_supported() for block in fused.get_submodule(name))
    with torch.inference_mode():
        wanted = net(images)
        assert (fused(images) - wanted).abs().max() < 0.03 * wanted.abs().max()


@pytest.mark.skipif(not inference.multiplies_bfloat16(), reason="needs a CPU that multiplies bfloat16")
def test_the_quickest_form_is_fused(net):
    with torch.profiler.profile() as profile:
        Inference(net)(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    counts = {event.key: event.count for event in profile.key_averages()}
    blocks = sum(net.config.depths)
    assert (counts["mkldnn::_convolution_pointwise"], counts["mkldnn::_convolution_pointwise_"]) == (blocks, blocks)
    assert counts["aten::convolution"] == 1 + sum(
        1 for one in net.modules() if isinstance(one, torch.nn.Conv2d) and one.kernel_size == (1, 1)
    )


@pytest.fixture
def net() -> package.ResNet:
    torch.manual_seed(0)
    made = scrambled(package.create_model("resnet8", num_classes=5))
    made.preprocess = PREPROCESS
    return made


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("multiplies", [False, True])
def test_an_undecided_image_is_computed_again_by_the_network(net, monkeypatch, multiplies, multi_label):
    monkeypatch.setattr(inference, "multiplies_bfloat16", lambda: multiplies)
    net.multi_label = multi_label
    pixels = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    exact, features = Inference(net, exact=True)(pixels)
    with torch.inference_mode():
        assert torch.equal(exact, net(PREPROCESS.normalize(pixels)))
    quick = Inference(net)
    assert quick.description.startswith("bfloat16, " if multiplies else "float32, ")
    logits, embeddings = quick(pixels)
    tolerance = 0.03 if multiplies else 1e-5
    assert float((logits - exact).abs().max()) < tolerance * float(exact.abs().max())
    assert torch.allclose(embeddings, features, rtol=tolerance, atol=tolerance)
    monkeypatch.setattr(inference, "NEAR", 1e9)  # every image is undecided
    assert torch.allclose(Inference(net)(pixels)[0], exact, atol=0 if multiplies else 1e-4)


@needs_real_images
def test_a_deep_plain_network_rounds_more(monkeypatch):
    """With the margin of residual networks, these test images changed their class in bfloat16."""
    monkeypatch.setattr(inference, "multiplies_bfloat16", lambda: True)
    net = package.load("plain56.cifar10")
    images = package.data.CIFAR("cifar10", str(REAL)).load_split("test").images[[199, 850, 2596, 4808, 5942, 8949, 9100]]
    exact, quick = (Inference(net, exact=is_exact)(images)[0] for is_exact in (True, False))
    assert torch.equal(quick.argmax(1), exact.argmax(1))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_with_several_labels_images_near_the_threshold_are_computed_again(net, monkeypatch, temperature):
    monkeypatch.setattr(inference, "multiplies_bfloat16", lambda: True)
    net.multi_label, net.temperature = True, temperature
    pixels = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    exact, _ = Inference(net, exact=True)(pixels)
    probability = float(net.probabilities(exact)[3, 2])
    monkeypatch.setattr(inference, "NEAR", 1e-3)
    for threshold, is_same in ((probability, True), (0.0, False), (1.0, False)):
        logits, _ = Inference(net, threshold=threshold)(pixels)
        assert torch.allclose(logits[3], exact[3], rtol=1e-6, atol=1e-6) == is_same


def test_a_threshold_that_is_no_probability():
    with pytest.raises(package.UsageError, match=r"threshold is 1\.5: it must be 0 to 1"):
        package.Classifier("resnet8.digits", threshold=1.5)


def test_images_of_8_and_of_16_bits_are_one_batch():
    net = package.create_model("resnet8", num_classes=3).eval()
    net.preprocess = package.Preprocess(size=16, mean=(0.5,) * 3, std=(0.2,) * 3, bits=16)
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for_both = package.Classifier(net).probabilities([values, values.astype(np.uint16) * 257])
    assert torch.equal(for_both[0], for_both[1])


def test_a_network_of_bfloat16_is_computed_once(net, monkeypatch):
    monkeypatch.setattr(inference, "NEAR", 1e9)
    forward, calls = inference._forward, []
    monkeypatch.setattr(inference, "_forward", lambda *given: calls.append(1) or forward(*given))
    Inference(net.to(torch.bfloat16))(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert len(calls) == 1


def test_threads_of_the_caller_stay_as_they_are(net):
    before = torch.get_num_threads()
    Inference(net, threads=3)(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("size", [(20, 30), (16, 16)], ids=["resized", "of the network's size"])
def test_every_kind_of_image_gives_the_same(net, size):
    values = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save("image.png")
    Image.fromarray(values).save(file := io.BytesIO(), "PNG")
    classifier = package.Classifier(net)
    tensor = torch.from_numpy(values).permute(2, 0, 1)
    expected = classifier.predict("image.png")
    assert len(expected.classes) == 5
    assert (expected.label, expected.probability) == expected.classes[0]
    for image in (file.getvalue(), Image.open("image.png"), values, tensor, tensor.contiguous()):
        assert classifier.predict(image) == expected
    assert classifier.predict(["image.png", values]) == classifier.predict(np.stack([values] * 2)) == [expected] * 2
    assert len(classifier.predict(values, top=None).classes) == 5
    assert classifier.predict([]) == []
    assert classifier.probabilities(iter([values] * 35)).shape == (35, 5)
    assert classifier.embeddings(values).shape == (1, net.fc.in_features)
    gray = classifier.predict(values[..., 0])
    assert gray == classifier.predict(tensor[:1]) == classifier.predict(np.repeat(values[..., :1], 3, axis=2))


def test_read_only_arrays_give_no_warning(net):
    values = np.zeros((20, 30, 3), np.uint8)
    values.flags.writeable = False  # as those of scikit-learn's sample images
    torch.set_warn_always(True)  # else only the first one of a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            package.Classifier(net).predict(values)
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "the image is an array float32 (4, 4, 3): it must be uint8 (H, W, C) or (H, W)"),
        (np.zeros((4, 4, 2), np.uint8), "with 3 channels"),
        (torch.zeros(5, 4, 3, dtype=torch.uint8), "the image is a tensor torch.uint8 (5, 4, 3): it must be uint8 (C, H, W) or (H, W)"),
        (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3)"),
        (b"no image", "the image is not an image that Pillow can read"),
        ([np.zeros((4, 4, 3), np.uint8), b"no image"], "image 1 is not an image that Pillow can read"),
        (5, "images is of type int: it must be a path"),
        ([5], "image 0 is of type int: it must be a path"),
        ("no.png", "no.png is missing. Give the path of an image file."),
    ],
)
def test_what_is_no_image_is_one_line(net, image, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as error:
        package.Classifier(net).predict(image)
    assert message in str(error.value)


def test_mistakes_of_options_are_one_line(net):
    with pytest.raises(package.UsageError, match="threads is 0: it must be at least 1"):
        package.Classifier(net, threads=0)
    with pytest.raises(package.UsageError, match="threshold is True: it must be a number"):
        package.Classifier(net, threshold=True)
    with pytest.raises(package.UsageError, match="top is 0: it must be at least 1, or None"):
        package.Classifier(net).predict(np.zeros((4, 4), np.uint8), top=0)
    with pytest.raises(package.UsageError, match=r"net\.preprocess is None"):
        package.Classifier(package.create_model("resnet8").eval())
    for exact in (False, True):
        with pytest.raises(package.UsageError, match=r"net is in training mode: .* Call net\.eval\(\) first\."):
            package.Classifier(net.train(), exact=exact)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("resize", [None, 20])
def test_a_plain_array_gives_what_its_description_gives(bits, resize):
    torch.manual_seed(0)
    net = package.create_model("resnet8", num_classes=3).eval()
    net.preprocess = package.Preprocess(size=16, mean=(0.5,) * 3, std=(0.2,) * 3, bits=bits, resize=resize)
    values = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)
    frozen = values[0].copy()
    frozen.flags.writeable = False
    classifier = package.Classifier(net)
    for images in (
        values[:, :, :16],
        values,
        values[:, ::-1],
        [frozen],
        torch.from_numpy(values).permute(0, 3, 1, 2),
        [values[0], values[1, :, :16]],
    ):
        wanted = torch.cat([classifier.compute([classifier.decode(image, "").pixels])[0] for image in images])
        assert torch.allclose(classifier.probabilities(images), wanted, atol=1e-3)


def test_a_reversed_axis_of_one_channel():
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    classifier = package.Classifier("resnet8.digits")
    assert values[..., ::-1].flags.c_contiguous
    for image in (values[..., ::-1], values[:1, :, ::-1][::-1]):
        assert torch.equal(classifier.probabilities(image), classifier.probabilities(image.copy()))
