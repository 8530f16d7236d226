"""How much a network loses when one of its layers alone is pruned, and how a budget is spread over layers by that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Network, Report
from mapsto.nn.prune.budget import best
from mapsto.nn.prune.structured import Ranked

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TABLE", "Trial", "drops_of", "levels", "trials"]

TABLE = "sensitivity"
"""The table of a report that `drops_of` reads: a row a layer, a column such as ``50 %`` for each share of its channels."""


class Trial(NamedTuple):
    """A layer of which a share was pruned, all others being whole."""

    layer: str
    ratio: float
    drop: float
    """How much worse it is, in the unit of its judge."""
    ci95: float
    """Half-width of the interval of `drop`, paired over samples."""


def trials(
    found: Ranked,
    ratios: Sequence[float],
    judge: Callable[[Network], NDArray[np.float64]],
    track: Callable[[Iterable[Trial]], Iterable[Trial]] = lambda work: work,
) -> list[Trial]:
    """Each layer at each ratio, in their order; `judge` gives a network's score of each sample (or episode), shape (N,)."""
    whole = judge(found.network)

    def work() -> Iterator[Trial]:
        for name, scores in found.scores.items():
            for ratio in ratios:
                kept = best(scores, len(scores) - int(ratio * len(scores) + 1e-9))
                losses = whole - judge(found.shrunk({name: kept}))
                half = 1.959964 * float(losses.std(ddof=1)) / len(losses) ** 0.5 if len(losses) > 1 else float("inf")
                yield Trial(name, ratio, float(losses.mean()), half)

    return list(track(work()))


def drops_of(report: Report, *, where: str) -> dict[str, dict[float, float]]:
    """Layer → ratio → drop, from a report's table. Raises `DomainError` where it has none.

    >>> from mapsto.kinds import Table
    >>> table = Table(columns=("layer", "channels", "25 %", "50 %"), rows=(("conv1", 8, 0.5, 2.0),))
    >>> drops_of(Report(tables={"sensitivity": table}), where="prune.sensitivity")
    {'conv1': {0.25: 0.5, 0.5: 2.0}}
    """
    table = report.tables.get(TABLE)
    columns = table.columns if table is not None else ()
    shares = [(i, name) for i, name in enumerate(columns) if re.fullmatch(r"[\d.]+ %", name)]
    if table is None or not shares:
        raise DomainError(
            f"the report has no table '{TABLE}' with a drop for each layer and share",
            where=where,
            hint="give evaluate.sensitivity, or a mapping whose report has such a table",
        )
    return {
        str(row[0]): {float(name.removesuffix(" %")) / 100: float(row[i]) for i, name in shares} for row in table.rows
    }


def levels(scores: NDArray[np.float64], drops: Mapping[float, float], *, worst: float) -> NDArray[np.float64]:
    """The drop that is to be expected when a channel's turn has come, shape (channels,): an importance that all layers share.

    The turn of the k-th least important of n channels comes when a share k / n of its layer goes. Drops in between are
    interpolated, from 0 where nothing goes to `worst` where all does, and never fall. A small slope decides between layers that
    lose nothing: the same share of each goes.

    >>> levels(np.array([0.1, 0.9, 0.5, 0.7]), {0.5: 4.0, 0.75: 3.0}, worst=10.0).round(1).tolist()
    [2.0, 10.0, 4.0, 4.0]
    """
    ratios = sorted(drops)
    known = np.maximum.accumulate([0.0, *(drops[ratio] for ratio in ratios), worst])
    turns = np.empty(len(scores))
    turns[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1) / len(scores)
    return np.interp(turns, [0.0, *ratios, 1.0], known) + _SLOPE * turns


_SLOPE = 1e-3
"""Points a whole layer: far below what any number of samples can tell."""
