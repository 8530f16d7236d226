"""A task and a recipe as one row of numbers: the task's features, what the recipe's holes are filled with, and how the two meet.

How they meet is the landmark that is the recipe's own: on the network that it begins with, by the rule that is nearest to its head. It
holds for tasks of another domain as it does for those that are known, which a name of a network does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mapsto.search.advisor import space
from mapsto.search.advisor.space import Holes, Kind

__all__ = ["Encoding", "anchor", "own_landmark"]

_FACTS: Mapping[str, Mapping[str, float]] = {
    "lite0": {"parameters": 6.53, "macs": 7.51, "depth": 49, "learnt_photographs": 1, "learnt_characters": 0},
    "cifar_resnet20": {"parameters": 5.43, "macs": 7.61, "depth": 20, "learnt_photographs": 1, "learnt_characters": 0},
    "glyph_conv4": {"parameters": 5.05, "macs": 6.98, "depth": 4, "learnt_photographs": 0, "learnt_characters": 1},
}
"""Of networks: logarithms of the parameters and of the multiply-accumulates of an input, layers, and what they were trained on."""
_RULES = {"finetune": "ridge", "logistic": "ridge"}
_OF_STREAMS = {
    "softmax": ("late_ridge",),
    "prototypes": ("means_all", "means_recent"),
    "ridge": ("late_ridge",),
    "mlp": ("late_ridge", "near_any"),
    "tree": ("near_any",),
    "tabular": ("near_any", "near_recent", "no_change", "late_ridge"),
}


def own_landmark(kind: Kind, features: Mapping[str, float], holes: Holes) -> float:
    """The landmark, in [0, 1], that is nearest to a recipe; NaN where it is not known."""
    if kind == "stream":
        names: Sequence[str] = _OF_STREAMS[holes["learner"]]
    else:
        rule = holes["head"] if kind == "table" else holes["adaptation"]
        rule = _RULES.get(rule, rule)
        if kind == "images":
            names = (f"{holes['network']}_{rule}",)
        elif kind == "texts":
            names = (f"minilm_{rule}",)
        else:
            bases = {"trained": ("columns", "random")}.get(holes["embedding"], (holes["embedding"],))
            names = tuple(f"{base}_{rule}" for base in bases)
    known = [features[name] for name in names if name in features]
    return max(known) if known else math.nan


def anchor(kind: Kind, features: Mapping[str, float]) -> float:
    """The best of all recipes' own landmarks, in percent: what outcomes are told apart from. 50 where none is known."""
    known = [own_landmark(kind, features, holes) for holes in space.recipes(kind)]
    finite = [value for value in known if not math.isnan(value)]
    return 100.0 * max(finite) if finite else 50.0


class Encoding:
    """How tasks and recipes of a kind become rows; which features there are is taken from the tasks that are known."""

    def __init__(self, kind: Kind, known: Sequence[Mapping[str, float]]) -> None:
        self.kind: Kind = kind
        self.recipes = space.recipes(kind)
        self.names = sorted({name for each in known for name in each})
        self._options = [(hole, option) for hole, options in space.holes_of(kind).items() for option in options]
        facts = sorted({name for each in _FACTS.values() for name in each}) if kind == "images" else []
        self._of_recipes = np.array(
            [
                [float(holes[hole] == option) for hole, option in self._options]
                + [_FACTS[holes["network"]][fact] for fact in facts]
                for holes in self.recipes
            ]
        )

    def task(self, features: Mapping[str, float]) -> NDArray[np.float64]:
        """The task's part, (F,), NaN for what is missing."""
        return np.array([features.get(name, math.nan) for name in self.names])

    def rows(self, features: Mapping[str, float]) -> NDArray[np.float64]:
        """One row for every recipe of the space, (R, D)."""
        own = np.array([own_landmark(self.kind, features, holes) for holes in self.recipes])
        best = np.nanmax(own) if not np.isnan(own).all() else math.nan
        met = np.stack([own, own - best], axis=1)
        of_task = np.broadcast_to(self.task(features), (len(self.recipes), len(self.names)))
        return np.concatenate([self._of_recipes, met, of_task], axis=1)
