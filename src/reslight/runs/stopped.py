"""What ended a run before its last epoch."""

from datetime import timedelta

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from reslight.lightning_private import callbacks_of
from reslight.messages import counted


def stopped_by(trainer: Trainer) -> str | None:
    """Return what ended training before its whole length, in a few words; None for a run of the whole length."""
    callbacks = callbacks_of(trainer)
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return None
    for timer in (one for one in callbacks if isinstance(one, Timer)):
        left = timer.time_remaining()
        if left is not None and left <= 0:
            return f"the time limit of trainer.max_time or a Timer ({timedelta(seconds=round(left + timer.time_elapsed()))} of training)"
    for stopping in (one for one in callbacks if isinstance(one, EarlyStopping)):
        if stopping.stopping_reason_message:
            return f"EarlyStopping ({_reason(stopping)})"
    if 0 < trainer.max_steps <= trainer.global_step:
        if trainer.max_epochs is None or trainer.max_epochs < 0:  # the steps are the whole length
            return None
        return f"trainer.max_steps ({trainer.max_steps:,})"
    return "a callback, which set trainer.should_stop" if trainer.should_stop else None


def _reason(stopping: EarlyStopping) -> str:
    """Return why EarlyStopping stopped, in the words of its settings."""
    if stopping.wait_count >= stopping.patience:
        return (
            f"{stopping.monitor} did not improve in {counted(stopping.wait_count, 'check')}; its best is {float(stopping.best_score):.4f}"
        )
    text = (stopping.stopping_reason_message or "").partition(" Signaling Trainer to stop")[0]
    return text[:1].lower() + text[1:].removesuffix(".")
