"""Handwritten digits as two services get them, mapsto's and another: five of each to adapt to, then a stream that turns."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mapsto import datasets

__all__ = ["Counts", "Event", "Events", "events"]

SHOTS = 5
Event = tuple[bytes, str]
"""A PNG, and what it is of."""


@dataclass(frozen=True)
class Counts:
    """Digits that are upright, how many of those get a label (the last), that are turned, and how many of those are judged (the last)."""

    upright: int = 1000
    labelled: int = 200
    turned: int = 700
    judged: int = 200


QUICK = Counts(upright=1000, labelled=50, turned=150, judged=50)


@dataclass(frozen=True)
class Events:
    """`support` holds `SHOTS` of each digit; `upright` and `turned` come after each other, no drawing twice."""

    support: list[Event]
    upright: list[Event]
    turned: list[Event]


def events(counts: Counts) -> Events:
    """The same digits in the same order for all who ask; a quarter turn is what happens to the camera."""
    samples = datasets.digits(size=28).open()
    order = np.random.default_rng(0).permutation(len(samples))
    support = np.concatenate([order[samples.labels[order] == label][:SHOTS] for label in range(10)])
    rest = order[~np.isin(order, support)]
    upright, turned = rest[: counts.upright], rest[counts.upright : counts.upright + counts.turned]

    def event(number: int, quarter_turns: int) -> Event:
        content = io.BytesIO()
        pixels = np.rot90(samples.inputs[number][0], quarter_turns)
        Image.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG")
        return content.getvalue(), samples.classes[samples.labels[number]]

    return Events(
        support=[event(number, 0) for number in support.tolist()],
        upright=[event(number, 0) for number in upright.tolist()],
        turned=[event(number, 1) for number in turned.tolist()],
    )
