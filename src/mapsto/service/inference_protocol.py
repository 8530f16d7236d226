"""The Open Inference Protocol, version 2, over HTTP: requests and answers of inference as bytes and as arrays.

Tensors are JSON, or bytes behind the JSON by the binary tensor data extension: then a header of the request says how long the JSON is, and
each tensor its own length in ``binary_data_size``. Names, types and shapes are checked before anything is made of the data.

The protocol: https://github.com/open-inference/open-inference-protocol; the extension: "Binary tensor data extension" of Triton.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from mapsto.native.json_numbers import floats
from mapsto.service.refusal import Refusal
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DATATYPES",
    "HEADER_LENGTH",
    "MOST_VALUES",
    "Asked",
    "Given",
    "Output",
    "as_bytes",
    "datatype_of",
    "decode",
    "elements",
    "encode",
    "packed",
    "packed_texts",
    "require_few_inputs",
    "require_inputs",
    "tensor",
    "wanted_outputs",
]

HEADER_LENGTH = b"inference-header-content-length"
"""The header, in lower case, that says how long the JSON before the binary tensors is."""
DATATYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""The protocol's types and NumPy's. Of BYTES an element is a `bytes`."""
MOST_VALUES = 1 << 26
"""Elements that a tensor may have."""
_NAMES = {name: datatype for datatype, name in DATATYPES.items()}
_MOST_INPUTS = 10_000
_LONGEST_NUMBER = 64
"""Characters of a number with its separators and blanks."""
_MOST_DIMENSIONS = 8
_NONE: Mapping[str, Any] = {}
_NOTHING = (b"", b"null")


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Wanted(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Wanted] | None = None


_DECODER = msgspec.json.Decoder(_Request)
_ENCODER = msgspec.json.Encoder()


class Given(NamedTuple):
    """An input as it came: not yet an array, but its size is what its shape says."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview
    """JSON, a list, nested or flat; or the bytes of the binary extension."""
    content_type: str
    """``parameters.content_type``: of BYTES in JSON, ``base64`` where elements are so written."""


class Asked(NamedTuple):
    """A request for inference."""

    id: str | None
    inputs: list[Given]
    outputs: list[str] | None
    """The outputs that are wanted; None: all."""
    binary: frozenset[str]
    """Those that are wanted as bytes."""
    all_binary: bool
    """Whether those that are not named are wanted as bytes."""
    parameters: Mapping[str, Any]


class Output(NamedTuple):
    """An output of an answer."""

    name: str
    datatype: str
    array: NDArray[Any]


def datatype_of(dtype: str) -> str:
    """The protocol's name of NumPy's type; BYTES for what has none.

    >>> datatype_of("float32"), datatype_of("str")
    ('FP32', 'BYTES')
    """
    return _NAMES.get(dtype, "BYTES")


def decode(
    body: bytes | bytearray, header_length: str | bytes | None = None, *, most_values: int = MOST_VALUES
) -> Asked:
    """The request of a body.

    Parameters
    ----------
    header_length
        What the header says of the JSON's length, where there are binary tensors behind it.
    most_values
        Elements that a tensor may have.

    Raises
    ------
    Refusal
        400: it is no request, or its parts do not fit together.
    """
    text, binary = memoryview(body), None
    if header_length is not None:
        length = _length(header_length, len(body))
        text, binary = text[:length], text[length:]
    require_few_inputs(body.count(b'"datatype"'))
    try:
        request = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the body is no inference request: {error}") from error
    except RecursionError as error:
        raise Refusal(400, "the body is no inference request: it is nested too deeply") from error
    inputs, place = [], 0
    for item in request.inputs:
        parameters = item.parameters or _NONE
        size = parameters.get("binary_data_size")
        count = elements(item.name, item.datatype, item.shape, most_values)
        raw = bytes(item.data)
        given: bytes | memoryview = raw
        if size is not None:
            name = short(item.name)
            if raw not in _NOTHING:
                raise Refusal(400, f"input '{name}' has both data and binary_data_size; give one")
            if binary is None:
                raise Refusal(400, f"input '{name}' is binary, but the request has no Inference-Header-Content-Length")
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - place:
                raise Refusal(
                    400,
                    f"input '{name}' says it has {short(str(size))} bytes; {len(binary) - place} are left of the request",
                )
            given = binary[place : place + size]
            place += size
            width = 0 if item.datatype == "BYTES" else np.dtype(DATATYPES[item.datatype]).itemsize
            if width and size != count * width:
                raise Refusal(
                    400,
                    f"input '{name}' of shape {item.shape} and type {item.datatype} has {count * width} bytes, not {size}",
                )
        elif raw in _NOTHING:
            raise Refusal(400, f"input '{short(item.name)}' has neither data nor binary_data_size")
        content = parameters.get("content_type", "")
        inputs.append(
            Given(item.name, item.datatype, tuple(item.shape), given, content if isinstance(content, str) else "")
        )
    if binary is not None and place < len(binary):
        raise Refusal(400, f"{len(binary) - place} bytes of the request belong to no input")
    require_inputs(inputs)
    own = request.parameters or {}
    wanted = request.outputs
    every = own.get("binary_data_output") is True
    in_bytes = {each.name for each in wanted or () if (each.parameters or {}).get("binary_data", every) is True}
    return Asked(
        id=request.id,
        inputs=inputs,
        outputs=None if wanted is None else [each.name for each in wanted],
        binary=frozenset(in_bytes),
        all_binary=every,
        parameters=own,
    )


def tensor(given: Given) -> NDArray[Any]:
    """The array of an input, of its shape and type. Raises `Refusal` (400) where the data is not what they say."""
    dtype = DATATYPES[given.datatype]
    if not isinstance(given.data, memoryview):
        found = floats(given.data, math.prod(given.shape), dtype)
        if found is not None:
            return found.reshape(given.shape)
    name = short(given.name)
    if isinstance(given.data, memoryview):
        if given.datatype == "BYTES":
            return _texts(_unpacked(given.data, math.prod(given.shape), name)).reshape(given.shape)
        return np.frombuffer(given.data, np.dtype(dtype).newbyteorder("<")).reshape(given.shape)
    if given.datatype != "BYTES":
        if b'"' in given.data:  # before NumPy would make room for the longest text in every place
            raise Refusal(400, f"input '{name}' of type {given.datatype} holds what is no number")
        if len(given.data) > _LONGEST_NUMBER * math.prod(given.shape) + _LONGEST_NUMBER:
            raise Refusal(400, f"input '{name}' of shape {list(given.shape)} has more data than its shape says")
    try:
        data = msgspec.json.decode(given.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"input '{name}' holds no JSON: {error}") from error
    if given.datatype == "BYTES":
        flat: list[Any] = []
        _flatten(data, flat, len(given.shape))
        texts = [_text(value, given, name) for value in flat]
        return _fitting(_texts(texts), given, name)
    return _fitting(_numbers(data, given, dtype, name), given, name)


def cells(given: Given) -> list[Any]:
    """The values of an input of shape [N] or [N, 1], a column of a table: as `tensor` has them, and None for JSON's null."""
    name, count = short(given.name), math.prod(given.shape)
    if len(given.shape) not in (1, 2) or count != given.shape[0]:
        raise Refusal(400, f"column '{name}' has the shape [N] or [N, 1], not {list(given.shape)}")
    if isinstance(given.data, memoryview) or b"null" not in given.data:
        return tensor(given).ravel().tolist()
    try:
        data = msgspec.json.decode(given.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"input '{name}' holds no JSON: {error}") from error
    found: list[Any] = []
    _flatten(data, found, len(given.shape))
    there = [value for value in found if value is not None]
    whole = given._replace(shape=(len(there),), data=msgspec.json.encode(there))
    values = iter(tensor(whole).tolist() if there else [])
    if len(found) != count:
        raise Refusal(400, f"column '{name}' of shape {list(given.shape)} has {len(found)} values")
    return [None if value is None else next(values) for value in found]


