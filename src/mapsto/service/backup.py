"""Copies of a service's state in SQLite: made while it runs, and put back where none does.

A copy of the file alone would lack what was written ahead, and a file that is put beside what was written ahead of another is
damaged by it. SQLite's own backup takes what one moment holds, while others read and write.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mapsto.atomic import new_file
from mapsto.errors import SpecError, StoreError
from mapsto.service.state import State
from mapsto.store.files import disk_error

__all__ = ["Contents", "back_up", "replaced", "restore"]


@dataclass(frozen=True)
class Contents:
    """What a copy holds."""

    labels: int
    versions: int
    keys: int


def replaced(place: Path) -> Path:
    """Where the state goes that a restored one takes the place of."""
    return place.with_name(f"{place.name}.replaced")


def back_up(place: Path, out: Path, *, force: bool = False) -> Contents:
    """Copy the state at a place into one file, which is on the disk when this returns.

    Raises
    ------
    SpecError
        There is a file of that name, and `force` does not say that it may go.
    StoreError
        It is no state, is damaged, or cannot be copied.
    """
    if out.resolve() in {place.resolve().with_name(f"{place.resolve().name}{end}") for end in ("", "-wal", "-shm")}:
        raise SpecError("is the state itself", where=str(out), hint="give another --out")
    if out.exists() and not force:
        raise SpecError("is there already", where=str(out), hint="give another --out, or --force")
    if out.is_file():
        _require_alone(out)
    State(place).close()  # which says what is wrong with one that is none
    try:
        with new_file(out, durable=True) as fresh:
            with _reading(place), closing(sqlite3.connect(place)) as source, closing(sqlite3.connect(fresh)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file
            fresh.chmod(0o600)  # it holds what clients sent
            return _checked(fresh, out)
    except OSError as error:
        raise disk_error(error, out) from error


def restore(backup: Path, place: Path, *, force: bool = False) -> Contents:
    """Put a copy at the place of a state.

    Parameters
    ----------
    force
        Whether a state that is there may go: it is kept as `replaced` says.

    Raises
    ------
    SpecError
        There is a state, and `force` does not say that it may go; or there is no copy.
    StoreError
        The copy is damaged, or of a later mapsto; or a service runs on the state that is there.
    """
    if not backup.is_file():
        raise SpecError("there is no such file", where=str(backup), hint="give --from and a file that a backup made")
    if place.exists():
        if not force:
            raise SpecError("there is a state already", where=str(place), hint="with --force it is moved aside")
        _require_alone(place)
    try:
        with new_file(place, durable=True) as fresh:
            shutil.copyfile(backup, fresh)
            fresh.chmod(0o600)
            contents = _checked(fresh, backup)
            state = State(fresh)
            state.drop_leases()  # of the learner that was at work when the copy was made
            state.close()
            if place.exists():
                for name in (
                    place.name,
                    f"{place.name}-wal",
                    f"{place.name}-shm",
                ):  # what was written ahead goes with its file
                    if place.with_name(name).exists():
                        place.with_name(name).replace(
                            replaced(place).with_name(name.replace(place.name, replaced(place).name))
                        )
    except OSError as error:
        raise disk_error(error, place) from error
    return contents


@contextmanager
def _reading(place: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"cannot be copied ({error})", where=str(place), hint="look at its disk") from error


def _checked(path: Path, shown: Path) -> Contents:
    """What a file holds. Raises `StoreError` where it is damaged or no state."""
    try:
        with closing(sqlite3.connect(path)) as opened:
            (said,) = opened.execute("PRAGMA integrity_check").fetchone()
            if said != "ok":
                raise StoreError(f"is damaged ({said.splitlines()[0]})", where=str(shown), hint="take another copy")
            counts = [
                opened.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in ("feedback WHERE model != ''", "versions", "keys")
            ]
    except sqlite3.Error as error:
        raise StoreError(f"is no state of a service ({error})", where=str(shown), hint="take another copy") from error
    return Contents(*counts)


def _require_alone(place: Path) -> None:
    """Raises `StoreError` where a process has the state open: SQLite leaves its journal only to the one that is alone."""
    try:
        with closing(sqlite3.connect(place, timeout=0)) as opened:
            opened.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise StoreError("a service runs on it", where=str(place), hint="end that first") from error
    except sqlite3.DatabaseError:  # damaged: that is why it is replaced
        return
