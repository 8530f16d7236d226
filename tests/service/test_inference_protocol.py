"""Requests and answers of the Open Inference Protocol as bytes: JSON, the binary extension, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mapsto.native import json_numbers
from mapsto.service.inference_protocol import DATATYPES, Asked, Output, datatype_of, decode, encode, tensor
from mapsto.service.refusal import Refusal

json_numbers.prepare()  # compiled now, and not within a test's deadline
NUMBERS = [name for name in DATATYPES if name != "BYTES"]


def body(**more: Any) -> bytes:
    item = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2], **more}
    return json.dumps({"inputs": [{name: value for name, value in item.items() if value is not None}]}).encode()


@settings(deadline=None)
@given(data=st.data(), name=st.sampled_from(NUMBERS), binary=st.booleans())
def test_numbers_of_every_type_come_back_as_they_went(data: st.DataObject, name: str, binary: bool) -> None:
    shapes = hnp.array_shapes(max_dims=3, max_side=4)
    array = data.draw(
        hnp.arrays(
            DATATYPES[name], shapes, elements={"allow_nan": False, "allow_infinity": False} if "FP" in name else None
        )
    )
    asked = Asked(None, [], None, frozenset(("x",)) if binary else frozenset(), False, {})
    content, length = encode(model="m", version="1", asked=asked, outputs=[Output("x", name, array)])
    tree = json.loads(content[: length or len(content)])
    (item,) = tree["outputs"]
    sent = json.dumps({"inputs": [item]}).encode()
    request = decode(sent + content[length:], str(len(sent))) if binary else decode(sent)
    found = tensor(request.inputs[0])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert datatype_of(str(array.dtype)) == name


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_texts_come_back_by_the_binary_extension(values: list[bytes]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    asked = Asked(None, [], None, frozenset(), True, {})
    content, length = encode(model="m", version="1", asked=asked, outputs=[Output("x", "BYTES", array)])
    assert length is not None
    sent = json.dumps({"inputs": json.loads(content[:length])["outputs"]}).encode()
    assert tensor(decode(sent + content[length:], str(len(sent))).inputs[0]).tolist() == values


def test_lists_may_be_nested_as_the_shape_is() -> None:
    found = tensor(decode(body(shape=[2, 2], data=[[1, 2], [3, 4]])).inputs[0])
    assert found.tolist() == [[1, 2], [3, 4]]
    texts = tensor(decode(body(shape=[2, 1], datatype="BYTES", data=[["a"], ["ü"]])).inputs[0])
    assert texts.tolist() == [[b"a"], ["ü".encode()]]


def test_base64_is_unpacked_where_the_request_says_so() -> None:
    given = decode(body(shape=[1], datatype="BYTES", data=["AAE="], parameters={"content_type": "base64"})).inputs[0]
    assert tensor(given).tolist() == [b"\x00\x01"]


@pytest.mark.parametrize(
    ("content", "length", "said"),
    [
        (b"", None, "no inference request"),
        (b"{}", None, "no inference request"),
        (b"[" * 100_000, None, "no inference request"),
        (b'{"inputs": []}', None, "no inputs"),
        (body(datatype="FP128"), None, "FP128"),
        (body(shape=[-1]), None, "no possible shape"),
        (body(shape=[1 << 40]), None, "no possible shape"),
        (body(shape=[1 << 14, 1 << 14]), None, "at most"),
        (body(shape=[3]), None, r"shape \[3\] has data of shape \[2\]"),
        (body(shape=[2, 2], data=[[1, 2], [3]]), None, "different lengths"),
        (body(data=["a", "b"]), None, "no number"),
        (body(data=[None, 1]), None, "no number"),
        (body(data=[1e40, 1]), None, "too large for FP32"),
        (body(datatype="UINT8", data=[1, 256]), None, "beyond 0 to 255"),
        (body(datatype="INT8", data=[0.5, 1]), None, "not whole"),
        (body(datatype="BOOL", data=[0, 1]), None, "true and false"),
        (body(datatype="BYTES", data=[1, 2]), None, "no text"),
        (body(datatype="BYTES", data=["%", "b"], parameters={"content_type": "base64"}), None, "no base64"),
        (body(data=None), None, "neither data nor"),
        (body(data=None, parameters={"binary_data_size": 8}), None, "no Inference-Header-Content-Length"),
        (body(), "1e9", "Inference-Header-Content-Length is '1e9'"),
        (body(), "99999", "Inference-Header-Content-Length is '99999'"),
        (body() + b"xx", str(len(body())), "2 bytes of the request belong to no input"),
    ],
)
def test_what_is_no_request_is_refused_with_what_is_wrong(content: bytes, length: str | None, said: str) -> None:
    with pytest.raises(Refusal, match=said) as refusal:
        for item in decode(content, length).inputs:
            tensor(item)
    assert refusal.value.status == 400


def test_an_output_that_there_is_not_is_refused() -> None:
    asked = Asked(None, [], ["y"], frozenset(), False, {})
    with pytest.raises(Refusal, match="no output y; its outputs are x"):
        encode(model="m", version="1", asked=asked, outputs=[Output("x", "FP32", np.zeros(1, np.float32))])


@given(st.binary(max_size=200), st.integers(0, 250))
def test_any_bytes_are_refused_and_nothing_else_happens(content: bytes, length: int) -> None:
    for header in (None, str(length)):
        with pytest.raises(Refusal) as refusal:
            decode(content, header)
        assert refusal.value.status == 400
