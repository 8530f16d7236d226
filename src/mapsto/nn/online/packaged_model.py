"""What an online learner has learnt as a package: raw rows, vectors or images in, scores of its classes out, without mapsto.

Scales and categories become the signature's preprocessing, weights the graph's; an encoder and the head are one graph. The learner itself
answers in float64 and the package in float32: parity compares their probabilities on the same raw events.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mapsto import discovery
from mapsto.context import Context
from mapsto.errors import DomainError, command
from mapsto.kinds import Column, Json, Model, Network, Package, Preprocessing, Signature, Stream, TensorSpec
from mapsto.nn.export.package import put, text_of
from mapsto.nn.export.runner import runner_files
from mapsto.nn.online.encoder import EMBEDDING
from mapsto.nn.online.head import Head, RowColumn
from mapsto.nn.online.learning import StreamLearner
from mapsto.nn.online.onnx_head import OPSET, head_model, with_head
from mapsto.nn.online.onnx_tabular import TabularSnapshot, snapshot_model
from mapsto.nn.online.package_parity import events, parity
from mapsto_runtime.runtimes.onnxruntime import MODEL, NAME, load
from mapsto_runtime.shown import few

__all__ = ["marked_words", "packaged_model", "require_one_source", "require_packageable", "scores_of", "size_of"]

_WORTH_SAYING = 0.01
"""Share of the answer from which it is told that labels stay as they were."""
_LARGEST = 1e30
"""Beyond it a manifest holds no number."""


def packaged_model(value: Model, stream: Stream | None, ctx: Context, *, samples: int, where: str) -> Package:
    """The model as a package for ONNX Runtime.

    Parameters
    ----------
    value
        The model.
    stream
        Events for the parity report; by default made-up ones.
    samples
        How many events at most.

    Raises
    ------
    DomainError
        What was learnt is no network, as river's trees, or takes columns that a package's rows cannot hold; or parity fails.
    """
    require_packageable(value, where)
    learner = cast("StreamLearner", value.open())
    made = _made(value, learner, where)
    signature, layout = made.signature, made.layout
    if made.described:
        share = sum(list(learner.shares().values())[-2:])  # those members come last
        if share >= _WORTH_SAYING:
            ctx.warn(
                f"members that look at the last labels have {100 * share:.0f} % of the answer, and in the package the last label stays "
                "the one that was learnt last; where labels come in runs, package a model that learnt with labels: false"
            )
    folder, model = ctx.scratch(), made.model
    contents = {MODEL: model, **runner_files(NAME, signature)}
    run = load(put(contents, folder), signature=signature)
    found = parity(learner, signature, run, events(stream, signature, layout, samples), made.unit, where)
    below = size_of(value.base) if made.stands_on_base else (0, 0)
    manifest: dict[str, Any] = {
        "format": made.format,
        "model": MODEL,
        "signature": signature.plain(),
        "parameters": made.parameters + below[0],
        "macs": made.macs + below[1],
        "opset": OPSET,
        "learner": {"name": value.learner, "version": value.version, "events": value.events, **made.described},
        "parity": {"on": "events" if stream is not None else "generated", **found},
    }
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()
    }
    return Package(files=put({**contents, "manifest.json": text_of(manifest)}, folder))


def require_packageable(value: Model, where: str) -> None:
    """Raises `DomainError` for a model of a learner that no package can hold, such as one of texts byte by byte."""
    if not getattr(discovery.find("mappings", value.learner), "can_be_packaged", True):
        raise DomainError(
            f"a model of {value.learner} is not packaged: a package answers rows, vectors or texts, and this reads a stream of bytes",
            where=where,
            hint="read a text with its run: "
            + command("mapsto stream {book} --from {learnt}", book="FILE.txt", learnt="RUN"),
        )


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A model's graph, and what its manifest says of it."""

    signature: Signature
    layout: tuple[RowColumn, ...]
    model: bytes
    parameters: int
    macs: int
    format: int = 1
    unit: float | None = None
    """Of values: what differences are measured in."""
    described: dict[str, Json] = field(default_factory=dict[str, Json])
    stands_on_base: bool = True
    """Whether the model's network or package counts besides."""


