"""Why each channel went where several prunings follow each other: the tables of all rounds, numbered as before the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mapsto.kinds import Table
from mapsto.nn.prune.channel_verdicts import Choice, Verdict
from mapsto.nn.prune.pruned_channels import span, tables_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mapsto.process import State

__all__ = ["RoundTables"]

_WENT = "went"


class RoundTables:
    """``pruning``, a row for each round, and ``pruned_channels``, with the round in which each channel went.

    Parameters
    ----------
    criterion
        What ranked the channels.
    state
        Of `state`, to go on; None begins.

    >>> import numpy as np
    >>> tables = RoundTables("prune.magnitude")
    >>> for scores in ([2.0, 0.5, 1.0], [1.0, 2.0]):  # the lowest goes: channel 1, then the first of those that are left
    ...     levels = {"a": np.array(scores)}
    ...     stays = levels["a"] > levels["a"].min()
    ...     choice = Choice(kept={"a": stays}, levels=levels, ranking="global")
    ...     tables.add(choice, [Verdict(layer="a", channel=at, outputs=(at,), score=s, level=s, threshold=choice.threshold,
    ...         stays=bool(stay), why="above the threshold") for at, (s, stay) in enumerate(zip(scores, stays))])
    >>> [(row[0], row[2]) for row in tables.made()["pruned_channels"].rows]
    [(1, 1), (2, 0)]
    """

    def __init__(self, criterion: str, state: State | None = None) -> None:
        self._criterion = criterion
        found: Any = state or {"rounds": 0, "whole": [], "went": [], "channels": {}, "outputs": {}}
        self._rounds = int(found["rounds"])
        self._whole: list[list[Any]] = [list(row) for row in found["whole"]]
        self._went: list[list[Any]] = [list(row) for row in found["went"]]
        self._channels: dict[str, list[int]] = {name: list(kept) for name, kept in found["channels"].items()}
        self._outputs: dict[str, list[int]] = {name: list(kept) for name, kept in found["outputs"].items()}

    @property
    def state(self) -> State:
        """As a part of a state."""
        return {
            "rounds": self._rounds,
            "whole": self._whole,
            "went": self._went,
            "channels": self._channels,
            "outputs": self._outputs,
        }

    def add(self, choice: Choice, verdicts: Sequence[Verdict]) -> None:
        """A further round; `verdicts` are numbered as the channels are at its beginning."""
        self._rounds += 1
        first: dict[str, list[Verdict]] = {}
        for each in verdicts:
            first.setdefault(each.layer, []).append(each)
        for layer, those in first.items():
            self._channels.setdefault(layer, [each.channel for each in those])
            self._outputs.setdefault(layer, sorted(place for each in those for place in each.outputs))
        tables = tables_of(choice, verdicts, criterion=self._criterion)
        if tables:
            self._whole += [[self._rounds, *row] for row in tables["pruning"].rows]
            outputs = {(each.layer, each.channel): each.outputs for each in verdicts}
            for layer, channel, _, *rest in tables["pruned_channels"].rows:
                if rest[-1] == _WENT:
                    places = [self._outputs[layer][place] for place in outputs[layer, channel]]
                    self._went.append([self._rounds, layer, self._channels[layer][channel], span(places), *rest[:-1]])
        for layer, those in first.items():
            stay = [each for each in those if each.stays]
            self._channels[layer] = [self._channels[layer][each.channel] for each in stay]
            self._outputs[layer] = [
                self._outputs[layer][at] for at in sorted(at for each in stay for at in each.outputs)
            ]

    def made(self) -> Mapping[str, Table]:
        """The tables; none where no channel went."""
        if not self._went:
            return {}
        whole = ("round", "criterion", "ranking", "level", "threshold", "went", "of")
        each = ("round", "layer", "channel", "outputs", "importance", "level", "threshold", "rank")
        return {
            "pruning": Table(columns=whole, rows=tuple(map(tuple, self._whole))),
            "pruned_channels": Table(columns=each, rows=tuple(map(tuple, self._went))),
        }
