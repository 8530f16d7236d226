"""What the processes of a service write to standard error, masked line by line before anyone keeps it.

They write into a pipe. The process that started them reads it and writes the lines on; one that cannot be masked is left out, and that it
was is written in its place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from mapsto.data.privacy.masking import TextMasking

__all__ = ["MaskedLog"]

_LONGEST = 16_384
"""Bytes of a line; what is longer is masked in parts."""


def _to_stderr(content: bytes) -> None:
    os.write(2, content)


class MaskedLog:
    """A pipe whose lines come out masked.

    Parameters
    ----------
    write
        Takes what comes out.
    """

    def __init__(self, masking: TextMasking, write: Callable[[bytes], object] = _to_stderr) -> None:
        self._masking, self._write = masking, write
        read, self.end = os.pipe()
        """Where the processes write."""
        self.unmasked = os.dup(2)
        """Standard error itself, for lines that hold nothing to mask."""
        self._thread = threading.Thread(target=self._work, args=(read,), name="masked log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends, once the processes have, and what they wrote is written."""
        os.close(self.end)
        self._thread.join(10)
        os.close(self.unmasked)

    def _work(self, read: int) -> None:
        rest = b""
        while True:
            content = os.read(read, 65_536)
            *lines, rest = (rest + content).split(b"\n")
            while len(rest) > _LONGEST:
                lines, rest = [*lines, rest[:_LONGEST]], rest[_LONGEST:]
            if not content and rest:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._pass_on(line)
            if not content:
                os.close(read)
                return

    def _pass_on(self, line: bytes) -> None:
        try:
            text = self._masking.line(line.decode("utf-8", "replace"))
        except Exception as error:  # whatever it is: it is not written as it came, and the next lines are
            text = f"mapsto: a line of the log was left out: {type(error).__name__}"
        self._write(f"{text}\n".encode("utf-8", "replace"))
