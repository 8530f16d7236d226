"""Follow every channel through a network: which indices of which tensors are the same channel and can only go together.

Each index of each dimension of each parameter and buffer is a node. The network runs once under a dispatch mode, which sees every
ATen operation whoever makes it: lambdas, views, in-place operations, weights used twice. What is known of a tensor is, for each
index of a dimension, the node of the channel that it is, −1 where it must stay, or None for a dimension that never shrinks. The rule of
an operation (`operator_rules`) carries this from its arguments to its results, joins the nodes that must go together and says which
must stay. The connected components of the joined nodes are the channels. (Fang et al., "DepGraph: Towards Any Structural Pruning",
2023, joins whole layers; here single channels are joined, so that concatenation, shuffling and sharing need no case of their own.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from mapsto.nn.prune.channel_call import Labels, OperatorCall, Role, Traced
from mapsto.nn.prune.operator_rules import ALONE, NO_RULE, rule_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OUTPUT", "Flow", "Place", "follow"]

OUTPUT = "its output is the output of the network"


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """One dimension of one parameter or buffer, whose indices are the nodes from `start` on."""

    name: str
    """Of the parameter or buffer; of an attribute of a module that pads."""
    dim: int
    size: int
    start: int
    role: Role
    """Whether the tensor makes the channels there, reads them, scales them one by one, or counts zeros that stand for them."""
    time: int
    """When it was first used, in operations from the start; -1 for never."""
    depth: int
    """How many layers lie between the input and where it makes channels."""
    grouped: bool
    """Whether it is the weight of a grouped convolution."""

    @property
    def nodes(self) -> slice:
        """Where its nodes are among all."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """Where channels run."""

    places: tuple[Place, ...]
    channels: NDArray[np.int64]
    """The channel of each node, numbered from 0, shape (nodes,)."""
    reasons: dict[int, str]
    """Channel → why it must stay."""
    output: NDArray[np.int64]
    """The channels that are the indices of the output's last dimension, -1 for none."""


