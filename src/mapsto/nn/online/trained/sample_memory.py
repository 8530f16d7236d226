"""A memory of past samples, bounded in bytes: samples in the type that they came in, their labels, and scores where a method keeps them.

Which sample makes room for which is a policy:

- `Reservoir`: every sample so far is kept with the same probability (Vitter, "Random Sampling with a Reservoir", 1985);
- `BalancedReservoir`: a reservoir for each class, where the largest classes make room (Chrysakis and Moens, "Online Continual Learning from
  Imbalanced Data", 2020);
- `Greedy`: a class takes no more than its share, and the largest makes room at random (Prabhu, Torr and Dokania, "GDumb", 2020);
- `Recent`: the last samples.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto.nn.online.trained.samples import packed, unpacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BalancedReservoir", "Greedy", "Recent", "Reservoir", "SampleMemory"]

_LABEL_BYTES = 4
_SCORE_BYTES = 4


class SampleMemory:
    """As many samples as `most_bytes` hold, counted by the largest that was met.

    >>> memory = Recent(30)
    >>> for label in range(9):
    ...     memory.add(np.full(6, label, np.uint8), label % 2, None, np.random.default_rng(0))
    >>> memory.labels, memory.capacity, memory.bytes
    ([0, 1, 0], 3, 30)
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.samples: list[NDArray[Any]] = []
        self.labels: list[int] = []
        self.scores: list[NDArray[np.float32]] = []
        """Of each sample (classes known then,), where a method keeps them."""
        self.met: list[int] = []
        """Samples of each class that were met."""
        self._largest = 0
        self._widest = 0

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def capacity(self) -> int:
        """How many samples it may hold; 0 before the first is known."""
        each = self._largest + _LABEL_BYTES + self._widest * _SCORE_BYTES
        return self._most_bytes // each if self._largest else 0

    @property
    def bytes(self) -> int:
        """Of what is kept."""
        samples = sum(each.nbytes for each in self.samples)
        return samples + _LABEL_BYTES * len(self.labels) + sum(each.nbytes for each in self.scores)

    @property
    def most_bytes(self) -> int:
        """The bound."""
        return self._most_bytes

    def counts(self) -> list[int]:
        """Samples of each class that are kept."""
        return np.bincount(np.array(self.labels, np.int64), minlength=len(self.met)).tolist()

    def add(
        self, sample: NDArray[Any], label: int, scores: NDArray[np.float32] | None, rng: np.random.Generator
    ) -> None:
        """Offer a sample; the policy says whether it is kept, and what makes room."""
        self.met += [0] * (label + 1 - len(self.met))
        self.met[label] += 1
        self._largest = max(self._largest, sample.nbytes)
        self._widest = max(self._widest, 0 if scores is None else len(scores))
        while len(self) > self.capacity:  # samples have become larger, or scores longer
            self.drop(self.dropped(rng))
        place = self.place(label, rng)
        if place is None:
            return
        if place == len(self):
            self.samples.append(sample)
            self.labels.append(label)
            if scores is not None:
                self.scores.append(scores)
            return
        self.samples[place], self.labels[place] = sample, label
        if scores is not None:
            self.scores[place] = scores

    @abstractmethod
    def place(self, label: int, rng: np.random.Generator) -> int | None:
        """Where a sample is put, which is counted as met already: a place that is held, or the next one; None for nowhere."""

    def dropped(self, rng: np.random.Generator) -> int:
        """The sample that goes where there are too many."""
        return int(rng.integers(len(self)))

    def drop(self, place: int) -> None:
        """Let a sample go."""
        for each in (self.samples, self.labels, self.scores):
            if place < len(each):
                del each[place]

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Places of at most so many samples, each once."""
        return rng.permutation(len(self))[:count].tolist()

    def held(self) -> dict[str, Any]:
        """All of it as it is now, for `put_back`."""
        return {
            name: [*cast("list[Any]", each)] if isinstance(each, list) else each for name, each in vars(self).items()
        }

    def put_back(self, held: Mapping[str, Any]) -> None:
        """Be as it was then."""
        vars(self).update(held)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state."""
        content, shapes = packed(self.samples)
        scores = np.full((len(self.scores), self._widest), np.nan, np.float32)
        for place, each in enumerate(self.scores):
            scores[place, : len(each)] = each
        return {
            "memory_samples": content,
            "memory_shapes": shapes,
            "memory_labels": np.array(self.labels, np.int32),
            "memory_scores": scores,
        }

    def values(self) -> dict[str, Any]:
        """What of the state is no array."""
        return {"met": list(self.met), "largest": self._largest}

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where its parts do not fit together."""
        self.samples = unpacked(arrays["memory_samples"], arrays["memory_shapes"])
        self.labels = [int(label) for label in arrays["memory_labels"].tolist()]
        scores = arrays["memory_scores"]
        self._widest = scores.shape[1]
        self.scores = [row[: int(np.isfinite(row).sum())].copy() for row in scores]
        self.met, self._largest = [int(count) for count in values["met"]], int(values["largest"])
        if len(self.labels) != len(self.samples) or len(scores) not in (0, len(self.labels)):
            raise ValueError(f"{len(self.samples)} samples with {len(self.labels)} labels and {len(scores)} scores")
        if not all(0 <= label < len(self.met) for label in self.labels):
            raise ValueError("a sample of a class that was not met")

    def _largest_classes(self) -> list[int]:
        counts = self.counts()
        return [label for label, count in enumerate(counts) if count == max(counts)]

    def _places_of(self, classes: Sequence[int]) -> list[int]:
        return [place for place, label in enumerate(self.labels) if label in classes]


class Reservoir(SampleMemory):
    """Every sample so far with the same probability."""

    def place(self, label: int, rng: np.random.Generator) -> int | None:
        if len(self) < self.capacity:
            return len(self)
        drawn = int(rng.integers(sum(self.met)))
        return drawn if drawn < len(self) else None


class BalancedReservoir(SampleMemory):
    """Every sample of a class so far with the same probability, and classes as even as the stream allows."""

    def place(self, label: int, rng: np.random.Generator) -> int | None:
        if len(self) < self.capacity:
            return len(self)
        if not len(self):
            return None
        largest = self._largest_classes()
        if label not in largest:
            places = self._places_of(largest)
            return places[int(rng.integers(len(places)))]
        own = self._places_of([label])
        drawn = int(rng.integers(self.met[label]))
        return own[drawn] if drawn < len(own) else None


class Greedy(SampleMemory):
    """A class takes no more than its share."""

    def place(self, label: int, rng: np.random.Generator) -> int | None:
        counts = self.counts()
        share = self.capacity // max(1, sum(1 for met in self.met if met))
        if len(self) < self.capacity and (counts[label] < share or share == 0):
            return len(self)
        if not len(self) or counts[label] >= max(share, 1):
            return None
        places = self._places_of(self._largest_classes())
        return places[int(rng.integers(len(places)))]


class Recent(SampleMemory):
    """The last samples, the oldest first."""

    def place(self, label: int, rng: np.random.Generator) -> int | None:
        if not self.capacity:
            return None
        if len(self) >= self.capacity:
            self.drop(0)
        return len(self)

    def dropped(self, rng: np.random.Generator) -> int:
        return 0
