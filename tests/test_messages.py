"""What error messages are made of."""

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from reslight.messages import UsageError, as_sentence, check_keys, counted, did_you_mean, shortened, visible


def test_near_names_are_offered():
    assert did_you_mean("resnet2O", ["resnet20", "plain20"]) == "did you mean resnet20?"
    assert did_you_mean("x", ["resnet20"], "nothing like it") == "nothing like it"


def test_long_lists_are_cut_short():
    assert shortened("abc") == "a, b, c"
    assert shortened(range(2_003)) == "0, 1, 2 and 2,000 more"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["size", "mean", "crop"], "preprocess has the unknown key 'crop': its keys are size, mean."),
        (["size", "maen"], "preprocess has the unknown key 'maen' and is missing the key 'mean': did you mean mean?"),
        ([], "preprocess is missing the keys 'size', 'mean': its keys are size, mean."),
        (["size", "mean", 3, "x" * 10_000], "preprocess has the unknown keys 3, 'xxxxxxxxxxxx...xxxxxxxxxxxxx': its keys are size, mean."),
    ],
)
def test_unknown_and_missing_keys_are_named(given, message):
    with pytest.raises(UsageError) as error:
        check_keys(given, ("size", "mean"), ("size", "mean"), "preprocess")
    assert str(error.value) == message


def test_keys_that_are_not_required_may_be_missing():
    check_keys({"size": 1}, ("size", "mean"), (), "preprocess")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("fc.bias", "fc.bias"),
        ("猫 é \N{SMILING FACE WITH SUNGLASSES} ک\u200cگ", "猫 é \N{SMILING FACE WITH SUNGLASSES} ک\u200cگ"),
        ("\x1b[2Jred\x9b", r"\x1b[2Jred\x9b"),
        ("one\r\ntwo\t\u2028", r"one\r\ntwo\t\u2028"),
        ("exe.\u202egnp", r"exe.\u202egnp"),
        (b"caf\xe9.png".decode(errors="surrogateescape"), r"caf\udce9.png"),
        ("x" * 5_000 + "end", "x" * 64 + "..." + "x" * 30 + "end"),
        (None, "None"),
    ],
)
def test_what_strangers_wrote_is_shown_without_control_characters(written, shown):
    assert visible(written) == shown


@given_any(st.text(max_size=400))
def test_any_text_is_shown_in_one_short_line_that_can_be_printed(text):
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert len(shown.encode()) <= 1_000
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)


def test_numbers_and_sentences():
    assert [counted(0, "check"), counted(1, "check"), counted(1200, "class", "classes")] == ["0 checks", "1 check", "1,200 classes"]
    assert [as_sentence("so"), as_sentence("so."), as_sentence("resnet20?")] == ["so.", "so.", "resnet20?"]
