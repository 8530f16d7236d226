"""What the service must not lose: feedback, versions, keys, and what its learners have come to, in SQLite or PostgreSQL.

SQLite is written ahead (WAL). With `durability="process"` (``synchronous=NORMAL``) what was acknowledged outlives the end of every process,
SIGKILL too, but the last moments before a power cut may be lost; ``"power"`` (``FULL``) has each commit on the disk first. PostgreSQL does
the latter.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite

from mapsto.data.io.feedback_log import feedback_table, packages_table
from mapsto.errors import MissingExtra, SpecError, StoreError

__all__ = [
    "BASE",
    "BEGINS_AGAIN",
    "Durability",
    "FeedbackRow",
    "State",
    "VersionRow",
    "default_state",
    "distrusted_table",
    "deletions_table",
    "jobs_table",
    "marks_table",
    "new_holder",
    "tables",
    "tombstones_table",
]

Durability = Literal["process", "power"]
PROMOTED, ROLLED_BACK = "promoted", "rolled back"
"""What begins to say why a version answers, where somebody chose it."""
BASE = "1"
"""The version that a package itself is."""
BEGINS_AGAIN = "the learner begins again from the labels that count, and has published no version since"
"""In the place of what was to say of the version that a learner published last, until it publishes another."""
_FORMAT = 1
_DISTRUSTS = "distrusts"
_BUSY_MS = 10_000
_APPENDING = 0x6D617073
"""PostgreSQL's lock of those who store labels, several services too."""

