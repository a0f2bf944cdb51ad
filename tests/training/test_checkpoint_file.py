"""Checkpoints that are damaged, or made to harm: one line, and nothing in them is executed."""

import os
import zipfile
from pathlib import Path

import pytest
import torch

from reslight.messages import UsageError
from reslight.models import create_model
from reslight.runs.trained import network_of
from reslight.training.checkpoint_file import read_checkpoint

NET = create_model("resnet8", in_channels=1)
STATE = {f"net.{name}": value for name, value in NET.state_dict().items()}


def checkpoint(**changes):
    """Return the contents of a small checkpoint."""
    about = {"format": 1, "data": {"preprocess": {}, "labels": None}}
    return {"hyper_parameters": {"net": NET.config.to_dict()}, "reslight": about, "state_dict": STATE, "global_step": 3} | changes


def test_a_whole_checkpoint_is_read():
    torch.save(checkpoint(), "x.ckpt")
    net = network_of(read_checkpoint(Path("x.ckpt")), Path("x.ckpt"))
    assert torch.equal(net.fc.weight, NET.fc.weight)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


class Plain:
    pass


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": Harm()}, r"x\.ckpt needs \w+\.mkdir: only tensors and plain containers are read"),
        ({"x": Plain()}, r"x\.ckpt needs [\w.]*\.Plain: only tensors"),
        ({"hyper_parameters": 3}, "it has no settings of a network"),
        ({"hyper_parameters": {"net": "resnet8"}}, "it has no settings of a network"),
        ({"reslight": [1]}, "it has no settings of a network"),
        ({"reslight": {"format": "1\n"}}, r"x\.ckpt has format 1\\n: this version"),
        ({"reslight": {"data": 3}}, "what it says of its data is not a mapping"),
        ({"reslight": {"data": {"preprocess": 3}}}, "what it says of its data is not a mapping"),
        ({"state_dict": None}, "it has no weights or no step"),
        ({"global_step": "3"}, "it has no weights or no step"),
        ({"epoch": None}, "it has no weights or no step"),
    ],
)
def test_a_checkpoint_that_is_not_one(changes, says):
    torch.save(checkpoint(**changes), "x.ckpt")
    with pytest.raises(UsageError, match=says) as caught:
        read_checkpoint(Path("x.ckpt"))
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"net.fc.bias": torch.zeros(7)}, "of another shape: fc.bias"),
        ({"net.fc.weight": torch.zeros(1).expand(10, 10**9)}, "of another shape: fc.weight"),
        ({"net.odd": torch.zeros(1)}, "of another shape: odd"),
        ({"net.fc.bias": None}, "of another shape: fc.bias"),
    ],
)
def test_weights_of_another_network(changes, says):
    torch.save(checkpoint(state_dict=STATE | changes), "x.ckpt")
    with pytest.raises(UsageError, match=says):
        network_of(read_checkpoint(Path("x.ckpt")), Path("x.ckpt"))


def test_an_impossible_network():
    torch.save(checkpoint(hyper_parameters={"net": NET.config.to_dict() | {"num_classes": -1}}), "x.ckpt")
    with pytest.raises(UsageError, match=r"x\.ckpt is damaged: num_classes is -1"):
        network_of(read_checkpoint(Path("x.ckpt")), Path("x.ckpt"))


def test_files_that_ask_for_memory_or_never_end():
    torch.save(checkpoint(), "whole.ckpt")
    with zipfile.ZipFile("whole.ckpt") as whole, zipfile.ZipFile("bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.namelist():
            bomb.writestr(entry, bytes(10**6) if entry.endswith("data/0") else whole.read(entry))
    Path("short.ckpt").write_bytes(Path("whole.ckpt").read_bytes()[:-300])
    os.mkfifo("pipe.ckpt")
    for name, says in {
        "bomb": "that unpack to",
        "short": "is not a checkpoint, or was cut short",
        "pipe": "pipe.ckpt is a pipe: it must be a regular file",
    }.items():
        with pytest.raises(UsageError, match=says):
            read_checkpoint(Path(f"{name}.ckpt"))
