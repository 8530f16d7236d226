"""A network that trains on a stream: raw events become samples, mini-batches gather of themselves, labels may come late.

A question is answered one sample a call, and a mini-batch is as many labelled events as its size says, counted in the state: blocks of
any size give the same bits.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.errors import DataError
from mapsto.kinds import Block, EventColumn, EventSignature, Network
from mapsto.nn.online.encoder import EMBEDDING
from mapsto.nn.online.learning import Answered, Answers, StreamLearner, many_classes, read_labels
from mapsto.nn.online.prequential import Record
from mapsto.nn.online.trained.forgetting import ForgettingRecord
from mapsto.nn.online.trained.late_samples import Asked, LateSamples
from mapsto.nn.online.trained.samples import RawSamples, packed, unpacked
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Labelled", "TrainedLearner", "Trainer"]


_LEFT_OUT = "a mini-batch is left out: learning from it would make weights that are not finite"


class Labelled(NamedTuple):
    """A sample with its label."""

    sample: NDArray[Any]
    label: int
    concept: str = ""
    """Which concept of the stream it is of, where a column or the trainer tells."""
    right: bool = True
    """Whether it was answered with its label."""


class Trainer:
    """What learns from mini-batches of samples. Only `grow`, `learn` and `restore` change it."""

    batch: int
    """Labelled events that it learns from together."""
    width: int
    """Numbers in the network's embedding."""
    left_out: int = 0
    """Mini-batches that were left out, since learning from them would have made weights that are not finite."""

    @abstractmethod
    def grow(self, classes: Sequence[str]) -> None:
        """Make room for these classes; what is there stays where it is."""

    @abstractmethod
    def scores(self, sample: NDArray[Any] | None, prepared: NDArray[Any] | None, concept: str) -> NDArray[np.float64]:
        """Probabilities (classes,) of one sample, as it is kept or as the network takes it (1, ...). Changes nothing."""

    @abstractmethod
    def learn(self, batch: Sequence[Labelled]) -> list[str]:
        """Learn from a mini-batch; gives what it did of itself beside.

        One after which something would not be finite is left out: all stays as it was before it, and it is counted.
        """

    def labelled(self, example: Labelled) -> tuple[Labelled, list[str]]:
        """Told of each labelled example as it comes, before its batch is full; gives it with its concept, and what it did of itself."""
        return example, []

    def raise_rate(self, factor: float) -> bool:
        """As of `StreamLearner.raise_rate`."""
        return False

    def reset_head(self) -> bool:
        """As of `StreamLearner.reset_head`."""
        return False

    def tables(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Tables of its own in the report."""
        return []

    def network(self, classes: Sequence[str]) -> Network | None:
        """The network that it has become; None where its answers are not those of one."""
        return None

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """What of the state is no array."""

    @abstractmethod
    def restore(self, classes: Sequence[str], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where its parts do not fit together."""


class TrainedLearner(StreamLearner):
    """A trainer at work on events.

    Parameters
    ----------
    trainer
        The trainer, which knows no class yet.
    samples
        How events become its samples.
    most_late
        How many questions are kept for their labels.
    concept
        The column that says which concept an event is of; empty for none.
    """

    def __init__(self, trainer: Trainer, samples: RawSamples, *, most_late: int, concept: str = "") -> None:
        self._trainer, self._samples, self._concept = trainer, samples, concept
        self._late = LateSamples(most_late)
        self._classes: dict[str, int] = {}
        self._pending: list[Labelled] = []
        self._met = False
        """Whether an event had features."""
        self._happened: list[tuple[int, str]] = []
        self._columns: list[str] = []
        """Those of the events so far while none had the concept's, for what is to be told; no part of the state."""
        self._told = not concept
        """Whether there is no such column to look for, or it was met."""
        self.aside = {}

    @property
    def trainer(self) -> Trainer:
        """What learns."""
        return self._trainer

    @property
    def signature(self) -> EventSignature:
        columns = (EventColumn(name=EMBEDDING, type="vector"),) if self._met else ()
        return EventSignature(columns=columns, classes=tuple(self._classes))

    @property
    def size(self) -> tuple[int, int]:
        return (self._trainer.width if self._met else 0), len(self._classes)

    @property
    def doubts(self) -> list[str]:
        found = many_classes(len(self._classes))
        if self._columns:
            found.append(
                f"there is no column '{short(self._concept)}' to tell the concepts, so that all events are of one; the columns are "
                f"{few(self._columns)}"
            )
        if self._trainer.left_out:
            found.append(f"{_LEFT_OUT}; lower the rates, or bring the inputs to a usual scale")
        return found

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        self._happened = []
        aside = dict(block.broken)
        labels, ids = read_labels(block, aside), block.ids.tolist()
        taken = self._taken(block, aside)
        found: dict[int, NDArray[np.float64]] = {}
        learnt: list[tuple[int, int]] = []
        for event, has_x in enumerate(block.has_x.tolist()):
            label = labels[event]
            if event in aside:
                continue
            asked = self._asked(block, event, taken, aside) if has_x else None
            if has_x and asked is None:
                continue
            if not has_x:
                if label is None:
                    continue
                asked = self._late.take(ids[event])
                if asked is None:
                    aside[event] = "a label of an unknown id"
                    continue
            elif label is None and ids[event] and asked is not None:
                self._late.keep(ids[event], asked)
            if asked is None:
                continue
            found[event] = asked.scores
            if label is not None:
                learnt.append((event, self._learn_one(event, asked, label)))
        for _, reason in sorted(aside.items()):
            self.aside[reason] = self.aside.get(reason, 0) + 1
        table = self._table(len(block), found)
        if answered is not None and learnt:
            events, numbers = np.array(learnt, np.int64).T
            answered(Answers(events, table[events], numbers))
        return table

    def raise_rate(self, factor: float) -> bool:
        return self._trainer.raise_rate(factor)

    def reset_head(self) -> bool:
        return self._trainer.reset_head()

    def predict(self, block: Block) -> NDArray[np.float64]:
        aside = dict(block.broken)
        taken = self._taken(block, aside)
        found: dict[int, NDArray[np.float64]] = {}
        for event in np.flatnonzero(block.has_x).tolist():
            asked = None if event in aside else self._asked(block, event, taken, aside, met=False)
            if asked is not None:
                found[event] = asked.scores
        return self._table(len(block), found)

    def of_prepared(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        return np.stack([self._trainer.scores(None, samples[at : at + 1], "") for at in range(len(samples))])

    def network(self) -> Network | None:
        return self._trainer.network(tuple(self._classes)) if self._classes else None

    def record(self, known: int) -> Record:
        return ForgettingRecord(known)

    def happened(self) -> list[tuple[int, str]]:
        return list(self._happened)

    def tables(self) -> list[dict[str, Any]]:
        found = self._trainer.tables(tuple(self._classes))
        if self._trainer.left_out:
            rows = [[_LEFT_OUT, self._trainer.left_out]]
            found.append({"title": "Left out of training", "columns": ["what", "mini-batches"], "rows": rows})
        return found

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        content, shapes = packed([each.sample for each in self._pending])
        return {
            "pending_samples": content,
            "pending_shapes": shapes,
            "pending_labels": np.array([each.label for each in self._pending], np.int64),
            **self._late.arrays(len(self._classes)),
            **self._trainer.arrays(),
        }

    def values(self) -> dict[str, Any]:
        return {
            "aside": dict(self.aside),
            "lengths": [self._trainer.width] if self._met else [],
            "late": self._late.values(),
            "pending_concepts": [each.concept for each in self._pending],
            "trainer": self._trainer.values(),
            **({"left_out": self._trainer.left_out} if self._trainer.left_out else {}),
        }

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._classes = {name: place for place, name in enumerate(signature.classes)}
        if len(self._classes) < len(signature.classes):
            raise ValueError("a class stands there twice")
        self._met = bool(signature.columns)
        samples = unpacked(arrays["pending_samples"], arrays["pending_shapes"])
        labels = arrays["pending_labels"].tolist()
        self._pending = [
            Labelled(sample, int(label), str(concept))
            for sample, label, concept in zip(samples, labels, values["pending_concepts"], strict=True)
        ]
        if not all(0 <= each.label < len(self._classes) for each in self._pending):
            raise ValueError("a class waits to be learnt that is not there")
        self._late.restore(arrays, values["late"])
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}
        self._trainer.restore(tuple(self._classes), arrays, values["trainer"])
        self._trainer.left_out = int(values.get("left_out", 0))

    # -- private

    def _taken(self, block: Block, aside: Mapping[int, str]) -> list[str]:
        """The columns of its samples; none where no event needs them."""
        wanted = any(has and event not in aside for event, has in enumerate(block.has_x.tolist()))
        return self._samples.taken(self._without_concept(block)) if wanted else []

    def _without_concept(self, block: Block) -> Block:
        if self._concept not in block.x:
            self._columns = [] if self._told else list(block.x)
            return block
        self._told, self._columns = True, []
        return dataclasses.replace(block, x={name: x for name, x in block.x.items() if name != self._concept})

    def _asked(
        self, block: Block, event: int, taken: Sequence[str], aside: dict[int, str], *, met: bool = True
    ) -> Asked | None:
        """An event's sample, and what is answered to it; None where it is set aside."""
        try:
            sample = self._samples.read({name: block.x[name][event] for name in taken})
        except DataError:
            aside[event] = f"{few(taken)}: not what the network takes"
            return None
        concept = str(block.x[self._concept][event]) if self._concept in block.x else ""
        scores = self._trainer.scores(sample, None, concept)
        if not np.isfinite(scores).all():
            aside[event] = f"{few(taken)}: so large that the network's answer is not finite"
            return None
        if met:
            self._met = True
        return Asked(sample, concept, scores)

    def _learn_one(self, event: int, asked: Asked, label: str) -> int:
        number = self._classes.get(label)
        if number is None:
            number = self._classes[label] = len(self._classes)
            self._trainer.grow(tuple(self._classes))
        scores = asked.scores
        right = number < len(scores) and bool(scores[number] > 0) and int(scores.argmax()) == number
        example, did = self._trainer.labelled(Labelled(asked.sample, number, asked.concept, right))
        self._pending.append(example)
        if len(self._pending) >= self._trainer.batch:
            batch, self._pending = self._pending, []
            before = self._trainer.left_out
            did = [*did, *self._trainer.learn(batch)]
            if not before and self._trainer.left_out:  # told once, and counted
                did.append(_LEFT_OUT)
        self._happened += [(event, what) for what in did]
        return number

    def _table(self, count: int, found: Mapping[int, NDArray[np.float64]]) -> NDArray[np.float64]:
        table = np.zeros((count, len(self._classes)))
        if len(found) < count:
            table.fill(np.nan)
        for event, scores in found.items():
            table[event] = 0.0
            table[event, : len(scores)] = scores
        return table
