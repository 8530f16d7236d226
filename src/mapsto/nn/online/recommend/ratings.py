"""The live learner of ratings: what a user would give an item, and which items a user would rate highest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Block, EventColumn
from mapsto.nn.online.event_rows import LARGEST
from mapsto.nn.online.recommend.candidates import Candidates
from mapsto.nn.online.recommend.learner import Fields, Recommender
from mapsto.nn.online.recommend.places import Places
from mapsto.nn.online.recommend.rating_members import RatingMembers
from mapsto.nn.online.recommend.record import RatingRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import ColumnType
    from mapsto.nn.online.learning import Task
    from mapsto.nn.online.prequential import Record

__all__ = ["RatingRecommender"]

_FADE = 0.9999
"""Of the mean and variance of all labels."""
_SPREAD_RATE = 0.002
_CAUTION = 2.0
"""Standard deviations."""
_LEAST_SPREAD = 1e-4
_NETWORK_RATE = 0.1


class RatingRecommender(Recommender):
    """Members' answers are of labels standardised by the mean and variance so far; answers lie between the least and the greatest label."""

    task: Task = "values"

    def __init__(self, types: Mapping[str, ColumnType], fields: Fields) -> None:
        self._members = RatingMembers(
            [name for name in ("baseline", "factors", "neural") if name in fields.members],
            factors=fields.factors,
            precision=fields.regularisation,
            change=fields.change,
            rate=_NETWORK_RATE * fields.rate,
            seed=fields.seed,
        )
        super().__init__(types, fields, self._members.names)
        self._scale = [0.0, 0.0, 0.0]
        """Faded: the count of labels, their mean, and the sum of squared distances from it (West, 1979)."""
        self._range = [math.inf, -math.inf]
        self._spread = 1.0
        """The mean squared error of the answers, faded."""
        self._candidates = Candidates(fields.drawn, seed=fields.seed)
        self._places = Places()
        self._weights = self._selection.weights(-1)
        """Of the last answer."""

    def record(self, known: int) -> Record:
        return RatingRecord()

    @property
    def size(self) -> tuple[int, int]:
        return self._rows.width, 0

    @property
    def _own_columns(self) -> tuple[EventColumn, ...]:
        user, item = self._names
        return (
            EventColumn(name=user, type="word", categories=tuple(self._users.names)),
            EventColumn(name=item, type="word", categories=tuple(self._items.names)),
        )

    # -- for `Recommender`

    def _labels(self, block: Block, aside: dict[int, str]) -> list[Any]:
        labels: list[Any] = []
        for event, (label, has) in enumerate(zip(block.y.tolist(), block.has_y.tolist(), strict=True)):
            value = _value(label) if has else None
            labels.append(value)
            if has and value is None:
                aside[event] = "a rating that is no number: a word, NaN or infinite"
        return labels

    def _has_no_room(self, item: str | None, label: Any) -> bool:
        return item is not None and self._items.is_full and self._items.find(item) < 0

    def _told(self, user: int, item: int, side: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._members.answer(user, item, side)

    def _scores(self, user: int, told: NDArray[np.float64]) -> NDArray[np.float64]:
        self._weights = self._selection.weights(user)
        return np.array([self._in_range(float(self._weights.dot(told)))])

    def _learn(
        self, user: int, item: int, side: NDArray[np.float64], label: Any, told: NDArray[np.float64], scores: Any
    ) -> tuple[float, float]:
        rank = self._rank(user, item, side) if label >= self._liked else math.nan
        mean, deviation = self._standard
        z = (label - mean) / deviation
        weights = self._weights
        errors = told - z
        squares = errors * errors
        mixed = float(weights.dot(told)) - z
        unscaled = deviation * deviation
        self._count(user, item, (label - float(scores[0])) ** 2, squares * unscaled, weights)
        self._selection.learn(user, squares * (-0.5 / self._spread))
        self._spread += _SPREAD_RATE * (max(mixed * mixed, _LEAST_SPREAD) - self._spread)
        self._members.learn(user, item, side, z, told)
        self._take(label)
        return label, rank

    def _enter_user(self, slot: int, born: int) -> None:
        self._members.enter_user(slot, born)

    def _enter_item(self, slot: int, born: int) -> None:
        self._members.enter_item(slot, born)

    def _of_items(self, user: int, items: NDArray[np.int64], side: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, deviation = self._standard
        return mean + deviation * self._selection.weights(user).dot(self._members.answers(user, items, side))

    def _cautious(self, worth: NDArray[np.float64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """The lower end of a 95 % interval, ``r - 2 σ / √(1 + n_i)`` with n_i the item's labels, which fade."""
        return worth - _CAUTION * self._standard[1] / np.sqrt(1.0 + self._members.biases.item_counts(items))

    def _as_shown(self, worth: NDArray[np.float64], least: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        if not self._scale[0]:
            return worth, least
        low, high = self._range
        # the bound may lie below the scale, so that it still orders items of which little is known
        return np.clip(worth, low, high), np.minimum(least, high)

    def tables(self) -> list[dict[str, Any]]:
        return [*self._places.tables(), *super().tables()]

    def _figure(self, total: float, count: float) -> float:
        return math.sqrt(total / count)

    _figure_name, _figure_unit = "RMSE", ""
    recommended_by = ("rating", "at_least")

    def arrays(self) -> dict[str, NDArray[Any]]:
        low_and_high = self._range if self._scale[0] else [0.0, 0.0]
        return {
            **super().arrays(),
            **self._members.arrays(),
            "labels": np.array([*self._scale, *low_and_high, self._spread]),
            "draws": np.array([self._candidates.drawn], np.int64),
            **self._places.arrays(),
        }

    def _restore(self, arrays: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
        *scale, low, high, spread = arrays["labels"].tolist()
        if len(scale) != 3 or not all(map(math.isfinite, (*scale, low, high, spread))) or spread <= 0:
            raise ValueError(f"what is known of labels is {arrays['labels'].tolist()}")
        self._scale, self._spread = scale, spread
        self._range = [low, high] if scale[0] else [math.inf, -math.inf]
        self._candidates.drawn = int(arrays["draws"][0])
        self._places.restore(arrays)
        self._members.restore(arrays, users, items)

    # -- private

    @property
    def _liked(self) -> float:
        """From which label on an item counts as liked."""
        return self._scale[1] if self._fields.liked is None else self._fields.liked

    @property
    def _standard(self) -> tuple[float, float]:
        """Mean and standard deviation of labels so far; 1 where they have been alike."""
        count, mean, squares = self._scale
        variance = squares / count if count else 0.0
        return mean, math.sqrt(variance) if variance > 1e-12 * (1.0 + mean * mean) else 1.0

    def _taken(
        self, name: str
    ) -> tuple[int, int, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
        found = super()._taken(name)
        if found is not None:
            self._weights = self._selection.weights(found[0])
        return found

    def _take(self, label: float) -> None:
        count, mean, squares = self._scale
        count, squares = _FADE * count + 1.0, _FADE * squares
        step = (label - mean) / count
        self._scale = [count, mean + step, squares + (label - mean) * (label - mean - step)]
        low, high = self._range
        self._range = [min(low, label), max(high, label)]

    def _in_range(self, answer: float) -> float:
        if not self._scale[0]:
            return 0.0
        mean, deviation = self._standard
        low, high = self._range
        return min(max(mean + deviation * answer, low), high)

    def _rank(self, user: int, item: int, side: NDArray[np.float64]) -> float:
        """The place of an item, from 1 on, among it and drawn ones that the user has not rated; ties count half. NaN without others.
        Counts it for the table of places.
        """
        if user < 0 or item < 0:
            return math.nan
        others = self._candidates.beside(item, self._had[user], known=len(self._items))
        if not others:
            return math.nan
        items = np.array([item, *others])
        mean, deviation = self._standard
        found = self._cautious(mean + deviation * self._weights.dot(self._members.answers(user, items, side)), items)
        rank = 1.0 + np.count_nonzero(found > found[0]) + 0.5 * (np.count_nonzero(found == found[0]) - 1)
        self._places.count(rank, len(items))
        return rank


def _value(label: Any) -> float | None:
    try:
        value = float(label)
    except (TypeError, ValueError):
        return None
    return value if -LARGEST <= value <= LARGEST else None
