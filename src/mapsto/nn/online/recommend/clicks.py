"""The live learner of clicks: what a user chooses next, among all items that were ever chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Block, EventColumn
from mapsto.nn.online.learning import read_labels
from mapsto.nn.online.recommend.click_members import ClickMembers
from mapsto.nn.online.recommend.learner import Fields, Recommender
from mapsto.nn.online.recommend.record import CUT, ClickRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import ColumnType
    from mapsto.nn.online.prequential import Record

__all__ = ["ClickRecommender"]

_LATE_BYTES = 64 * 2**20
"""Of answers that are kept for labels that come late, at most."""


class ClickRecommender(Recommender):
    """The answer is the members' distributions mixed by the user's weights."""

    def __init__(self, types: Mapping[str, ColumnType], fields: Fields) -> None:
        wanted = {"popularity" if name == "baseline" else name for name in fields.members}
        self._members = ClickMembers(
            [name for name in ("popularity", "sequence", "factors", "neural") if name in wanted],
            factors=fields.factors,
            rate=fields.rate,
            seed=fields.seed,
        )
        super().__init__(types, fields, self._members.names)
        self._weights = self._selection.weights(-1)
        """Of the last answer."""

    def record(self, known: int) -> Record:
        return ClickRecord(known)

    @property
    def size(self) -> tuple[int, int]:
        return self._rows.width, len(self._items)

    @property
    def doubts(self) -> list[str]:
        others = [column.name for column in self._rows.columns]
        unused = (
            [f"clicks are learnt from users and what they chose; not looked at: {', '.join(others)}"] if others else []
        )
        return [*super().doubts, *unused]

    @property
    def _own_columns(self) -> tuple[EventColumn, ...]:
        return (EventColumn(name=self._names[0], type="word", categories=tuple(self._users.names)),)

    # -- for `Recommender`

    def _labels(self, block: Block, aside: dict[int, str]) -> list[Any]:
        return read_labels(block, aside)

    def _has_no_room(self, item: str | None, label: Any) -> bool:
        return label is not None and self._items.is_full and self._items.find(label) < 0

    def _told(self, user: int, item: int, side: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._members.answer(user)

    def _scores(self, user: int, told: NDArray[np.float64]) -> NDArray[np.float64]:
        self._weights = self._selection.weights(user)
        return self._weights.dot(told)

    def _learn(
        self, user: int, item: int, side: NDArray[np.float64], label: Any, told: NDArray[np.float64], scores: Any
    ) -> tuple[float, float]:
        known = self._items.find(label)
        rank = math.inf
        if known >= 0:
            rank = _rank(scores, known) if known < len(scores) else math.inf
            hits = np.where(_ranks(told, known) <= CUT, 100.0, 0.0)
            self._count(user, known, 100.0 * (rank <= CUT), hits, self._weights)
            self._selection.learn(user, np.log(told[:, known]))
        number = self._meet_item(label)
        self._members.learn(user, number)
        return float(number), rank

    def _enter_user(self, slot: int, born: int) -> None:
        self._members.enter_user(slot, born)

    def _enter_item(self, slot: int, born: int) -> None:
        self._members.enter_item(slot, born)

    def _of_items(self, user: int, items: NDArray[np.int64], side: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._scores(user, self._members.answer(user))[items]

    def _figure(self, total: float, count: float) -> float:
        return total / count

    _figure_name, _figure_unit = f"hit rate@{CUT}", "%"
    recommended_by = ("probability",)

    # -- late labels: what members answered is too much to keep, and is asked again; the answer that was given is kept

    @property
    def _kept_answers(self) -> int:
        return len(self._items)

    def _keep(
        self, name: str, user: int, item: int, side: NDArray[np.float64], told: NDArray[np.float64], scores: Any
    ) -> None:
        self._late.bound(min(self._fields.late, _LATE_BYTES // (8 * (len(scores) + 1))))
        self._late.keep(name, self._question(user, item, side), scores)

    def _taken(
        self, name: str
    ) -> tuple[int, int, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
        kept = self._late.take(name, 3 + self._rows.width, self._kept_answers)
        if kept is None:
            return None
        user, item, side = self._asked(kept[0])
        self._weights = self._selection.weights(user)
        return user, item, side, self._members.answer(user), kept[1]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**super().arrays(), **self._members.arrays()}

    def _restore(self, arrays: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
        self._members.restore(arrays, users, items)


def _ranks(scores: NDArray[np.float64], item: int) -> NDArray[np.float64]:
    """As `_rank`, of scores above 0, a row each."""
    own = scores[:, item, None]
    found = np.add.reduce(scores > own, 1, np.float64)
    found += np.add.reduce(scores >= own, 1, np.float64)
    found += 1.0
    return 0.5 * found


def _rank(scores: NDArray[np.float64], item: int) -> float:
    """The place of an item by its score, from 1 on; ties count half. One that was not known then comes after all."""
    own = scores[item]
    if not own > 0.0:
        return math.inf
    return 1.0 + float((scores > own).sum()) + 0.5 * (float((scores == own).sum()) - 1.0)
