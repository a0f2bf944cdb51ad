"""Old names of settings are read as today's."""

from reslight.renamed import KEYS, VALUES, new_key, new_value, with_new_names


def test_nested_settings_get_todays_names():
    old = {"optim": {"lr": 0.1, "body_lr": 0.5}, "freeze": "body", "net": {"shortcut": "A"}, "ema": None}
    new = {"optim": {"lr": 0.1, "backbone_lr": 0.5}, "freeze": "backbone", "net": {"shortcut": "A"}, "ema": None}
    assert with_new_names(old, "model") == new
    assert with_new_names(new, "model") == new  # read twice, as today's files are


def test_only_the_setting_itself_is_renamed():
    assert with_new_names({"share": 1, "mix": {"share": 0.5}, "crop": {"kind": "centre"}}, "data") == {
        "share": 1,
        "mix": {"prob": 0.5},
        "crop": {"kind": "center"},
    }
    assert (new_key("model.optim.body_lr"), new_key("model.body_lr")) == ("model.optim.backbone_lr", "model.body_lr")
    assert new_value("data.on_bad_image", ["stop"]) == ["stop"]


def test_no_old_name_is_a_new_one():
    assert not {new_key(key) for key in KEYS} & set(KEYS)
    assert not any(set(values.values()) & set(values) for values in VALUES.values())
