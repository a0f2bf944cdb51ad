"""`Preprocess` against torchvision's own pipeline, its dict form, and its errors."""

import json
import math
import sys

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from reslight.messages import MissingPackageError
from reslight.preprocess import Preprocess

RGB = Preprocess(size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
GRAY = Preprocess(size=8, mean=(0.3,), std=(0.4,))
UNLIKE = Preprocess(size=8, mean=(0.3, 0.5, 0.9), std=(0.2, 0.1, 0.3))  # in RGB, mean / std is 2 for each channel


def some_tensor(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def reference(preprocess, image):
    """Do the same with torchvision's transform classes."""
    mode = v2.InterpolationMode(preprocess.interpolation)
    steps = [
        v2.Resize(preprocess.resize or preprocess.size, mode, antialias=True),
        v2.CenterCrop(preprocess.size),
        v2.PILToTensor() if isinstance(image, Image.Image) else v2.Identity(),
        v2.ToDtype(torch.float64, scale=True),
        v2.Normalize(preprocess.mean, preprocess.std),
    ]
    return v2.Compose(steps)(image)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [None, 10, 13])
@pytest.mark.parametrize("shape", [(8, 8), (20, 31), (33, 17), (10, 10), (5, 6)])
def test_equals_torchvision(interpolation, resize, shape):
    preprocess = Preprocess(8, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), resize, interpolation)
    tensor = some_tensor(3, *shape)
    for image in (tensor, v2.functional.to_pil_image(tensor), some_tensor(2, 3, *shape)):
        got = preprocess(image)
        assert got.dtype == torch.float32
        assert got.shape[-3:] == (3, 8, 8)
        torch.testing.assert_close(got.double(), reference(preprocess, image), atol=1e-5, rtol=0)


