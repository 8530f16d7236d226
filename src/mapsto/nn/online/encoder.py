"""A frozen encoder before an online learner: images, rows or ids of a stream become vectors of features, by its own preprocessing.

The features are what the encoder's head is given. A network runs in PyTorch, a package in ONNX Runtime, int8 where it is quantized. An
event is encoded by itself, so that blocks of any size give the same bits.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto.errors import DataError, DomainError
from mapsto.kinds import Block, ColumnType, EventSignature, Network, Package, Signature
from mapsto.nn.online.head import Head, RowColumn
from mapsto.nn.online.learning import Answered, StreamLearner
from mapsto.nn.online.onnx_tabular import TabularSnapshot
from mapsto.nn.online.prequential import Record
from mapsto_runtime.preprocessing import read_input
from mapsto_runtime.preprocessing.raw_tables import RawTable
from mapsto_runtime.preprocessing.tables import encoded
from mapsto_runtime.preprocessing.texts import ASSET
from mapsto_runtime.shown import few

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EMBEDDING", "EncodedLearner", "Encoder", "EventSamples", "encoder_of"]

EMBEDDING = "embedding"
"""The column that takes the place of those that are encoded."""


class EventSamples:
    """Raw events as a network's samples, by its signature: which columns it takes, and how they become its input.

    Parameters
    ----------
    signature
        Of the network.
    types
        Columns whose type the stream knows.
    """

    def __init__(self, signature: Signature, types: Mapping[str, ColumnType] | None = None) -> None:
        self.signature = signature
        self._types = types or {}

    def taken(self, block: Block) -> list[str]:
        """The columns that are encoded."""
        before, shape = self.signature.preprocessing, self.signature.inputs[0].shape[1:]
        arrays = [name for name, column in block.x.items() if column.ndim > 1]
        if before.kind == "none" and before.columns:
            named = [column.name for column in before.columns]
            missing = [name for name in named if name not in block.x]
            if missing:
                raise DomainError(
                    f"the encoder takes rows of a table, and the stream has no column {few(missing)}",
                    where="stream",
                    hint="give the columns that it was trained with",
                )
            return named
        if before.kind == "text":
            return self._texts(block)
        if before.kind == "image":
            arrays = [name for name in arrays if block.x[name].ndim > 2]
        if "image" in arrays or len(arrays) == 1:
            return ["image"] if "image" in arrays else arrays
        if not arrays and before.kind == "none":
            for numbers in self._numbers(block):
                if (len(numbers),) == shape:
                    return numbers
        takes = "images" if before.kind == "image" else f"arrays of shape {shape}"
        raise DomainError(
            f"the encoder takes {takes}, and the stream's columns are {few(list(block.x)) or 'none'}",
            where="stream",
            hint="give one column of them" if not arrays else "name the column 'image'",
        )

    def _numbers(self, block: Block) -> list[list[str]]:
        """What the columns of numbers may be, likeliest first.

        A word in one block changes neither the first two, and its event alone is set aside.
        """
        known = [name for name in block.x if self._types.get(name) == "number"]
        floats = [name for name, column in block.x.items() if column.dtype.kind == "f"]
        return [known, list(block.x), floats]

    def _texts(self, block: Block) -> list[str]:
        """The columns of texts: those of training where the stream has them, else its only ones of words."""
        before = self.signature.preprocessing
        if before.header and all(name in block.x for name in before.header):
            return list(before.header)
        words = [name for name, column in block.x.items() if column.dtype.kind in "OU" and column.ndim == 1]
        if len(words) == before.texts:
            return words
        raise DomainError(
            f"the encoder takes {'a text' if before.texts == 1 else f'{before.texts} texts'}, and the stream's columns of words are "
            f"{few(words) or 'none'}",
            where="stream",
            hint="name the columns of texts as features of the stream",
        )

    def prepared(self, cells: Mapping[str, Any]) -> NDArray[Any]:
        """One event's sample (1, ...), as the network takes it."""
        before = self.signature.preprocessing
        if before.kind == "none" and before.columns:
            columns = tuple(np.array([_cell(cells[name])], object) for name in cells)
            rows = encoded(RawTable(names=tuple(cells), columns=columns), before, "event")
            if rows.errors:
                raise rows.errors[0]
            return rows.rows
        if before.kind == "text":
            texts = np.array(list(cells.values()), object)
            return read_input(texts if before.texts == 1 else texts[None], self.signature)
        values = [*map(_number, cells.values())]
        return read_input((np.asarray(values[0]) if len(values) == 1 else np.array(values))[None], self.signature)


