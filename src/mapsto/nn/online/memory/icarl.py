"""iCaRL: exemplars chosen by herding, distillation, and answers by the nearest mean of a class's exemplars.

``L = Σ_k BCE(σ(z_k), t_k)`` over mini-batch and exemplars, with t_k what the earlier network gave to class k, and for classes that it did
not know, and for the sample's own, the label. An answer is the class whose mean of unit embeddings is nearest (Rebuffi et al., "iCaRL:
Incremental Classifier and Representation Learning", 2017).

Where new classes come, and every so many labelled events, the earlier network becomes the present one, and the exemplars of each class are
put in the order in which they bring their mean closest to the class's: the last ones make room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize, one_hot

from mapsto.nn.online.trained.growing_network import FrozenCopy
from mapsto.nn.online.trained.method import Method, Step
from mapsto.nn.online.trained.sample_memory import SampleMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Icarl"]

_OF_A_CLASS = 20
"""Exemplars of a class, the first ones, by which answers are given: as many as in the paper at 100 classes."""
_SHARPNESS = 10.0
"""Of the probabilities; the order of the classes does not depend on it."""
_AT_ONCE = 100


class _Exemplars(SampleMemory):
    """Samples of a class in the order in which they are to be kept; the last of the largest class makes room."""

    def place(self, label: int, rng: np.random.Generator) -> int | None:
        if len(self) < self.capacity:
            return len(self)
        if not len(self):
            return None
        largest = self._largest_classes()
        if label not in largest:
            return self._places_of(largest[:1])[-1]
        own = self._places_of([label])
        drawn = int(rng.integers(self.met[label]))
        return own[drawn] if drawn < len(own) else None

    def dropped(self, rng: np.random.Generator) -> int:
        return self._places_of(self._largest_classes()[:1])[-1]

    def reorder(self, order: list[int]) -> None:
        """Put the samples in this order."""
        self.samples = [self.samples[place] for place in order]
        self.labels = [self.labels[place] for place in order]


class Icarl(Method):
    """Exemplars and the nearest of their means."""

    policy = _Exemplars
    consolidates = True
    is_network = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._earlier: FrozenCopy | None = None
        self._means: tuple[list[int], Tensor] | None = None
        """Classes, and their means (classes, D); not part of the state."""

    def loss(self, step: Step) -> Tensor:
        places = self.replayed(step.draws)
        inputs, labels = step.inputs, step.labels
        if places:
            old = self.inputs_of(places, step.draws)
            step.logits, of_old = self.together(inputs, old)
            logits, labels = torch.cat([step.logits, of_old]), torch.cat([labels, self.labels_of(places)])
        else:
            old = None
            step.logits = logits = self.network.logits(self.network.features(inputs))
        target = one_hot(labels, self.network.classes).float()
        if self._earlier is not None:
            parts = [inputs] if old is None else [inputs, old]
            earlier = torch.cat([self._earlier.logits(part) for part in parts]).sigmoid()
            own = target.bool()[:, : self._earlier.classes]
            target[:, : self._earlier.classes] = torch.where(own, 1.0, earlier)
        return binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(labels)

    def keep(self, step: Step) -> str:
        self._means = None
        return super().keep(step)

    def learnt(self) -> None:
        self._means = None

    def consolidate(self, draws: np.random.Generator) -> str:
        self._earlier = self.network.frozen()
        held = cast("_Exemplars", self.memory)
        order: list[int] = []
        for label in range(len(held.met)):
            places = [place for place, own in enumerate(held.labels) if own == label]
            if places:
                order += [places[each] for each in herded(self._embedded(places))]
        held.reorder(order)
        return "exemplars are put in order"

    def scores(self, features: Tensor) -> Tensor:
        found = torch.zeros(self.network.classes, dtype=torch.float64)
        if self._means is None:
            self._means = self._class_means()
        classes, means = self._means
        if not classes:
            return super().scores(features)
        distances = (normalize(features) - means).square().sum(1).double()
        found[classes] = (-_SHARPNESS * distances).softmax(0)
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {} if self._earlier is None else self._earlier.arrays()

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        if arrays:
            self._earlier = self.network.frozen()
            self._earlier.restore(arrays)

    def _class_means(self) -> tuple[list[int], Tensor]:
        held = cast("SampleMemory", self.memory)
        places: dict[int, list[int]] = {}
        for place, label in enumerate(held.labels):
            if len(places.setdefault(label, [])) < _OF_A_CLASS:
                places[label].append(place)
        classes = sorted(places)
        if not classes:
            return [], torch.zeros(0, self.network.width)
        return classes, torch.stack([normalize(self._embedded(places[label]).mean(0), dim=0) for label in classes])

    @torch.no_grad()
    def _embedded(self, places: list[int]) -> Tensor:
        """Unit embeddings (n, D) of exemplars."""
        parts = [places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE)]
        return normalize(torch.cat([self.network.features(self.inputs_of(part)) for part in parts]))


def herded(features: Tensor) -> list[int]:
    """Rows (n, D) in the order in which the mean of the first k is nearest to the mean of all, for each k in turn.

    >>> herded(torch.tensor([[0.0], [1.0], [5.0]]))
    [1, 2, 0]
    """
    mean, total = features.mean(0), torch.zeros(features.shape[1])
    left, order = list(range(len(features))), list[int]()
    while left:
        away = (mean - (total + features[left]) / (len(order) + 1)).square().sum(1)
        best = left.pop(int(away.argmin()))
        order.append(best)
        total = total + features[best]
    return order
