"""What a run changes in torch for a GPU, with a GPU and without."""

from typing import Any

import pytest
import torch

from reslight.training.gpu import set_up_gpu


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The precisions that were set; cuDNN's switch is restored after the test."""
    calls: list[Any] = []
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr("torch.set_float32_matmul_precision", calls.append)
    return calls


@pytest.mark.parametrize("fixed", [True, False])
def test_a_gpu_gets_the_precision_and_fixed_sizes_are_measured(changes, fixed):
    set_up_gpu(torch.device("cuda", 0), "medium", has_fixed_sizes=fixed)
    assert changes == ["medium"]
    assert torch.backends.cudnn.benchmark is fixed


def test_a_cpu_is_left_alone(changes):
    set_up_gpu(torch.device("cpu"), "medium", has_fixed_sizes=True)
    assert not changes
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("words", "precision", "fixed"),
    [
        ("fit", "high", True),
        ("fit --float32_matmul_precision highest --trainer.deterministic warn", "highest", False),
        ("fit --trainer.benchmark false", "high", False),
        ("validate", "high", False),  # the last batch is smaller
    ],
)
def test_the_command_line_asks_for_it(words, precision, fixed, reslight, monkeypatch):
    asked: list[Any] = []

    def stop(device: torch.device, precision: str, *, has_fixed_sizes: bool) -> None:
        asked.append((device.type, precision, has_fixed_sizes))
        raise KeyboardInterrupt

    monkeypatch.setattr("reslight.cli.trainer.set_up_gpu", stop)
    monkeypatch.setattr("reslight.runs.folder.RunDirectory.checkpoint", lambda *_, **__: None)
    command, *rest = words.split()
    reslight(command, "--config", "digits", "--trainer.accelerator", "cpu", *rest)
    torch.use_deterministic_algorithms(False)
    assert asked == [("cpu", precision, fixed)]
