"""Self-train on a pool by a hierarchy of classes: guess the group of each sample first, then its class within the group, where both agree.

Labels of groups and of classes are spread along a graph of nearest neighbours in rounds; the surest samples of each class, within a quota
that grows, count as labelled in the next round. The groups are given, or found by clustering the classes' means; the head is a ridge
regression on the roots of the embedding. The parts are those of Scudder, 1965 (self-training), Zou et al., 2018 (class-balanced quotas)
and Garg et al., "HierMatch", 2022 (hierarchies).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import SpecError, nearest
from mapsto.kinds import Samples
from mapsto.nn.semi.on_features import POOL, Guess, OnFeatures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Structured"]


class Structured(OnFeatures):
    """A linear head for `data` with many classes that are alike, helped by `unlabelled`."""

    hierarchy: dict[str, str] | None = Field(default=None, min_length=1)
    """Class → the name of its group, for every class."""
    groups: int = Field(default=1, ge=1)
    """Where there is no hierarchy: into how many groups the classes' means are clustered; 1, self-training without groups, was as good."""
    rounds: int = Field(default=4, ge=1)
    """Rounds of self-training; 1 spreads the labels once."""
    neighbours: int = Field(default=10, ge=1)
    """k: neighbours that a sample is joined to."""
    sure: float | None = Field(default=None, gt=0, le=1)
    """Share, such as 0.8, from which a sample of the pool is believed at a level: its class, else its group, which spreads and is learnt
    without naming a class of it, else all shares. None: the likeliest class is learnt of every sample."""

    contract: ClassVar[dict[str, Any]] = {"unlabelled": POOL, "groups": 3, "rounds": 2}

    def __post_init__(self) -> None:
        if self.hierarchy is not None and self.groups > 1:
            problem = "field 'groups': a number of groups is for where no hierarchy is given"
            raise SpecError(problem, where="semi.structured", details=((("groups",), problem),))

    @property
    def shares_are_targets(self) -> bool:
        return self.sure is not None

    def guess(self, features: NDArray[Any], pool: NDArray[Any], samples: Samples, ctx: Context) -> Guess:
        from mapsto.nn.semi.propagation import Spreader
        from mapsto.nn.semi.structured import believed, groups_by_means, structured

        classes = len(samples.classes)
        spreader = Spreader(features, pool, classes, neighbours=self.neighbours)
        given = None if self.hierarchy is None else _numbered(self.hierarchy, samples.classes)

        def shares(known: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
            groups = given if given is not None else groups_by_means(features[known], labels, classes, self.groups)
            found = structured(spreader, known, labels, groups, rounds=self.rounds, levels=self.sure is not None)
            return found if self.sure is None else believed(found, groups, self.sure)

        return shares


def _numbered(hierarchy: dict[str, str], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The group of each class, (K,), numbered from 0. Raises `SpecError` for a class without a group, and a name that is no class."""
    import numpy as np

    for name in hierarchy:
        if name not in classes:
            raise SpecError(
                f"the data has no class '{name}'", where="semi.structured: hierarchy", hint=nearest(name, classes)
            )
    missing = [name for name in classes if name not in hierarchy]
    if missing:
        raise SpecError(
            f"class '{missing[0]}' has no group ({len(missing)} of {len(classes)} classes have none)",
            where="semi.structured: hierarchy",
            hint="name a group for every class; one that is alone has a group of its own",
        )
    return np.unique([hierarchy[name] for name in classes], return_inverse=True)[1].astype(np.int64)