def wanted_outputs(asked: Asked, outputs: Sequence[Output]) -> Sequence[Output]:
    """Those of an answer that are asked for. Raises `Refusal` (400) where there is none of a name."""
    if asked.outputs is None:
        return outputs
    known = {output.name: output for output in outputs}
    missing = [name for name in asked.outputs if name not in known]
    if missing:
        raise Refusal(400, f"the model has no output {few(missing)}; its outputs are {few(list(known))}")
    return [known[name] for name in asked.outputs]


def require_few_inputs(count: int) -> None:
    """Raises `Refusal` (400) for more inputs than are taken."""
    if count > _MOST_INPUTS:
        raise Refusal(400, f"the request has more than {_MOST_INPUTS} inputs")


def require_inputs(inputs: Sequence[Given]) -> None:
    """Raises `Refusal` (400) for none, and for two of one name."""
    if not inputs:
        raise Refusal(400, "the request has no inputs")
    names = [given.name for given in inputs]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise Refusal(400, f"an input is given twice: {few([short(name) for name in twice])}")


def elements(name: str, datatype: str, shape: Sequence[int], most: int = MOST_VALUES) -> int:
    """How many elements an input's shape says. Raises `Refusal` (400) for a type or a shape that there cannot be."""
    if datatype not in DATATYPES:
        raise Refusal(
            400,
            f"input '{short(name)}' has the type '{short(datatype)}'; the types are {', '.join(DATATYPES)}",
        )
    if len(shape) > _MOST_DIMENSIONS or any(not 0 <= size <= most for size in shape):
        raise Refusal(400, f"input '{short(name)}' has no possible shape: {list(shape[:10])}")
    count = math.prod(shape)
    if count > most:
        raise Refusal(400, f"input '{short(name)}' has {count} elements; at most {most} are taken")
    return count


def packed(output: Output) -> bytes:
    """The elements of an output as bytes, little-endian; of BYTES each behind its length in four bytes."""
    if output.datatype != "BYTES":
        return np.ascontiguousarray(output.array).tobytes()
    return packed_texts(as_bytes(output))