class Encoder:
    """Raw events → vectors of features.

    Parameters
    ----------
    signature
        Of the network: which columns it takes, and how they become its input.
    types
        Columns whose type the stream knows.
    """

    def __init__(self, signature: Signature, types: Mapping[str, ColumnType] | None = None) -> None:
        self._samples = EventSamples(signature, types)

    @abstractmethod
    def embedded(self, prepared: NDArray[Any]) -> NDArray[np.float64]:
        """The features (D,) of one prepared sample (1, ...)."""

    def encoded(self, block: Block) -> Block:
        """The block with a column of vectors in place of those that are encoded; what cannot be encoded is set aside.

        Raises `DomainError` where the stream has no column that the encoder takes.
        """
        wanted = [event for event, has in enumerate(block.has_x.tolist()) if has and event not in block.broken]
        if not wanted:
            return dataclasses.replace(block, x={})
        taken = self._samples.taken(block)
        broken = dict(block.broken)
        found: dict[int, NDArray[np.float64]] = {}
        for event in wanted:
            try:
                found[event] = self.embedded(self._samples.prepared({name: block.x[name][event] for name in taken}))
            except DataError:
                broken[event] = f"{few(taken)}: not what the encoder takes"
        others = {name: column for name, column in block.x.items() if name not in taken}
        if found:
            vectors = np.zeros((len(block), len(next(iter(found.values())))))
            for event, vector in found.items():
                vectors[event] = vector
            others[EMBEDDING] = vectors
        return dataclasses.replace(block, x=others, broken=broken)


def _number(value: Any) -> Any:
    """A cell of a column of numbers; arrays as they are. Raises `DataError` for what is none."""
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, np.str_):
        return cast("Any", value)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("is no number", where="event") from error


def _cell(value: Any) -> Any:
    """A cell of a table; None for a missing one."""
    return None if value == "" or value != value else value  # noqa: PLR0124 - NaN


class _NetworkEncoder(Encoder):
    def __init__(self, network: Network, types: Mapping[str, ColumnType] | None = None) -> None:
        super().__init__(network.signature, types)
        self._module = network.module()

    def embedded(self, prepared: NDArray[Any]) -> NDArray[np.float64]:
        import torch

        from mapsto.nn.network.head import embed

        with torch.inference_mode():
            return embed(self._module, torch.from_numpy(prepared))[0].numpy().astype(np.float64)


class _PackageEncoder(Encoder):
    def __init__(self, package: Package, types: Mapping[str, ColumnType] | None = None) -> None:
        from mapsto_runtime.manifest import checked_signature
        from mapsto_runtime.runtimes.onnxruntime import session

        manifest = package.manifest()
        if manifest.get("runtime", "onnxruntime") != "onnxruntime":
            raise DomainError(
                f"the package is for {manifest['runtime']}, in which no features can be taken",
                where="encoder",
                hint="export it for ONNX Runtime: export.onnx",
            )
        signature = checked_signature(manifest["signature"])
        if signature.preprocessing.kind == "text":
            signature = signature.reading(package.files[ASSET].read_bytes())
        super().__init__(signature, types)
        path: Path = package.files[manifest["model"]]
        model = path.read_bytes()
        if signature.classes is not None:
            from mapsto.nn.export.embedding import without_head

            model = without_head(model, where="encoder")
        self._session = session(model)
        self._name = self._session.get_inputs()[0].name

    def embedded(self, prepared: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(self._session.run(None, {self._name: prepared})[0], np.float64).reshape(-1)


def encoder_of(base: Network | Package, types: Mapping[str, ColumnType] | None = None) -> Encoder:
    """The encoder that a network or a package is, on a stream that knows these columns' types.

    Raises `DomainError` for one of which no features can be taken.
    """
    return _NetworkEncoder(base, types) if isinstance(base, Network) else _PackageEncoder(base, types)


class EncodedLearner(StreamLearner):
    """A learner behind an encoder: it is given features, and asked with raw events."""

    def __init__(self, encoder: Encoder, learner: StreamLearner) -> None:
        self._encoder, self._learner = encoder, learner
        self.task = learner.task

    @property
    def aside(self) -> dict[str, int]:  # type: ignore[override]
        return self._learner.aside

    @property
    def signature(self) -> EventSignature:
        return self._learner.signature

    @property
    def size(self) -> tuple[int, int]:
        return self._learner.size

    @property
    def doubts(self) -> list[str]:
        return self._learner.doubts

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        return self._learner.learn(self._encoder.encoded(block), answered)

    def predict(self, block: Block) -> NDArray[np.float64]:
        return self._learner.predict(self._encoder.encoded(block))

    def head(self) -> tuple[Head, tuple[RowColumn, ...]] | None:
        return self._learner.head()

    def snapshot(self) -> tuple[TabularSnapshot, tuple[RowColumn, ...]] | None:
        return self._learner.snapshot()

    def shares(self) -> Mapping[str, float]:
        return self._learner.shares()

    def importance(self) -> Mapping[str, float]:
        return self._learner.importance()

    def raise_rate(self, factor: float) -> bool:
        return self._learner.raise_rate(factor)

    def reset_head(self) -> bool:
        return self._learner.reset_head()

    def record(self, known: int) -> Record:
        return self._learner.record(known)

    def happened(self) -> list[tuple[int, str]]:
        return self._learner.happened()

    def tables(self) -> list[dict[str, Any]]:
        return self._learner.tables()

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self._learner.arrays()

    def values(self) -> dict[str, Any]:
        return self._learner.values()

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._learner.restore(signature, arrays, values)
