"""ImageClassifier and what a run of it needs, for `reslight fit` and for any Lightning Trainer."""

from reslight.training.checkpoints import AtomicCheckpointIO, Checkpoints
from reslight.training.classifier import ImageClassifier
from reslight.training.optim import LearningRate, OptimConfig, ScheduleConfig
from reslight.training.progress import Progress
from reslight.training.signals import StopSignals
from reslight.training.threads import Threads

__all__ = [
    "AtomicCheckpointIO",
    "Checkpoints",
    "ImageClassifier",
    "LearningRate",
    "OptimConfig",
    "Progress",
    "ScheduleConfig",
    "StopSignals",
    "Threads",
]
