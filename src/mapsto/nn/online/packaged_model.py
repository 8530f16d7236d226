"""What an online learner has learnt as a package: raw rows, vectors or images in, scores of its classes out, without mapsto.

Scales and categories become the signature's preprocessing, weights the graph's; an encoder and the head are one graph. The learner itself
answers in float64 and the package in float32: parity compares their probabilities on the same raw events.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Block, Column, Model, Network, Package, Preprocessing, Signature, Stream, TensorSpec
from mapsto.nn.export.package import put, rounded, text_of
from mapsto.nn.online.encoder import EMBEDDING, EventSamples
from mapsto.nn.online.head import Head, RowColumn
from mapsto.nn.online.learning import StreamLearner
from mapsto.nn.online.onnx_head import OPSET, head_model, with_head
from mapsto_runtime.runtimes.onnxruntime import MODEL, load
from mapsto_runtime.shown import few

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "packaged_model"]

TOLERANCE = 0.01
"""By how much a probability of the package may differ from the learner's."""


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
        What was learnt is no network, as a forest, or takes columns that a package's rows cannot hold; or parity fails.
    """
    learner = cast("StreamLearner", value.open())
    found = learner.head()
    if found is None:
        raise DomainError(
            f"what {value.learner} learns is no network of ONNX",
            where=where,
            hint="keep the model in the store and answer with mapsto; online.ridge, online.prototypes, online.mlp and online.softmax "
            "can be packaged",
        )
    head, layout = found
    classes = value.signature.classes
    if not classes:
        raise DomainError("the model has met no label, and has no classes", where=where, hint="let it learn first")
    for column in layout:
        if column.crowded:
            ctx.warn(f"words of column '{column.name}' without an input of their own count as missing in the package")
    if value.base is None:
        signature, model = _of_rows(head, layout, classes, where)
    else:
        signature, model = _of_encoder(value.base, head, layout, classes, where)
    folder = ctx.scratch()
    contents = {MODEL: model}
    run = load(put(contents, folder), signature=signature)
    parity = _parity(learner, signature, run, _events(stream, signature, layout, samples), where)
    own, below = head.parameters, _size_of(value.base)
    manifest: dict[str, Any] = {
        "format": 1,
        "model": MODEL,
        "signature": signature.plain(),
        "parameters": own + below[0],
        "macs": own - head.bias.size + below[1],
        "opset": OPSET,
        "learner": {"name": value.learner, "version": value.version, "events": value.events},
        "parity": {"on": "events" if stream is not None else "generated", **parity},
    }
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()
    }
    return Package(files=put({**contents, "manifest.json": text_of(manifest)}, folder))


def _size_of(base: Network | Package | None) -> tuple[int, int]:
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


def _scores(classes: tuple[str, ...]) -> TensorSpec:
    return TensorSpec(name="output", dtype="float32", shape=("N", len(classes)))


def _of_rows(
    head: Head, layout: tuple[RowColumn, ...], classes: tuple[str, ...], where: str
) -> tuple[Signature, bytes]:
    """The signature and the model of a learner of a table's rows, or of vectors."""
    vectors = [column for column in layout if column.type == "vector"]
    if vectors and len(layout) > 1:
        raise DomainError(
            f"a package's sample is a row of a table or a vector, and the model has learnt from {few([c.name for c in layout])}",
            where=where,
            hint="learn from one of them",
        )
    places = [place for column in layout for place in column.places]
    kept = np.array([column.type != "number" or column.std > 0 for column in layout for _ in column.places], np.bool_)
    columns = () if vectors else tuple(_column(column) for column in layout)
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", len(places))),),
        outputs=(_scores(classes),),
        preprocessing=Preprocessing(kind="none", columns=columns, header=tuple(column.name for column in columns)),
        classes=classes,
    )
    return signature, head_model(head, places, kept, directed=bool(vectors))


def _column(column: RowColumn) -> Column:
    """How a raw cell becomes what it is in a row: a missing number is the mean, a missing word none of the categories."""
    if column.type == "number":
        return Column(
            name=column.name, mean=column.mean, std=max(column.std, 1e-29) if column.std else 1.0, fill=(column.mean,)
        )
    return Column(name=column.name, type="words", categories=column.categories, fill=(0.0,) * len(column.categories))


def _of_encoder(
    base: Network | Package, head: Head, layout: tuple[RowColumn, ...], classes: tuple[str, ...], where: str
) -> tuple[Signature, bytes]:
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
    changed = dataclasses.replace(signature, outputs=(_scores(classes),), classes=classes, answers="classes")
    return changed, with_head(encoder, head, layout[0].places)


def _events(
    stream: Stream | None, signature: Signature, layout: tuple[RowColumn, ...], samples: int
) -> Iterator[Block]:
    """At most `samples` events with features."""
    if stream is None:
        yield _made_up(signature, layout, samples)
        return
    left = samples
    for block in stream.open(size=min(samples, 256)):
        if left <= 0:
            return
        part = block.take(0, min(left, len(block)))
        left -= int(part.has_x.sum())
        if len(part):
            yield part


def _made_up(signature: Signature, layout: tuple[RowColumn, ...], count: int) -> Block:
    """Events drawn at random in the ranges of what has been met."""
    draw = np.random.default_rng(0)
    before = signature.preprocessing
    x: dict[str, NDArray[Any]] = {}
    if before.kind == "image":
        shape = (count, 3 if before.channels == 3 else 1, *before.size)
        x["image"] = draw.integers(0, 256, shape, dtype=np.uint8)
    elif before.columns:
        for column in before.columns:
            if column.type == "numbers":
                x[column.name] = column.mean + column.std * draw.standard_normal(count)
            else:
                x[column.name] = np.array(column.categories, object)[draw.integers(0, len(column.categories), count)]
    else:
        name = layout[0].name if layout[0].name != EMBEDDING else "x"
        x[name] = draw.standard_normal((count, *signature.input_shape()[1:]))
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


def _parity(
    learner: StreamLearner, signature: Signature, run: Any, blocks: Iterator[Block], where: str
) -> dict[str, Any]:
    """By how much the probabilities of learner and package differ. Raises `DomainError` where that is beyond the tolerance."""
    samples = EventSamples(signature)
    ours: list[NDArray[np.float64]] = []
    theirs: list[NDArray[np.float64]] = []
    for block in blocks:
        answers = learner.predict(block)
        asked = np.flatnonzero(block.has_x & np.isfinite(answers).all(axis=1)).tolist()
        taken = samples.taken(block) if asked else []
        prepared = [samples.prepared({name: block.x[name][event] for name in taken}) for event in asked]
        if prepared:
            ours.append(answers[asked])
            theirs.append(_softmax(run(np.concatenate(prepared))))
    if not ours:
        raise DomainError("there is no event to compare the package on", where=where, hint="give a stream with some")
    expected, given = np.concatenate(ours), np.concatenate(theirs)
    difference = np.abs(expected - given)
    if not difference.max() <= TOLERANCE:
        raise DomainError(
            f"a probability of the package differs from the learner's by {difference.max():.3g}, and {TOLERANCE} is allowed",
            where=where,
            hint="look for columns with values far from their mean",
        )
    return {
        "samples": len(expected),
        "max_abs_difference": rounded(difference.max()),
        "mean_abs_difference": rounded(difference.mean()),
        "output_std": rounded(expected.std(axis=0).mean()),
        "tolerance": TOLERANCE,
        "top1_agreement": rounded((expected.argmax(1) == given.argmax(1)).mean()),
    }


def _softmax(answers: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(answers.astype(np.float64) - answers.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
