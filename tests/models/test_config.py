import json
import math
import re
from dataclasses import fields

import pytest
import torch

from reslight.models import VARIANTS, ResNet, ResNetConfig
from reslight.models.config import _bound_weights

TINY = {"depths": (1, 1), "widths": (8, 16)}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_survives_json(name):
    config = VARIANTS[name]
    assert ResNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_to_dict_is_plain_data():
    data = ResNetConfig(**TINY).to_dict()
    assert {type(value) for value in data.values()} == {list, str, bool, int, float}
    assert list(data) == [field.name for field in fields(ResNetConfig)]


def test_lists_become_tuples_and_equal_configs_hash_alike():
    config = ResNetConfig(depths=[1, 1], widths=[8, 16], drop_path=0)
    assert config == ResNetConfig(**TINY)
    assert hash(config) == hash(ResNetConfig(**TINY))
    assert type(config.drop_path) is float


def test_config_is_frozen():
    with pytest.raises(AttributeError):
        ResNetConfig(**TINY).num_classes = 3


def test_unknown_key_names_the_nearest():
    data = ResNetConfig(**TINY).to_dict()
    data["short_cut"] = data.pop("shortcut")
    with pytest.raises(ValueError, match="unknown key 'short_cut' and is missing the key 'shortcut': did you mean shortcut"):
        ResNetConfig.from_dict(data)


def test_key_that_resembles_nothing_lists_the_fields():
    with pytest.raises(ValueError, match=r"unknown key 'xyz' .*: its keys are depths, widths"):
        ResNetConfig.from_dict({"xyz": 1})


@pytest.mark.parametrize("name", [field.name for field in fields(ResNetConfig)])
def test_every_missing_key_is_named(name):
    data = ResNetConfig(**TINY).to_dict()
    del data[name]
    with pytest.raises(ValueError, match=f"is missing the key '{name}'"):
        ResNetConfig.from_dict(data)


@pytest.mark.parametrize("data", [None, 3, "resnet20", ["depths"]])
def test_from_dict_wants_a_mapping(data):
    with pytest.raises(ValueError, match="mapping"):
        ResNetConfig.from_dict(data)