def _made(value: Model, learner: StreamLearner, where: str) -> _Made:
    snapshot, found, network = learner.snapshot(), learner.head(), learner.network()
    if network is not None:
        return _of_network(network)
    if snapshot is None and found is None:
        raise DomainError(
            f"what {value.learner} learns is no network of ONNX",
            where=where,
            hint="package it for hosts that have mapsto: export.mapsto",
        )
    classes = value.signature.classes
    if snapshot is not None and snapshot[0].learnt and learner.task == "values":
        classes = ("value",)
    if not classes:
        raise DomainError("the model has met no label, and has no classes", where=where, hint="let it learn first")
    if snapshot is not None:
        return _of_tabular(value, *snapshot, classes, where)
    head, layout = cast("tuple[Head, tuple[RowColumn, ...]]", found)
    if value.base is None:
        signature, model = _of_rows(head, layout, classes, where)
    else:
        signature, model = _of_encoder(value.base, head, layout, classes, where)
    own = head.parameters
    return _Made(
        signature=signature,
        layout=layout,
        model=model,
        parameters=own,
        macs=own - head.bias.size,
        format=4 if any(column.crowded for column in layout) else 1,
    )


def _of_network(network: Network) -> _Made:
    """A network that was trained on a stream."""
    from mapsto.nn.export.onnx import to_onnx

    parameters, macs = size_of(network)
    layout = (RowColumn(name=EMBEDDING, type="vector", places=()),)
    return _Made(
        signature=dataclasses.replace(network.signature, outputs=(scores_of(network.signature.classes or ()),)),
        layout=layout,
        model=to_onnx(network),
        parameters=parameters,
        macs=macs,
        stands_on_base=False,
    )


def _of_tabular(
    value: Model, snapshot: TabularSnapshot, layout: tuple[RowColumn, ...], classes: tuple[str, ...], where: str
) -> _Made:
    """All members of `online.tabular` and their mixture: a table's rows come with what is missing marked, vectors as they are."""
    require_one_source(layout, where)
    of_values = snapshot.unit is not None
    signature: Signature | None = None
    if value.base is not None:
        before, encoder = _encoder_of(value.base, layout, where)
        model = snapshot_model(snapshot, encoder)
        signature = dataclasses.replace(before, outputs=(scores_of(classes),), classes=classes, answers="classes")
    else:
        columns = () if layout[0].type == "vector" else _marked(snapshot, layout, where)
        model = snapshot_model(snapshot, None, scaled=bool(columns))
        signature = Signature(
            inputs=(TensorSpec(name="input", dtype="float32", shape=("N", len(snapshot.means))),),
            outputs=(scores_of(classes),),
            preprocessing=Preprocessing(kind="none", columns=columns, header=tuple(column.name for column in columns)),
            classes=classes,
        )
    return _Made(
        signature=dataclasses.replace(signature, answers="values") if of_values else signature,
        layout=layout,
        model=model,
        parameters=snapshot.parameters,
        macs=snapshot.macs,
        format=4 if signature.preprocessing.columns and value.base is None else 1,
        unit=snapshot.unit,
        described={"labels": "as they were last"} if snapshot.looks_at_labels else {},
    )


def _marked(snapshot: TabularSnapshot, layout: tuple[RowColumn, ...], where: str) -> tuple[Column, ...]:
    """How raw cells come to the graph: numbers in standard deviations, words as the numbers of their categories, gaps as NaN."""
    columns: list[Column] = []
    for column in layout:
        if column.type == "word":
            columns.append(marked_words(column))
            continue
        place = column.places[0]
        mean, std = float(snapshot.means[place]), float(snapshot.stds[place])
        if not (abs(mean) < _LARGEST and 1 / _LARGEST < std < _LARGEST):
            raise DomainError(
                f"column '{column.name}' holds numbers about {mean:.3g} that differ by about {std:.3g}, beyond what a package holds",
                where=where,
                hint="give it in another unit, or package it for hosts that have mapsto: export.mapsto",
            )
        columns.append(Column(name=column.name, mean=mean, std=std, missing="marked"))
    return tuple(columns)


