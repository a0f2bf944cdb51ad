"""Signals that end a run: the step is finished and last.ckpt written before the process ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C; what clusters, containers and `kill` send; and what some schedulers send ahead of the end."""


class Preempted(SystemExit):
    """A signal ended the run. Its exit code is what shells make of the signal: 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class StopSignals:
    """Remembers a signal to stop, and says when to.

    While nothing is trained a signal stops at once. In training it waits until whoever trains asks for it, between two
    steps. Only a second Ctrl-C does not wait.

    Attributes:
        received: The number of the first signal; 0 for none.
        waits: Whether there is something to finish first.
    """

    def __init__(self) -> None:
        self.received, self.waits = 0, False

    def listen(self, numbers: tuple[int, ...] = NUMBERS) -> None:
        """Take the place of the handlers of these signals; Python allows that in the main thread alone."""
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                signal.signal(number, self._receive)

    @contextmanager
    def listening(self) -> Iterator["StopSignals"]:
        """Listen for the time being."""
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
            KeyboardInterrupt: For Ctrl-C.
            Preempted: For any other signal.
        """
        raise KeyboardInterrupt if number == signal.SIGINT else Preempted(number)

    def _receive(self, number: int, _: FrameType | None) -> None:
        first, self.received = not self.received, self.received or number
        if not self.waits or (number == signal.SIGINT and not first):
            self.stop(number)