def test_image_of_the_right_size_is_only_normalized(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("resized")

    monkeypatch.setattr(v2.functional, "resize", fail)
    monkeypatch.setattr(v2.functional, "resize_image", fail)
    image = some_tensor(3, 8, 8)
    assert torch.equal(RGB(image), RGB.normalize(image))
    assert torch.equal(RGB(v2.functional.to_pil_image(image)), RGB.normalize(image))


def test_pillow_image_of_any_mode():
    color = v2.functional.to_pil_image(some_tensor(3, 8, 8))
    assert torch.equal(RGB(color.convert("RGBA")), RGB(color))
    assert torch.equal(GRAY(color), GRAY(color.convert("L")))
    gray = color.convert("L")
    assert torch.equal(RGB(gray), RGB(Image.merge("RGB", [gray] * 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalize(dtype, memory_format):
    images = some_tensor(5, 3, 8, 8)
    before = images.clone()
    got = RGB.normalize(images, dtype, memory_format)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (RGB.mean, RGB.std))
    exact = (images.double() / 255 - mean) / std
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=memory_format)
    assert torch.equal(images, before)
    precision = {torch.float64: 1e-13, torch.float32: 1e-6}.get(dtype)
    if precision:
        torch.testing.assert_close(got.double(), exact, atol=precision, rtol=precision)
    else:  # rounded once, at the end
        assert torch.equal(got, RGB.normalize(images).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "shape", [(5, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 11), (3, 3, 1, 8), (3, 3, 8, 1), (3, 3, 1, 1), (0, 3, 8, 8), (4, 1, 8, 8)]
)
def test_channels_last_images_give_the_same_bits(dtype, memory_format, shape):
    preprocess = GRAY if shape[1] == 1 else UNLIKE
    images = some_tensor(*shape)
    as_decoded = images.contiguous(memory_format=torch.channels_last)
    got = preprocess.normalize(as_decoded, dtype, memory_format)
    assert torch.equal(got, preprocess.normalize(images, dtype, memory_format))
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=memory_format)
    assert torch.equal(as_decoded, images), "the images are not changed"


def test_every_layout_is_the_same_to_the_bit():
    large = some_tensor(9, 8, 9, 3)
    batch = large.permute(0, 3, 1, 2)  # (N, C, H, W), stored as (N, H, W, C)
    for images in (batch[::2], batch[:, :, ::2, 1:], batch[..., 3:7], batch.flip(1), some_tensor(8, 9, 3, 5).permute(3, 2, 0, 1), batch[2]):
        assert torch.equal(UNLIKE.normalize(images), UNLIKE.normalize(images.contiguous()))


def test_mean_of_every_pixel_of_channels_last_images():
    mean = tuple(torch.rand(3 * 8 * 8, generator=torch.Generator().manual_seed(0)).tolist())
    preprocess = Preprocess(size=8, mean=mean, std=(0.5, 1.0, 2.0))
    images = some_tensor(4, 3, 8, 8)
    assert torch.equal(preprocess.normalize(images.contiguous(memory_format=torch.channels_last)), preprocess.normalize(images))


def test_one_image_and_batch_agree_to_the_bit():
    images = some_tensor(5, 3, 8, 8)
    normalizer = RGB.normalizer()
    assert torch.equal(torch.stack([RGB(image) for image in images]), normalizer(images))


def test_mean_of_every_pixel():
    mean = tuple(torch.rand(3 * 8 * 8, generator=torch.Generator().manual_seed(0)).tolist())
    preprocess = Preprocess(size=8, mean=mean, std=(1.0, 1.0, 1.0))
    images = some_tensor(2, 3, 8, 8)
    torch.testing.assert_close(preprocess(images), images / 255 - torch.tensor(mean).view(3, 8, 8))
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess


def test_dict_round_trip_through_json():
    for preprocess in (RGB, GRAY, Preprocess(224, (0.5,) * 3, (0.5,) * 3, 256, "bicubic")):
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_dict_is_strict():
    data = RGB.to_dict()
    with pytest.raises(ValueError, match="preprocess has the unknown keys 'pad', 'cut': its keys are size, mean, std"):
        Preprocess.from_dict(data | {"pad": 1, "cut": 2})
    with pytest.raises(ValueError, match="preprocess is missing the keys 'mean', 'std'"):
        Preprocess.from_dict({key: value for key, value in data.items() if key not in ("mean", "std")})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "preprocess.size is 0: it must be a whole number from 1 to 4096"),
        ({"size": 8.0}, "preprocess.size is 8.0"),
        ({"size": True}, "preprocess.size is True"),
        ({"size": 10**9}, "preprocess.size is 1000000000"),
        ({"resize": 7}, "preprocess.resize is 7: it must be null or a whole number from 8 to 8192"),
        ({"resize": "9"}, "preprocess.resize is '9'"),
        ({"interpolation": "nearest"}, "preprocess.interpolation is 'nearest': it must be bilinear or bicubic"),
        ({"mean": (0.1, math.nan, 0.2)}, r"preprocess.mean is \(0.1, nan, 0.2\): it must be a tuple of finite numbers"),
        ({"mean": [0.1] * 3}, "preprocess.mean is .* must be a tuple"),
        ({"mean": ("a",) * 3}, "preprocess.mean is .* finite numbers"),
        ({"mean": (0.1,)}, "preprocess.mean has 1 numbers: it must have 3, as std, or 192, one for each pixel"),
        ({"std": (0.1, 0.0, 0.2)}, "preprocess.std is .* one number above 0 for each channel"),
        ({"std": ()}, "preprocess.std is"),
        ({"std": (math.inf,) * 3}, "preprocess.std is .* finite"),
    ],
)
def test_bad_fields(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        Preprocess(**({"size": 8, "mean": RGB.mean, "std": RGB.std} | settings))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_bad_images():
    with pytest.raises(ValueError, match=r"image is torch.float32 \(3, 8, 8\): it must be torch.uint8 \(3, H, W\)"):
        RGB(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"image is torch.uint8 \(1, 8, 8\)"):
        RGB(some_tensor(1, 8, 8))
    with pytest.raises(ValueError, match=r"image is torch.uint8 \(8, 8\)"):
        RGB(some_tensor(8, 8))
    with pytest.raises(TypeError, match="image is a str: it must be a Pillow image or a uint8 tensor"):
        RGB("cat.png")
    with pytest.raises(ValueError, match="cannot be converted to 2 channels"):
        Preprocess(8, (0.5, 0.5), (0.5, 0.5))(Image.new("RGB", (8, 8)))


def test_without_torchvision_tensors_are_refused_and_pillow_images_are_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    preprocess = Preprocess(size=8, mean=(0.5,), std=(0.2,))
    with pytest.raises(MissingPackageError, match=r"torchvision is not installed: it resizes images\. Run pip install torchvision"):
        preprocess(torch.zeros(1, 9, 9, dtype=torch.uint8))
    assert preprocess(Image.new("L", (9, 9))).shape == (1, 8, 8)


def test_added_fields_are_saved_only_where_they_differ():
    assert list(RGB.to_dict()) == ["size", "mean", "std", "resize", "interpolation"]
    assert Preprocess((8, 8), RGB.mean, RGB.std) == RGB
    wide = Preprocess((8, 12), RGB.mean, RGB.std, crop="letterbox", fill=(1, 2, 3), bits=16)
    assert wide.to_dict() == RGB.to_dict() | {"size": [8, 12], "crop": "letterbox", "fill": [1, 2, 3], "bits": 16}
    assert Preprocess.from_dict(json.loads(json.dumps(wide.to_dict()))) == wide
    assert wide.shape == (8, 12)
    assert RGB.fill_values == (102, 128, 153)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (8, 0)}, r"preprocess.size is \(8, 0\): it must be a whole number from 1 to 4096, or two, height and width"),
        ({"size": (8, 9, 10)}, "preprocess.size is"),
        ({"size": (8, 12), "resize": 7}, "preprocess.resize is 7: it must be null or a whole number from 8"),
        ({"crop": "border"}, "preprocess.crop is 'border': it must be center or squash or letterbox"),
        ({"bits": 12}, "preprocess.bits is 12: it must be 8 or 16"),
        ({"bits": True}, "preprocess.bits is True"),
        ({"fill": (1, 2)}, "preprocess.fill is .* null or 3 whole numbers from 0 to 255, one for each channel"),
        ({"fill": (1, 2, 256)}, "preprocess.fill is"),
        ({"size": (8, 12), "mean": (0.5,) * 100}, "preprocess.mean has 100 numbers: it must have 3, as std, or 288"),
    ],
)
def test_bad_added_fields(settings, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**({"size": 8, "mean": RGB.mean, "std": RGB.std} | settings))