def packed_texts(values: Sequence[bytes]) -> bytes:
    """Elements of BYTES, each behind its length in four bytes."""
    parts: list[bytes] = []
    for content in values:
        parts += (struct.pack("<I", len(content)), content)
    return b"".join(parts)


def as_bytes(output: Output) -> list[bytes]:
    """The elements of an output of type BYTES."""
    return [value if isinstance(value, bytes) else str(value).encode() for value in output.array.ravel().tolist()]


def encode(
    *, model: str, version: str, asked: Asked, outputs: Sequence[Output], parameters: Mapping[str, Any] | None = None
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where bytes follow.

    Parameters
    ----------
    outputs
        All that there are; those that are not wanted are left out.

    Raises
    ------
    Refusal
        400: an output is wanted that there is not.
    """
    outputs = wanted_outputs(asked, outputs)
    items: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for output in outputs:
        item: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.array.shape)}
        if output.name in asked.binary or (asked.all_binary and asked.outputs is None):
            content = packed(output)
            item["parameters"] = {"binary_data_size": len(content)}
            behind.append(content)
        else:
            item["data"] = _plain(output)
        items.append(item)
    tree: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": items}
    if asked.id is not None:
        tree["id"] = asked.id
    if parameters:
        tree["parameters"] = parameters
    text = _ENCODER.encode(tree)
    return (b"".join((text, *behind)), len(text)) if behind else (text, None)


# -- private


def _length(header: str | bytes, size: int) -> int:
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= size):
        raise Refusal(400, f"Inference-Header-Content-Length is '{short(text)}', and the body has {size} bytes")
    return int(text)


def _numbers(data: Any, given: Given, dtype: str, name: str) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.array(data)
    except ValueError as error:  # lists of different lengths
        raise Refusal(400, f"input '{name}': its lists are of different lengths") from error
    if found.dtype.kind not in "biuf":
        if found.size == 0:
            return np.zeros(found.shape, dtype)
        raise Refusal(400, f"input '{name}' of type {given.datatype} holds what is no number")
    wanted = np.dtype(dtype)
    if wanted.kind == "b" and found.dtype.kind != "b":
        raise Refusal(400, f"input '{name}' of type BOOL holds numbers; write true and false")
    if wanted.kind in "iu" and found.dtype.kind == "f":
        # whole numbers beyond 2⁶³ beside smaller ones: as floats they would be rounded
        exact: NDArray[Any] = np.array(data, object)
        if all(isinstance(value, int) for value in exact.ravel()):
            found = exact
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if found.dtype.kind == "f" and not (found == np.floor(found)).all():
            raise Refusal(400, f"input '{name}' of type {given.datatype} holds numbers that are not whole")
        if found.size and (found.min() < limits.min or found.max() > limits.max):
            raise Refusal(
                400, f"input '{name}' of type {given.datatype} holds numbers beyond {limits.min} to {limits.max}"
            )
    with np.errstate(over="ignore"):
        made = found.astype(wanted)
    if wanted.kind == "f" and not np.isfinite(made).all():
        raise Refusal(400, f"input '{name}' holds numbers that are too large for {given.datatype}")
    return made


def _fitting(found: NDArray[Any], given: Given, name: str) -> NDArray[Any]:
    """The data in its shape: flat as the protocol advises, or nested as it may be."""
    if found.shape == given.shape:
        return found
    if found.ndim == 1 and found.size == math.prod(given.shape):
        return found.reshape(given.shape)
    raise Refusal(400, f"input '{name}' of shape {list(given.shape)} has data of shape {list(found.shape)}")


def _flatten(data: Any, into: list[Any], depth: int) -> None:
    if not isinstance(data, list):
        into.append(data)
        return
    for value in data:
        if isinstance(value, list) and depth > 0:
            _flatten(value, into, depth - 1)
        else:
            into.append(value)


def _text(value: Any, given: Given, name: str) -> bytes:
    if not isinstance(value, str):
        raise Refusal(400, f"input '{name}' of type BYTES holds what is no text")
    if given.content_type != "base64":
        return value.encode()
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"input '{name}' holds what is no base64: {error}") from error


def _texts(values: Sequence[bytes]) -> NDArray[Any]:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _unpacked(data: memoryview, count: int, name: str) -> list[bytes]:
    """Elements of BYTES, each behind its length in four bytes."""
    found: list[bytes] = []
    place = 0
    while place < len(data):
        if len(found) == count or len(data) - place < 4:
            break
        (size,) = struct.unpack_from("<I", data, place)
        if size > len(data) - place - 4:
            break
        found.append(bytes(data[place + 4 : place + 4 + size]))
        place += 4 + size
    if place != len(data) or len(found) != count:
        raise Refusal(400, f"input '{name}' holds {len(found)} whole elements of BYTES, and its shape says {count}")
    return found


def _plain(output: Output) -> list[Any]:
    values = output.array.ravel().tolist()
    if output.datatype != "BYTES":
        return values
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
