"""Jobs of adapting that take seconds: they wait in the state, one process takes them up, and their callers poll.

A job that waits outlives every restart. One that was being fitted when its process was killed is taken up once more; if that ends too, the
job fails and says so. Tenants take turns: the next job is one of the tenant whose last was begun longest ago.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from mapsto.service.state import State, VersionRow, jobs_table

__all__ = ["NO_ROOM", "RESTARTED", "Job", "JobQueue", "JobState"]

JobState = Literal["queued", "running", "done", "failed"]
RESTARTED = "the service was restarted while this was fitted, twice; adapt again"
NO_ROOM = "all versions that this tenant may have of the model answer, or answered last, so that none may make room"
_TRIES = 2
_KEPT_SECONDS = 86_400.0
"""For which a job that has ended may be asked for."""
_OPEN = ("queued", "running")
_job = jobs_table.c


@dataclass(frozen=True, kw_only=True)
class Job:
    """Adapting that was asked for."""

    id: str
    model: str
    tenant: str
    way: str
    """How the head is fitted."""
    shared: bool
    """Whether everyone may use the version."""
    package: str
    """The digest of the package that its features are of."""
    state: JobState = "queued"
    created: float = 0.0
    changed: float = 0.0
    version: str = ""
    """That came of it, once it is done."""
    dropped: tuple[str, ...] = ()
    """Versions that made room for it."""
    note: str = ""
    """What was chosen, once it is done; why it failed, where it did."""
    masked: int = 0
    """Labels that were changed by masking."""
    content: bytes = b""
    """`fitting.Support`, of a job that was claimed."""


class JobQueue:
    """The jobs of a state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def full(self, tenant: str, *, own: int, all_: int) -> str:
        """Which bound another job of a tenant would break, ``own`` or ``all``; empty: none."""
        with self._state.reading() as connection:
            return _full(connection, tenant, own, all_)

    def submit(self, job: Job, *, own: int, all_: int) -> str:
        """Store a job that waits, if there are fewer than `own` of its tenant and fewer than `all_` of everyone; else as `full`."""
        now = time.time()
        with self._state.writing() as connection:
            broken = _full(connection, job.tenant, own, all_)
            if broken:
                return broken
            ended = sa.and_(_job.state.in_(("done", "failed")), _job.changed < now - _KEPT_SECONDS)
            connection.execute(sa.delete(jobs_table).where(ended))
            values: dict[str, Any] = {
                "id": job.id,
                "model": job.model,
                "tenant": job.tenant,
                "state": "queued",
                "way": job.way,
                "shared": int(job.shared),
                "package": job.package,
                "created": now,
                "changed": now,
                "begun": 0,
                "holder": "",
                "expires": 0.0,
                "version": "",
                "dropped": "",
                "note": "",
                "masked": job.masked,
                "content": job.content,
            }
            connection.execute(sa.insert(jobs_table).values(values))
        return ""

    def find(self, model: str, id_: str, *, tenant: str) -> Job | None:
        """A job of a tenant, without its content."""
        columns = [column for column in _job if column.name != "content"]
        query = sa.select(*columns).where(_job.model == model, _job.id == id_, _job.tenant == tenant)
        with self._state.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _of(row)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many jobs there are, by model and state."""
        query = sa.select(_job.model, _job.state, sa.func.count()).group_by(_job.model, _job.state)
        with self._state.reading() as connection:
            return {(str(model), str(state)): int(count) for model, state, count in connection.execute(query)}

    # -- for the process that fits

    def claim(self, holder: str, seconds: float) -> Job | None:
        """The next job, which is the holder's for so many seconds; None where none waits."""
        with self._state.reading() as connection:  # without a lock, of what is asked for several times a second
            if connection.execute(sa.select(_job.id).where(_free(time.time())).limit(1)).first() is None:
                return None
        now = time.time()
        with self._state.writing() as connection:
            given_up = sa.and_(_free(now), _job.begun >= _TRIES)
            connection.execute(sa.update(jobs_table).where(given_up).values(**_ended("failed", now), note=RESTARTED))
            others = jobs_table.alias()
            last = sa.select(sa.func.max(others.c.changed)).where(
                others.c.tenant == _job.tenant, sa.or_(others.c.begun > 0, others.c.state != "queued")
            )
            order = sa.func.coalesce(last.scalar_subquery(), 0.0), _job.position
            query = sa.select(jobs_table).where(_free(now)).order_by(*order).limit(1)
            row = connection.execute(query.with_for_update(skip_locked=True)).mappings().first()
            if row is None:
                return None
            held = {"state": "running", "holder": holder, "expires": now + seconds, "changed": now}
            connection.execute(sa.update(jobs_table).where(_job.id == row["id"]).values(**held, begun=_job.begun + 1))
        return _of({**row, **held})

    def renew(self, job: Job, holder: str, seconds: float) -> bool:
        """Keep a job for so many seconds more; False where it is no longer the holder's."""
        return self._change(job, holder, {"expires": time.time() + seconds})

    def give_back(self, job: Job, holder: str) -> bool:
        """Let a job wait again, as if it had not been begun."""
        values = {"state": "queued", "holder": "", "expires": 0.0, "begun": _job.begun - 1}
        return self._change(job, holder, values)

    def fail(self, job: Job, holder: str, why: str) -> bool:
        """End a job that came to nothing."""
        return self._change(job, holder, {**_ended("failed", time.time()), "note": why})

    def finish(self, job: Job, holder: str, row: VersionRow, *, most: int, note: str) -> bool:
        """In one transaction the version that came of a job and the job's end; False, and nothing is stored, where it is another's."""
        with self._state.writing() as connection:
            mine = sa.select(_job.id).where(_job.id == job.id, _job.holder == holder, _job.state == "running")
            if connection.execute(mine.with_for_update()).first() is None:
                return False
            gone = self._state.put_version(connection, row, most=most)
            if gone is None:
                values = {**_ended("failed", time.time()), "note": NO_ROOM}
            else:
                values = {**_ended("done", time.time()), "version": row.version, "note": note}
                values["dropped"] = " ".join(gone)
            connection.execute(sa.update(jobs_table).where(_job.id == job.id).values(**values))
        return True

    def _change(self, job: Job, holder: str, values: dict[str, Any]) -> bool:
        with self._state.writing() as connection:
            mine = sa.and_(_job.id == job.id, _job.holder == holder, _job.state == "running")
            return bool(connection.execute(sa.update(jobs_table).where(mine).values(**values)).rowcount)


def _free(now: float) -> sa.ColumnElement[bool]:
    """Jobs that wait, and those whose process is gone."""
    return sa.or_(_job.state == "queued", sa.and_(_job.state == "running", _job.expires < now))


def _full(connection: sa.Connection, tenant: str, own: int, all_: int) -> str:
    query = sa.select(sa.func.count()).where(_job.state.in_(_OPEN))
    if (connection.execute(query.where(_job.tenant == tenant)).scalar() or 0) >= own:
        return "own"
    return "all" if (connection.execute(query).scalar() or 0) >= all_ else ""


def _ended(state: JobState, now: float) -> dict[str, Any]:
    return {"state": state, "changed": now, "holder": "", "content": b""}


def _of(row: Any) -> Job:
    names: Sequence[str] = ("id", "model", "tenant", "way", "package", "state", "created", "changed", "version", "note")
    return Job(
        **{name: row[name] for name in names},
        shared=bool(row["shared"]),
        masked=int(row["masked"]),
        dropped=tuple(str(row["dropped"]).split()),
        content=bytes(row["content"]) if "content" in row else b"",
    )