tables = sa.MetaData()
_big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_meta = sa.Table(
    "meta", tables, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.BigInteger, nullable=False)
)
_feedback = feedback_table(tables)
_by_model = sa.Index("feedback_by_model", _feedback.c.model, _feedback.c.position)
"""Without it SQLite reads every row of a model where a learner asks for the next ones: 90 ms of 200,000 rows, and 1 ms with it."""
_versions = sa.Table(
    "versions",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("parent", sa.Text, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("used", sa.Float, nullable=False),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
_active = sa.Table(
    "active",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("changed", sa.Float, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)
_packages = packages_table(tables)
_learners = sa.Table(
    "learners",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("changed", sa.Float, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
_leases = sa.Table(
    "leases",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)
distrusted_table = sa.Table(
    "distrusted",
    tables,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
)
"""Whose labels count for nothing: rows of `mapsto.service.distrust`."""
jobs_table = sa.Table(
    "jobs",
    tables,
    sa.Column("position", _big, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("way", sa.Text, nullable=False),
    sa.Column("shared", sa.Integer, nullable=False),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("changed", sa.Float, nullable=False),
    sa.Column("begun", sa.Integer, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("dropped", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("masked", sa.Integer, nullable=False, server_default="0"),
)
"""Rows of `mapsto.service.job_queue`; a state of before gets the table when it is opened."""
tombstones_table = sa.Table(
    "tombstones",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("subject", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("began", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("tenant", sa.LargeBinary, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
)
"""Rows of `mapsto.service.erasure`: that somebody was forgotten, and not who."""
marks_table = sa.Table(
    "marks",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("tombstone", sa.Text, primary_key=True),
    sa.Column("time", sa.Float, nullable=False),
)
"""Versions that learnt from what was erased since; the version "" is what the learner goes on from."""
deletions_table = sa.Table(
    "deletions",
    tables,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("last", sa.Float, nullable=False),
)
_keys = sa.Table(
    "keys",
    tables,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float),
    sa.Column("revoked", sa.Float),
    sa.Column("rate", sa.Float),
    sa.Column("burst", sa.Float),
)


def new_holder() -> str:
    """A name under which this process holds leases and jobs, which no other has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def default_state(package: Path) -> Path:
    """Where the state of a service is whose first model is a package's folder, if no other place is given."""
    return package.parent / "service" / "state.sqlite"


class FeedbackRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A label for something that was answered."""

    model: str
    event: str
    """What it is a label of: one label each, of a tenant."""
    tenant: str
    version: str
    """That gave the answer; empty where the input came with the label."""
    label: str
    answer: str
    """The class that was answered; empty where nothing was."""
    features: bytes
    """float32."""
    package: str = ""
    """The digest of the package whose features they are."""
    position: int = 0
    """Its place among all rows, from 1; set when it is stored."""
    time: float = 0.0
    caller: str = ""
    """Who gave it: a key's name, or the subject of a token; empty in states of before."""


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """A version of a model: a head on the features of a package."""

    model: str
    version: str
    kind: Literal["adapted", "learned"]
    parent: str
    """The version that it was made from."""
    package: str
    """The digest of the package that it stands on."""
    content: bytes
    owner: str | None = None
    """The tenant who alone may use it; None: everyone."""
    note: str = ""
    created: float = 0.0


class State:
    """The tables, opened by one process.

    Parameters
    ----------
    url
        A path of a file, made where it is missing, or ``postgresql://USER@HOST/NAME`` (extra `postgres`).
    durability
        Of SQLite.

    Raises
    ------
    StoreError
        It cannot be opened, or is of a later mapsto.
    """

    def __init__(self, url: str | Path, *, durability: Durability = "process") -> None:
        self.url = str(url)
        self._sqlite = "://" not in self.url
        self._engine = self._opened(durability)
        self._insert: Any = sqlite.insert if self._sqlite else postgresql.insert
        columns = ("model", "event", "tenant", "time", "version", "label", "answer", "features", "package", "caller")
        marks = ", ".join("?" if self._sqlite else "%s" for _ in columns)
        self._append = f"INSERT INTO {_feedback.name} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
        try:
            with self._engine.begin() as connection:
                tables.create_all(connection)
                # a state of before has the table without them
                _by_model.create(connection, checkfirst=True)
                there = {column["name"] for column in sa.inspect(connection).get_columns("feedback")}
                for name in ("package", "caller"):
                    if name not in there:
                        connection.exec_driver_sql(f"ALTER TABLE feedback ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")
                if "masked" not in {column["name"] for column in sa.inspect(connection).get_columns("jobs")}:
                    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN masked INTEGER NOT NULL DEFAULT 0")
                row = connection.execute(sa.select(_meta.c.value).where(_meta.c.name == "format")).first()
                if row is not None and row[0] > _FORMAT:
                    raise StoreError(f"is of a later mapsto (format {row[0]})", where=self.url, hint="upgrade mapsto")
                values = [{"name": name, "value": 0} for name in ("changes", _DISTRUSTS)]
                values.append({"name": "format", "value": _FORMAT})
                connection.execute(self._insert(_meta).on_conflict_do_nothing(), values)
        except exc.SQLAlchemyError as error:
            raise self._trouble(error, "cannot be opened") from error

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self._sqlite

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # -- feedback

    def append(self, rows: Sequence[FeedbackRow]) -> list[int]:
        """Store rows in one transaction; durable when it returns.

        Returns
        -------
        list of int
            Each row's position, of one that is stored already its own, so that it may be sent again; 0 where its event has another label
            already, which stays.
        """
        if not rows:
            return []
        now = time.time()
        values = [
            (
                *(row.model, row.event, row.tenant, now, row.version),
                *(row.label, row.answer, row.features, row.package, row.caller),
            )
            for row in rows
        ]
        with self.writing() as connection:
            if not self._sqlite:  # positions become visible in their order: no learner passes one that is still to come
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_APPENDING})")
            count = connection.exec_driver_sql(self._append, values).rowcount
            if self._sqlite and count == len(rows):  # all are new, and theirs are the last positions
                last = int(connection.exec_driver_sql(f"SELECT max(position) FROM {_feedback.name}").scalar() or 0)
                return list(range(last - count + 1, last + 1))
            stored = self._stored(connection, rows)
        return [stored.get((row.model, row.tenant, row.event, row.label), 0) for row in rows]

    def _stored(self, connection: sa.Connection, rows: Sequence[FeedbackRow]) -> dict[tuple[str, str, str, str], int]:
        """The positions of rows, by model, tenant, event and label."""
        events: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            events.setdefault((row.model, row.tenant), []).append(row.event)
        found: dict[tuple[str, str, str, str], int] = {}
        for (model, tenant), own in events.items():
            query = sa.select(_feedback.c.event, _feedback.c.label, _feedback.c.position).where(
                _feedback.c.model == model, _feedback.c.tenant == tenant, _feedback.c.event.in_(own)
            )
            for event_, label, position in connection.execute(query):
                found[model, tenant, event_, label] = int(position)
        return found

    def feedback(self, model: str, *, after: int = 0, most: int = 256) -> list[FeedbackRow]:
        """Rows of a model beyond a position, in their order."""
        query = (
            sa.select(_feedback)
            .where(_feedback.c.model == model, _feedback.c.position > after)
            .order_by(_feedback.c.position)
            .limit(most)
        )
        with self.reading() as connection:
            found = connection.execute(query).mappings().all()
        return [FeedbackRow(**row) for row in found]

    def labels_around(self, model: str, position: int, *, tenant: str) -> tuple[int, int]:
        """How many labels of a tenant are up to a position, and how many beyond it."""
        own = sa.select(sa.func.count()).where(_feedback.c.model == model, _feedback.c.tenant == tenant)
        with self.reading() as connection:
            upto = connection.execute(own.where(_feedback.c.position <= position)).scalar() or 0
            beyond = connection.execute(own.where(_feedback.c.position > position)).scalar() or 0
        return upto, beyond

    def models(self) -> list[str]:
        """The names of models that have feedback, versions or an active version."""
        names = [sa.select(table.c.model) for table in (_feedback, _versions, _active)]
        with self.reading() as connection:
            return sorted(str(row[0]) for row in connection.execute(sa.union(*names)) if row[0])

    def served(self, model: str) -> list[tuple[str, int, int]]:
        """Of each version that gave answers, its name, how many of them got a label, and how many were right."""
        right = sa.func.sum(sa.case((_feedback.c.answer == _feedback.c.label, 1), else_=0))
        query = (
            sa.select(_feedback.c.version, sa.func.count(), right)
            .where(_feedback.c.model == model, _feedback.c.answer != "")
            .group_by(_feedback.c.version)
            .order_by(sa.func.min(_feedback.c.position))
        )
        with self.reading() as connection:
            return [(str(row[0]), int(row[1]), int(row[2])) for row in connection.execute(query)]

    def served_right(self, model: str, *, most: int) -> list[bool]:
        """Of the last labels for what was served, whether it was answered; the latest last."""
        query = (
            sa.select(_feedback.c.label == _feedback.c.answer)
            .where(_feedback.c.model == model, _feedback.c.answer != "")
            .order_by(_feedback.c.position.desc())
            .limit(most)
        )
        with self.reading() as connection:
            return [bool(right) for (right,) in connection.execute(query)][::-1]

    def behind(self, model: str, position: int) -> tuple[int, float | None]:
        """How many rows of a model that count are beyond a position, and when the first of them was stored."""
        gone = distrusted_table.c
        theirs = sa.exists().where(gone.tenant == _feedback.c.tenant, gone.caller == _feedback.c.caller)
        query = sa.select(sa.func.count(), sa.func.min(_feedback.c.time)).where(
            _feedback.c.model == model, _feedback.c.position > position, ~theirs
        )
        with self.reading() as connection:
            row = connection.execute(query).one()
        return int(row[0]), None if row[1] is None else float(row[1])

    # -- versions

    def add_version(self, row: VersionRow, *, most: int | None = None, used: Sequence[str] = ()) -> list[str] | None:
        """Store a version, and make room for it. Raises `StoreError` where there is one of that name.

        Parameters
        ----------
        most
            Versions of the model that its owner may have: beyond it those go that were not used for longest. None: any number.
        used
            Of the model, versions that were asked for lately.

        Returns
        -------
        list of str or None
            The versions that went; None, and nothing is stored, where none may go, since they answer or answered last.
        """
        with self.writing() as connection:
            self._note_use(connection, row.model, used)
            return self.put_version(connection, row, most=most)

    def put_version(self, connection: sa.Connection, row: VersionRow, *, most: int | None = None) -> list[str] | None:
        """As `add_version`, within a transaction."""
        gone = [] if most is None or row.owner is None else self._make_room(connection, row.model, row.owner, most)
        if gone is not None:
            self._put_version(connection, row)
        return gone

    def note_use(self, model: str, versions: Sequence[str]) -> None:
        """Remember that versions were asked for."""
        with self.writing() as connection:
            self._note_use(connection, model, versions)

    def known(self, model: str, versions: Sequence[str]) -> set[str]:
        """Those of the versions that there are."""
        query = sa.select(_versions.c.version).where(_versions.c.model == model, _versions.c.version.in_(versions))
        with self.reading() as connection:
            return {str(row[0]) for row in connection.execute(query)}

    def versions(self, model: str) -> list[VersionRow]:
        """All of a model, the earliest first, without their content."""
        columns = [column for column in _versions.c if column.name not in ("content", "used")]
        query = sa.select(*columns).where(_versions.c.model == model).order_by(_versions.c.created)
        with self.reading() as connection:
            return [VersionRow(**row, content=b"") for row in connection.execute(query).mappings()]

    def version(self, model: str, version: str) -> VersionRow | None:
        """One, with its content."""
        columns = [column for column in _versions.c if column.name != "used"]
        query = sa.select(*columns).where(_versions.c.model == model, _versions.c.version == version)
        with self.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else VersionRow(**row)

    def drop_versions(self, model: str, versions: Sequence[str]) -> None:
        """Forget versions; the active one stays."""
        kept = sa.select(_active.c.version).where(_active.c.model == model)
        with self.writing() as connection:
            connection.execute(
                sa.delete(_versions).where(
                    _versions.c.model == model, _versions.c.version.in_(versions), _versions.c.version.not_in(kept)
                )
            )
            self.count_change(connection)

    def active(self, model: str) -> str:
        """The version that answers; empty where none was ever promoted."""
        with self.reading() as connection:
            return str(connection.execute(sa.select(_active.c.version).where(_active.c.model == model)).scalar() or "")

    def active_before(self, model: str) -> str:
        """The version that answered before the active one; empty where there was none."""
        with self.reading() as connection:
            return str(connection.execute(sa.select(_active.c.before).where(_active.c.model == model)).scalar() or "")

    def chosen(self, model: str) -> float:
        """When somebody chose the active version, by promoting it or rolling back to it; 0 where the learner did, or nobody."""
        with self.reading() as connection:
            found = connection.execute(
                sa.select(_active.c.changed, _active.c.why).where(_active.c.model == model)
            ).first()
        return float(found[0]) if found is not None and str(found[1]).startswith((PROMOTED, ROLLED_BACK)) else 0.0

    def promote(self, model: str, version: str, *, read: str, why: str) -> bool:
        """Let a version answer if the active one is still the one that was read; whether it was."""
        now = time.time()
        with self.writing() as connection:
            done = self.put_active(connection, model, version, read, why, now)
            if done:
                self.count_change(connection)
        return done

    def package(self, model: str) -> str:
        """The digest of the package that a model was served from last; empty where it never was."""
        with self.reading() as connection:
            found = connection.execute(sa.select(_packages.c.package).where(_packages.c.model == model)).scalar()
        return str(found or "")

    def set_package(self, model: str, package: str) -> None:
        """Say which package a model is served from."""
        if self.package(model) == package:
            return
        values = {"model": model, "package": package}
        insert = self._insert(_packages).values(values)
        with self.writing() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["model"], set_=values))
            self.count_change(connection)

    def changes(self) -> int:
        """A number that grows with every change of versions and keys: what replicas poll."""
        with self.reading() as connection:
            return int(connection.execute(sa.select(_meta.c.value).where(_meta.c.name == "changes")).scalar() or 0)

    # -- learners

    def lease(self, model: str, holder: str, seconds: float) -> bool:
        """Take or renew the right to learn for a model; False where another has it."""
        now = time.time()
        values = {"model": model, "holder": holder, "expires": now + seconds}
        with self.writing() as connection:
            insert = self._insert(_leases).values(values)
            ahead = _leases.c.expires > now + 2 * seconds  # of a clock that was set back since
            free = sa.or_(_leases.c.holder == holder, _leases.c.expires < now, ahead)
            held = connection.execute(
                insert.on_conflict_do_update(index_elements=["model"], set_=values, where=free).returning(
                    _leases.c.holder
                )
            ).scalar()
        return held == holder

    def learns(self, model: str) -> bool:
        """Whether a learner is at work for a model, or was and has not given its right back."""
        with self.reading() as connection:
            lease = sa.select(_leases.c.holder).where(_leases.c.model == model)
            return connection.execute(lease).scalar() is not None

    def release(self, model: str, holder: str) -> None:
        """Give the right back."""
        with self.writing() as connection:
            connection.execute(sa.delete(_leases).where(_leases.c.model == model, _leases.c.holder == holder))

    def drop_leases(self) -> None:
        """Let anyone learn: no learner is at work."""
        with self.writing() as connection:
            connection.execute(sa.delete(_leases))

    def distrusts(self) -> int:
        """A number that changes with those whose labels count for nothing."""
        with self.reading() as connection:
            return int(connection.execute(sa.select(_meta.c.value).where(_meta.c.name == _DISTRUSTS)).scalar() or 0)

    def lock_distrusts(self, connection: sa.Connection) -> int:
        """As `distrusts`, which no other transaction changes before this one ends."""
        query = sa.select(_meta.c.value).where(_meta.c.name == _DISTRUSTS).with_for_update()
        return int(connection.execute(query).scalar() or 0)

    def count_distrust(self, connection: sa.Connection) -> None:
        """Change what `distrusts` says, within a transaction: every learner begins again, and its status says so from now on."""
        connection.execute(sa.update(_meta).where(_meta.c.name == _DISTRUSTS).values(value=_meta.c.value + 1))
        values = {"position": 0, "version": "", "note": BEGINS_AGAIN, "changed": time.time()}
        connection.execute(sa.update(_learners).values(values))

    def learner(self, model: str) -> tuple[int, str, str, bytes] | None:
        """Of a model's learner its position, the version it published last, a note and its state."""
        query = sa.select(_learners.c.position, _learners.c.version, _learners.c.note, _learners.c.content)
        with self.reading() as connection:
            row = connection.execute(query.where(_learners.c.model == model)).first()
        return None if row is None else (int(row[0]), str(row[1]), str(row[2]), bytes(row[3]))

    def learner_status(self, model: str) -> tuple[int, str, str, float] | None:
        """As `learner`, with the time of its last word in place of its state."""
        query = sa.select(_learners.c.position, _learners.c.version, _learners.c.note, _learners.c.changed)
        with self.reading() as connection:
            row = connection.execute(query.where(_learners.c.model == model)).first()
        return None if row is None else (int(row[0]), str(row[1]), str(row[2]), float(row[3]))

    def learnt(
        self,
        model: str,
        *,
        holder: str,
        position: int,
        content: bytes,
        note: str,
        version: VersionRow | None = None,
        promoted_from: str | None = None,
        why: str = "",
        distrusts: int | None = None,
        erasures: int | None = None,
        fresh: bool = False,
    ) -> bool:
        """In one transaction a learner's state, its position, the version that it publishes, and its promotion.

        Parameters
        ----------
        holder
            Who must still hold the lease.
        promoted_from
            The active version as it was read; the new one takes its place if it is still that.
        distrusts
            As `distrusts` said when it began to learn; None: whatever it says.
        erasures
            `erasures` as it was when the learner's state and rows were read.
        fresh
            Whether it began anew, with the labels that there are, so that nothing erased is in it.

        Returns
        -------
        bool
            False, and nothing is stored, where the lease is another's, others are distrusted now, or something was erased meanwhile.
        """
        now = time.time()
        with self.writing() as connection:
            lease = sa.select(_leases.c.holder).where(_leases.c.model == model, _leases.c.expires >= now)
            if connection.execute(lease).scalar() != holder:
                return False
            if distrusts is not None and self.lock_distrusts(connection) != distrusts:
                return False
            if erasures is not None and erasures != self._erasures(connection):
                return False
            inherited = sa.and_(marks_table.c.model == model, marks_table.c.version == "")
            if fresh:
                connection.execute(sa.delete(marks_table).where(inherited))
            before = connection.execute(sa.select(_learners.c.version).where(_learners.c.model == model)).scalar()
            values = {
                "model": model,
                "position": position,
                "version": version.version if version is not None else str(before or ""),
                "changed": now,
                "note": note,
                "content": content,
            }
            connection.execute(
                self._insert(_learners).values(values).on_conflict_do_update(index_elements=["model"], set_=values)
            )
            if version is not None:
                self._put_version(connection, version)
                marks = connection.execute(sa.select(marks_table.c.tombstone).where(inherited)).scalars().all()
                rows = [{"model": model, "version": version.version, "tombstone": each, "time": now} for each in marks]
                if rows:
                    connection.execute(sa.insert(marks_table), rows)
                if promoted_from is not None:
                    self.put_active(connection, model, version.version, promoted_from, why, now)
        return True

    # -- what was erased

    def erasures(self) -> int:
        """A number that grows with every erasure: what a learner read before is read again."""
        with self.reading() as connection:
            return self._erasures(connection)

    def count_deletions(self, connection: sa.Connection, counts: Mapping[str, int]) -> None:
        """Add to what was deleted, within a transaction."""
        now = time.time()
        for kind, count in counts.items():
            if count:
                row = self._insert(deletions_table).values(kind=kind, count=count, last=now)
                more = {"count": deletions_table.c.count + count, "last": now}
                connection.execute(row.on_conflict_do_update(index_elements=["kind"], set_=more))

    def erased(self, connection: sa.Connection) -> None:
        """Say that something was erased, within a transaction: to learners, and to workers."""
        row = self._insert(_meta).values(name="erasures", value=1)
        connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"value": _meta.c.value + 1}))
        self.count_change(connection)

    def marked(self, model: str) -> set[str]:
        """Versions that learnt from what was erased since."""
        with self.reading() as connection:
            query = sa.select(marks_table.c.version).where(marks_table.c.model == model, marks_table.c.version != "")
            return {str(row[0]) for row in connection.execute(query)}

    def deletions(self) -> dict[str, int]:
        """How much was deleted, by kind: for its age, or with somebody who was forgotten."""
        with self.reading() as connection:
            rows = connection.execute(sa.select(deletions_table.c.kind, deletions_table.c.count))
            return {str(kind): int(count) for kind, count in rows}

    def to_erase(self) -> list[tuple[str, bytes, float]]:
        """Of erasures that have not ended: the id, the digest of the tenant whose answers go, and up to when they were given."""
        table = tombstones_table.c
        query = sa.select(table.id, table.tenant, table.began).where(table.state == "begun")
        with self.reading() as connection:
            return [(str(row[0]), bytes(row[1]), float(row[2])) for row in connection.execute(query)]

    def purge(self) -> bool:
        """Let nothing that was deleted be left in files beside the database; whether that is so.

        What is deleted in SQLite is overwritten with zeros (``secure_delete``), and what was written ahead is gone once it is in the file
        and cut off, which nobody may be reading meanwhile. PostgreSQL removes dead rows when it vacuums.
        """
        try:
            with self._engine.connect() as connection:
                if self._sqlite:
                    return connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0] == 0
                own = connection.execution_options(isolation_level="AUTOCOMMIT")
                for table in (_feedback, _versions, _learners, jobs_table, _keys):
                    own.exec_driver_sql(f"VACUUM {table.name}")
                return True
        except exc.SQLAlchemyError as error:
            raise self._trouble(error, "cannot be written") from error

    # -- keys

    def add_key(
        self,
        *,
        id_: str,
        digest: bytes,
        tenant: str,
        scopes: Sequence[str],
        expires: float | None = None,
        rate: float | None = None,
        burst: float | None = None,
        others_end: float | None = None,
    ) -> bool:
        """Store a key's digest.

        Parameters
        ----------
        others_end
            The moment at which the keys that the id has already end; None: it must have none.

        Returns
        -------
        bool
            False, and nothing is stored, where the id has a key already.
        """
        values = {
            "id": id_,
            "digest": digest,
            "tenant": tenant,
            "scopes": " ".join(scopes),
            "created": time.time(),
            "expires": expires,
            "revoked": None,
            "rate": rate,
            "burst": burst,
        }
        with self.writing() as connection:
            if others_end is not None:
                self._end_key(connection, id_, others_end)
            elif connection.execute(sa.select(_keys.c.id).where(_keys.c.id == id_)).first() is not None:
                return False
            connection.execute(sa.insert(_keys).values(values))
            self.count_change(connection)
        return True

    def end_key(self, id_: str, *, at: float) -> bool:
        """Let the keys of an id be valid no longer than to a moment; whether there is one."""
        with self.writing() as connection:
            known = connection.execute(sa.select(_keys.c.id).where(_keys.c.id == id_)).first() is not None
            self._end_key(connection, id_, at)
            self.count_change(connection)
        return known

    def all_keys(self) -> list[Mapping[str, Any]]:
        """All keys, the earliest first, as digests.

        Each with ``id``, ``digest``, ``tenant``, ``scopes``, ``created``, ``expires``, ``revoked``, ``rate`` and ``burst``.
        """
        with self.reading() as connection:
            return [dict(row) for row in connection.execute(sa.select(_keys).order_by(_keys.c.created)).mappings()]

    # -- private

    def _erasures(self, connection: sa.Connection) -> int:
        return int(connection.execute(sa.select(_meta.c.value).where(_meta.c.name == "erasures")).scalar() or 0)

    def _opened(self, durability: Durability) -> sa.Engine:
        if not self._sqlite:
            scheme, _, rest = self.url.partition("://")
            if not scheme.startswith("postgresql"):
                raise SpecError(
                    f"'{scheme}' is no database of the service", where="--state", hint="give a file or postgresql://…"
                )
            try:
                return sa.create_engine(f"postgresql+psycopg://{rest}", pool_pre_ping=True)
            except ImportError as error:
                raise MissingExtra("psycopg", "postgres", where="--state") from error
        path = Path(self.url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # what it holds is for nobody else; SQLite makes its other files alike
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError(
                f"cannot be made ({error.strerror})", where=self.url, hint="give another --state"
            ) from error
        engine = sa.create_engine(f"sqlite:///{path}")

        def prepare(connection: Any, record: Any) -> None:
            connection.isolation_level = None  # transactions are begun below, and by nothing else
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten with zeros
            cursor.execute(f"PRAGMA synchronous={'FULL' if durability == 'power' else 'NORMAL'}")
            cursor.close()

        event.listen(engine, "connect", prepare)
        return engine

    @contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """A connection for questions. Raises `StoreError` where there is no answer."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            raise StoreError(  # clients are told what it is, and not the database's own words
                "the state cannot be read now", where=self._place, hint=f"look at its disk or server ({_reason(error)})"
            ) from error

    @contextmanager
    def writing(self) -> Generator[sa.Connection]:
        """A transaction that is committed at the end. Raises `StoreError` where that fails: then nothing is stored."""
        try:
            with self._engine.connect() as connection:
                if self._sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.exec_driver_sql("ROLLBACK") if self._sqlite else connection.rollback()
                    raise
                connection.exec_driver_sql("COMMIT") if self._sqlite else connection.commit()
        except exc.SQLAlchemyError as error:
            raise self._trouble(error, "cannot be written") from error

    def _trouble(self, error: Exception, what: str) -> StoreError:
        return StoreError(f"the state {what} ({_reason(error)})", where=self._place, hint="look at its disk or server")

    @property
    def _place(self) -> str:
        """Its address without a password."""
        return self.url.rpartition("@")[2]

    def _end_key(self, connection: sa.Connection, id_: str, at: float) -> None:
        """An earlier end stays."""
        later = sa.or_(_keys.c.revoked.is_(None), _keys.c.revoked > at)
        connection.execute(sa.update(_keys).where(_keys.c.id == id_, later).values(revoked=at))

    def _make_room(self, connection: sa.Connection, model: str, owner: str, most: int) -> list[str] | None:
        """Forget versions of an owner so that he may have one more; None, and none is forgotten, where too few may go."""
        own = sa.select(_versions.c.version).where(_versions.c.model == model, _versions.c.owner == owner)
        names = [str(row[0]) for row in connection.execute(own.order_by(_versions.c.used, _versions.c.created))]
        over = len(names) + 1 - most
        if over <= 0:
            return []
        answers = connection.execute(sa.select(_active.c.version, _active.c.before).where(_active.c.model == model))
        pinned = {str(name) for row in answers for name in row}
        going = [name for name in names if name not in pinned][:over]
        if len(going) < over:
            return None
        connection.execute(sa.delete(_versions).where(_versions.c.model == model, _versions.c.version.in_(going)))
        return going

    def _note_use(self, connection: sa.Connection, model: str, versions: Sequence[str]) -> None:
        if versions:
            used = sa.update(_versions).where(_versions.c.model == model, _versions.c.version.in_(versions))
            connection.execute(used.values(used=time.time()))

    def _put_version(self, connection: sa.Connection, row: VersionRow) -> None:
        now = time.time()
        values = {
            "model": row.model,
            "version": row.version,
            "kind": row.kind,
            "parent": row.parent,
            "owner": row.owner,
            "created": now,
            "used": now,
            "package": row.package,
            "note": row.note,
            "content": row.content,
        }
        connection.execute(sa.insert(_versions).values(values))
        self.count_change(connection)

    def put_active(self, connection: sa.Connection, model: str, version: str, read: str, why: str, now: float) -> bool:
        """As `promote`, within a transaction; who polls is not told."""
        values = {"version": version, "before": read, "changed": now, "why": why}
        if not read:
            insert = self._insert(_active).values(model=model, **values).on_conflict_do_nothing()
            return bool(connection.execute(insert.returning(_active.c.model)).scalar())
        update = sa.update(_active).where(_active.c.model == model, _active.c.version == read).values(values)
        return bool(connection.execute(update).rowcount)

    def count_change(self, connection: sa.Connection) -> None:
        """Tell who polls of a change, within a transaction."""
        connection.execute(sa.update(_meta).where(_meta.c.name == "changes").values(value=_meta.c.value + 1))


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
