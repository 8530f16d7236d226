"""Samples of a data set as questions to an online learner: images as a column, rows by the columns that they were encoded from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Block, Model, Samples
from mapsto_runtime.shown import few

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Column

__all__ = ["class_scores", "questions", "unlabelled"]


def class_scores(model: Model, samples: Samples, *, batch: int, where: str) -> NDArray[np.float64]:
    """Probabilities (N, classes of the data) that a model gives; 0 for a class that it has not met, NaN where it takes no such sample.

    Raises `DomainError` where the data lacks a column or a class that the model knows.
    """
    known = model.signature.classes
    unknown = [name for name in known if name not in samples.classes]
    if unknown:
        raise DomainError(
            f"the model knows classes that the data has not: {few(unknown)}",
            where=where,
            hint="give it data with all of the model's classes",
        )
    learner = model.open()
    scores = np.concatenate([learner.predict(block) for block in questions(model, samples, batch=batch, where=where)])
    table = np.zeros((len(samples), len(samples.classes)))
    table[:, [samples.classes.index(name) for name in known]] = scores
    table[np.isnan(scores).any(axis=1)] = np.nan
    return table


def questions(model: Model, samples: Samples, *, batch: int, where: str) -> Iterator[Block]:
    """Blocks of at most `batch` questions. Raises `DomainError` where the data lacks a column that the model knows."""
    columns = _columns(model, samples)
    if model.base is None:
        missing = [column.name for column in model.signature.columns if column.name not in columns]
        if missing:
            raise DomainError(
                f"the data has no column {few(missing)}, from which the model has learnt",
                where=where,
                hint="give it data like the stream's",
            )
    for start in range(0, len(samples), batch):
        part = {name: column[start : start + batch] for name, column in columns.items()}
        count = len(samples.inputs[start : start + batch])
        yield unlabelled(part, count)


def unlabelled(x: Mapping[str, NDArray[Any]], count: int) -> Block:
    """Events without a label."""
    nothing = np.zeros(count, np.bool_)
    return Block(
        times=np.full(count, np.nan),
        ids=np.full(count, "", object),
        x=x,
        has_x=~nothing,
        y=np.full(count, "", object),
        has_y=nothing,
        next=None,
    )


def _columns(model: Model, samples: Samples) -> Mapping[str, NDArray[Any]]:
    inputs, encoded = samples.inputs, samples.preprocessing.columns
    if inputs.ndim > 2:
        return {"image": inputs}
    if encoded:
        ends = np.cumsum([column.width for column in encoded]).tolist()
        return {
            column.name: _raw(column, inputs[:, end - column.width : end].astype(np.float64))
            for column, end in zip(encoded, ends, strict=True)
        }
    vectors = [column.name for column in model.signature.columns if column.type == "vector"]
    if len(vectors) == 1 and model.base is None:
        return {vectors[0]: inputs.astype(np.float64)}
    return {f"x{place}": inputs[:, place].astype(np.float64) for place in range(inputs.shape[1])}


def _raw(column: Column, encoded: NDArray[np.float64]) -> NDArray[Any]:
    """A column (N,) as it was before it was encoded (N, width); a word that was missing is missing again."""
    values = encoded * column.std + column.mean
    if column.type == "numbers":
        return values[:, 0]
    words = np.array([*column.categories, ""], object)
    if column.encode == "ordinal":
        return words[np.clip(np.rint(values[:, 0]), 0, len(words) - 2).astype(int)]
    one_hot = np.isclose(values, 1.0).any(axis=1)
    return words[np.where(one_hot, values.argmax(axis=1), len(words) - 1)]
