"""A model as a package for hosts that have mapsto: the model itself under ``model/``, which is opened there as in training.

Rows come to it as float64, with what is missing as NaN and words as the numbers of their categories, so that it sees what it saw in
training; an encoder's samples come as the encoder takes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto import discovery
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Block, Column, Model, Network, Package, Preprocessing, Signature, Stream, TensorSpec
from mapsto.nn.export.package import put, text_of
from mapsto.nn.online.dataset_events import unlabelled
from mapsto.nn.online.encoder import EMBEDDING, EncodedLearner, encoder_of
from mapsto.nn.online.event_rows import OTHERS
from mapsto.nn.online.head import RowColumn
from mapsto.nn.online.learning import StreamLearner
from mapsto.nn.online.model_files import loaded, saved
from mapsto.nn.online.package_parity import events, parity
from mapsto.nn.online.packaged_model import marked_words, require_one_source, require_packageable, scores_of, size_of
from mapsto_runtime.runtimes.mapsto import MODEL, NAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.runtimes import Run

__all__ = ["hosted_model", "opened"]

_FORMAT = 4


def hosted_model(value: Model, stream: Stream | None, ctx: Context, *, samples: int, where: str) -> Package:
    """The model as a package; parameters as of `packaged_model`.

    Raises `DomainError` where it has learnt nothing yet, takes columns that a package's rows cannot hold, or trains a network as a member.
    """
    require_packageable(value, where)
    learner = cast("StreamLearner", value.open())
    if value.base is not None and _encodes(value) and not isinstance(learner, EncodedLearner):
        raise DomainError(
            f"a member of {value.learner} trains the network that it stands on, which no package holds",
            where=where,
            hint="package a model of that member alone, such as online.finetune",
        )
    layout = _layout(value)
    of_values = value.values.get("task", "classes") == "values"
    classes = ("value",) if of_values else value.signature.classes
    if not classes:
        raise DomainError("the model has met no label, and has no classes", where=where, hint="let it learn first")
    signature = _signature(value, layout, classes, where)
    if of_values:
        signature = dataclasses.replace(signature, answers="values")
    contents, folder = saved(value), ctx.scratch()
    run = opened(put(contents, folder))
    unit = 1.0 if of_values else None
    found = parity(learner, signature, run, events(stream, signature, layout, samples), unit, where)
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "runtime": NAME,
        "model": MODEL,
        "signature": signature.plain(),
        "parameters": sum(array.size for array in value.arrays.values()) + size_of(value.base)[0],
        "learner": {"name": value.learner, "version": value.version, "events": value.events},
        "parity": {"on": "events" if stream is not None else "generated", **found},
    }
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()
    }
    return Package(files=put({**contents, "manifest.json": text_of(manifest)}, folder))


def opened(files: Mapping[str, Path]) -> Run:
    """What answers with the model of a package's verified files: prepared samples → scores, or values.

    Raises `StoreError` where the model is not whole or of another version, `MissingExtra` where its learner needs what is not installed.
    """
    model = loaded(files)
    if not _encodes(model):
        return _of_trained(cast("StreamLearner", model.open()))
    encoder = None if model.base is None else encoder_of(model.base)
    learner, layout = dataclasses.replace(model, base=None).open(), _layout(model)
    of_values = model.values.get("task", "classes") == "values"

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        (given,) = inputs
        if encoder is not None:
            vectors = np.stack([encoder.embedded(given[place : place + 1]) for place in range(len(given))])
            block = unlabelled({EMBEDDING: vectors}, len(given))
        else:
            block = _block(given, layout)
        answers = learner.predict(block)
        return answers if of_values else np.log(np.maximum(answers, 1e-300))

    return run


def _encodes(model: Model) -> bool:
    """Whether the network that it stands on makes features for it, and does not learn itself."""
    return bool(getattr(discovery.find("mappings", model.learner), "encodes", True))


def _of_trained(learner: StreamLearner) -> Run:
    """What answers with a network that was trained on a stream."""

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        (given,) = inputs
        return np.log(np.maximum(learner.of_prepared(given), 1e-300))

    return run


def _layout(value: Model) -> tuple[RowColumn, ...]:
    """What rows are made of: a place a column, of a vector as many as it has."""
    found: list[RowColumn] = []
    count = 0
    lengths = _lengths(value)
    for column in value.signature.columns:
        width = next(lengths) if column.type == "vector" else 1
        found.append(
            RowColumn(
                name=column.name,
                type=column.type,
                places=tuple(range(count, count + width)),
                categories=column.categories,
                crowded=OTHERS in column.categories,  # which comes last
            )
        )
        count += width
    return tuple(found)


def _lengths(value: Model) -> Any:
    """How many places each column of vectors has."""
    if "lengths" in value.values:
        kinds = [column.type for column in value.signature.columns]
        every = cast("list[int]", value.values["lengths"])
        return iter([length for kind, length in zip(kinds, every, strict=True) if kind == "vector"])
    vectors = value.arrays.get("vector_inputs")
    return iter([] if vectors is None else vectors[:, 1].tolist())


def _signature(value: Model, layout: tuple[RowColumn, ...], classes: tuple[str, ...], where: str) -> Signature:
    vectors = require_one_source(layout, where)
    outputs = (dataclasses.replace(scores_of(classes), dtype="float64"),)
    if value.base is not None:
        if layout[0].name != EMBEDDING:
            raise DomainError("the model has learnt nothing of what its encoder makes", where=where)
        before = value.base.signature if isinstance(value.base, Network) else _signature_of(value.base)
        return dataclasses.replace(before, outputs=outputs, classes=classes, answers="classes")
    columns = () if vectors else tuple(_column(column) for column in layout)
    kind, width = ("float32", len(layout[0].places)) if vectors else ("float64", len(columns))
    return Signature(
        inputs=(TensorSpec(name="input", dtype=kind, shape=("N", width)),),
        outputs=outputs,
        preprocessing=Preprocessing(kind="none", columns=columns, header=tuple(column.name for column in columns)),
        classes=classes,
    )


def _signature_of(package: Package) -> Signature:
    return Signature.from_plain(package.manifest()["signature"])


def _column(column: RowColumn) -> Column:
    if column.type == "number":
        return Column(name=column.name, missing="marked")
    return marked_words(column)


def _block(rows: NDArray[Any], layout: tuple[RowColumn, ...]) -> Block:
    """The events that rows (N, D) were made of."""
    x: dict[str, NDArray[Any]] = {}
    for column in layout:
        cells = rows[:, list(column.places)].astype(np.float64)
        if column.type == "vector":
            x[column.name] = cells
        elif column.type == "number":
            x[column.name] = cells[:, 0]
        else:
            words = np.array([*column.categories, ""], object)
            x[column.name] = words[np.where(np.isnan(cells[:, 0]), -1, cells[:, 0]).astype(np.int64)]
    return unlabelled(x, len(rows))