# field(s) to change -> what the message must say
WRONG = [
    ({"depths": ()}, "depths is (): it must be a list of 1 to 8 numbers"),
    ({"depths": (1,) * 9, "widths": (8,) * 9}, "must be a list of 1 to 8 numbers"),
    ({"depths": "11"}, "depths is '11': it must be a list"),
    ({"depths": 2}, "depths is 2: it must be a list"),
    ({"depths": (1, 0)}, "depths[1] is 0: it must be a whole number from 1"),
    ({"depths": (1, True)}, "depths[1] is True: it must be a whole number"),
    ({"depths": (1, 1.0)}, "depths[1] is 1.0: it must be a whole number"),
    ({"depths": (1, 1, 1)}, "their lengths differ"),
    ({"depths": (1500, 501)}, "2,001 blocks are more than 2,000"),
    ({"widths": (8, -16)}, "widths[1] is -16: it must be"),
    ({"widths": (8, "16")}, "widths[1] is '16': it must be"),
    ({"block": "Bottleneck"}, "block is 'Bottleneck': it must be one of basic, bottleneck"),
    ({"shortcut": "D"}, "shortcut is 'D': it must be one of A, B, C, none"),
    ({"shortcut": None}, "shortcut is None: it must be one of"),
    ({"shortcut": ["A"]}, "shortcut is ['A']: it must be one of"),
    ({"pad": "start", "shortcut": "A"}, "pad is 'start': it must be one of both, end"),
    ({"pad": "end"}, "pad is end: it matters for shortcut A only, and shortcut is B"),
    ({"stem": "cifar"}, "stem is 'cifar': it must be one of small, imagenet, deep"),
    ({"stem": "deep", "stem_width": 33}, "stem_width is 33: it must be even"),
    ({"stem_width": 0}, "stem_width is 0: it must be"),
    ({"stride_on": 3}, "stride_on is 3: it must be one of 3x3, 1x1"),
    ({"stride_on": "1x1"}, "stride_on=1x1 need block bottleneck"),
    ({"groups": 2}, "groups=2, width_per_group=64, stride_on=3x3 need block bottleneck"),
    ({"width_per_group": 32}, "width_per_group=32"),
    ({"block": "bottleneck", "width_per_group": 4}, "width_per_group is 4: with widths (8, 16) a block has no channels"),
    ({"groups": 0}, "groups is 0: it must be"),
    ({"shortcut": "A", "avg_down": True}, "has no projections"),
    ({"shortcut": "none", "avg_down": True}, "has no projections"),
    ({"shortcut": "A"}, "shortcut is A: it cannot reduce channels, and they are [64, 8, 16]"),
    ({"shortcut": "A", "stem_width": 8, "widths": (16, 8)}, "cannot reduce channels"),
    ({"shortcut": "none", "drop_path": 0.1}, "would lose its only path"),
    ({"shortcut": "none", "zero_init": True}, "would lose its only path"),
    ({"drop_path": 1.0}, "drop_path is 1.0: it must be a number from 0 to below 1"),
    ({"drop_path": -0.1}, "drop_path is -0.1"),
    ({"drop_path": math.nan}, "drop_path is nan"),
    ({"drop_path": "0.1"}, "drop_path is '0.1'"),
    ({"drop_path": False}, "drop_path is False"),
    ({"drop_path": 10**400}, "drop_path is 1000"),
    ({"preact": 1}, "preact is 1: it must be true or false"),
    ({"avg_down": "true"}, "avg_down is 'true': it must be true or false"),
    ({"zero_init": None}, "zero_init is None: it must be true or false"),
    ({"checkpoint": 0}, "checkpoint is 0: it must be true or false"),
    ({"in_channels": 3.0}, "in_channels is 3.0: it must be"),
    ({"num_classes": 0}, "num_classes is 0: it must be a whole number from 1"),
    ({"num_classes": None}, "num_classes is None: it must be"),
    ({"num_classes": torch.tensor(10)}, "num_classes is tensor(10): it must be"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_wrong_values_are_answered_in_one_line(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        ResNetConfig(**{**TINY, **change})
    assert "\n" not in str(error.value)


HOSTILE = [
    {"depths": (500, 500), "widths": (4096, 4096)},
    {"widths": (1_000_000, 1_000_000)},
    {"widths": (10**18, 8)},
    {"stem": "deep", "stem_width": 1_000_000},
    {"in_channels": 1_000_000, "stem_width": 1_000_000},
    {"widths": (8, 10_000), "num_classes": 1_000_000},
    {"block": "bottleneck", "groups": 1_000_000},
    {"block": "bottleneck", "width_per_group": 1_000_000},
    {"block": "bottleneck", "groups": 1_000_000, "width_per_group": 1_000_000, "widths": (1_000_000,) * 2},
    {"depths": (1,) * 1_000_000},
    {"shortcut": "A" * 10_000_000},
]


@pytest.mark.parametrize("change", HOSTILE, ids=[", ".join(change) for change in HOSTILE])
def test_absurd_sizes_are_refused_before_anything_is_allocated(change):
    with pytest.raises(ValueError, match=r"weights|must be") as error:
        ResNetConfig(**{**TINY, **change})
    assert len(str(error.value)) < 400


def test_absurd_keys_are_refused_quickly():
    with pytest.raises(ValueError, match="unknown key") as error:
        ResNetConfig.from_dict({"shortcut" * 1_000_000: 1})
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", [name for name, config in VARIANTS.items() if sum(config.depths) < 60])
def test_the_bound_on_weights_is_above_the_truth_and_near(name):
    config = VARIANTS[name]
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in ResNet(config).parameters() if parameter.dim() > 1)
    assert weights <= _bound_weights(config) < 2 * weights


def test_bottleneck_width_follows_groups_and_width_per_group():
    config = VARIANTS["resnext101_32x8d"]
    assert [config.inner_width(width) for width in config.widths] == [256, 512, 1024, 2048]
    assert config.expansion == 4


def test_usual_input_size():
    assert VARIANTS["resnet20"].input_size == 32
    assert VARIANTS["resnet50"].input_size == VARIANTS["resnet50d"].input_size == 224
