"""What a service deletes by itself: what is older than it may be kept, and what an erasure that was killed has left to do."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import sqlalchemy as sa

from mapsto.errors import StoreError
from mapsto.service.erasure import finish
from mapsto.service.label_deletion import delete_rows, let_go_held_back
from mapsto.service.row_masking import RowMasking
from mapsto.service.state import State, jobs_table, tables

__all__ = ["Retention", "expire"]

_DAY = 86_400.0
_SECONDS = (1.0, 600.0)
"""Between two looks at what is too old, at least and at most; else a twentieth of the time that it is kept."""
_feedback, _versions, _learners = tables.tables["feedback"], tables.tables["versions"], tables.tables["learners"]
_active = tables.tables["active"]


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


def expire(state: State, before: float) -> dict[str, int]:
    """Delete what was kept since before a moment, as far as nothing answers with it; how much went, by kind."""
    with state.writing() as connection:
        old = sa.select(_feedback.c.position).where(_feedback.c.time < before, _feedback.c.model != "")
        rows = [int(row[0]) for row in connection.execute(old.limit(10_000))]
        answering = sa.union(sa.select(_active.c.version), sa.select(_active.c.before)).scalar_subquery()
        unused = sa.and_(_versions.c.used < before, _versions.c.created < before, _versions.c.version.not_in(answering))
        ended = sa.and_(jobs_table.c.changed < before, jobs_table.c.state != "running")
        counts = {
            kind: connection.execute(sa.select(sa.func.count()).select_from(table).where(where)).scalar() or 0
            for kind, table, where in (("expired_versions", _versions, unused), ("expired_jobs", jobs_table, ended))
        }
        models = [str(row[0]) for row in connection.execute(sa.select(_learners.c.model))]
        held = sum(let_go_held_back(connection, model, lambda label, at, features: at < before) for model in models)
        found = {"expired_labels": len(rows), "expired_held_labels": held, **counts}
        if not any(found.values()):
            return found
        delete_rows(connection, rows, sqlite=state.is_sqlite)
        connection.execute(sa.delete(_versions).where(unused))
        connection.execute(sa.delete(jobs_table).where(ended))
        state.count_deletions(connection, found)
    state.purge()
    return found