def marked_words(column: RowColumn) -> Column:
    """A column of words as the numbers of their categories, NaN for a missing one."""
    return Column(
        name=column.name,
        type="words",
        categories=column.categories,
        encode="ordinal",
        missing="marked",
        others=column.crowded,
    )


def size_of(base: Network | Package | None) -> tuple[int, int]:
    """An encoder's parameters and multiply-accumulates."""
    if base is None:
        return 0, 0
    if isinstance(base, Package):
        manifest = base.manifest()
        return int(manifest["parameters"]), int(manifest["macs"])
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.profile.counts import count_macs, count_parameters

    module = base.module()
    return count_parameters(module), count_macs(module, example_inputs(base.signature, 1)[0])


def scores_of(classes: tuple[str, ...]) -> TensorSpec:
    """The output of a package."""
    return TensorSpec(name="output", dtype="float32", shape=("N", len(classes)))


def _of_rows(
    head: Head, layout: tuple[RowColumn, ...], classes: tuple[str, ...], where: str
) -> tuple[Signature, bytes]:
    """The signature and the model of a learner of a table's rows, or of vectors."""
    vectors = require_one_source(layout, where)
    places = [place for column in layout for place in column.places]
    kept = np.array([column.type != "number" or column.std > 0 for column in layout for _ in column.places], np.bool_)
    columns = () if vectors else tuple(_column(column) for column in layout)
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", len(places))),),
        outputs=(scores_of(classes),),
        preprocessing=Preprocessing(kind="none", columns=columns, header=tuple(column.name for column in columns)),
        classes=classes,
    )
    return signature, head_model(head, places, kept, directed=bool(vectors))


def require_one_source(layout: tuple[RowColumn, ...], where: str) -> list[RowColumn]:
    """The columns of vectors. Raises `DomainError` where there are others beside one, or no column at all."""
    if not layout:
        raise DomainError(
            "the model has met no column to answer from", where=where, hint="give it features to learn from"
        )
    vectors = [column for column in layout if column.type == "vector"]
    if vectors and len(layout) > 1:
        raise DomainError(
            f"a package's sample is a row of a table or a vector, and the model has learnt from {few([c.name for c in layout])}",
            where=where,
            hint="learn from one of them",
        )
    return vectors


def _column(column: RowColumn) -> Column:
    """How a raw cell becomes what it is in a row: a missing number is the mean, a missing word none of the categories."""
    if column.type == "number":
        return Column(
            name=column.name, mean=column.mean, std=max(column.std, 1e-29) if column.std else 1.0, fill=(column.mean,)
        )
    nothing = (0.0,) * len(column.categories)
    return Column(name=column.name, type="words", categories=column.categories, fill=nothing, others=column.crowded)


def _of_encoder(
    base: Network | Package, head: Head, layout: tuple[RowColumn, ...], classes: tuple[str, ...], where: str
) -> tuple[Signature, bytes]:
    signature, encoder = _encoder_of(base, layout, where)
    changed = dataclasses.replace(signature, outputs=(scores_of(classes),), classes=classes, answers="classes")
    return changed, with_head(encoder, head, layout[0].places)


def _encoder_of(base: Network | Package, layout: tuple[RowColumn, ...], where: str) -> tuple[Signature, bytes]:
    """An encoder's signature and its model, whose output is the embedding."""
    from mapsto.nn.export.embedding import without_head

    if [column.name for column in layout] != [EMBEDDING]:
        others = [column.name for column in layout if column.name != EMBEDDING]
        raise DomainError(
            f"a package's sample is what the encoder takes, and the model has also learnt from {few(others)}",
            where=where,
            hint="learn from a stream without these columns",
        )
    if isinstance(base, Package):
        manifest = base.manifest()
        signature = Signature.from_plain(manifest["signature"])
        encoder = base.files[manifest["model"]].read_bytes()
    else:
        from mapsto.nn.export.onnx import to_onnx

        signature, encoder = base.signature, to_onnx(base)
    if signature.classes is not None:
        encoder = without_head(encoder, where=where)
    return signature, encoder
