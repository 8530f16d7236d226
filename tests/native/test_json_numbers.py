"""Numbers of JSON read in C++: the same bits as Python's parser and NumPy give, and nothing but plain arrays of numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapsto.native import json_numbers
from mapsto.native.json_numbers import floats

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(1 << 53) + 1, (1 << 53) - 1)
WRITTEN = st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z")


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    json_numbers.prepare()


@settings(deadline=None)
@given(values=st.lists(NUMBERS, min_size=1, max_size=20))
def test_numbers_have_the_bits_that_python_and_numpy_give(values: Sequence[float]) -> None:
    found = floats(json.dumps(values).encode(), len(values), "float64")
    assert found is not None or 0 in values
    if found is not None:
        assert found.tobytes() == np.array(values, np.float64).tobytes()


@settings(deadline=None)
@given(text=WRITTEN, dtype=st.sampled_from(["float32", "float64"]))
def test_a_number_however_it_is_written_has_them_or_is_left_to_python(text: str, dtype: str) -> None:
    found = floats(f" [ {text} ] ".encode(), 1, dtype)
    with np.errstate(over="ignore"):
        wanted = np.array([json.loads(text)]).astype(dtype)
    if found is None:
        assert (
            text.startswith("-0") or not np.isfinite(wanted).all() or len(text.lstrip("-")) > 15 or "e" in text.lower()
        )
    else:
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "text",
    ["[1,2", "[1,2,3]", "[1]", "[1,,2]", "[1 2]", "[[1,2]]", '["1",2]', "[null,1]", "[true,1]", "[NaN,1]", "1,2", "",
     "[01,2]", "[1.,2]", "[.5,2]", "[+1,2]", "[-,2]", "[1e,2]", "[1e400,2]", "[1,2]]", "[1,2]x"],
)  # fmt: skip
def test_what_is_no_array_of_so_many_numbers_is_left_to_the_caller(text: str) -> None:
    assert floats(text.encode(), 2, "float32") is None


def test_a_shape_that_the_text_cannot_hold_takes_no_memory() -> None:
    assert floats(b"[1,2]", 1 << 60, "float64") is None
    assert floats(b"[]", 0, "float64") is None
    assert floats(b"[1,2]", 2, "int32") is None
    found = floats(b"[1,2]", 2, "float64")
    assert found is not None
    assert found.tolist() == [1, 2]
