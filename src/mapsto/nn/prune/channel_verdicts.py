"""For each channel why it went or stayed: how important it was, and the threshold that the budget set.

A channel goes where its level is no higher than the threshold, the highest level that went. A lower one that stays does so because its
layer keeps a smallest number of channels (`Limits`). Levels are scores as the ranking compares them: as they are, as places within the
layer, or for each unit of the budget that a channel saves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from mapsto.nn.prune.dependency_groups import Group, Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COMPARED", "Choice", "Compared", "Verdict"]

Compared: TypeAlias = Literal["global", "per_peak", "per_layer", "per_cost"]
"""How channels of several layers are compared."""
COMPARED: tuple[Compared, ...] = ("global", "per_peak", "per_layer", "per_cost")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why one channel went or stayed."""

    layer: str
    """The group's name: the path of the first layer that makes the channel."""
    channel: int
    """Its number in the group, from 0, before anything went."""
    outputs: tuple[int, ...]
    """The outputs of that layer that it is."""
    score: float
    """The criterion's importance."""
    level: float
    """What channels were compared by: the score as the ranking takes it."""
    threshold: float
    """The highest level that went; of all layers, or for `per_layer` a share of a layer."""
    stays: bool
    why: Literal["above the threshold", "not above the threshold", "kept by a limit of its layer"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Which channels stay, and by which comparison."""

    kept: dict[str, Mask]
    """Group → which of its channels stay, shape (channels,)."""
    levels: Mapping[str, NDArray[np.float64]]
    """Group → what its channels were compared by, shape (channels,)."""
    ranking: Compared
    """How layers were compared, the one that was found best where the rankings were compared."""
    compared: Mapping[str, float] = field(default_factory=dict[str, float])
    """Ranking → how far the answers of the network that it leaves are from the original's, where they were compared."""

    @property
    def threshold(self) -> float:
        """The highest level that went; minus infinity where none went."""
        gone = [self.levels[name][~mask] for name, mask in self.kept.items()]
        return max((float(levels.max()) for levels in gone if levels.size), default=-np.inf)

    def verdicts(self, groups: Sequence[Group], scores: Mapping[str, NDArray[np.float64]]) -> list[Verdict]:
        """One for each channel, in the order of the layers.

        >>> from mapsto.nn.prune.dependency_groups import Member
        >>> weight = Member(name="a.weight", dim=0, owner=np.arange(3), role="out")
        >>> scores = {"a": np.array([2.0, 0.5, 1.0])}
        >>> choice = Choice(kept={"a": np.array([True, False, True])}, levels=scores, ranking="global")
        >>> for each in choice.verdicts([Group(name="a", channels=3, members=(weight,))], scores):
        ...     print(each.channel, each.score, each.threshold, each.why)
        0 2.0 0.5 above the threshold
        1 0.5 0.5 not above the threshold
        2 1.0 0.5 above the threshold
        """
        threshold = self.threshold
        return [
            Verdict(
                layer=group.name,
                channel=channel,
                outputs=tuple(np.flatnonzero(group.members[0].owner == channel).tolist()),
                score=float(scores[group.name][channel]),
                level=float(level),
                threshold=threshold,
                stays=bool(mask),
                why=_why(bool(mask), float(level), threshold),
            )
            for group in groups
            if group.name in self.kept
            for channel, (level, mask) in enumerate(zip(self.levels[group.name], self.kept[group.name], strict=True))
        ]


def _why(
    stays: bool, level: float, threshold: float
) -> Literal["above the threshold", "not above the threshold", "kept by a limit of its layer"]:
    if not stays:
        return "not above the threshold"
    return "above the threshold" if level > threshold else "kept by a limit of its layer"
