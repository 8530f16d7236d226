"""Forgetting somebody: what is kept of them is erased, and the versions that learnt from it are marked, or made anew.

A subject is a tenant, the id of a key, an event (an idempotency key, or a request's id), or a label. All rows go in one transaction, with
which a tombstone comes that does not say who it was: SHA-256 would be guessed, so it is scrypt of the subject (Percival, "Stronger Key
Derivation via Sequential Memory-Hard Functions", 2009). After it the answers that workers keep are overwritten, then what the database
wrote ahead is cut off, and then the tombstone says ``done``. Killed anywhere, the same command goes on; the service does too.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.errors import SpecError, StoreError
from mapsto.service.distrust import position_of
from mapsto.service.erased_answers import count_answers, overwrite_of_ended_replicas, overwrite_of_ended_service
from mapsto.service.kept_answers import tenant_digest
from mapsto.service.label_deletion import delete_rows, leave_out_held_back, row_is_held_back
from mapsto.service.state import (
    BASE,
    FeedbackRow,
    State,
    jobs_table,
    marks_table,
    tables,
    tombstones_table,
)
from mapsto_runtime.shown import short

__all__ = ["AS", "As", "Erasure", "Forgotten", "finish"]

As = Literal["tenant", "key", "event", "label"]
AS: tuple[As, ...] = ("tenant", "key", "event", "label")
"""What a subject may be. A label is a class that others share, so that it is meant only where that is said."""
_TOLD_SECONDS = 5.0
"""Within which workers on other machines take over what a database says."""
_SOMEBODY = "somebody who was forgotten"
"""In notes, in the place of who it was."""
_LONGEST = 1000
"""Characters of a subject: a label has at most as many."""
_PSEUDONYM = re.compile(r"<([A-Z][A-Z0-9_]*):([b-t]{24})>")
_feedback, _versions, _learners = tables.tables["feedback"], tables.tables["versions"], tables.tables["learners"]
_active, _keys, _distrusted = tables.tables["active"], tables.tables["keys"], tables.tables["distrusted"]
_tombstone, _mark, _job = tombstones_table.c, marks_table.c, jobs_table.c


@dataclass(kw_only=True)
class Forgotten:
    """What is kept of a subject, or was."""

    labels: int = 0
    versions: list[str] = field(default_factory=list[str])
    """``MODEL/VERSION`` that are the subject's own, and go."""
    jobs: int = 0
    keys: int = 0
    answers: int = 0
    """Kept for their labels, in files on this machine."""
    learnt: list[str] = field(default_factory=list[str])
    """``MODEL/VERSION`` that learnt from the subject's labels, or name the subject: marked, or deleted where the learner begins anew."""
    retrained: list[str] = field(default_factory=list[str])
    """Models whose learner begins anew."""
    active: list[str] = field(default_factory=list[str])
    """Models that answer with a version that learnt from the subject; with `retrained` the package itself answers now."""
    before: str = ""
    """The tombstone of an erasure of before."""
    tombstone: str = ""
    finished: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is anything to erase."""
        return bool(self.labels or self.versions or self.jobs or self.keys or self.answers or self.learnt)


class Erasure:
    """Forgets subjects of a state.

    Parameters
    ----------
    folder
        Where workers keep answers; None: on other machines.
    pseudonyms
        Under whose key events were stored; None: they were stored as they are.
    as_
        What the subject may be.
    """

    def __init__(
        self,
        state: State,
        folder: Path | None,
        *,
        pseudonyms: Pseudonyms | None = None,
        as_: Sequence[As] = ("tenant", "key", "event"),
    ) -> None:
        self._state, self._folder, self._pseudonyms, self._as = state, folder, pseudonyms, as_

    def look(self, subject: str) -> Forgotten:
        """What would be erased."""
        with self._state.reading() as connection:
            found, _ = self._found(connection, _checked(subject))
        found.answers = count_answers(self._folder, tenant_digest(subject)) if "tenant" in self._as else 0
        return found

    def forget(self, subject: str, *, retrain: bool = False, wait: float = 15.0) -> Forgotten:
        """Erase what is kept of a subject, and finish what was begun before.

        Parameters
        ----------
        retrain
            Delete the versions that learnt from it, and let the learner begin anew with the labels that are left.
        wait
            Seconds that the processes of a service that runs may take for their part.

        Raises
        ------
        SpecError
            Nothing is kept of the subject, and nothing was.
        StoreError
            It is begun and not finished: the same command goes on.
        """
        subject = _checked(subject)
        kept = count_answers(self._folder, tenant_digest(subject)) if "tenant" in self._as else 0
        with self._state.writing() as connection:
            found, rows = self._found(connection, subject)
            found.answers = kept
            if found.anything:
                self._erase(connection, subject, found, rows, retrain=retrain)
            elif found.before and retrain:
                self._begin_anew_of(connection, found)
            elif not found.before:
                raise SpecError(
                    f"nothing is kept of '{short(subject)}' as {', '.join(self._as)}",
                    where="SUBJECT",
                    hint="give a tenant, the id of a key, an idempotency key or a request id; a label with --as label",
                )
        found.finished = finish(self._state, self._folder, wait=wait)
        if not found.finished:
            raise StoreError(
                "the rows are erased; files of a service that runs are not yet overwritten",
                where=self._state.url.rpartition("@")[2],
                hint="run the same command again; the service goes on with it too",
            )
        return found

    # -- private

    def _found(self, connection: sa.Connection, subject: str) -> tuple[Forgotten, list[FeedbackRow]]:
        """What there is of a subject, with the rows of its labels."""
        found = Forgotten(before=_tombstone_of(connection, subject))
        where: list[Any] = []
        if "tenant" in self._as:
            where.append(_feedback.c.tenant == subject)
            own = sa.select(_versions.c.model, _versions.c.version).where(_versions.c.owner == subject)
            found.versions = [f"{model}/{version}" for model, version in connection.execute(own)]
            found.jobs = connection.execute(sa.select(sa.func.count()).where(_job.tenant == subject)).scalar() or 0
            shared = sa.select(_job.model, _job.version).where(_job.tenant == subject, _job.shared == 1)
            made = [(str(model), str(version)) for model, version in connection.execute(shared) if version]
        else:
            made = []
        if {"tenant", "key"} & set(self._as):
            found.keys = connection.execute(sa.select(sa.func.count()).where(self._own_keys(subject))).scalar() or 0
        if "key" in self._as:
            where.append(_feedback.c.caller == subject)
        names = self._names(connection, subject)
        if "event" in self._as:
            for name in names:
                where += [_feedback.c.event.in_((name, f"k/{name}"))]
                where += [_feedback.c.event.startswith(f"{start}{name}/", autoescape=True) for start in ("", "k/")]
        if "label" in self._as:
            where.append(_feedback.c.label.in_(names))
            where.append(_feedback.c.answer.in_(names))
        rows: list[FeedbackRow] = []
        if where:
            query = sa.select(_feedback).where(sa.or_(*where), _feedback.c.model != "").order_by(_feedback.c.position)
            rows = [FeedbackRow(**row) for row in connection.execute(query).mappings()]
        found.labels = len(rows)
        learnt = set(made) | self._learnt(connection, rows)
        if "label" in self._as:
            learnt |= self._naming(connection, set(names))
        marked = {(str(row[0]), str(row[1])) for row in connection.execute(sa.select(_mark.model, _mark.version))}
        gone = set(found.versions)
        found.learnt = sorted(f"{model}/{version}" for model, version in learnt if f"{model}/{version}" not in gone)
        if found.before and not rows:  # they were marked when that was erased
            found.learnt = [each for each in found.learnt if tuple(each.split("/", 1)) not in marked]
        active = {
            (str(row[0]), str(row[1])) for row in connection.execute(sa.select(_active.c.model, _active.c.version))
        }
        found.active = sorted(model for model, version in active if (model, version) in learnt)
        return found, rows

    def _own_keys(self, subject: str) -> sa.ColumnElement[bool]:
        wanted = [
            column == subject for name, column in (("tenant", _keys.c.tenant), ("key", _keys.c.id)) if name in self._as
        ]
        return sa.or_(*wanted)

    def _names(self, connection: sa.Connection, subject: str) -> list[str]:
        """What a subject is called in the state: as it is, and by its pseudonym of each kind that occurs."""
        names = [subject]
        if self._pseudonyms is None:
            return names
        hashed = [column.contains("<") & column.contains(":") for column in (_feedback.c.event, _feedback.c.label)]
        query = sa.select(_feedback.c.event, _feedback.c.label).where(sa.or_(*hashed))
        kinds = {kind for row in connection.execute(query) for text in row for kind, _ in _PSEUDONYM.findall(str(text))}
        return [*names, *(f"<{kind}:{self._pseudonyms.of(kind, subject)}>" for kind in sorted(kinds))]

    def _learnt(self, connection: sa.Connection, rows: list[FeedbackRow]) -> set[tuple[str, str]]:
        """Versions that learnt from any of the rows: a learnt version is named by the last row that it knew."""
        first: dict[str, int] = {}
        for row in rows:
            if not row_is_held_back(row):
                first.setdefault(row.model, row.position)
        query = sa.select(_versions.c.model, _versions.c.version).where(
            _versions.c.kind == "learned", _versions.c.model.in_(list(first))
        )
        return {
            (str(model), str(version))
            for model, version in connection.execute(query)
            if (last := position_of(str(version))) is None or last >= first[str(model)]
        }

    def _naming(self, connection: sa.Connection, names: set[str]) -> set[tuple[str, str]]:
        """Versions one of whose classes is the subject."""
        from mapsto.service.heads import VersionHead

        found: set[tuple[str, str]] = set()
        for model, version, content in connection.execute(
            sa.select(_versions.c.model, _versions.c.version, _versions.c.content)
        ):
            try:
                classes = VersionHead.of(bytes(content)).classes
            except StoreError:  # it answers nobody
                continue
            if names & set(classes):
                found.add((str(model), str(version)))
        return found

    def _erase(
        self, connection: sa.Connection, subject: str, found: Forgotten, rows: list[FeedbackRow], *, retrain: bool
    ) -> None:
        now = time.time()
        found.tombstone = f"t-{secrets.token_hex(6)}"
        delete_rows(connection, [row.position for row in rows], sqlite=self._state.is_sqlite)
        if "tenant" in self._as:
            connection.execute(sa.delete(_versions).where(_versions.c.owner == subject))
            connection.execute(sa.delete(jobs_table).where(_job.tenant == subject))
        if {"tenant", "key"} & set(self._as):
            connection.execute(sa.delete(_keys).where(self._own_keys(subject)))
            given = [
                _distrusted.c[each] == subject
                for each, kind in (("tenant", "tenant"), ("caller", "key"))
                if kind in self._as
            ]
            connection.execute(sa.delete(_distrusted).where(sa.or_(*given)))
            named = _active.c.why.endswith(f" by {subject}", autoescape=True)
            connection.execute(
                sa.update(_active).where(named).values(why=sa.func.replace(_active.c.why, f" by {subject}", ""))
            )
            self._take_out_of_notes(connection, subject)
        learnt = [(model, version) for model, _, version in (each.partition("/") for each in found.learnt)]
        models = {model for model, _ in learnt} | {row.model for row in rows}
        for model in sorted(models):
            own = [version for other, version in learnt if other == model]
            gone = [each.partition("/")[2] for each in found.versions if each.startswith(f"{model}/")]
            if retrain:
                self._begin_anew(connection, model, [*own, *gone], now)
                found.retrained.append(model)
                continue
            leave_out_held_back(connection, model, [row for row in rows if row.model == model])
            known = connection.execute(sa.select(_learners.c.position).where(_learners.c.model == model)).scalar() or 0
            trained = any(row.position <= known for row in rows if row.model == model and not row_is_held_back(row))
            marks = [*own, ""] if trained else own
            values = [{"model": model, "version": each, "tombstone": found.tombstone, "time": now} for each in marks]
            if values:
                connection.execute(sa.insert(marks_table), values)
        salt = _salt(connection)
        what = {"labels": found.labels, "versions": len(found.versions), "jobs": found.jobs, "keys": found.keys}
        connection.execute(
            sa.insert(tombstones_table).values(
                id=found.tombstone,
                salt=salt,
                subject=_hidden(subject, salt),
                state="begun",
                began=now,
                tenant=tenant_digest(subject) if "tenant" in self._as else b"",
                what=json.dumps({**what, "learnt": len(found.learnt), "retrained": retrain}),
            )
        )
        self._state.count_deletions(connection, {f"forgotten_{name}": count for name, count in what.items()})
        self._state.erased(connection)

    def _take_out_of_notes(self, connection: sa.Connection, subject: str) -> None:
        """Whose labels spoke for a version stands in its note, as the tenant and the key (`learner.Evidence`)."""
        name = re.escape(subject)
        parts = [
            part
            for kind, part in (("tenant", f"{name}/[!-~]+"), ("key", f"[!-~]+/{name}(?![!-~])"))
            if kind in self._as
        ]
        whose = re.compile(f"(?<= of )(?:{'|'.join(parts)})")
        for table, column in ((_versions, "note"), (_learners, "note"), (_active, "why")):
            text, ids = table.c[column], list(table.primary_key.columns)
            for row in connection.execute(sa.select(text, *ids).where(text.contains(subject, autoescape=True))).all():
                where = [id_ == value for id_, value in zip(ids, row[1:], strict=True)]
                cleared = {column: whose.sub(_SOMEBODY, str(row[0]))}
                connection.execute(sa.update(table).where(*where).values(cleared))

    def _begin_anew_of(self, connection: sa.Connection, found: Forgotten) -> None:
        """As the first erasure would have, had it been told to: of the models that it marked."""
        query = sa.select(_mark.model).where(_mark.tombstone == found.before).distinct()
        for model in sorted(str(row[0]) for row in connection.execute(query)):
            self._begin_anew(connection, model, [], time.time())
            found.retrained.append(model)
        if found.retrained:
            self._state.erased(connection)

    def _begin_anew(self, connection: sa.Connection, model: str, versions: list[str], now: float) -> None:
        """The learner of a model knows nothing, its versions that learnt are gone, and the package answers where one of them did."""
        marked = sa.select(_mark.version).where(_mark.model == model, _mark.version != "")
        going = sorted({*versions, *(str(row[0]) for row in connection.execute(marked))})
        connection.execute(sa.delete(_learners).where(_learners.c.model == model))
        connection.execute(sa.delete(_versions).where(_versions.c.model == model, _versions.c.version.in_(going)))
        connection.execute(sa.delete(marks_table).where(_mark.model == model))
        active = connection.execute(
            sa.select(_active.c.version, _active.c.before).where(_active.c.model == model)
        ).first()
        if active is not None and str(active[0]) in going:
            values = {
                "version": BASE,
                "before": BASE,
                "changed": now,
                "why": "the version before learnt from what was erased",
            }
            connection.execute(sa.update(_active).where(_active.c.model == model).values(values))
        elif active is not None and str(active[1]) in going:
            connection.execute(sa.update(_active).where(_active.c.model == model).values(before=BASE))


def finish(
    state: State,
    folder: Path | None,
    *,
    replicas: bool = False,
    wait: float = 0.0,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Go on with erasures that were begun: the answers that workers keep, then what was written ahead; whether all are done.

    A worker that runs overwrites its own answers (`Service.refresh`), since nobody else may write them; where none does, they are
    overwritten here. With `replicas` the folder is of Ray's replicas, each of which has a lock of its own.
    """
    begun = state.to_erase()
    if not begun:
        return True
    end = time.monotonic() + wait
    while True:
        left = [
            (id_, tenant, until)
            for id_, tenant, until in begun
            if tenant and count_answers(folder, tenant, until=until)
        ]
        if left and folder is not None:
            wanted = [(tenant, until) for _, tenant, until in left]
            if replicas:
                overwrite_of_ended_replicas(folder, wanted)
            else:
                overwrite_of_ended_service(folder, wanted)
            left = [each for each in left if count_answers(folder, each[1], until=each[2])]
        if not left and folder is not None and any(tenant for _, tenant, _ in begun):
            for path in folder.rglob(
                "reference.npz"
            ):  # of inputs, a subject's too; it is made anew from those that come
                path.unlink(missing_ok=True)
        told = state.is_sqlite or all(time.time() - until > _TOLD_SECONDS for _, _, until in begun)
        if not left and told and state.purge():
            break
        if time.monotonic() >= end:
            return False
        pause(0.1)
    with state.writing() as connection:
        ids = [id_ for id_, _, _ in begun]
        values = {"state": "done", "ended": time.time(), "tenant": b""}
        connection.execute(sa.update(tombstones_table).where(_tombstone.id.in_(ids)).values(values))
    state.purge()
    return True


