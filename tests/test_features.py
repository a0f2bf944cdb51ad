"""benchmarks/features.py: it lists what Lightning has, and tells what works from what does not."""

import inspect

import features
import pytest
from feature_table import FEATURES, NOT_RUN, Feature, unchanged
from lightning.pytorch import Trainer, callbacks, loggers, plugins, profilers, strategies

LISTED = {feature.name for group in FEATURES.values() for feature in group} | {name for names in NOT_RUN.values() for name in names}
ALIASES = {"SimpleProfiler": "profiler", "AdvancedProfiler": "advanced", "PyTorchProfiler": "pytorch", "DoublePrecision": "plugins"}
ALIASES |= {"Precision": "precision", "TorchSyncBatchNorm": "sync_batchnorm"}
ABSTRACT = {"BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "ProgressBar", "Logger", "ParallelStrategy", "Strategy"}
ABSTRACT |= {"Profiler", "CheckpointIO", "LayerSync", "TorchCheckpointIO"}
"""Base classes, and the default."""


def test_every_argument_and_class_of_lightning_is_listed():
    names = set(inspect.signature(Trainer).parameters)
    names |= {name for module in (callbacks, loggers, plugins, profilers, strategies) for name in module.__all__}
    assert {ALIASES.get(name, name) for name in names - ABSTRACT} - LISTED == set()


def test_the_page_counts_and_escapes():
    page = features.page({"Group": [("one", "works", "a|b"), ("two", "refused", "why"), ("three", "BROKEN", "so")]})
    assert "1 features work" in page
    assert "1 are refused" in page
    assert "| `one` | works | a\\|b |" in page
    assert "| `LitLogger` | needs a service on the internet |" in page


@pytest.mark.slow
def test_verdicts(tmp_path, capfd):
    (tmp_path / "baseline").mkdir()
    code, text = features.start("fit", tmp_path / "baseline", alone=False)
    assert code == 0, text
    baseline = features.Outcome(text, tmp_path / "baseline", []).rows()
    cases = [
        ("fit --trainer.detect_anomaly true", unchanged, "works", "effect"),
        ("fit --trainer.precision 64-true", unchanged, "BROKEN", "expected: effect"),
        ("fit --trainer.precision fp17", unchanged, "refused", "trainer.precision is fp17"),
        ("python\nraise RuntimeError('so')", unchanged, "BROKEN", "RuntimeError: so"),
        ("fit", lambda outcome: outcome.json("nothing.json"), "BROKEN", "FileNotFoundError"),
    ]
    for commands, check, verdict, note in cases:
        row = features.run(Feature("name", commands, "effect", check), baseline)
        assert row[:2] == ("name", verdict), row
        assert row[2].startswith(note)
