"""Data as values: data sets, episodes, distributions of tasks; a specification and a fingerprint each."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from mapsto.errors import DataError
from mapsto_runtime.signature import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
from mapsto.kinds.frozen import Frozen
from mapsto.kinds.stored_rows import StoredRows

__all__ = ["Dataset", "Episode", "Episodes", "Samples", "Tasks"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """An opened data set: in memory, memory-mapped, or on disk (`StoredRows`, of which each index reads its rows).

    `inputs` has shape (N, ...): images are uint8 (N, C, H, W), rows float32 (N, D), token ids integers (N, L). `labels` is int64 (N,)
    for classes, float32 (N, K) for multi-label and regression targets.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    """Names of the classes (or targets) in the order of their labels."""
    preprocessing: Preprocessing
    warnings: tuple[str, ...] = ()
    """What may spoil a result, with its remedy: broken files that were left out, pictures of one value."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of how the data were read, such as files that were passed over."""

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(f"{len(self.inputs)} inputs but {len(self.labels)} labels", hint="give one label an input")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: NDArray[np.int64]) -> Samples:
        """The samples at `indices`, in that order; of samples that stay on disk none is read."""
        inputs: Any = self.inputs
        chosen = inputs.taken(indices) if isinstance(inputs, StoredRows) else inputs[indices]
        return dataclasses.replace(self, inputs=chosen, labels=self.labels[indices])


class Dataset(Frozen):
    """A reference to labelled data: a spec and a content fingerprint, opened lazily. One file in ``mapsto/data/sets/``."""

    version: ClassVar[int] = 1

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the content (never of a path), cheap to compute and without opening the data where possible."""

    @abstractmethod
    def open(self) -> Samples:
        """The samples. Raises `DataError` that names the file and the remedy."""

    def read_for(self, preprocessing: Preprocessing) -> Dataset:
        """This data set as a network reads it: where the spec leaves open how files become samples, the network says it.

        Raw samples are the same for every network, so by default only the data sets that this one is made from are asked. What reads
        files overrides it. The fingerprint of a spec never depends on it.
        """
        return _read_for(self, preprocessing)

    def misread(self, preprocessing: Preprocessing) -> tuple[str, ...]:
        """Where the spec has files read otherwise than a network's package reads them, each with its remedy."""
        return _misread(self, preprocessing)


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One task: a labelled support set and a query set, as indices into the samples it was drawn from.

    Labels are 0 to ways - 1, int64, of shape (ways × shots,) and (ways × queries,); a regression task has targets instead,
    float32, of shape (shots, K) and (queries, K), and no classes.
    """

    samples: Samples
    support_indices: NDArray[np.int64]
    support_labels: NDArray[Any]
    query_indices: NDArray[np.int64]
    query_labels: NDArray[Any]
    classes: tuple[int, ...]
    """The data set's label of each way."""
    unlabelled_indices: NDArray[np.int64] | None = None
    """Samples that are given without labels, of the episode's classes and of others; None where there are none."""

    @property
    def outputs(self) -> int:
        """Numbers that a prediction consists of: one a class, or K."""
        return len(self.classes) or int(self.support_labels.shape[-1])

    @property
    def support(self) -> NDArray[Any]:
        """The support inputs, shape (ways × shots, ...)."""
        return self.samples.inputs[self.support_indices]

    @property
    def query(self) -> NDArray[Any]:
        """The query inputs, shape (ways × queries, ...)."""
        return self.samples.inputs[self.query_indices]


class Episodes:
    """An opened distribution of tasks: `episodes[i]` is deterministic in (seed, i).

    `samples` are those that tasks are drawn from; of tasks that are made rather than drawn, those of the first one. `ways` is 0
    for regression.
    """

    samples: Samples
    ways: int
    shots: int
    queries: int

    @abstractmethod
    def __getitem__(self, index: int) -> Episode: ...


class Tasks(Frozen):
    """A distribution of episodes over a `Dataset`."""

    version: ClassVar[int] = 1

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the data and of how tasks are drawn from it."""

    @abstractmethod
    def open(self) -> Episodes:
        """The tasks. Raises `DataError` where the data cannot give such an episode."""

    def read_for(self, preprocessing: Preprocessing) -> Tasks:
        """These tasks over data as a network reads them; see `Dataset.read_for`."""
        return _read_for(self, preprocessing)

    def misread(self, preprocessing: Preprocessing) -> tuple[str, ...]:
        """Where the data are read otherwise than a network's package reads them, each with its remedy."""
        return _misread(self, preprocessing)


_Reading = TypeVar("_Reading", Dataset, Tasks)


def _parts(spec: Frozen) -> dict[str, Dataset | Tasks]:
    """The data sets and tasks that a spec is made from, by field."""
    fields = {f.name: getattr(spec, f.name) for f in dataclasses.fields(cast("Any", spec))}
    return {name: value for name, value in fields.items() if isinstance(value, Dataset | Tasks)}


def _read_for(spec: _Reading, preprocessing: Preprocessing) -> _Reading:
    parts = _parts(spec)
    read = {name: part.read_for(preprocessing) for name, part in parts.items()}
    changes = {name: part for name, part in read.items() if part is not parts[name]}
    return dataclasses.replace(cast("Any", spec), **changes) if changes else spec


def _misread(spec: Frozen, preprocessing: Preprocessing) -> tuple[str, ...]:
    return tuple(text for part in _parts(spec).values() for text in part.misread(preprocessing))
