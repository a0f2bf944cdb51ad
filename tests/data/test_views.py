"""Views of test images against torchvision's."""

import torch
from torchvision.transforms.v2 import functional as tvf

from reslight.data.views import MultiScale, TenCrop, gathered

IMAGE = torch.randint(0, 256, (3, 61, 83), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


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
    groups = gathered([[wide, tall], [tall + 1], [wide + 3]])
    assert [(tuple(group.images.shape), group.owners.tolist()) for group in groups] == [
        ((4, 3, 4, 6), [0, 0, 2, 2]),
        ((2, 3, 6, 4), [0, 1]),
    ]
    assert groups[0].images[:, 0, 0, 0].tolist() == [0, 0, 3, 3]
    assert groups[1].images[:, 0, 0, 0].tolist() == [1, 2]
    assert gathered([]) == []