def test_pillow_images_of_16_bits_are_scaled_not_clipped():
    values = torch.tensor([[0, 100, 300, 65535]] * 4, dtype=torch.int32)
    image = Image.fromarray(values.numpy().astype("uint16"))
    whole, gray = Preprocess(4, (0.0,), (1.0,), bits=16), Preprocess(4, (0.0,), (1.0,))
    torch.testing.assert_close(whole(image)[0], values / 65535)
    torch.testing.assert_close(gray(image)[0] * 255, (values / 257).round())
    assert torch.equal(Preprocess(4, (0.0,) * 3, (1.0,) * 3)(image), gray(image).expand(3, -1, -1))
    with pytest.raises(ValueError, match="its values must be whole numbers from 0 to 65535"):
        gray(Image.fromarray(values.numpy().astype("float32")))


def test_channels_that_are_data():
    four = some_tensor(4, 9, 11)
    preprocess = Preprocess((8, 12), (0.5,) * 4, (0.2,) * 4, crop="letterbox")
    assert torch.equal(preprocess(v2.functional.to_pil_image(four, "RGBA")), preprocess(four))
    with pytest.raises(ValueError, match="image is a Pillow image of mode RGB: it cannot be converted to 4 channels"):
        preprocess(Image.new("RGB", (8, 8)))
