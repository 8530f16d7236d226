"""Stopping a process between two items: a signal sets a flag, and a checkpoint is taken before the run ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopSignals", "ends_on_sigterm", "terminated"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def terminated(number: int, frame: FrameType | None) -> None:
    """A signal's handler that ends the process as an error does, so that what it began is cleared away: with 128 + `number`."""
    raise SystemExit(128 + number)


def ends_on_sigterm() -> None:
    """From now on SIGTERM ends the program by `terminated`, unless it is handled or ignored already. For the main thread."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminated)


class StopSignals:
    """Within a ``with`` block the first SIGINT (Ctrl-C) or SIGTERM sets `caught`; a second one interrupts at once.

    Python hands signals to its main thread alone: in another thread nothing is caught, nor where a signal is ignored or somebody
    else's handler is set.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self.caught: int | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL, terminated):
                    self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            self.end(number)
        self.caught = number

    def end(self, number: int | None = None) -> None:
        """End the run as the signal asks: KeyboardInterrupt for SIGINT, SystemExit with 128 + number for another."""
        number = self.caught if number is None else number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (number or 0))
