"""`reslight test` and others evaluate the checkpoint that they read first, though a running fit replaces the file at any time."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reslight.cli import trainer
from reslight.messages import MissingPackageError

OLD_RUN = Path(__file__).parents[1] / "fixtures" / "format-1"


def no_figure(report: dict[str, Any]) -> None:
    raise MissingPackageError("a figure takes longer than the test")


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_checkpoint_that_is_replaced_after_it_was_read(command: str, reslight: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reslight.cli.outputs.draw_evaluation", no_figure)
    for root in ("alone", "beside"):
        shutil.copytree(OLD_RUN, f"{root}/tiny/1")
    last = Path("beside/tiny/1/checkpoints/last.ckpt")
    later = torch.load(last, weights_only=True)
    later["global_step"] *= 3
    later["state_dict"]["net.fc.bias"] += torch.arange(10) * 100.0  # every image is of the last class
    torch.save(later, "later.ckpt")
    assert reslight(command, "--config", "alone/tiny/1/config.yaml").code == 0

    check_classes, replaced = trainer.check_classes, []

    def replace(*arguments: Any) -> None:
        replaced.append(Path("later.ckpt").replace(last))
        check_classes(*arguments)

    monkeypatch.setattr(trainer, "check_classes", replace)
    answer = reslight(command, "--config", "beside/tiny/1/config.yaml")
    assert (answer.code, len(replaced)) == (0, 1), answer.err
    if command == "predict":
        one, other = (Path(f"{root}/tiny/1/predictions.csv").read_text() for root in ("alone", "beside"))
        assert one == other
        return
    one, other = (json.loads(Path(f"{root}/tiny/1/{command}.json").read_text()) for root in ("alone", "beside"))
    assert {**one, "checkpoint": ""} == {**other, "checkpoint": ""}
    assert other["step"] == 12
