"""Views of test images against torchvision's."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from reslight.data.augment.views import MultiScale, TenCrop, group_by_shape

IMAGE = torch.randint(0, 256, (3, 61, 83), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("height", "width"), [(61, 83), (83, 61), (40, 40), (7, 5), (33, 200), (1, 31)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_ten_crop_of_any_size(height: int, width: int, interpolation):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    (views,) = TenCrop(13, 16, interpolation)(image)
    resized = v2.Resize(16, v2.InterpolationMode(interpolation), antialias=True)(image)
    assert torch.equal(views, torch.stack(v2.TenCrop(13)(resized)))


@pytest.mark.parametrize("shape", [(3, 2, 300), (1, 300, 2)])
def test_of_a_strip_the_middle_is_seen(shape: tuple[int, ...]):
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    middle = image[:, 118:182] if shape[1] > shape[2] else image[..., 118:182]  # 32 times as long as wide, as in `Preprocess`
    for views in (TenCrop(4, 5), MultiScale((4, 6))):
        for got, expected in zip(views(image), views(middle), strict=True):
            assert torch.equal(got, expected)


def test_ten_crop_is_torchvisions_of_the_resized_image():
    (views,) = TenCrop(32, 40)(IMAGE)
    resized = tvf.resize_image(IMAGE, [40], antialias=True)
    assert views.shape == (10, 3, 32, 32)
    assert torch.equal(views, torch.stack(tvf.ten_crop(resized, [32, 32])))
    assert torch.equal(views[5], tvf.horizontal_flip_image(resized)[:, :32, :32])


def test_multi_scale_is_all_of_the_image_and_its_mirror_image():
    views = MultiScale((24, 40))(IMAGE)
    assert [tuple(view.shape) for view in views] == [(2, 3, 24, 32), (2, 3, 40, 54)]
    for view, side in zip(views, (24, 40), strict=True):
        assert torch.equal(view[0], tvf.resize_image(IMAGE, [side], antialias=True))
        assert torch.equal(view[1], view[0].flip(-1))


def test_views_of_one_shape_are_one_tensor():
    wide, tall = torch.zeros(2, 3, 4, 6), torch.ones(1, 3, 6, 4)
    groups = group_by_shape([[wide, tall], [tall + 1], [wide + 3]])
    assert [(tuple(group.images.shape), group.owners.tolist()) for group in groups] == [
        ((4, 3, 4, 6), [0, 0, 2, 2]),
        ((2, 3, 6, 4), [0, 1]),
    ]
    assert groups[0].images[:, 0, 0, 0].tolist() == [0, 0, 3, 3]
    assert groups[1].images[:, 0, 0, 0].tolist() == [1, 2]
    assert group_by_shape([]) == []


def test_every_view_keeps_its_owner_and_pixels():
    images = [torch.full((1, *shape), value, dtype=torch.uint8) for value, shape in enumerate([(8, 8), (8, 12), (12, 8), (8, 8), (16, 24)])]
    groups = group_by_shape([MultiScale((4, 6))(image) for image in images])
    assert [(*group.images.shape[2:], group.owners.tolist()) for group in groups] == [
        (4, 4, [0, 0, 3, 3]),
        (6, 6, [0, 0, 3, 3]),
        (4, 6, [1, 1, 4, 4]),
        (6, 9, [1, 1, 4, 4]),
        (6, 4, [2, 2]),
        (9, 6, [2, 2]),
    ]
    for group in groups:
        assert torch.equal(group.images[:, 0, 0, 0].long(), group.owners)
    (crops,) = group_by_shape([TenCrop(4, 5)(image) for image in images])
    assert crops.owners.tolist() == [place for place in range(5) for _ in range(10)]