def _checked(subject: str) -> str:
    if len(subject) > _LONGEST:
        raise SpecError(
            f"'{short(subject)}' has {len(subject)} characters, and nothing that is kept is so long",
            where="SUBJECT",
            hint=f"give one of at most {_LONGEST}",
        )
    try:
        subject.encode()
    except UnicodeEncodeError as error:
        raise SpecError("a subject is a text in UTF-8", where="SUBJECT", hint="give it as it was sent") from error
    if "\0" in subject:
        raise SpecError("a subject does not hold the character U+0000", where="SUBJECT", hint="give it as it was sent")
    if not subject.strip():
        raise SpecError(
            "a subject is a text that is not empty", where="SUBJECT", hint="give a tenant, the id of a key, or an event"
        )
    return subject


def _salt(connection: sa.Connection) -> bytes:
    """One for all tombstones of a state, so that a subject is found again."""
    found = connection.execute(sa.select(_tombstone.salt).limit(1)).scalar()
    return secrets.token_bytes(16) if found is None else bytes(found)


def _hidden(subject: str, salt: bytes) -> bytes:
    return hashlib.scrypt(subject.encode("utf-8", "surrogatepass"), salt=salt, n=1 << 14, r=8, p=1)


def _tombstone_of(connection: sa.Connection, subject: str) -> str:
    """The last tombstone of a subject; empty where there is none."""
    rows = connection.execute(
        sa.select(_tombstone.id, _tombstone.salt, _tombstone.subject).order_by(_tombstone.began.desc())
    )
    hidden: dict[bytes, bytes] = {}
    for id_, salt, held in rows:
        if bytes(salt) not in hidden:
            hidden[bytes(salt)] = _hidden(subject, bytes(salt))
        if hidden[bytes(salt)] == bytes(held):
            return str(id_)
    return ""
