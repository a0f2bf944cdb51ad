"""Signals that end a run after its step is finished and last.ckpt is written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C; the signal of clusters, containers and `kill`; a closed terminal; and the one that some schedulers send before the time limit."""


class Preempted(SystemExit):
    """A signal ended the run; its exit code is the shell's for that signal, such as 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class StopSignals:
    """Stops the process after a signal: at once or, in training, between two steps.

    In training, the training loop reads `received` between two steps and calls `stop`. A second Ctrl-C stops at once.

    Attributes:
        received: The number of the first signal; 0 for none.
        waits: Whether a signal waits for the end of a step.
    """

    def __init__(self) -> None:
        self.received, self.waits = 0, False

    def listen(self, numbers: tuple[int, ...] = NUMBERS) -> None:
        """Replace the handlers of these signals, which Python allows in the main thread only; `nohup` has SIGHUP ignored."""
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.Signals(number).name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._receive)

    @contextmanager
    def listening(self) -> Iterator["StopSignals"]:
        """Listen within a `with` block, then restore the earlier handlers."""
        before = {number: signal.getsignal(number) for number in NUMBERS}
        self.listen()
        try:
            yield self
        finally:
            for number, handler in before.items():
                if threading.current_thread() is threading.main_thread():
                    signal.signal(number, handler)

    def stop(self, number: int) -> None:
        """End the process as a signal does.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            Preempted: any other signal.
        """
        raise KeyboardInterrupt if number == signal.SIGINT else Preempted(number)

    def _receive(self, number: int, _: FrameType | None) -> None:
        first, self.received = not self.received, self.received or number
        if not self.waits or (number == signal.SIGINT and not first):
            self.stop(number)
