"""What each operation does to channels: one rule an ATen operation, from what is known of its arguments to what is known of its results.

A rule gives, for each dimension of the result, the labels of its indices (`channel_call`). It may only say that channels can go
where the operation, run on fewer of them, gives what it gave before for those that are left. An operation without a rule ends the
channels that flow into it: they stay, and the reason names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mapsto.nn.prune.channel_call import MEETS, Labels, OperatorCall, Traced

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["ALONE", "NO_RULE", "rule_of"]

Rule: TypeAlias = "Callable[[OperatorCall], list[Labels] | tuple[list[Labels], ...]]"
"""The labels of the first result's dimensions, or, as a tuple, those of every result."""

NO_RULE = "no rule follows its channels"
ALONE = "one of its channels is left alone"
_TOGETHER = "all its channels are taken together"
_PICKED = "fixed places among its channels are picked"
_MIXED = "its channels are mixed with another dimension"
_PRODUCT = "its channels meet in a product of two activations"
_ROWS = "rows are picked by number"
_PADDED = "zeros are put beside its channels; padded=True lets them go"


def rule_of(call: OperatorCall) -> Rule | None:
    """The rule of an operation, None where there is none."""
    if call.name in _RULES:
        return _RULES[call.name]
    if call.name.startswith("_scaled_dot_product"):
        return _attention
    if call.pointwise:
        return _pointwise
    return _spatial if re.search(r"(_pool|^_?upsample|^reflection_pad|^replication_pad).*\dd", call.name) else None


def _stay_at(call: OperatorCall, dims: Sequence[Labels], at: Iterable[int], why: str) -> list[Labels]:
    """The labels without those of some dimensions, whose channels must stay."""
    kept = list(dims)
    for dim in at:
        call.stay(kept[dim], why)
        kept[dim] = None
    return kept


# ------------------------------------------------------------------------------------------------------------ one by one


def _pointwise(call: OperatorCall) -> list[Labels]:
    return _broadcast(call, [(x.shape, x.dims) for x in call.tensors], call.results[0]) if call.results else []


def _broadcast(
    call: OperatorCall, tensors: Sequence[tuple[Sequence[int], Sequence[Labels]]], shape: Sequence[int]
) -> list[Labels]:
    """Dimensions of the same size, aligned at the last, are the same channels; those of size 1 have none."""
    result: list[Labels] = []
    for place, size in enumerate(shape):
        back = len(shape) - place
        labels = [dims[-back] for sizes, dims in tensors if len(sizes) >= back and sizes[-back] == size > 1]
        first = next((entry for entry in labels if entry is not None), None)
        if first is not None:
            for entry in labels:
                if entry is not first:
                    call.join(first, entry)
        result.append(first)
    return result


def _first(call: OperatorCall) -> list[Labels]:
    """As wide as the first tensor."""
    return call.tensors[0].dims


def _nothing(call: OperatorCall) -> tuple[list[Labels], ...]:
    """Of its own size, whatever the tensor is that it is asked of."""
    return tuple([None] * len(shape) for shape in call.results)


