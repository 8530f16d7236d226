"""Why each channel went, as tables of a step: what it was ranked by, its place in the ranking, and where the budget drew the line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mapsto.kinds import Table
from mapsto.nn.prune.channel_verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapsto.nn.prune.channel_verdicts import Choice

__all__ = ["span", "tables_of"]

_LEVELS = {
    "global": "importance, compared between all layers",
    "per_peak": "importance in units of the largest of its layer",
    "per_layer": "place within the layer, 0 to 1",
    "per_cost": "importance for each unit of the budget that a channel saves",
}


def tables_of(choice: Choice, verdicts: Sequence[Verdict], *, criterion: str) -> Mapping[str, Table]:
    """``pruning``, one row on the whole; ``pruned_channels``, one for each channel that went, and for each that a limit of its layer kept.

    Ranks count from 1, the channel that mattered least, over all channels that could go. Empty where none went.

    >>> from mapsto.nn.prune.channel_verdicts import Choice, Verdict
    >>> scores = {"a": np.array([2.0, 0.5])}
    >>> choice = Choice(kept={"a": np.array([True, False])}, levels=scores, ranking="global")
    >>> made = [Verdict(layer="a", channel=i, outputs=(i,), score=s, level=s, threshold=0.5, stays=i == 0, why=why)
    ...         for i, (s, why) in enumerate([(2.0, "above the threshold"), (0.5, "not above the threshold")])]
    >>> tables_of(choice, made, criterion="prune.magnitude")["pruned_channels"].rows
    (('a', 1, '1', 0.5, 0.5, 0.5, 1, 'went'),)
    """
    if all(each.stays for each in verdicts):
        return {}
    ranks = np.empty(len(verdicts), np.int64)
    ranks[np.argsort([each.level for each in verdicts], kind="stable")] = np.arange(1, len(verdicts) + 1)
    rows = tuple(
        (
            each.layer,
            each.channel,
            span(each.outputs),
            _rounded(each.score),
            _rounded(each.level),
            _rounded(each.threshold),
            rank,
            "kept by a limit" if each.stays else "went",
        )
        for each, rank in zip(verdicts, ranks.tolist(), strict=True)
        if not each.stays or each.why == "kept by a limit of its layer"
    )
    gone = sum(not each.stays for each in verdicts)
    whole = (criterion, choice.ranking, _LEVELS[choice.ranking], _rounded(choice.threshold), gone, len(verdicts))
    return {
        "pruning": Table(columns=("criterion", "ranking", "level", "threshold", "went", "of"), rows=(whole,)),
        "pruned_channels": Table(
            columns=("layer", "channel", "outputs", "importance", "level", "threshold", "rank", "what became of it"),
            rows=rows,
        ),
    }


def span(outputs: Sequence[int]) -> str:
    """Outputs of a layer: ``3``, ``12-15``, or ``3,7`` where they do not follow on each other."""
    first, last = outputs[0], outputs[-1]
    if len(outputs) > 1 and last - first + 1 == len(outputs):
        return f"{first}-{last}"
    return ",".join(map(str, outputs))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