def follow(module: nn.Module, inputs: Tensor, *, padded: bool = False) -> Flow:
    """The channels of `module`, which is run once on `inputs` as it is; `padded` follows them where zeros are put beside them.

    A module that pads a dimension of channels is changed with them where it has the attributes `before` and `after`, how many
    zeros it puts there; an index into channels where it is a buffer.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    >>> flow = follow(net, torch.ones(1, 2))
    >>> {(place.name, place.dim): flow.channels[place.nodes].tolist() for place in flow.places}
    {('0.weight', 0): [0, 1, 2], ('0.weight', 1): [3, 4], ('0.bias', 0): [0, 1, 2], ('2.weight', 0): [5, 6], ('2.weight', 1): [0, 1, 2],
    ('2.bias', 0): [5, 6]}
    >>> flow.output.tolist(), [number for number in flow.reasons]
    ([5, 6], [3, 4])
    """
    tracer = _Tracer(module, padded=padded)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a whole encoder layer as one operation
    try:
        with torch.no_grad(), tracer.paths(), tracer:
            output: Any = module(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return tracer.flow(output)


class _Tracer(TorchDispatchMode):
    def __init__(self, module: nn.Module, *, padded: bool) -> None:
        super().__init__()
        self.padded = padded
        self.modules = dict(module.named_modules())
        self.joined: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self.staying: list[tuple[NDArray[np.int64], str]] = []
        self.numbers: dict[str, NDArray[np.int64]] = {}
        """Buffers of whole numbers by name."""
        self._places: list[tuple[str, int, int, Role]] = []
        self._starts: list[int] = [0]
        self._found: dict[tuple[str, int], int] = {}
        self._known = WeakTensorKeyDictionary()
        self._roles: dict[int, set[str]] = defaultdict(set)
        self._depths: dict[int, int] = {}
        self._times: dict[str, int] = {}
        self._time = 0
        self._paths = [""]
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            dims: list[Labels] = [None] * tensor.ndim
            if tensor.is_floating_point():
                dims = [self.extra(name, d, n, "along") if n > 1 else None for d, n in enumerate(tensor.shape)]
            elif tensor.dtype in (torch.int64, torch.int32) and bool((tensor >= 0).all()):
                self.numbers[name] = tensor.cpu().numpy().astype(np.int64)
            shape = tuple(tensor.shape)
            self._known[tensor] = Traced(shape=shape, dims=dims, given=tensor.is_floating_point(), name=name)

    @property
    def path(self) -> str:
        """Of the module that runs."""
        return self._paths[-1]

    @contextmanager
    def paths(self) -> Generator[None]:
        """Know which module runs."""
        handles: list[Any] = []
        for path, part in self.modules.items():
            handles.append(part.register_forward_pre_hook(partial(self._enter, path)))
            handles.append(part.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, *_: Any) -> None:
        self._paths.append(path)

    def _leave(self, *_: Any) -> None:
        self._paths.pop()

    def of(self, tensor: Tensor) -> Traced:
        """What is known of a tensor."""
        shape = tuple(tensor.shape)
        found: Traced | None = self._known.get(tensor)
        return found if found is not None else Traced(shape=shape, dims=[None] * len(shape))

    def seen(self, value: Any) -> Any:
        """What is known in the place of a tensor, anything else as it is."""
        return self.of(value) if isinstance(value, Tensor) else value

    def extra(self, name: str, dim: int, size: int, role: Role) -> NDArray[np.int64]:
        """The nodes of a place, made at its first mention."""
        key = name, dim
        if key not in self._found:
            self._found[key] = len(self._places)
            self._places.append((name, dim, size, role))
            self._starts.append(self._starts[-1] + size)
        start = self._starts[self._found[key]]
        return np.arange(start, start + size)

    def role(self, labels: Labels, role: str, depth: int) -> None:
        """Note what is done at the places of these nodes."""
        if labels is None:
            return
        for place in np.unique(np.searchsorted(self._starts, labels[labels >= 0], side="right") - 1).tolist():
            self._roles[place].add(role)
            self._depths[place] = min(depth, self._depths.get(place, depth))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = OperatorCall(self, func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        call.results = [tuple(tensor.shape) for tensor in tensors]
        self._time += 1
        for tensor in call.tensors:
            if tensor.name:
                self._times.setdefault(tensor.name, self._time)
        found = self._labels(call)
        given = bool(call.tensors) and all(tensor.given for tensor in call.tensors)
        depth = max((tensor.depth for tensor in call.tensors if not tensor.given), default=0) + call.made
        for tensor, shape, labels in zip(tensors, call.results, found, strict=True):
            for label, size in zip(labels, shape, strict=True):
                if size == 1:
                    call.stay(label, ALONE)
            dims = [None if size == 1 else label for label, size in zip(labels, shape, strict=True)]
            self._known[tensor] = Traced(shape=shape, dims=dims, given=given, depth=depth)
        return result

    def _labels(self, call: OperatorCall) -> Sequence[list[Labels]]:
        """What is known of each result."""
        unknown: list[list[Labels]] = [[None] * len(shape) for shape in call.results]
        if all(labels is None for tensor in call.tensors for labels in tensor.dims):
            return unknown
        rule = rule_of(call)
        if rule is None:
            call.stay_all(NO_RULE)
            return unknown
        made = rule(call)
        if not call.results:
            return []
        if isinstance(made, tuple):
            return made
        # what else an operation gives (the places of maxima) is as wide as its first result, or no channels at all
        return [made if shape == call.results[0] else unknown[n] for n, shape in enumerate(call.results)]

    def flow(self, output: Any) -> Flow:
        """What was found, once the network has run."""
        tensors = [self.of(value) for value in tree_leaves(output) if isinstance(value, Tensor)]
        ends: Labels = None
        for number, tensor in enumerate(tensors):
            for dim, labels in enumerate(tensor.dims):
                if number == 0 and dim == len(tensor.dims) - 1:
                    ends = labels
                elif labels is not None:
                    self.staying.append((labels[labels >= 0], OUTPUT))
        channels = _components(self._starts[-1], self.joined)
        reasons: dict[int, str] = {}
        for nodes, why in self.staying:
            for channel in np.unique(channels[nodes]).tolist():
                reasons.setdefault(channel, why)
        width = tensors[0].shape[-1] if tensors and tensors[0].shape else 0
        last = np.full(width, -1, np.int64) if ends is None else np.where(ends < 0, -1, channels[ends])
        return Flow(places=tuple(self._finished()), channels=channels, reasons=reasons, output=last)

    def _finished(self) -> Iterator[Place]:
        makers = {self._places[number][0] for number, roles in self._roles.items() if "out" in roles}
        for number, (name, dim, size, first) in enumerate(self._places):
            roles = self._roles[number]
            path, _, own = name.rpartition(".")
            is_bias_of_maker = own == "bias" and f"{path}.weight".lstrip(".") in makers
            if "in" in roles:
                role: Role = "in"
            else:
                role = "out" if "out" in roles or is_bias_of_maker else first
            yield Place(
                name=name,
                dim=dim,
                size=size,
                start=self._starts[number],
                role=role,
                time=self._times.get(name, -1),
                depth=self._depths.get(number, 0),
                grouped="group" in roles,
            )


def _components(count: int, joined: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> NDArray[np.int64]:
    """The connected component of each node, numbered from 0 in the order of their first nodes.

    >>> _components(5, [(np.array([4, 1]), np.array([3, 3]))]).tolist()
    [0, 1, 2, 1, 1]
    """
    first = np.concatenate([pair[0] for pair in joined]) if joined else np.zeros(0, np.int64)
    second = np.concatenate([pair[1] for pair in joined]) if joined else np.zeros(0, np.int64)
    lowest = np.arange(count)
    for _ in range(max(count, 1)):
        before = lowest.copy()
        least = np.minimum(lowest[first], lowest[second])
        np.minimum.at(lowest, lowest[first], least)
        np.minimum.at(lowest, lowest[second], least)
        lowest = lowest[lowest]
        if np.array_equal(lowest, before):
            break
    return np.unique(lowest, return_inverse=True)[1].astype(np.int64)
