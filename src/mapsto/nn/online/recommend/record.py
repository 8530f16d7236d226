"""The prequential record of recommendations: how far ratings were off, and how high what was liked, or chosen, stood among the rest.

With the rank r of an item, hit rate@10 is the share of r ≤ 10, NDCG@10 the mean of ``1 / log₂(1 + r)`` over those and 0 over others, MRR
the mean of 1 / r. Of ratings an item that is liked is ranked among drawn ones that the user has not rated (He et al., "Neural
Collaborative Filtering", 2017); clicks are ranked among all items that are known by then, and one that is new counts as missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.prequential import NumberRecord, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Block
    from mapsto.nn.online.learning import Answers

__all__ = ["CUT", "ClickRecord", "RatingRecord", "ranked"]

CUT = 10
"""Places that count as a hit."""


def ranked(rank: float) -> tuple[float, float, float]:
    """Whether a rank is a hit, and what it counts for NDCG and MRR.

    >>> ranked(1.0), ranked(3.0)[1], ranked(float("inf"))
    ((1.0, 1.0, 1.0), 0.5, (0.0, 0.0, 0.0))
    """
    hit = rank <= CUT
    return float(hit), 1.0 / math.log2(1.0 + rank) if hit else 0.0, 0.0 if math.isinf(rank) else 1.0 / rank


class RatingRecord(NumberRecord):
    """Of ratings. Baselines: the value before (`last value`), and the mean of all so far (`mean`).

    >>> from mapsto.nn.online.learning import Answers
    >>> from mapsto.data.streams.tastes import Tastes
    >>> record, block = RatingRecord(), next(Tastes(events=3).open(size=3))
    >>> given = Answers(np.arange(3), np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 2.0]), np.array([np.nan, 3.0, 20.0]))
    >>> record.see(0, block, given, ()).tolist(), round(record.figures()["rmse"], 3)
    ([nan, 2.0, 0.0], 1.414)
    >>> record.figures()["hit_rate"], record.figures()["ndcg"]
    (50.0, 0.25)
    """

    main, better = "rmse", -1

    def __init__(self) -> None:
        super().__init__(3)
        self._sums = [0.0, 0.0, 0.0, 0.0]
        """Of squared errors: of the learner and of both baselines; of the learner's absolute errors."""
        self._since = [0.0, 0.0]
        """Labels and squared errors since the last row."""
        self._last = self._mean = 0.0
        self._ranked = [0.0, 0.0, 0.0]
        """Items that were ranked, hits, and the sum of what they count for NDCG."""

    def see(self, start: int, block: Block, answers: Answers, classes: Sequence[str]) -> NDArray[np.float64]:
        answered, labels = answers.scores[:, 0], answers.labels
        known = self._counted(block, answers)
        rows = np.empty((len(labels), 3))
        rows[:, 0] = answered - labels
        rows[:, 1] = np.concatenate(([self._last], labels[:-1])) - labels
        rows[:, 2] = np.array(self._means(labels.tolist())) - labels
        self._last = float(labels[-1])
        of_all = np.where(known, np.abs(rows[:, 0]), np.nan)
        rows, events, answered, labels = rows[known], answers.events[known], answered[known], labels[known]
        errors = np.abs(rows[:, 0])
        rows *= rows
        for row, error in zip(rows.tolist(), errors.tolist(), strict=True):
            self._sums = [have + more for have, more in zip(self._sums, (*row, error), strict=True)]
            self._since = [self._since[0] + 1.0, self._since[1] + row[0]]
        for rank in [] if answers.ranks is None else answers.ranks[~np.isnan(answers.ranks)].tolist():
            hit, gain, _ = ranked(rank)
            count, hits, gains = self._ranked
            self._ranked = [count + 1.0, hits + hit, gains + gain]
        self._remember(block, answers, rows)

        def told(place: int) -> dict[str, Any]:
            return {"answer": float(answered[place]), "label": float(labels[place])}

        self.stretches.see(start, block, events, errors, errors, told)
        return of_all

    def row(self) -> dict[str, float]:
        if self.labels == self.blind:
            return {}
        labels, squares = self._since
        self._since = [0.0, 0.0]
        windowed, last, mean = (math.sqrt(each) for each in self._windowed)
        figures = self.figures()
        return {
            **({"rmse": math.sqrt(squares / labels)} if labels else {}),
            "mean_rmse": figures.pop("rmse"),
            "window_rmse": windowed,
            "window_last_value": last,
            "window_mean": mean,
            **{name: value for name, value in figures.items() if name != "window_rmse"},
        }

    def figures(self) -> dict[str, float]:
        counted = self.labels - self.blind
        if not counted:
            return {}
        count, hits, gains = self._ranked
        return {
            "rmse": math.sqrt(self._sums[0] / counted),
            "window_rmse": math.sqrt(self._windowed[0]),
            "faded_rmse": math.sqrt(self._faded[0] / self._faded[1]),
            "mae": self._sums[3] / counted,
            **({"hit_rate": 100.0 * hits / count, "ndcg": gains / count} if count else {}),
        }

    def baselines(self) -> dict[str, float]:
        counted = self.labels - self.blind
        if not counted:
            return {}
        return {
            name: math.sqrt(total / counted)
            for name, total in zip(("last value", "mean"), self._sums[1:3], strict=True)
        }

    def snapshot(self) -> dict[str, Any]:
        return {
            **self._common(),
            "sums": list(self._sums),
            "since": list(self._since),
            "last": [self._last, self._mean],
            "ranked": list(self._ranked),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._take_up(state)
        self._sums, self._since, self._ranked = (list(state[name]) for name in ("sums", "since", "ranked"))
        self._last, self._mean = state["last"]

    def _means(self, labels: Sequence[float]) -> list[float]:
        """The mean of all labels before each."""
        found: list[float] = []
        for count, label in enumerate(labels, self.labels + 1):
            found.append(self._mean)
            self._mean += (label - self._mean) / count
        return found


class ClickRecord(Record):
    """Of clicks. Baselines: the ten items that came most often (`popular`), and the ten that came last (`latest`).

    >>> from mapsto.nn.online.learning import Answers
    >>> from mapsto.data.streams.tastes import Tastes
    >>> record, block = ClickRecord(), next(Tastes(events=3, feedback="clicks").open(size=3))
    >>> given = Answers(np.arange(3), np.ones((3, 2)) / 2, np.array([0, 0, 1]), np.array([np.inf, 1.0, np.inf]))
    >>> record.see(0, block, given, ("a", "b")).tolist(), round(record.figures()["hit_rate"], 1), record.baselines()["popular"]
    ([1.0, 0.0, 1.0], 33.3, 33.333333333333336)
    """

    main, better = "hit_rate", 1

    def __init__(self, known: int = 0) -> None:
        super().__init__(3)
        self._counts = np.zeros(known)
        """Labels of each item."""
        self._latest: list[int] = []
        """The items that came last, each once, the last first."""
        self._sums = [0.0] * 6
        """Hits of the learner and of both baselines, what ranks count for NDCG and MRR, and answers whose first item was right."""
        self._since = [0.0, 0.0]
        """Labels and hits since the last row."""

    def see(self, start: int, block: Block, answers: Answers, classes: Sequence[str]) -> NDArray[np.float64]:
        labels = answers.labels.tolist()
        ranks = [math.inf] * len(labels) if answers.ranks is None else answers.ranks.tolist()
        if len(classes) > len(self._counts):
            self._counts = np.pad(self._counts, (0, len(classes) - len(self._counts)))
        rows = np.zeros((len(labels), 3))
        for place, (label, rank) in enumerate(zip(labels, ranks, strict=True)):
            hit, gain, reciprocal = ranked(math.inf if math.isnan(rank) else rank)
            popular = 0.0
            if self._counts[label]:
                ahead = float(np.count_nonzero(self._counts > self._counts[label]))
                alike = float(np.count_nonzero(self._counts == self._counts[label]))
                popular = min(
                    max((CUT - ahead) / alike, 0.0), 1.0
                )  # of items that came as often, which stand there is chance
            latest = float(label in self._latest)
            rows[place] = hit, popular, latest
            more = (hit, popular, latest, gain, reciprocal, float(rank == 1.0))
            self._sums = [have + each for have, each in zip(self._sums, more, strict=True)]
            self._since = [self._since[0] + 1.0, self._since[1] + hit]
            self._counts[label] += 1.0
            self._latest = [label, *(each for each in self._latest if each != label)][:CUT]
        top = answers.scores.argmax(1) if answers.scores.shape[1] else np.zeros(len(labels), np.int64)
        blind: NDArray[np.bool_] = ~np.any(answers.scores > 0, axis=1)
        self.blind += int(blind.sum())
        self._remember(block, answers, rows)
        errors = 1.0 - rows[:, 0]

        def told(place: int) -> dict[str, Any]:
            answer = None if blind[place] else classes[top[place]]
            sure = 0.0 if blind[place] else float(answers.scores[place, top[place]])
            return {"answer": answer, "label": classes[labels[place]], "confidence": sure}

        self.stretches.see(start, block, answers.events, errors, errors, told)
        return errors

    def row(self) -> dict[str, float]:
        if not self.labels:
            return {}
        labels, hits = self._since
        self._since = [0.0, 0.0]
        windowed, popular, latest = self._windowed
        figures = self.figures()
        return {
            **({"hit_rate": 100 * hits / labels} if labels else {}),
            "mean_hit_rate": figures.pop("hit_rate"),
            "window_hit_rate": 100 * windowed,
            "window_popular": 100 * popular,
            "window_latest": 100 * latest,
            **{name: value for name, value in figures.items() if name != "window_hit_rate"},
        }

    def figures(self) -> dict[str, float]:
        if not self.labels:
            return {}
        hits, _, _, gains, reciprocals, first = (total / self.labels for total in self._sums)
        return {
            "hit_rate": 100 * hits,
            "window_hit_rate": 100 * self._windowed[0],
            "faded_hit_rate": 100 * self._faded[0] / self._faded[1],
            "ndcg": gains,
            "mrr": reciprocals,
            "accuracy": 100 * first,
        }

    def baselines(self) -> dict[str, float]:
        if not self.labels:
            return {}
        return {
            name: 100 * total / self.labels for name, total in zip(("popular", "latest"), self._sums[1:3], strict=True)
        }

    def snapshot(self) -> dict[str, Any]:
        return {
            **self._common(),
            "counts": self._counts.copy(),
            "latest": list(self._latest),
            "sums": list(self._sums),
            "since": list(self._since),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._take_up(state)
        self._counts = np.array(state["counts"], np.float64)
        self._latest, self._sums, self._since = (list(state[name]) for name in ("latest", "sums", "since"))
