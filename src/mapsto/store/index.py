"""A database of runs, steps, metrics and lineage, for questions that files answer slowly.

SQLite beside the store by default, PostgreSQL (or whatever SQLAlchemy speaks) by the URL in ``MAPSTO_DATABASE``. It holds nothing
of its own: `rebuild` makes it again from the store.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from mapsto.errors import MapstoError, MissingExtra, StoreError, command
from mapsto.store.digest import digest_bytes
from mapsto.store.store import Store

__all__ = ["Index"]

_meta = sql.MetaData()
_runs = sql.Table(
    "runs",
    _meta,
    sql.Column("id", sql.String(200), primary_key=True),
    sql.Column("name", sql.String(200), index=True),
    sql.Column("seed", sql.BigInteger),
    sql.Column("started", sql.Float, index=True),
    sql.Column("seconds", sql.Float),
)
_steps = sql.Table(
    "steps",
    _meta,
    sql.Column("run", sql.String(200), primary_key=True),
    sql.Column("position", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(200), index=True),
    sql.Column("label", sql.String(200)),
    sql.Column("about", sql.Integer),
    sql.Column("key", sql.String(64), index=True),
    sql.Column("digest", sql.String(64), index=True),
    sql.Column("hit", sql.Boolean),
    sql.Column("seconds", sql.Float),
)
_lineage = sql.Table(
    "lineage",
    _meta,
    sql.Column("run", sql.String(200), primary_key=True),
    sql.Column("position", sql.Integer, primary_key=True),
    sql.Column("takes", sql.Integer, primary_key=True),
)
_metrics = sql.Table(
    "metrics",
    _meta,
    sql.Column("run", sql.String(200), primary_key=True),
    sql.Column("position", sql.Integer, primary_key=True),
    sql.Column("metric", sql.String(200), primary_key=True),
    sql.Column("value", sql.Float),
    sql.Column("unit", sql.String(40)),
    sql.Column("ci95", sql.Float),
    sql.Column("n", sql.Integer),
)


_OF_THE_DISK = ("disk is full", "disk I/O error", "readonly database")
"""What SQLite says where nothing is wrong with the database itself."""


class Index:
    """The database of one store."""

    def __init__(self, store: Store, url: str | None = None) -> None:
        self.store = store
        self.url = url or os.environ.get("MAPSTO_DATABASE") or f"sqlite:///{store.path('index.sqlite')}"
        try:
            waits = {"timeout": 30} if self.url.startswith("sqlite") else {}
            if self.url.startswith("postgresql"):
                waits = {"connect_timeout": 10}
            # a database that was started again between two runs costs neither of them its entry
            self.engine = sql.create_engine(self.url, connect_args=waits, pool_pre_ping=True)
            try:
                _meta.create_all(self.engine)
            except OperationalError:
                _meta.create_all(self.engine)  # another process made the tables at the same moment
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "postgres", where="MAPSTO_DATABASE") from error
        except SQLAlchemyError as error:
            place = sql.make_url(self.url).render_as_string(hide_password=True)
            raise StoreError(
                f"the index database cannot be opened: {str(error).splitlines()[0]}",
                where=place,
                hint=self._remedy(error),
            ) from error

    def add(self, run: Mapping[str, Any]) -> None:
        """Write one run as `mapsto.run.result.summary_of` gives it, with the metrics of its reports; an earlier entry is replaced."""
        rows = [_fitting(_steps, {**_step_row(step), "run": run["id"]}) for step in run["steps"]]
        lineage = [{"run": run["id"], "position": s["id"], "takes": t} for s in run["steps"] for t in s["inputs"]]
        metrics = [_fitting(_metrics, row) for step in run["steps"] for row in self._metric_rows(run["id"], step)]
        with self._explained(), self.engine.begin() as connection:
            for table in (_metrics, _lineage, _steps):
                connection.execute(table.delete().where(table.c.run == run["id"]))
            connection.execute(_runs.delete().where(_runs.c.id == run["id"]))
            connection.execute(
                _runs.insert(),
                [_fitting(_runs, {name: run[name] for name in ("id", "name", "seed", "started", "seconds")})],
            )
            for table, values in ((_steps, rows), (_lineage, lineage), (_metrics, metrics)):
                if values:
                    connection.execute(table.insert(), values)

    def _remedy(self, error: SQLAlchemyError) -> str:
        if any(said in str(error) for said in _OF_THE_DISK):
            return "free some space, or check the limits (`ulimit -f`, a quota) and the permissions, or give another --store"
        again = command("mapsto store index --store {store}", store=self.store.url or self.store.root)
        return f"it holds nothing of its own: delete it (or check MAPSTO_DATABASE), then `{again}` makes it again"

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            place = self.engine.url.render_as_string(hide_password=True)
            raise StoreError(
                f"the index database cannot be read or written: {str(error).splitlines()[0]}",
                where=place,
                hint=self._remedy(error),
            ) from error

    def _metric_rows(self, run: str, step: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not step["digest"]:
            return []  # a choice went on without it
        try:
            manifest = self.store.manifest(step["digest"])
            record = self.store.record(step["key"])
        except MapstoError:
            return []  # an artifact that was collected since: the run's steps are still worth listing
        measured = (record.measured if record is not None else {}).get("metrics", {})
        found: dict[str, Any] = {**manifest.get("metrics", {}), **measured}
        return [
            {"run": run, "position": step["id"], "metric": name}
            | {column: metric.get(column) for column in ("value", "unit", "ci95", "n")}
            for name, metric in found.items()
        ]

    def rebuild(self) -> int:
        """Make the database again from the store; gives the number of runs."""
        with self._explained():
            _meta.drop_all(self.engine)
            _meta.create_all(self.engine)
        runs = list(self.store.runs())
        for run in runs:
            try:
                self.add(run)
            except (LookupError, TypeError, AttributeError) as error:
                raise StoreError(
                    f"a run's file is damaged ({type(error).__name__}: {error})",
                    where=str(self.store.path("runs")),
                    hint="delete the file that somebody has changed",
                ) from error
        return len(runs)

    def runs(self, *, name: str | None = None) -> list[dict[str, Any]]:
        """Runs, newest first."""
        query = sql.select(_runs).order_by(_runs.c.started.desc())
        if name is not None:
            query = query.where(_runs.c.name == name)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """Every metric of a run with its step's name and label."""
        query = (
            sql.select(_steps.c.name, _steps.c.label, _steps.c.about, _metrics)
            .join(_steps, (_steps.c.run == _metrics.c.run) & (_steps.c.position == _metrics.c.position))
            .where(_metrics.c.run == run)
            .order_by(_metrics.c.position, _metrics.c.metric)
        )
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def seconds_of(self, name: str) -> float | None:
        """The mean time that steps of a name took when they ran, for estimates."""
        query = sql.select(sql.func.avg(_steps.c.seconds)).where(
            (_steps.c.name == name) & (_steps.c.hit == sql.false()) & (_steps.c.digest != "")
        )
        with self._explained(), self.engine.connect() as connection:
            return connection.execute(query).scalar()


def _fitting(table: sql.Table, row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts the database takes: of names that data gave, such as those of classes, nobody bounds the length.

    >>> fitted = _fitting(_metrics, {"metric": "recall of " + "x" * 300, "value": 1.0, "unit": "%"})
    >>> fitted["metric"][:14], len(fitted["metric"]), fitted["value"], fitted["unit"]
    ('recall of xxxx', 200, 1.0, '%')
    """
    fitted = dict(row)
    for name, text in row.items():
        longest = getattr(table.c[name].type, "length", None)
        if isinstance(text, str) and longest is not None:
            whole = text.replace("\0", "␀")  # which PostgreSQL refuses
            own = f"…{digest_bytes(text.encode('utf-8', 'replace'))[:12]}"
            fitted[name] = whole if len(whole) <= longest else whole[: longest - len(own)] + own
    return fitted


def _step_row(step: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "label", "key", "digest", "hit", "seconds")
    return {"position": step["id"], "about": step["of"], **{name: step[name] for name in names}}
