"""What the columns of a table of events are for: the target, the id, the time, and those to predict from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Stream, Task
from mapsto_runtime.shown import few, short

__all__ = ["Roles", "TableFile"]


@dataclass(frozen=True)
class Roles:
    """The names of columns, as the fields of a stream say."""

    target: str | None
    """None: every event is a question."""
    task: Task
    features: tuple[str, ...] | None
    """None: all others."""
    id: str | None
    time: str | None

    @property
    def others(self) -> tuple[str, ...]:
        """The columns that are not predicted from."""
        return tuple(name for name in (self.target, self.id, self.time) if name is not None)

    def of_later(self, names: Sequence[str]) -> Roles:
        """The roles in a later file of a folder, which may hold labels and ids alone: its events then have no time."""
        return self if self.time in names else replace(self, time=None)

    def require_apart(self, where: str) -> None:
        """Raises `SpecError` where a column is for two things."""
        roles = {"target": self.target, "id": self.id, "time": self.time}
        roles = {role: name for role, name in roles.items() if name is not None}
        for role, name in roles.items():
            others = [other for other, its in roles.items() if its == name and other != role]
            if others or name in (self.features or ()):
                raise SpecError(
                    f"column '{short(name)}' is the {role}, and {' and '.join(others) if others else 'one of features'} too",
                    where=where,
                    hint="give each a column of its own",
                )

    def chosen(self, names: Sequence[str], where: str, *, hint: str = "") -> tuple[str, ...]:
        """The columns to predict from, of a table with these. Raises `SpecError` or `DataError` where they do not fit the fields.

        `hint` is added to the advice where a column is not there.
        """
        roles = {"target": self.target, "id": self.id, "time": self.time}
        roles = {role: name for role, name in roles.items() if name is not None}
        for name in (*roles.values(), *(self.features or ())):
            if name not in names:
                raise SpecError(
                    f"there is no column '{short(name)}'", where=where, hint=nearest(name, names, most=20) + hint
                )
        self.require_apart(where)
        chosen = self.features or tuple(name for name in names if name and name not in roles.values())
        if not chosen:
            raise SpecError(
                "needs a column to predict from, other than the target, the id and the time",
                where=where,
                hint=f"its columns: {few(names, 20)}",
            )
        for name in (*chosen, *roles.values()):
            if names.count(name) > 1 or chosen.count(name) > 1:
                times = names.count(name)
                raise DataError(
                    f"{times} columns are named '{short(name)}'"
                    if times > 1
                    else f"features name '{short(name)}' twice",
                    where=where,
                    hint="rename or remove all but one",
                )
        return chosen


class TableFile(Stream):
    """The fields of every stream that reads one file of a table."""

    file: str = Field(description="The file: a path, or a path inside the data folder.")
    target: str | None = Field(
        default=None,
        description="The column to predict; without one there is nothing to learn, and events can only be answered.",
    )
    task: Task = Field(  # type: ignore[override] - a field where the base has a property
        default="classes",
        description="Whether the target holds classes, or numbers; a label that is no number is then set aside.",
    )
    features: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="The columns to predict from; by default all but the target, the id and the time.",
    )
    id: str | None = Field(
        default=None, description="The column that names an event, by which its label may come late."
    )
    time: str | None = Field(default=None, description="The column of times: seconds of the epoch, or as in ISO 8601.")

    @property
    def labelled(self) -> bool:
        return self.target is not None

    @property
    def roles(self) -> Roles:
        """What the columns are for."""
        return Roles(self.target, self.task, self.features, self.id, self.time)
