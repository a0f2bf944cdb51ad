"""`reslight weights`: what comes with the package, what the cache holds, what an owner has on the Hub."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import reslight as package
from reslight.weights import EvalResult, MultiLabelResult, listing
from reslight.weights.catalog import CATALOG

TESTED = EvalResult(split="test", total=400, correct1=391, correct5=400, nll=3.0, precision="32-true", batch_size=100, fingerprint=None)
TEST = {"name": "digits", "type": "digits", "split": "test"}
VALIDATED = replace(TESTED, split="val", correct1=200)


def push(hub, name: str, metrics=(VALIDATED, TESTED), **about) -> package.ResNet:
    torch.manual_seed(3)
    net = package.create_model("resnet8", in_channels=1)
    package.save(net, "here", preprocess=package.Preprocess(size=8, mean=(0.5,), std=(0.2,)), metrics=metrics, **about)
    package.push("here", name)
    hub.requests.clear()
    return net


def rows(answer) -> list[list[str]]:
    assert answer.code == 0, answer.err
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in answer.out.splitlines()]


def test_an_owner_s_weights_in_one_request(hub, reslight):
    net = push(hub, "acme/resnet8.digits", data={"name": "digits"})
    push(hub, "acme/quiet", metrics=())
    hub.create("acme/bert", {"README.md": b"---\nlibrary_name: transformers\n---\n"})
    hub.create("other/net", {"README.md": b"---\nlibrary_name: reslight\n---\n"})
    hub.requests.clear()
    found = rows(reslight("weights", "--remote", "acme"))
    nbytes = sum(value.numel() * value.element_size() for value in net.state_dict().values())
    commit, quiet = (hub.head(f"acme/{name}")[:7] for name in ("resnet8.digits", "quiet"))
    assert found == [
        ["name", "top-1", "size", "place"],
        ["acme/quiet", f"{nbytes / 1e6:.2f} MB", f"on the Hub, commit {quiet}"],
        ["acme/resnet8.digits", "97.75 %", f"{nbytes / 1e6:.2f} MB", f"on the Hub, commit {commit}"],
    ]
    assert len(hub.requests) == 1
    for pattern in ("*.digits", "acme/*.digits"):
        assert [row[0] for row in rows(reslight("weights", pattern, "--remote", "acme"))] == ["name", "acme/resnet8.digits"]
    private = reslight("push", "here", "acme/own", "--private")
    assert private.code == 0
    assert "on the Hub, private, commit" in reslight("weights", "own", "--remote", "acme").out


def test_weights_of_several_labels_are_pushed_pulled_and_listed_as_such(hub, reslight):
    counts = {"split": "test", "total": 200, "exact": 90, "tp": 300, "fp": 50, "fn": 100, "mAP": 0.7123, "f1_macro": 0.69, "nll": 40.0}
    push(hub, "acme/several", (MultiLabelResult(**counts, precision="32-true", batch_size=100, fingerprint=None),), multi_label=True)
    assert rows(reslight("weights", "--remote", "acme"))[1][:2] == ["acme/several", "71.23 % mAP"]
    assert package.load("acme/several").multi_label
    assert rows(reslight("weights", "acme/*"))[1][:2] == ["acme/several", "71.23 % mAP"]
    package.pull("acme/several", "there")
    assert Path("there/config.json").read_bytes() == Path("here/config.json").read_bytes()
    assert "71.23 %" in Path("there/README.md").read_text()


def test_pages_of_many(hub, reslight):
    hub.page_size = 2
    for number in range(5):
        hub.create(f"acme/net{number}", {"README.md": b"---\ntags: [reslight]\n---\n"})
    assert len(rows(reslight("weights", "--remote", "acme"))) == 6


def test_what_the_cache_holds(hub, reslight):
    push(hub, "acme/resnet8.digits")
    hub.create("acme/bert", {"config.json": b'{"model_type": "bert"}'})
    before = rows(reslight("weights"))
    assert [row[0] for row in before[1:]] == list(CATALOG)
    assert ["resnet56.cifar10", "93.82 %", "853,018", "125.5", "3.46 MB", "in the package"] in before
    assert max(map(len, reslight("weights").out.splitlines())) <= 80
    package.load("acme/resnet8.digits")
    first = hub.head("acme/resnet8.digits")
    hub.commit("acme/resnet8.digits", {"extra": b"1"})
    package.load("acme/resnet8.digits")
    from huggingface_hub import hf_hub_download

    hf_hub_download("acme/bert", "config.json")
    size = f"{Path('here/model.safetensors').stat().st_size / 1e6:.2f} MB"
    cost = ["75,002", "0.7"]  # counted by hand: 8 x 8 pixels, 1 channel, 10 classes
    hub.requests.clear()
    found = rows(reslight("weights", "*/*"))
    assert not hub.requests
    second = hub.head("acme/resnet8.digits")
    assert sorted(found[1:]) == sorted(
        [
            ["acme/resnet8.digits", "97.75 %", *cost, size, f"in the cache, commit {second[:7]}"],
            [f"acme/resnet8.digits@{first}", "97.75 %", *cost, size, f"in the cache, commit {first[:7]}"],
        ]
    )
    assert len(rows(reslight("weights"))) == len(before) + 2


def test_nothing_found_is_one_line(hub, reslight, monkeypatch):
    hub.create("acme/bert", {})
    for words, code, says in (
        (("vgg*",), 2, "PATTERN is vgg*:"),
        (("--remote", "acme"), 2, "--remote is acme: the Hub shows no repository"),
        (("vgg*", "--remote", "acme"), 2, "with a name like vgg*. Check"),
        (("--remote", "a/b"), 2, "'a/b' is not the name of an owner on the Hub. Write OWNER, as in OWNER/NAME"),
        (("--remote", "../x"), 2, "'../x' is not the name of an owner on the Hub"),
    ):
        answer = reslight("weights", *words)
        assert (answer.code, answer.err.count("\n")) == (code, 1), answer.err
        assert says in answer.err
    hub.fault("GET", "/api/models", "status", status=503, times=99)
    answer = reslight("weights", "--remote", "acme")
    assert answer.code == 1
    assert f"error: listing the repositories of acme failed: {hub.endpoint} answered with status 503" in answer.err.splitlines()[-1]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    answer = reslight("weights", "--remote", "acme")
    assert "HF_HUB_OFFLINE is set" in answer.err


@pytest.mark.parametrize(
    "index",
    [
        "text",
        [1, {"results": 3}, {"results": [{"dataset": "x", "metrics": [{"type": "accuracy", "value": 0.5}]}]}],
        [
            {"results": [{"dataset": {"split": "test"}, "metrics": [{"type": "accuracy", "value": value}]}]}
            for value in ("9", 93.1, -1, None)
        ],
        [{"results": [{"dataset": {"split": "validation"}, "metrics": [{"type": "accuracy", "value": 0.9}]}]}],
    ],
)
def test_a_card_that_says_no_accuracy_gets_none(hub, reslight, index):
    card = {"tags": ["reslight"], "model-index": index}
    hub.create("acme/net", {"README.md": f"---\n{yaml.safe_dump(card)}---\n".encode(), "model.safetensors": b"no header"})
    (row,) = listing.matching(listing.remote("acme"), "*")
    assert (row.name, row.accuracy, row.nbytes) == ("acme/net", None, None)


def test_what_the_hub_says_commands_no_terminal(hub, reslight):
    hub.create("acme/net", {"README.md": b"---\ntags: [reslight]\n---\n"})
    repo = hub.repos["acme/net"]
    info = repo.info
    repo.info = lambda commit: info(commit) | {"sha": "\x1b[2J\u202eab"}
    answer = reslight("weights", "--remote", "acme")
    assert r"commit \x1b[2J\u202e" in answer.out
    assert "\x1b" not in answer.out
