"""Feedback as it comes and goes over HTTP: labels for answers, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mapsto.service.inference_protocol import decode
from mapsto.service.refusal import Refusal
from mapsto.service.service import Feedback

__all__ = ["encoded", "labels_of"]

_MOST_LABELS = 1000
_LONGEST_KEY = 200


class _Label(msgspec.Struct, forbid_unknown_fields=True):
    label: str
    request_id: str = ""
    row: int = 0
    idempotency_key: str = ""
    inputs: list[dict[str, Any]] = msgspec.field(default_factory=list[dict[str, Any]])


class _Labels(msgspec.Struct, forbid_unknown_fields=True):
    feedback: list[_Label]


_Names = dict[str, msgspec.Raw]
_many, _one = msgspec.json.Decoder(_Labels), msgspec.json.Decoder(_Label)


def labels_of(body: bytes) -> list[Feedback]:
    """The labels of a body: one object, or ``{"feedback": [...]}``.

    >>> labels_of(b'{"request_id": "0a", "row": 1, "label": "cat"}')
    [Feedback(label='cat', request_id='0a', row=1, inputs=(), idempotency_key='')]

    Raises `Refusal` (400) where it is neither, or holds none or more than 1000.
    """
    try:
        several = "feedback" in msgspec.json.decode(body, type=_Names)
        given = _many.decode(body).feedback if several else [_one.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body is no feedback: {error}") from error
    if any("\0" in text for each in given for text in (each.label, each.idempotency_key)):
        raise Refusal(400, "a label or idempotency_key holds the character U+0000, which no database takes")
    if any(len(each.idempotency_key) > _LONGEST_KEY for each in given):
        raise Refusal(400, f"an idempotency_key has more than {_LONGEST_KEY} characters")
    if not 0 < len(given) <= _MOST_LABELS:
        raise Refusal(400, f"{len(given)} labels are given; 1 to {_MOST_LABELS} are taken")
    return [
        Feedback(
            label=each.label,
            request_id=each.request_id,
            row=each.row,
            idempotency_key=each.idempotency_key,
            inputs=decode(msgspec.json.encode({"inputs": each.inputs})).inputs if each.inputs else (),
        )
        for each in given
    ]


def encoded(stored: Sequence[dict[str, Any]]) -> bytes:
    """The answer, with what became of each label, and how many of them were changed by masking, where some were.

    >>> encoded([{"event": "i/0", "stored": True, "masked": True}])
    b'{"feedback":[{"event":"i/0","stored":true,"masked":true}],"masked":1}'
    """
    masked = sum("masked" in each for each in stored)
    return msgspec.json.encode({"feedback": stored, **({"masked": masked} if masked else {})})