def _batch_norm(call: OperatorCall) -> list[Labels]:
    x: Traced = call["input"]
    labels = x.dims[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call[name] is not None:
            call.join(labels, call[name].dims[0])
    return _stay_at(call, x.dims, (d for d in range(len(x.dims)) if d != 1), _TOGETHER)


def _layer_norm(call: OperatorCall) -> list[Labels]:
    x: Traced = call["input"]
    for name in ("weight", "bias"):
        for labels in call[name].dims if call[name] is not None else ():
            call.stay(labels, _TOGETHER)
    count = len(call["normalized_shape"])
    return _stay_at(call, x.dims, range(len(x.dims) - count, len(x.dims)), _TOGETHER)


def _group_norm(call: OperatorCall) -> list[Labels]:
    """Whole groups may go, since each has its own mean and variance."""
    x: Traced = call["input"]
    labels, groups = x.dims[1], int(call["group"])
    if groups == 1:
        call.stay(labels, _TOGETHER)
    elif labels is not None:
        call.tie(labels.reshape(groups, -1))
    for name in ("weight", "bias"):
        if call[name] is not None:
            call.join(labels, call[name].dims[0])
    return _stay_at(call, x.dims, (d for d in range(len(x.dims)) if d != 1), _TOGETHER)


# ------------------------------------------------------------------------------------------------- one dimension at a time


def _spatial(call: OperatorCall) -> list[Labels]:
    """Pooling, resizing and padding of the last dimensions, as many as the name says."""
    match = re.search(r"(\d)d", call.name)
    x, count = call.tensors[0], int(match[1]) if match else 0
    return _stay_at(call, x.dims, range(len(x.dims) - count, len(x.dims)), _MIXED)


def _dims_of(call: OperatorCall, x: Traced) -> list[int]:
    """The dimensions that an argument names, all where it is left out."""
    dims = call["dim"]
    if dims is None or dims == []:
        return list(range(len(x.dims)))
    return [int(dim) % max(len(x.dims), 1) for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]


def _reduce(call: OperatorCall) -> list[Labels]:
    x = call.tensors[0]
    gone = _dims_of(call, x)
    kept = _stay_at(call, x.dims, gone, _TOGETHER)
    if call["keepdim"]:
        return kept
    return [labels for dim, labels in enumerate(kept) if dim not in gone]


def _along(call: OperatorCall) -> list[Labels]:
    """As softmax: the shape stays, a dimension is taken together."""
    x = call.tensors[0]
    return _stay_at(call, x.dims, _dims_of(call, x), _TOGETHER)


def _flip(call: OperatorCall) -> list[Labels]:
    x = call.tensors[0]
    turned = {int(dim) % len(x.dims) for dim in call["dims"]}
    return [
        labels[::-1].copy() if labels is not None and dim in turned else labels for dim, labels in enumerate(x.dims)
    ]


def _roll(call: OperatorCall) -> list[Labels]:
    x = call.tensors[0]
    rolled = call["dims"] or range(len(x.dims))
    return _stay_at(call, x.dims, (int(dim) % len(x.dims) for dim in rolled), _PICKED)


# -------------------------------------------------------------------------------------------------------- views and copies


def _view(call: OperatorCall) -> list[Labels]:
    """Dimensions split and merged in place.

    A dimension of channels that is split keeps them in one of its parts, and its other parts go together: whoever splits channels
    into groups, and shuffles or flattens them, gives one size and lets the other follow. Where further dimensions follow, as behind
    groups of channels, that is the last part; where none does, as where features become maps or heads, the first.
    """
    x = call.tensors[0]
    shape = call.results[0]
    result: list[Labels] = [None] * len(shape)
    if math.prod(shape) == 0:
        call.stay_all(_MIXED)
        return result
    before = [dim for dim, size in enumerate(x.shape) if size != 1]
    after = [dim for dim, size in enumerate(shape) if size != 1]
    while before and after:
        froms, tos = [before.pop(0)], [after.pop(0)]
        while (left := math.prod(x.shape[d] for d in froms)) != (right := math.prod(shape[d] for d in tos)):
            if left < right:
                froms.append(before.pop(0))
            else:
                tos.append(after.pop(0))
        labelled = [dim for dim in froms if x.dims[dim] is not None]
        if len(labelled) > 1:
            _stay_at(call, x.dims, labelled, _MIXED)
        elif labelled:
            grid = _grid(x, froms, labelled[0])
            for dim, labels in _split(call, grid.reshape([shape[d] for d in tos]), trailing=bool(after)).items():
                result[tos[dim]] = labels
    return result


def _grid(x: Traced, froms: Sequence[int], labelled: int) -> NDArray[np.int64]:
    """The label of each element of some dimensions, of which one has labels, flattened."""
    labels = np.asarray(x.dims[labelled])
    along = labels.reshape([-1 if dim == labelled else 1 for dim in froms])
    return np.broadcast_to(along, [x.shape[dim] for dim in froms]).reshape(-1)


def _split(call: OperatorCall, grid: NDArray[np.int64], *, trailing: bool) -> dict[int, NDArray[np.int64]]:
    """The dimension of a grid that keeps its labels, and these."""
    lines = [np.moveaxis(grid, dim, 0).reshape(size, -1) for dim, size in enumerate(grid.shape)]
    alike = [dim for dim, rows in enumerate(lines) if (rows == rows[:, :1]).all()]
    kept = alike[0] if alike else grid.ndim - 1 if trailing else 0
    call.tie(lines[kept])
    return {kept: lines[kept][:, 0].copy()}


def _permute(call: OperatorCall) -> list[Labels]:
    x = call.tensors[0]
    return [x.dims[int(dim)] for dim in call["dims"]]


def _transpose(call: OperatorCall) -> list[Labels]:
    dims = list(call.tensors[0].dims)
    first, second = (int(call["dim0"]), int(call["dim1"])) if call.name == "transpose" else (0, -1)
    dims[first], dims[second] = dims[second], dims[first]
    return dims


def _expand(call: OperatorCall) -> list[Labels]:
    x, shape = call.tensors[0], call.results[0]
    more = len(shape) - len(x.shape)
    return [None] * more + [
        labels if size == x.shape[dim] else None
        for dim, (labels, size) in enumerate(zip(x.dims, shape[more:], strict=True))
    ]


def _repeat(call: OperatorCall) -> list[Labels]:
    x, counts = call.tensors[0], call["repeats"]
    more = len(counts) - len(x.shape)
    return [None] * more + [
        None if labels is None else np.tile(labels, count) for labels, count in zip(x.dims, counts[more:], strict=True)
    ]


def _slice(call: OperatorCall) -> list[Labels]:
    """A part of equal parts, or every n-th; the parts lose the same places."""
    x, dim = call.tensors[0], int(call["dim"])
    dims, whole, size = list(x.dims), x.shape[dim], call.results[0][dim]
    labels, step = dims[dim], int(call["step"])
    if labels is None or size == whole:
        return dims
    start = min(max(int(call["start"] or 0) + (whole if (call["start"] or 0) < 0 else 0), 0), whole)
    dims[dim] = None
    if size == 0:
        return dims
    if step == 1 and whole % size == 0 and start % size == 0:
        call.tie(labels.reshape(-1, size).T)
        dims[dim] = labels[start : start + size]
    elif whole == size * step and start < step:
        call.tie(labels.reshape(size, step))
        dims[dim] = labels[start::step]
    else:
        call.stay(labels, _PICKED)
    return dims


def _parts(call: OperatorCall) -> tuple[list[Labels], ...]:
    """Parts of one size lose the same places; of others, none."""
    x, dim = call.tensors[0], int(call["dim"] or 0)
    labels, sizes = x.dims[dim], [shape[dim] for shape in call.results]
    cut: list[Labels] = [None] * len(sizes)
    if labels is not None and len(set(sizes)) == 1:
        rows = labels.reshape(len(sizes), -1)
        call.tie(rows.T)
        cut = list(rows)
    else:
        call.stay(labels, _PICKED)
    dim %= len(x.dims)
    return tuple([*x.dims[:dim], part, *x.dims[dim + 1 :]] for part in cut)


def _select(call: OperatorCall) -> list[Labels]:
    x, dim = call.tensors[0], int(call["dim"] or 0)
    kept = _stay_at(call, x.dims, [dim], _PICKED)
    del kept[dim]
    return kept


def _unbind(call: OperatorCall) -> tuple[list[Labels], ...]:
    return tuple(_select(call) for _ in call.results)


def _cat(call: OperatorCall) -> list[Labels]:
    tensors: list[Traced] = [tensor for tensor in call["tensors"] if tensor.shape != (0,)]
    shape, dim = list(call.results[0]), int(call["dim"] or 0)
    dim %= len(shape)
    if call.name == "stack":
        inner = _broadcast(call, [(x.shape, x.dims) for x in tensors], shape[:dim] + shape[dim + 1 :])
        return [*inner[:dim], None, *inner[dim:]]
    parts = [tensor.dims[dim] for tensor in tensors]
    dims: list[Labels] = []
    for place in range(len(shape)):
        here = [tensor.dims[place] for tensor in tensors]
        first = next((labels for labels in here if labels is not None), None)
        if place != dim and first is not None:
            for labels in here:
                call.join(first, labels)
        dims.append(None if place == dim else first)
    if any(labels is not None for labels in parts):
        filled = (
            np.full(tensor.shape[dim], -1) if labels is None else labels
            for labels, tensor in zip(parts, tensors, strict=True)
        )
        dims[dim] = np.concatenate(list(filled))
    return dims


def _pad(call: OperatorCall) -> list[Labels]:
    x, pads = call.tensors[0], [int(count) for count in call["pad"]]
    dims = list(x.dims)
    for number in range(len(pads) // 2):
        dim = len(dims) - 1 - number
        before, after = pads[2 * number : 2 * number + 2]
        labels = dims[dim]
        if labels is None or before == after == 0:
            continue
        if before < 0 or after < 0:
            call.stay(labels, _PICKED)
            dims[dim] = None
            continue
        dims[dim] = np.concatenate([call.zeros(before, "before"), labels, call.zeros(after, "after")])
        if not call.padded:
            call.stay(dims[dim], _PADDED)
    return dims


def _shuffle(call: OperatorCall) -> list[Labels]:
    """Groups of channels dealt out one by one; they lose the same places."""
    dims = list(call.tensors[0].dims)
    if dims[1] is not None:
        rows = dims[1].reshape(int(call["groups"]), -1)
        call.tie(rows.T)
        dims[1] = rows.T.reshape(-1)
    return dims


def _pixel_shuffle(call: OperatorCall) -> list[Labels]:
    x, area = call.tensors[0], int(call["upscale_factor"]) ** 2
    dims = _stay_at(call, x.dims, (len(x.dims) - 2, len(x.dims) - 1), _MIXED)
    labels = dims[-3]
    if labels is not None:
        rows = labels.reshape(-1, area)
        call.tie(rows)
        dims[-3] = rows[:, 0].copy()
    return dims


def _glu(call: OperatorCall) -> list[Labels]:
    dims, dim = list(call.tensors[0].dims), int(call["dim"])
    labels = dims[dim]
    if labels is not None:
        halves = labels.reshape(2, -1)
        call.tie(halves.T)
        dims[dim] = halves[0].copy()
    return dims


def _index_select(call: OperatorCall) -> list[Labels]:
    x: Traced = call["self"]
    return _picked(call, x, int(call["dim"]), call["index"])


def _index(call: OperatorCall) -> list[Labels]:
    """One index, or several side by side, each of one dimension."""
    x: Traced = call["self"]
    places = [(dim, index) for dim, index in enumerate(call["indices"]) if index is not None]
    dims = [dim for dim, _ in places]
    if len(places) == 1 and len(places[0][1].shape) == 1 and len(call.results[0]) == len(x.dims):
        return _picked(call, x, *places[0])
    kept = _stay_at(call, x.dims, dims, _PICKED)
    more = len(call.results[0]) - len(x.dims) + len(dims)
    if (
        dims != list(range(dims[0], dims[0] + len(dims)))
        or more < 0
        or more != max(len(index.shape) for _, index in places)
    ):
        call.stay_all(_PICKED)
        return [None] * len(call.results[0])
    return [*kept[: dims[0]], *[None] * more, *kept[dims[-1] + 1 :]]


def _picked(call: OperatorCall, x: Traced, dim: int, index: Traced) -> list[Labels]:
    """Channels picked by a module's own buffer of indices, which is changed with them."""
    dims = list(x.dims)
    labels = dims[dim]
    if labels is not None:
        dims[dim] = call.picked(labels, index)
        if dims[dim] is None:
            call.stay(labels, _PICKED)
    return dims


# ---------------------------------------------------------------------------------------------------------------- products


def _matrix(call: OperatorCall) -> list[Labels]:
    first, second = (call[name] for name in _FACTORS[call.name])
    made, shape = _product(call, first, second), call.results[0]
    if call.name not in ("addmm", "baddbmm"):
        return made
    added: Traced = call["self"]
    return _broadcast(call, [(shape, made), (added.shape, added.dims)], shape)


_FACTORS = {
    "mm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "bmm": ("self", "mat2"),
    "baddbmm": ("batch1", "batch2"),
}


def _product(call: OperatorCall, first: Traced, second: Traced) -> list[Labels]:
    """``Σ_k a[…, i, k] b[…, k, j]``: where one of them is a weight, it reads channels k and makes the other's.

    Two activations with channels, as in attention, are left whole.
    """
    left, right = first.dims[-1], second.dims[-2]
    if first.given == second.given:
        if any(labels is not None for labels in first.dims) and any(labels is not None for labels in second.dims):
            call.stay_all(_PRODUCT)
            return [None] * len(call.results[0])
        call.stay(left, _PRODUCT)
        call.stay(right, _PRODUCT)
    else:
        call.join(left, right)
        call.role(right if second.given else left, "in")
        call.role(second.dims[-1] if second.given else first.dims[-2], "out")
    batch = _broadcast(call, [(x.shape[:-2], x.dims[:-2]) for x in (first, second)], call.results[0][:-2])
    return [*batch, first.dims[-2], second.dims[-1]]


def _attention(call: OperatorCall) -> tuple[list[Labels], ...]:
    call.stay_all(_PRODUCT)
    return _nothing(call)


def _linear(call: OperatorCall) -> list[Labels]:
    x, weight, bias = call["input"], call["weight"], call["bias"]
    if x.given or not weight.given:
        call.stay_all(_PRODUCT)
        return [None] * len(call.results[0])
    call.join(x.dims[-1], weight.dims[1])
    call.role(weight.dims[1], "in")
    call.role(weight.dims[0], "out")
    if bias is not None:
        call.join(weight.dims[0], bias.dims[0])
    return [*x.dims[:-1], weight.dims[0]]


def _convolution(call: OperatorCall) -> list[Labels]:
    x, weight, bias = call["input"], call["weight"], call["bias"]
    groups, transposed = int(call["groups"]), bool(call["transposed"])
    for tensor in (x, weight):
        _stay_at(call, tensor.dims, range(2, len(tensor.dims)), _MIXED)
    call.stay(x.dims[0], _MIXED)
    if groups > 1:
        out = _grouped(call, x.dims[1], weight, groups, transposed=transposed)
    else:
        read, out = weight.dims[0 if transposed else 1], weight.dims[1 if transposed else 0]
        if weight.given and not x.given:
            call.join(x.dims[1], read)
            call.role(read, "in")
            call.role(out, "out")
        else:
            call.stay(x.dims[1], _PRODUCT)
            call.stay(read, _PRODUCT)
    if bias is not None:
        call.join(out, bias.dims[0])
    return [None, out, *[None] * (len(x.dims) - 2)]


def _grouped(call: OperatorCall, labels: Labels, weight: Traced, groups: int, *, transposed: bool) -> Labels:
    """Whole groups go: their inputs and outputs together, so that all groups that are left are as large as before."""
    call.stay(weight.dims[1], "it is a part of a group")
    rows = weight.dims[0]
    if rows is None or not weight.given:
        call.stay_all(_PRODUCT)
        return None
    call.role(rows, "group")
    grouped = rows.reshape(groups, -1)
    call.tie(grouped)
    if labels is None:
        call.stay(rows, MEETS)
    else:
        inputs = labels.reshape(groups, -1)
        call.tie(inputs)
        call.join(inputs[:, 0], grouped[:, 0])
    return np.repeat(grouped[:, 0], weight.shape[1]) if transposed else rows


def _embedding(call: OperatorCall) -> list[Labels]:
    weight, numbers = call["weight"], call["indices"]
    call.stay(weight.dims[0], _ROWS)
    call.role(weight.dims[1], "out")
    return [*[None] * len(numbers.shape), weight.dims[1]]


# ------------------------------------------------------------------------------------------------------------------- table

_NAMES: dict[Rule, str] = {
    _pointwise: "copy hardswish _prelu_kernel masked_fill where rsub native_dropout dropout alias detach lift_fresh _to_copy contiguous",
    _first: "zeros_like ones_like empty_like full_like rand_like randn_like bernoulli fill zero",
    _nothing: "new_zeros new_ones new_full new_empty _assert_tensor_metadata",
    _view: "view _unsafe_view _reshape_alias reshape squeeze unsqueeze flatten unflatten",
    _permute: "permute",
    _transpose: "transpose t",
    _expand: "expand",
    _repeat: "repeat",
    _slice: "slice",
    _parts: "split split_with_sizes chunk",
    _select: "select",
    _unbind: "unbind",
    _cat: "cat stack",
    _pad: "constant_pad_nd",
    _flip: "flip",
    _roll: "roll",
    _shuffle: "channel_shuffle native_channel_shuffle",
    _pixel_shuffle: "pixel_shuffle",
    _glu: "glu",
    _index_select: "index_select",
    _index: "index",
    _reduce: "mean sum prod amax amin max min any all argmax argmin var std var_mean std_mean logsumexp linalg_vector_norm norm median",
    _along: "_softmax _log_softmax softmax log_softmax cumsum cumprod logcumsumexp sort",
    _batch_norm: "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm _batch_norm_no_update",
    _layer_norm: "native_layer_norm",
    _group_norm: "native_group_norm",
    _matrix: " ".join(_FACTORS),
    _linear: "linear",
    _convolution: "convolution _convolution convolution_overrideable",
    _embedding: "embedding",
}
_RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
