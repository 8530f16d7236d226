"""The labels that a service was told, with the features that its answers stood on: the tables, and reading them.

The service writes these tables (`mapsto.service.state`), and whoever reads its log reads them here, changing nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from mapsto.errors import DataError, MissingExtra, SpecError, nearest

__all__ = ["FeedbackLog", "LoggedLabel", "feedback_table", "is_held_back", "packages_table", "written"]

_HELD_BACK = 5
"""One label of so many is held back from the service's learner."""
_PLACES = ("state.sqlite", "service/state.sqlite")
"""Where a folder has its service's state."""
_BUSY_SECONDS = 10.0


def feedback_table(tables: sa.MetaData) -> sa.Table:
    """A row for each label: what it is a label of, and the features, float32, of a package."""
    return sa.Table(
        "feedback",
        tables,
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("features", sa.LargeBinary, nullable=False),
        sa.Column("package", sa.Text, nullable=False, server_default=""),
        sa.Column("caller", sa.Text, nullable=False, server_default=""),
        sa.UniqueConstraint("model", "tenant", "event"),
    )


def packages_table(tables: sa.MetaData) -> sa.Table:
    """Of each model the digest of the package that it was served from last."""
    return sa.Table(
        "packages",
        tables,
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("package", sa.Text, nullable=False),
    )


def is_held_back(tenant: str, event: str) -> bool:
    """Whether the service's learner never sees a label: by its event alone, so that it is so after every restart.

    >>> 150 < sum(is_held_back("a", str(i)) for i in range(1000)) < 250
    True
    """
    return hashlib.sha256(f"{tenant}/{event}".encode()).digest()[0] % _HELD_BACK == 0


class LoggedLabel(NamedTuple):
    """A row of the log."""

    position: int
    event: str
    tenant: str
    time: float
    """When the label was stored, seconds of the epoch."""
    label: str
    features: bytes
    """float32."""
    package: str


_tables = sa.MetaData()
_feedback, _packages = feedback_table(_tables), packages_table(_tables)


class FeedbackLog:
    """The log of a service's state, which is read and never written.

    Parameters
    ----------
    state
        A file, a folder with ``state.sqlite`` or ``service/state.sqlite``, or ``postgresql://USER@HOST/NAME`` (extra `postgres`).

    Raises
    ------
    SpecError
        The address holds a password, or is of no such database.
    DataError
        There is no such file.
    """

    def __init__(self, state: str) -> None:
        self.place = state
        self._engine = self._of_server(state) if "://" in state else self._of_file(state)

    @classmethod
    @contextmanager
    def opened(cls, state: str) -> Generator[FeedbackLog]:
        """The log, closed in the end."""
        log = cls(state)
        try:
            yield log
        finally:
            log._engine.dispose()

    def package(self, model: str) -> str:
        """The digest of the package that a model was served from last, else of its last label. Raises `DataError` where it has no label."""
        last = sa.select(_feedback.c.package).where(_feedback.c.model == model).order_by(_feedback.c.position.desc())
        with self._reading() as connection:
            served = connection.execute(sa.select(_packages.c.package).where(_packages.c.model == model)).scalar()
            latest = connection.execute(last.limit(1)).scalar()
            if served is None and latest is None:
                known = [str(row[0]) for row in connection.execute(sa.select(_feedback.c.model).distinct())]
                raise DataError(f"holds no label for '{model}'", where=self.place, hint=nearest(model, known))
        return str(served or latest or "")

    def packages(self, model: str) -> list[str]:
        """The digests of the packages that a model's labels stand on."""
        with self._reading() as connection:
            query = sa.select(_feedback.c.package).where(_feedback.c.model == model).distinct()
            return [str(row[0]) for row in connection.execute(query)]

    def last(self, model: str) -> int:
        """The position of the last label of a model; 0 where it has none."""
        with self._reading() as connection:
            query = sa.select(sa.func.max(_feedback.c.position)).where(_feedback.c.model == model)
            return int(connection.execute(query).scalar() or 0)

    def labels(self, model: str, *, after: int, upto: int | None, most: int) -> list[LoggedLabel]:
        """Labels of a model beyond a position, in their order."""
        query = (
            sa.select(*(_feedback.c[name] for name in LoggedLabel._fields))
            .where(_feedback.c.model == model, _feedback.c.position > after)
            .order_by(_feedback.c.position)
            .limit(most)
        )
        with self._reading() as connection:
            rows = connection.execute(query if upto is None else query.where(_feedback.c.position <= upto))
            return [LoggedLabel(*row) for row in rows]

    # -- private

    def _of_server(self, url: str) -> sa.Engine:
        scheme, _, rest = url.partition("://")
        user, sign, _ = rest.partition("@")
        if ":" in user and sign:
            self.place = f"{scheme}://{rest.partition('@')[2]}"
            raise SpecError(
                "the address holds a password, which would be written into recipes and reports",
                where=self.place,
                hint="leave it out, and set PGPASSWORD or ~/.pgpass",
            )
        if not scheme.startswith("postgresql"):
            raise SpecError(f"'{scheme}' is no database of the service", hint="give a file or postgresql://…")
        try:
            return sa.create_engine(f"postgresql+psycopg://{rest}", pool_pre_ping=True)
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres", where="streams.feedback") from error

    def _of_file(self, state: str) -> sa.Engine:
        from mapsto.data.io.download import locate

        path = locate(state, what="the service's state")
        if path.is_dir():
            found = next((path / name for name in _PLACES if (path / name).is_file()), None)
            if found is None:
                raise DataError(
                    "holds no state of a service", where=str(path), hint=f"it would be {' or '.join(_PLACES)} in it"
                )
            path = found
        self.place = str(path.absolute())
        address = f"file:{quote(self.place)}?mode=ro"

        def connect() -> Any:
            return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)

        return sa.create_engine("sqlite://", creator=connect)

    @contextmanager
    def _reading(self) -> Generator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise DataError(
                f"cannot be read as the state of a service ({reason})",
                where=self.place.rpartition("@")[2],
                hint="give the file or database that `serve` keeps its state in",
            ) from error


def written(path: Path, model: str, labels: list[LoggedLabel]) -> None:
    """A state that holds these labels alone, for the contract."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        _tables.create_all(connection)
        values = [{**each._asdict(), "model": model, "version": "1", "answer": ""} for each in labels]
        connection.execute(sa.insert(_feedback), values)
    engine.dispose()
