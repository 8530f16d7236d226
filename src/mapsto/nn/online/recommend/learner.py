"""The live learner of users and items: who is known, what each user has had, late labels, and what members were worth to whom.

What a label that comes late will need is kept by its id: the user, the item, what else the event said, and what the members answered.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import DomainError, nearest
from mapsto.kinds import Block, ColumnType, EventColumn, EventSignature
from mapsto.nn.online.event_rows import EventRows
from mapsto.nn.online.late_labels import LateLabels
from mapsto.nn.online.learning import Answered, Answers, StreamLearner, crowded
from mapsto.nn.online.recommend.columns import named
from mapsto.nn.online.recommend.known import Known, name_of
from mapsto.nn.online.recommend.selection import Selection
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Fields", "Recommender"]

_EDGES = (0, 1, 5, 20, 100)
"""Events of a user or of an item before, from which on the tables of the report tell them apart."""
_KEPT_OF_A_QUESTION = 3
"""Numbers before the rest of a question's row: the slot of its user, whose slot it was, and the slot of its item."""


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Of ``online.recommend``."""

    user: str | None
    item: str | None
    members: tuple[str, ...]
    factors: int
    regularisation: float
    change: float
    rate: float
    liked: float | None
    drawn: int
    catalogue: int
    most_users: int
    history: int
    late: int
    categories: int
    seed: int


class Recommender(StreamLearner):
    """What ratings and clicks have in common.

    Parameters
    ----------
    types
        Columns whose type is known before the first event.
    fields
        Of ``online.recommend``.
    members
        Names of the members, in the order of their answers.
    """

    _figure_name: str
    """What a member is judged by in the report's tables."""
    _figure_unit: str
    recommended_by: tuple[str, ...]
    """The names of the figures that `ranking` gives with each item."""

    def __init__(self, types: Mapping[str, ColumnType], fields: Fields, members: Sequence[str]) -> None:
        self.aside = {}
        self._fields, self._types = fields, dict(types)
        self._names: tuple[str, ...] = ()
        """The column of users and, of ratings, that of items, once they are known."""
        self._met: tuple[str, ...] = ()
        """The columns of the last block."""
        self._rows = EventRows(types, most_categories=fields.categories)
        self._users, self._items = Known(fields.most_users), Known(fields.catalogue)
        self._late = LateLabels(fields.late)
        self._selection = Selection(len(members))
        self._of_members = tuple(members)
        self._had: list[dict[int, None]] = []
        """By user, the items of the last labels, the oldest first."""
        self._events: tuple[list[int], list[int]] = ([], [])
        """Labels of each user and of each item."""
        self._tally = np.zeros((2, len(_EDGES), 2 + 2 * len(members)))
        """By how many events the user, and the item, had before: events, the answer's figure, the members', and their weights, summed."""
        self._signature: tuple[tuple[int, ...], EventSignature] | None = None
        if types:
            self._find_columns(tuple(types))

    # -- what ratings and clicks do each in their way

    @property
    @abstractmethod
    def _own_columns(self) -> tuple[EventColumn, ...]:
        """The columns of users and items."""

    @abstractmethod
    def _labels(self, block: Block, aside: dict[int, str]) -> list[Any]:
        """The label of each event, None without one; what is no label is added to the events that are set aside."""

    @abstractmethod
    def _has_no_room(self, item: str | None, label: Any) -> bool:
        """Whether the event is of an item that is new, where no more are kept."""

    @abstractmethod
    def _told(self, user: int, item: int, side: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each member answers; -1 for a user or an item that is unknown."""

    @abstractmethod
    def _scores(self, user: int, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The answer (K,)."""

    @abstractmethod
    def _learn(
        self, user: int, item: int, side: NDArray[np.float64], label: Any, told: NDArray[np.float64], scores: Any
    ) -> tuple[float, float]:
        """Learn a label; gives its number, or value, and its rank."""

    @abstractmethod
    def _enter_user(self, slot: int, born: int) -> None:
        """A new user takes a slot."""

    @abstractmethod
    def _enter_item(self, slot: int, born: int) -> None:
        """A new item takes a slot."""

    @abstractmethod
    def _of_items(self, user: int, items: NDArray[np.int64], side: NDArray[np.float64]) -> NDArray[np.float64]:
        """What items (n,), all known, are worth to a user."""

    def _cautious(self, worth: NDArray[np.float64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """By what items (n,) are ordered, of which this is what they are worth."""
        return worth

    def _as_shown(self, worth: NDArray[np.float64], least: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """The figures of `recommended_by` (n,) each, of what items are worth and what they are ordered by."""
        return (worth,)

    @abstractmethod
    def _figure(self, total: float, count: float) -> float:
        """What the tables show of a sum over so many events."""

    @abstractmethod
    def _restore(self, arrays: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
        """As `restore`, of what is not in common."""

    # -- StreamLearner

    @property
    def signature(self) -> EventSignature:
        users, items = self._users.entered, self._items.entered
        size = (users, items, self._rows.width, len(self._names))
        if self._signature is None or self._signature[0] != size:
            own = self._own_columns if self._names else ()
            classes = () if self.task == "values" else tuple(self._items.names)
            self._signature = (size, EventSignature(columns=(*own, *self._rows.columns), classes=classes))
        return self._signature[1]

    @property
    def doubts(self) -> list[str]:
        return [*map(crowded, self._rows.crowded)]

    def shares(self) -> Mapping[str, float]:
        return dict(zip(self._of_members, self._selection.weights(-1).tolist(), strict=True))

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        aside = dict(block.broken)
        labels, ids = self._labels(block, aside), block.ids.tolist()
        users, items, rest = self._cells(block)
        found: list[tuple[int, NDArray[np.float64]]] = []
        learnt: list[tuple[int, float, float]] = []
        for event, row in self._sides(rest, aside, learn=True):
            label = labels[event]
            if row is not None:
                side = row
                name = name_of(items[event])
                if self._has_no_room(name, label):
                    aside[event] = f"an item beyond the {self._fields.catalogue} that are kept"
                    continue
                user, item = self._meet_user(name_of(users[event])), self._meet_item(name)
                told = self._told(user, item, side)
                scores = self._scores(user, told)
                if label is None and ids[event]:
                    self._keep(ids[event], user, item, side, told, scores)
            elif label is None:
                continue
            else:
                kept = self._taken(ids[event])
                if kept is None:
                    aside[event] = "a label of an unknown id"
                    continue
                if self._has_no_room(None, label):
                    aside[event] = f"an item beyond the {self._fields.catalogue} that are kept"
                    continue
                user, item, side, told, scores = kept
            found.append((event, scores))
            if label is not None:
                number, rank = self._learn(user, item, side, label, told, scores)
                learnt.append((event, number, rank))
                self._remember(user, item if self.task == "values" else int(number))
        for _, reason in sorted(aside.items()) if aside else ():
            self.aside[reason] = self.aside.get(reason, 0) + 1
        table = self._table(len(block), found)
        if answered is not None and learnt:
            events = np.array([event for event, _, _ in learnt], np.int64)
            numbers = np.array([number for _, number, _ in learnt], np.float64)
            ranks = np.array([rank for _, _, rank in learnt], np.float64)
            of_values = self.task == "values"
            given = table if len(events) == len(table) else table[events]
            answered(Answers(events, given, numbers if of_values else numbers.astype(np.int64), ranks))
        return table

    def predict(self, block: Block) -> NDArray[np.float64]:
        aside = dict(block.broken)
        users, items, rest = self._cells(block)
        found: list[tuple[int, NDArray[np.float64]]] = []
        for event, side in self._sides(rest, aside, learn=False):
            if side is not None:
                user = self._users.find(name_of(users[event]))
                told = self._told(user, self._items.find(name_of(items[event])), side)
                found.append((event, self._scores(user, told)))
        return self._table(len(block), found)

    def recommended(self, user: str, count: int, *, had: bool = False) -> list[tuple[str, float]]:
        """The items that a user would rate highest, or choose next, the best first, each with the rating or the probability.

        Ratings are ordered by what they are at least, which `ranking` gives too, so that an item of which little is known stands back.

        Parameters
        ----------
        user
            The user's name; one that is not known is recommended what most like.
        count
            How many, at most.
        had
            Whether items that the user has had, among the last `history`, are recommended too.
        """
        return [(item, figures[0]) for item, figures in self.ranking(user, count, had=had)]

    def knows(self, user: str) -> bool:
        """Whether the user has been met, and was not given up since."""
        return self._users.find(name_of(user)) >= 0

    def ranking(self, user: str, count: int, *, had: bool = False) -> list[tuple[str, tuple[float, ...]]]:
        """As `recommended`, each item with the figures that `recommended_by` names; the last of them never rises from one to the next."""
        slot = self._users.find(name_of(user))
        out = set() if had or slot < 0 else self._had[slot]
        items = np.array([each for each in range(len(self._items)) if each not in out], np.int64)
        if not len(items):
            return []
        side = np.zeros(self._rows.width)
        side[0] = 1.0
        worth = self._of_items(slot, items, side)
        least = self._cautious(worth, items)
        best = np.argsort(-least, kind="stable")[:count]
        rows = np.stack(self._as_shown(worth, least), 1)[best].tolist()
        return [(self._items.names[item], tuple(row)) for item, row in zip(items[best].tolist(), rows, strict=True)]

    def tables(self) -> list[dict[str, Any]]:
        known = [[name, len(each), each.given_up] for name, each in (("users", self._users), ("items", self._items))]
        columns = ["what", "known", "given up for others"]
        return [
            *self._tables_of_members(),
            *self._tables_of_new(),
            {"title": "Users and items", "columns": columns, "rows": known},
        ]

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        lengths = [len(each) for each in self._had]
        return {
            **self._rows.arrays(),
            **self._users.arrays("users"),
            **self._items.arrays("items"),
            **self._late.arrays(_KEPT_OF_A_QUESTION + self._rows.width, self._kept_answers),
            **self._selection.arrays(),
            "had_lengths": np.array(lengths, np.int64),
            "had_items": np.array([item for each in self._had for item in each], np.int64),
            "user_events": np.array(self._events[0], np.int64),
            "item_events": np.array(self._events[1], np.int64),
            "tally": self._tally.copy(),
        }

    def values(self) -> dict[str, Any]:
        unmet = self._rows.unmet
        return {
            **({"unmet": unmet} if unmet else {}),
            **({"task": self.task} if self.task != "classes" else {}),
            "names": list(self._names),
            "users": list(self._users.names),
            "items": list(self._items.names),
            "inputs": self._rows.width,
            "late_ids": self._late.ids,
            "given_up": self._late.given_up,
            "aside": dict(self.aside),
        }

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._names = tuple(str(name) for name in values["names"])
        self._users.restore([str(name) for name in values["users"]], arrays, "users")
        self._items.restore([str(name) for name in values["items"]], arrays, "items")
        users, items = len(self._users), len(self._items)
        others = tuple(each for each in signature.columns if each.name not in self._names)
        unmet = [each for each in values.get("unmet", []) if each[0] not in self._names]
        self._rows.restore(others, arrays, int(values["inputs"]), unmet)
        self._selection.restore(arrays, users)
        lengths, had = arrays["had_lengths"].tolist(), arrays["had_items"]
        if len(lengths) != users or sum(lengths) != len(had) or not ((had >= 0) & (had < items)).all():
            raise ValueError(f"what {len(lengths)} users have had, of {users}, or items that there are not")
        ends = np.cumsum([0, *lengths]).tolist()
        self._had = [dict.fromkeys(had[start:end].tolist()) for start, end in itertools.pairwise(ends)]
        self._events = (arrays["user_events"].tolist(), arrays["item_events"].tolist())
        tally = arrays["tally"]
        if [*map(len, self._events)] != [users, items] or tally.shape != self._tally.shape:
            raise ValueError(f"events of {len(self._events[0])} users, or a tally of shape {tally.shape}")
        if not np.isfinite(tally).all():
            raise ValueError("a tally with NaN")
        self._tally = tally.copy()
        self._restore(arrays, users, items)
        shape = (_KEPT_OF_A_QUESTION + self._rows.width, self._kept_answers)
        if (arrays["late_rows"].shape[1:], arrays["late_scores"].shape[1:]) != ((shape[0],), (shape[1],)):
            raise ValueError(f"questions of another shape than {shape}")
        slots = arrays["late_rows"][:, [0, 2]]
        if not ((slots >= -1) & (slots < [users, items]) & (slots == np.floor(slots))).all():
            raise ValueError("a question of a user or an item that there is not")
        self._late.restore(values["late_ids"], arrays, int(values["given_up"]))
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}
        self._signature = None

    # -- for both

    @property
    def _kept_answers(self) -> int:
        """How many numbers of an answer are kept for a label that comes late."""
        return len(self._of_members) + 1

    def _keep(
        self, name: str, user: int, item: int, side: NDArray[np.float64], told: NDArray[np.float64], scores: Any
    ) -> None:
        """Keep a question for its label."""
        self._late.keep(name, self._question(user, item, side), np.concatenate((told, scores)))

    def _question(self, user: int, item: int, side: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate(((user, self._users.born[user] if user >= 0 else -1, item), side))

    def _taken(
        self, name: str
    ) -> tuple[int, int, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
        """What was kept of a question. A user who was given up since is unknown."""
        kept = self._late.take(name, _KEPT_OF_A_QUESTION + self._rows.width, self._kept_answers)
        if kept is None:
            return None
        user, item, side = self._asked(kept[0])
        return user, item, side, kept[1][:-1], kept[1][-1:]

    def _asked(self, row: NDArray[np.float64]) -> tuple[int, int, NDArray[np.float64]]:
        user, born, item = (int(each) for each in row[:_KEPT_OF_A_QUESTION].tolist())
        if user >= 0 and self._users.born[user] != born:
            user = -1
        return user, item, row[_KEPT_OF_A_QUESTION:]

    def _count(
        self, user: int, item: int, figure: float, figures: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        """Take the figures of an answer into the tables."""
        row = np.array([1.0, figure, *figures.tolist(), *weights.tolist()])
        for side, (slot, events) in enumerate(zip((user, item), self._events, strict=True)):
            before = events[slot] if slot >= 0 else 0
            self._tally[side, bisect_right(_EDGES, before) - 1] += row

    def _remember(self, user: int, item: int) -> None:
        """Count a label, and note what the user has had."""
        if item >= 0:
            self._events[1][item] += 1
        if user < 0:
            return
        self._events[0][user] += 1
        if item >= 0:
            had = self._had[user]
            had.pop(item, None)
            had[item] = None
            if len(had) > self._fields.history:
                del had[next(iter(had))]

    def _meet_user(self, name: str | None) -> int:
        if name is None:
            return -1
        entered = self._users.entered
        slot = self._users.meet(name)
        if self._users.entered > entered:
            if slot == len(self._had):
                self._had.append({})
                self._events[0].append(0)
                self._selection.grow(slot + 1)
            self._had[slot], self._events[0][slot] = {}, 0
            self._selection.forget(slot)
            self._enter_user(slot, entered)
        return slot

    def _meet_item(self, name: str | None) -> int:
        if name is None:
            return -1
        entered = self._items.entered
        slot = self._items.meet(name)
        if self._items.entered > entered:
            self._events[1].append(0)
            self._enter_item(slot, entered)
        return slot

    def _table(self, count: int, found: list[tuple[int, NDArray[np.float64]]]) -> NDArray[np.float64]:
        table = np.zeros((count, 1 if self.task == "values" else len(self._items)))
        if len(found) < count:
            table.fill(np.nan)
        for event, scores in found:
            table[event, : len(scores)] = scores
            table[event, len(scores) :] = 0.0
        return table

    def _sides(
        self, rest: Block, aside: dict[int, str], *, learn: bool
    ) -> Iterator[tuple[int, NDArray[np.float64] | None]]:
        """What else each event says, a row that begins with 1; None of one without features."""
        if rest.x or self._rows.width > 1:
            yield from self._rows.rows(rest, aside, learn=learn)
            return
        for event, has in enumerate(rest.has_x.tolist()):
            if event not in aside:
                yield event, np.ones(1) if has else None

    def _cells(self, block: Block) -> tuple[Sequence[Any], Sequence[Any], Block]:
        """The cells of users and of items, and the block without them."""
        columns = tuple(block.x)
        if columns != self._met:
            if not self._names and block.has_x.any():
                self._find_columns(columns)
            self._met = columns
        nothing = [None] * len(block)
        cells = [block.x[name].tolist() if name in block.x else nothing for name in self._names]
        cells += [nothing] * (2 - len(cells))
        rest = {name: column for name, column in block.x.items() if name not in self._names}
        return cells[0], cells[1], dataclasses.replace(block, x=rest)

    def _find_columns(self, columns: Sequence[str]) -> None:
        """Find out which columns are those of users and items, and leave the others to the rows. Raises `DomainError`."""
        wanted: list[tuple[str, str | None]] = [("user", self._fields.user)]
        if self.task == "values":
            wanted.append(("item", self._fields.item))
        found: list[str] = []
        for role, given in wanted:
            if given is not None:
                if given not in columns:
                    raise DomainError(
                        f"there is no column '{short(given)}'",
                        where=role,
                        hint=nearest(given, columns),
                    )
                found.append(given)
                continue
            usual = named(role, [name for name in columns if name not in found])
            found += [] if usual is None else [usual]
        if len(found) < len(wanted):
            words = [name for name in columns if self._types.get(name, "word") == "word" or len(columns) == len(wanted)]
            if found or len(words) != len(wanted):
                roles = " and ".join(role for role, _ in wanted)
                raise DomainError(
                    f"which columns hold {roles} is not known; the stream has {few(columns, 10)}",
                    hint="name them: "
                    + " ".join(f"--set {role}=COLUMN" for role, _ in wanted)
                    + ", in a recipe "
                    + ", ".join(f"{role}: COLUMN" for role, _ in wanted),
                )
            found = words
        if len({*found}) < len(found):
            raise DomainError(f"column '{short(found[0])}' is both user and item", hint="give each its own")
        self._names = tuple(found)
        others: dict[str, ColumnType] = {name: kind for name, kind in self._types.items() if name not in found}
        self._rows = EventRows(others, most_categories=self._fields.categories)

    # -- tables of the report

    def _tables_of_members(self) -> list[dict[str, Any]]:
        rows: NDArray[np.float64] = self._tally[0].sum(0)
        if not rows[0]:
            return []
        count = len(self._of_members)
        figures, weights = rows[2 : 2 + count], rows[2 + count :]
        shown: list[list[Any]] = [["the answer", self._figure(rows[1], rows[0]), None]]
        shown += [
            [name, self._figure(figure, rows[0]), 100.0 * weight / rows[0]]
            for name, figure, weight in zip(self._of_members, figures.tolist(), weights.tolist(), strict=True)
        ]
        unit = {self._figure_name: self._figure_unit} if self._figure_unit else {}
        columns = ["member", self._figure_name, "mean weight"]
        return [
            {"title": "Members", "columns": columns, "rows": shown, "units": {**unit, "mean weight": "%"}},
        ]

    def _tables_of_new(self) -> list[dict[str, Any]]:
        count = len(self._of_members)
        found: list[dict[str, Any]] = []
        for whose, tally in zip(("user", "item"), self._tally, strict=True):
            rows: list[list[Any]] = []
            for place, (low, row) in enumerate(zip(_EDGES, tally.tolist(), strict=True)):
                if not row[0]:
                    continue
                figures = [self._figure(total, row[0]) for total in row[1 : 2 + count]]
                weights = [100.0 * weight / row[0] for weight in row[2 + count :]]
                rows.append([_span(place, low), int(row[0]), *figures, *weights])
            if rows:
                names = [f"{name}: {self._figure_name}" for name in ("the answer", *self._of_members)]
                shares = [f"weight of {name}" for name in self._of_members]
                units = dict.fromkeys(shares, "%")
                if self._figure_unit:
                    units |= dict.fromkeys(names, self._figure_unit)
                found.append(
                    {
                        "title": f"New and known {whose}s, by the events that the {whose} had before",
                        "columns": ["events before", "events", *names, *shares],
                        "rows": rows,
                        "units": units,
                    }
                )
        return found


def _span(place: int, low: int) -> str:
    if place + 1 == len(_EDGES):
        return f"{low} and more"
    high = _EDGES[place + 1] - 1
    return f"{low}" if high == low else f"{low} to {high}"
