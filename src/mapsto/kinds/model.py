"""An online learner as a value: what it has learnt up to a position of its stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from mapsto import discovery
from mapsto.errors import StoreError
from mapsto.kinds.frozen import Json
from mapsto.kinds.network import Network
from mapsto.kinds.package import Package
from mapsto.kinds.stream import Block, ColumnType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EventColumn", "EventSignature", "Learner", "Model", "RowType"]

RowType: TypeAlias = ColumnType | Literal["vector"]
"""What a feature is to a learner: a column of events, or the vectors that an encoder makes of images, texts or rows."""


@dataclass(frozen=True, kw_only=True)
class EventColumn:
    """A feature that has been met."""

    name: str
    type: RowType
    categories: tuple[str, ...] = ()
    """The words that have been met, in that order; none for numbers."""


@dataclass(frozen=True, kw_only=True)
class EventSignature:
    """What events have held so far: it grows with the stream, and nothing in it moves."""

    columns: tuple[EventColumn, ...] = ()
    """In the order in which they were met."""
    classes: tuple[str, ...] = ()
    """The labels in the order in which they were met, which is that of the scores."""

    @classmethod
    def from_plain(cls, tree: Mapping[str, Any]) -> EventSignature:
        """The signature that `dataclasses.asdict` made JSON of."""
        columns: list[dict[str, Any]] = [{**each, "categories": tuple(each["categories"])} for each in tree["columns"]]
        return cls(columns=tuple(EventColumn(**each) for each in columns), classes=tuple(tree["classes"]))


class Learner(Protocol):
    """A live online learner. Only `learn` changes it."""

    @property
    def signature(self) -> EventSignature:
        """What it has met so far."""
        ...

    def learn(self, block: Block) -> NDArray[np.float64]:
        """Take the events in order, and learn from each that has a label.

        Returns
        -------
        NDArray
            (N, classes): for each event the scores from before its label was seen; of a late label those from when its features came.
            0 for a class that was not known then, NaN for an event that was set aside.
        """
        ...

    def predict(self, block: Block) -> NDArray[np.float64]:
        """Scores (N, classes) for questions that no label will follow. Changes nothing."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """An online learner at a position. `state` is flat: `arrays` by name, and `values` that are JSON."""

    learner: str
    """The name of its mapping, such as ``online.softmax``."""
    version: int
    """That mapping's version."""
    fields: Mapping[str, Json]
    """That mapping's fields, without its stream."""
    signature: EventSignature
    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Json]
    events: int
    """How many it has taken."""
    position: Json
    """Where in its stream it stands."""
    base: Network | Package | None = None
    """What it stands on, where there is one: an encoder of its inputs."""

    def open(self) -> Learner:
        """The live learner. Raises `StoreError` where this mapsto's version of it is another."""
        mapping = discovery.find("mappings", self.learner)
        if mapping.version != self.version:
            raise StoreError(
                f"the model is of {self.learner} version {self.version}; this mapsto has version {mapping.version}",
                hint="run its stream again, or install the mapsto that made it",
            )
        if not hasattr(mapping, "learner_of"):
            raise StoreError(f"the model is of {self.learner}, which is no online learner", hint="run its stream again")
        return mapping.learner_of(self)
