"""The Open Inference Protocol over gRPC: requests and answers of inference as messages and as arrays.

Tensors come raw, all of them in ``raw_input_contents``, or typed, each in the field of its type; they are answered as they came. What is
checked, and what a request becomes, is the same as over HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mapsto.service.grpc_protocol import message
from mapsto.service.inference_protocol import (
    DATATYPES,
    Asked,
    Given,
    Output,
    as_bytes,
    elements,
    packed,
    packed_texts,
    require_few_inputs,
    require_inputs,
    wanted_outputs,
)
from mapsto.service.refusal import Refusal
from mapsto_runtime.shown import short

__all__ = ["FIELDS", "answer_of", "asked_of"]

FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the elements of a typed tensor stand; FP16 has no such field."""
_WIDE = {"int_contents": "int32", "uint_contents": "uint32"}
_NOTHING: frozenset[str] = frozenset()
_Answer = message("inference.ModelInferResponse")


def asked_of(request: Any) -> Asked:
    """The request of a ``ModelInferRequest``.

    Raises
    ------
    Refusal
        400: its parts do not fit together.
    """
    items, raw = request.inputs, request.raw_input_contents
    require_few_inputs(len(items))
    if raw and len(raw) != len(items):
        raise Refusal(
            400, f"raw_input_contents holds {len(raw)} tensors, and the request has {len(items)} inputs; send all so"
        )
    inputs: list[Given] = []
    for place, item in enumerate(items):
        shape = tuple(item.shape)
        count = elements(item.name, item.datatype, shape)
        content = raw[place] if raw else _typed(item, count)
        if raw:
            if item.HasField("contents"):
                raise Refusal(400, f"input '{short(item.name)}' has both contents and raw_input_contents; give one")
            width = 0 if item.datatype == "BYTES" else np.dtype(DATATYPES[item.datatype]).itemsize
            if width and len(content) != count * width:
                raise Refusal(
                    400,
                    f"input '{short(item.name)}' of shape {list(shape)} and type {item.datatype} has {count * width} bytes, "
                    f"not {len(content)}",
                )
        inputs.append(Given(item.name, item.datatype, shape, memoryview(content), ""))
    require_inputs(inputs)
    return Asked(
        id=request.id or None,
        inputs=inputs,
        outputs=[each.name for each in request.outputs] or None,
        binary=_NOTHING,
        all_binary=bool(raw),
        parameters={name: _value(each) for name, each in request.parameters.items()},
    )


def answer_of(
    *, model: str, version: str, asked: Asked, outputs: Sequence[Output], parameters: Mapping[str, Any]
) -> bytes:
    """A serialized ``ModelInferResponse``: raw where the request was, or an output has no typed form; else typed.

    Raises `Refusal` (400) where an output is wanted that there is not.
    """
    outputs = wanted_outputs(asked, outputs)
    found = _Answer(model_name=model, model_version=version)
    if asked.id is not None:
        found.id = asked.id
    for name, value in parameters.items():
        found.parameters[name].string_param = str(value)
    raw = asked.all_binary or any(output.datatype not in FIELDS for output in outputs)
    for output in outputs:
        item = found.outputs.add(name=output.name, datatype=output.datatype)
        item.shape.extend(output.array.shape)
        if raw:
            found.raw_output_contents.append(packed(output))
        else:
            values = as_bytes(output) if output.datatype == "BYTES" else output.array.ravel().tolist()
            getattr(item.contents, FIELDS[output.datatype]).extend(values)
    return found.SerializeToString()


# -- private


def _typed(item: Any, count: int) -> bytes:
    """The elements of a typed input, as if they had come raw."""
    field = FIELDS.get(item.datatype)
    if field is None:
        raise Refusal(400, f"input '{short(item.name)}' of type {item.datatype} is sent in raw_input_contents")
    others = [each.name for each, _ in item.contents.ListFields() if each.name != field]
    if others:
        raise Refusal(400, f"input '{short(item.name)}' of type {item.datatype} is sent in {field}, not in {others[0]}")
    values = getattr(item.contents, field)
    if len(values) != count:
        raise Refusal(
            400, f"input '{short(item.name)}' of shape {list(item.shape)} has {len(values)} elements in {field}"
        )
    if field == "bytes_contents":
        return packed_texts(values)
    dtype = np.dtype(DATATYPES[item.datatype])
    found = np.fromiter(values, _WIDE.get(field, dtype), count)
    if field in _WIDE and count:
        limits = np.iinfo(dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise Refusal(
                400,
                f"input '{short(item.name)}' of type {item.datatype} holds numbers beyond {limits.min} to {limits.max}",
            )
    return found.astype(dtype.newbyteorder("<"), copy=False).tobytes()


def _value(parameter: Any) -> Any:
    field = parameter.WhichOneof("parameter_choice")
    return None if field is None else getattr(parameter, field)
