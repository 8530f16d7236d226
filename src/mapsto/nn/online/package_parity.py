"""By how much a package's answers differ from those of the learner that it was made of, on the same raw events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Block, Signature, Stream
from mapsto.nn.export.package import rounded
from mapsto.nn.online.dataset_events import unlabelled
from mapsto.nn.online.encoder import EMBEDDING, EventSamples
from mapsto.nn.online.head import RowColumn
from mapsto.nn.online.learning import StreamLearner

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["events", "parity"]

TOLERANCE = 0.01
"""By how much a probability of the package may differ from the learner's; of values in standard deviations of what was learnt."""


def events(stream: Stream | None, signature: Signature, layout: tuple[RowColumn, ...], samples: int) -> Iterator[Block]:
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
    return unlabelled(x, count)


def parity(
    learner: StreamLearner, signature: Signature, run: Any, blocks: Iterator[Block], unit: float | None, where: str
) -> dict[str, Any]:
    """By how much the probabilities of learner and package differ, or their values, whose tolerance is in units of `unit`.

    Raises `DomainError` where that is beyond the tolerance.
    """
    tolerance = TOLERANCE if unit is None else TOLERANCE * unit
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
            given = run(np.concatenate(prepared))
            theirs.append(_softmax(given) if unit is None else given.astype(np.float64))
    if not ours:
        raise DomainError("there is no event to compare the package on", where=where, hint="give a stream with some")
    expected, given = np.concatenate(ours), np.concatenate(theirs)
    difference = np.abs(expected - given)
    if not difference.max() <= tolerance:
        raise DomainError(
            f"{'a probability' if unit is None else 'a value'} of the package differs from the learner's by {difference.max():.3g}, "
            f"and {tolerance:.3g} is allowed",
            where=where,
            hint="look for columns with values far from their mean",
        )
    return {
        "samples": len(expected),
        "max_abs_difference": rounded(difference.max()),
        "mean_abs_difference": rounded(difference.mean()),
        "output_std": rounded(expected.std(axis=0).mean()),
        "tolerance": tolerance,
        **({} if unit is not None else {"top1_agreement": rounded((expected.argmax(1) == given.argmax(1)).mean())}),
    }


def _softmax(answers: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(answers.astype(np.float64) - answers.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
