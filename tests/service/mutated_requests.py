"""Requests for the model ``signs`` that are a little wrong: their JSON, their binary tensors, their compression, their heads."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any, NamedTuple

import numpy as np

from tests.mutations import mutated_bytes, mutated_json

__all__ = ["Asking", "mutated_head", "mutated_request"]

_ROWS = [[0.5, 1.0, -2.0], [-1.0, 0.25, 3.0]]
_INPUT: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": [2, 3], "data": _ROWS}
_ONE = {**_INPUT, "shape": [1, 3], "data": [0.5, 1.0, -2.0]}
_BYTES = {"name": "input", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}
_LABELS = {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["low", "high"]}
_OUTPUTS = [{"name": "output", "parameters": {"binary_data": False}}, {"name": "features"}]


class Asking(NamedTuple):
    """A request."""

    path: str
    body: bytes
    headers: dict[str, str]


_MODEL = "/v2/models/signs"
_PLAIN: tuple[tuple[str, Any], ...] = (
    (f"{_MODEL}/infer", {"id": "a", "inputs": [_INPUT], "outputs": _OUTPUTS}),
    (f"{_MODEL}/infer", {"inputs": [_ONE], "parameters": {"binary_data_output": False}}),
    (f"{_MODEL}/versions/1/infer", {"inputs": [_INPUT]}),
    (f"{_MODEL}/feedback", {"label": "low", "inputs": [_ONE], "idempotency_key": "k"}),
    (f"{_MODEL}/feedback", {"feedback": [{"request_id": "REQUEST", "row": 0, "label": "high"}]}),
    (f"{_MODEL}/adapt", {"inputs": [_INPUT, _LABELS], "parameters": {"way": "ridge", "shared": False}}),
    (f"{_MODEL}/adapt", {"inputs": [_INPUT], "parameters": {"labels": ["a", "b"]}}),
)
_ODD_PATHS = ("", "/", "/%00", "/é", "/../..", "/versions//infer", "/jobs/x", "?a=b", ";x", "/versions/1%2f..")
_ODD_LENGTHS = ("", "-1", "0", "1e3", "9" * 40, "é", " 12", "0x10", "99")


def mutated_request(rng: random.Random, request_id: str) -> Asking:
    """One of inference, of feedback or of adapting with something wrong; `request_id` is of an answer that can be labelled."""
    path, tree = rng.choice(_PLAIN)
    headers: dict[str, str] = {}
    if rng.random() < 0.25:  # binary tensors behind the JSON
        tree = {**tree, "inputs": [_BYTES, *tree["inputs"][1:]]} if "inputs" in tree else tree
        header = mutated_json(json.dumps(tree), rng)
        behind = np.array(_ROWS, "<f4").tobytes()
        behind = mutated_bytes(behind, rng) if rng.random() < 0.5 else behind
        length = str(len(header)) if rng.random() < 0.8 else rng.choice(_ODD_LENGTHS)
        headers["inference_header_content_length"] = length
        body = header + behind
    else:
        body = mutated_json(json.dumps(tree).replace("REQUEST", request_id), rng)
    if rng.random() < 0.05:
        body = mutated_bytes(gzip.compress(body, 1), rng)
        headers["content_encoding"] = rng.choice(("gzip", "gzip", "deflate", "br", "identity", "é"))
    if rng.random() < 0.03:
        path = rng.choice((f"{path}{rng.choice(_ODD_PATHS)}", path.replace("signs", rng.choice(_ODD_PATHS)), path[:-1]))
    return Asking(path, body, headers)


_HEADS = (
    "host: 127.0.0.1",
    "Host:127.0.0.1",
    "content-length: 5",
    "content-length: -5",
    "content-length: 5, 5",
    "content-length: 0x5",
    "content-length: +5",
    "content-length: 99999999999999999999",
    "transfer-encoding: chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: identity",
    "Transfer-Encoding : chunked",
    " folded: line",
    "expect: 100-continue",
    "upgrade: h2c",
    "connection: close",
    "connection: keep-alive, close",
    "x\0y: z",
    "é: ü",
    ": nameless",
    "accept-encoding: gzip;q=\xff",
)


def mutated_head(whole: bytes, rng: random.Random) -> bytes:
    """The bytes of a whole request with lines of its head added, repeated or dropped, or any of its bytes changed."""
    if rng.random() < 0.4:
        return mutated_bytes(whole, rng)
    head, _, body = whole.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(1, len(lines) + 1)
        kind = rng.randrange(5)
        if kind < 3:
            lines.insert(at, rng.choice(_HEADS).encode("utf-8"))
        elif kind == 3 and at < len(lines):
            lines.insert(at, lines[at])
        elif at < len(lines):
            del lines[at]
    if rng.random() < 0.1:
        lines[0] = rng.choice(
            (b"GET / HTTP/9.9", b"PRI * HTTP/2.0", b"\xff /", lines[0][:-1], lines[0] + b" x", b"POST")
        )
    return rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r")).join(lines) + b"\r\n\r\n" + body
