"""Undo what somebody taught: their labels count for nothing from now on, and the version before the first of them answers again.

The labels stay in the log as evidence. The learner begins anew without them, and what it then comes to answers once it proves better.
"""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import sqlalchemy as sa

from mapsto.service.state import BASE, State, distrusted_table, tables

__all__ = ["UNDONE", "Given", "distrust", "distrusted", "given_by", "position_of", "trust"]

UNDONE = "undone"
"""What begins to say why a version answers that answered before somebody's labels."""
_LEARNED = re.compile(r"l-(\d{8,})-")
_feedback, _versions, _active = (tables.tables[name].c for name in ("feedback", "versions", "active"))


class Given(NamedTuple):
    """What somebody gave of labels for a model."""

    tenant: str
    caller: str
    labels: int
    answers: int
    """Of which so many are for answers."""
    right: int
    """Of which so many say that the answer was right."""
    first: float
    last: float
    """Seconds of the epoch."""
    trusted: bool


def position_of(version: str) -> int | None:
    """The label up to which a version has learnt; None where it is no learnt one.

    >>> position_of("l-00000270-5f0c1d"), position_of("a-5f0c1d2e3b4a"), position_of("1")
    (270, None, None)
    """
    found = _LEARNED.match(version)
    return None if found is None else int(found[1])


def distrusted(state: State) -> frozenset[tuple[str, str]]:
    """Tenants and callers whose labels count for nothing."""
    with state.reading() as connection:
        rows = connection.execute(sa.select(distrusted_table.c.tenant, distrusted_table.c.caller))
        return frozenset((str(tenant), str(caller)) for tenant, caller in rows)


def given_by(state: State, model: str) -> list[Given]:
    """Who gave labels for a model, whoever gave most first."""
    answered = _feedback.answer != ""
    right = sa.and_(answered, _feedback.answer == _feedback.label)
    query = (
        sa.select(
            _feedback.tenant,
            _feedback.caller,
            sa.func.count(),
            sa.func.sum(sa.case((answered, 1), else_=0)),
            sa.func.sum(sa.case((right, 1), else_=0)),
            sa.func.min(_feedback.time),
            sa.func.max(_feedback.time),
        )
        .where(_feedback.model == model)
        .group_by(_feedback.tenant, _feedback.caller)
        .order_by(sa.func.count().desc(), _feedback.tenant, _feedback.caller)
    )
    gone = distrusted(state)
    with state.reading() as connection:
        rows = connection.execute(query).all()
    return [Given(*row, trusted=(str(row[0]), str(row[1])) not in gone) for row in rows]


def distrust(state: State, caller: str) -> dict[str, tuple[str, str]]:
    """Let the labels of a key's name, or a token's subject, count for nothing, those to come too.

    Returns
    -------
    dict
        Of each model whose answers change, the version that answered and the one that does now: the last that learnt none of the labels.
        Versions that did learn them are gone.
    """
    changed: dict[str, tuple[str, str]] = {}
    now = time.time()
    with state.writing() as connection:
        state.lock_distrusts(connection)
        theirs = _feedback.caller == caller
        firsts = sa.select(_feedback.model, sa.func.min(_feedback.position)).where(theirs).group_by(_feedback.model)
        tenants = {str(row[0]) for row in connection.execute(sa.select(_feedback.tenant).where(theirs).distinct())}
        known = {str(row[0]) for row in connection.execute(_known(caller))}
        for tenant in tenants - known:
            connection.execute(sa.insert(distrusted_table).values(tenant=tenant, caller=caller, since=now))
        if not tenants - known:  # what was learnt since is without their labels
            return {}
        state.count_distrust(connection)
        for model, first in connection.execute(firsts).all():
            undone = _undone(state, connection, str(model), int(first), f"{UNDONE}: the labels of {caller}", now)
            if undone is not None:
                changed[str(model)] = undone
        state.count_change(connection)
    return changed


def trust(state: State, caller: str) -> bool:
    """Let the labels of a caller count again; whether they did not."""
    with state.writing() as connection:
        state.lock_distrusts(connection)
        gone = connection.execute(sa.delete(distrusted_table).where(distrusted_table.c.caller == caller)).rowcount
        if gone:
            state.count_distrust(connection)
    return bool(gone)


def _known(caller: str) -> Any:
    return sa.select(distrusted_table.c.tenant).where(distrusted_table.c.caller == caller)


def _undone(
    state: State, connection: sa.Connection, model: str, first: int, why: str, now: float
) -> tuple[str, str] | None:
    """Forget the versions that learnt from a label on; what answered and what does, where that is another now."""
    rows = connection.execute(
        sa.select(_versions.version, _versions.package).where(_versions.model == model).order_by(_versions.created)
    ).all()
    learnt = {str(row[0]): position for row in rows if (position := position_of(str(row[0]))) is not None}
    spoilt = [version for version, position in learnt.items() if position >= first]
    read = connection.execute(sa.select(_active.version, _active.before).where(_active.model == model)).first()
    active, before = ("", "") if read is None else (str(read[0]), str(read[1]))
    found = None
    if active in spoilt:
        package = next(row[1] for row in rows if row[0] == active)
        clean = [str(row[0]) for row in rows if row[1] == package and learnt.get(str(row[0]), first) < first]
        goes = max(clean, key=lambda version: learnt[version], default=BASE)
        state.put_active(connection, model, goes, active, why, now)
        found = (active, goes)
    if found is not None or before in spoilt:  # so that no way leads back
        connection.execute(sa.update(_active.model.table).where(_active.model == model).values(before=BASE))
    if spoilt:
        connection.execute(
            sa.delete(_versions.model.table).where(_versions.model == model, _versions.version.in_(spoilt))
        )
    return found
