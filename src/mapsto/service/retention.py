"""What a service deletes by itself: what is older than it may be kept, and what an erasure that was killed has left to do."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mapsto.errors import StoreError
from mapsto.service.erasure import expire, finish
from mapsto.service.row_masking import RowMasking
from mapsto.service.state import State

__all__ = ["Retention"]

_DAY = 86_400.0
_SECONDS = (1.0, 600.0)
"""Between two looks at what is too old, at least and at most; else a twentieth of the time that it is kept."""


class Retention:
    """Looks from time to time at what is to be deleted.

    Parameters
    ----------
    answers
        Where workers keep answers; None: where others look after it.
    keep_days
        After which labels, versions that nobody asked for, and jobs are deleted; None: never for their age.
    masking
        Whose counts the state is told of.
    replicas
        Whether the answers are of Ray's replicas.
    """

    def __init__(
        self,
        state: State,
        answers: Path | None,
        keep_days: float | None,
        masking: RowMasking | None = None,
        *,
        replicas: bool = False,
    ) -> None:
        self._state, self._answers, self._masking, self._replicas = state, answers, masking, replicas
        self._keep = None if keep_days is None else keep_days * _DAY
        self._every = _SECONDS[1] if self._keep is None else min(max(self._keep / 20, _SECONDS[0]), _SECONDS[1])
        self._looked = -self._every
        self._said = ""

    def look(self) -> None:
        """Delete what is due; what cannot be deleted now is tried again, and is said once."""
        try:
            finish(self._state, self._answers, replicas=self._replicas)
            self._tell()
            if self._keep is not None and time.monotonic() - self._looked >= self._every:
                while expire(self._state, time.time() - self._keep)["expired_labels"]:
                    continue
                self._looked = time.monotonic()
            self._said = ""
        except StoreError as error:
            if str(error) != self._said:
                sys.stderr.write(f"mapsto: what is too old is not deleted: {error}\n")
            self._said = str(error)

    def _tell(self) -> None:
        """Tell the state how much was masked."""
        if self._masking is None or not self._masking.counts:
            return
        counts = {f"{kind}_rows": count for kind, count in self._masking.counts.items()}
        with self._state.writing() as connection:
            self._state.count_deletions(connection, counts)
        self._masking.counts.clear()
