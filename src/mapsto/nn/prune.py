"""Structured pruning: find the groups, rank their channels, drop the least important ones until the budget is met."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.budget import Budget, Budgeted, search
from mapsto.nn.edits.quantizers import is_quantized
from mapsto.nn.groups import Group, Mask, Member, channels_edit, find_groups
from mapsto.nn.measure import count_macs
from mapsto.nn.source import with_output

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Importance", "channel_sums", "mean_normalised", "pruned"]

Importance = Callable[[nn.Module, Sequence[Group]], Mapping[str, "NDArray[np.float64]"]]
"""(module in evaluation mode, groups) → group → importance of each channel, shape (channels,)."""


def pruned(
    network: Network,
    settings: Budgeted,
    importance: Importance,
    *,
    where: str = "prune",
    log: Callable[[str], None] = lambda _: None,
) -> Network:
    """`network` with the least important channels dropped.

    Parameters
    ----------
    settings
        The budget and what every layer keeps.
    importance
        May run the module it is given, and change its gradients, but not its weights.
    log
        Is told what went and which layers are left whole.

    Raises
    ------
    DomainError
        The network is quantized, not finite, has several inputs, no channels to prune, or cannot be made as small as asked.
    """
    module = network.module()
    if is_quantized(module):
        raise DomainError("the network is quantized", where=where, hint="prune before quantizing")
    if len(network.signature.inputs) != 1:
        raise DomainError(f"the network has {len(network.signature.inputs)} inputs", where=where, hint="give it one")
    broken = [name for name, tensor in network.tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise DomainError(f"its tensors are not finite: {', '.join(broken[:5])}", where=where, hint="train it anew")
    example = _example(network)
    found = find_groups(module, example, embedding=settings.prune_embedding)
    for reason, count in Counter(found.whole.values()).items():
        named = [path for path, given in found.whole.items() if given == reason]
        log(f"left whole: {', '.join(named[:3])}{f' and {count - 3} more' if count > 3 else ''} ({reason})")
    if not found.groups:
        raise DomainError(
            f"no layer of it can be pruned ({'; '.join(f'{path}: {why}' for path, why in list(found.whole.items())[:3])})",
            where=where,
            hint="a classifier's outputs stay; a learner's embedding goes with prune_embedding=True",
        )
    scores = importance(module, found.groups)
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise DomainError("the channels' importance is not finite", where=where, hint="look for NaN in the data")

    def shrunk(kept: Mapping[str, Mask]) -> Network:
        return _shrunk(network, found.groups, kept)

    cost = _latency(shrunk) if settings.latency_ms else _Costs(module, example, found.groups, settings.budget)
    kept = search(scores, cost, settings.budget, ranking=settings.ranking, limits=settings.limits, where=where)
    before, after = sum(map(len, kept.values())), sum(int(mask.sum()) for mask in kept.values())
    log(f"{after} of {before} channels stay in {len(kept)} groups")
    return shrunk(kept)


def _shrunk(network: Network, groups: Sequence[Group], kept: Mapping[str, Mask]) -> Network:
    module = network.module()
    edit = channels_edit(module, groups, kept)
    if not edit.kept:
        return network
    signature = network.signature
    for group in groups:
        if group.features:
            signature = with_output(signature, int(kept[group.name].sum()) * group.features, None)
    return network.with_module(edit.apply(module), edit, signature=signature)


def _example(network: Network) -> Tensor:
    spec = network.signature.inputs[0]
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return torch.zeros(network.signature.input_shape(2), dtype=dtype)


def channel_sums(tensor: Tensor, member: Member, channels: int) -> NDArray[np.float64]:
    """Sums over what belongs to each channel, shape (channels,), of a tensor shaped as the member's."""
    along = tensor.detach().movedim(member.dim, 0).flatten(1) if tensor.ndim > 1 else tensor.detach().unsqueeze(1)
    sums = along.double().sum(1).cpu().numpy()
    mine = member.owner >= 0
    return np.bincount(member.owner[mine], weights=sums[mine], minlength=channels).astype(np.float64)


def mean_normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in units of their mean, so that layers of any scale compare; zeros stay zeros."""
    mean = values.mean()
    return values / mean if mean > 0 else values


class _Costs:
    """Multiply-accumulates, parameters or bytes after pruning, counted from shapes.

    A convolution or linear layer multiplies each weight once at each position of its output (of its input, where it is
    transposed); pruning leaves the positions as they are. What else multiplies (attention) is taken to stay as it is, too.
    """

    def __init__(self, module: nn.Module, example: Tensor, groups: Sequence[Group], budget: Budget) -> None:
        self._places: dict[tuple[str, int], list[tuple[str, Member]]] = defaultdict(list)
        for group in groups:
            for member in group.members:
                self._places[member.name, member.dim].append((group.name, member))
        tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._rest = 0.0
        self._weights: Mapping[str, float]
        if budget.kind == "macs":
            self._weights = _positions(module, example)
            self._rest = count_macs(module, example) - self._total({})
        elif budget.kind == "bytes":
            saved = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
            self._weights = {name: tensor.element_size() for name, tensor in tensors.items() if id(tensor) in saved}
        else:
            self._weights = {name: 1.0 for name, _ in module.named_parameters()}
        self._whole = max(self._total({}), 1.0) if budget.unit == "share" else 1.0

    def __call__(self, kept: Mapping[str, Mask]) -> float:
        return self._total(kept) / self._whole

    def _total(self, kept: Mapping[str, Mask]) -> float:
        sizes: dict[str, list[int]] = {name: list(shape) for name, shape in self._shapes.items()}
        for (name, dim), members in self._places.items():
            masks = [member.mask(kept[group]) for group, member in members if group in kept]
            if masks and name in sizes:
                sizes[name][dim] = int(np.logical_and.reduce(masks).sum())
        return self._rest + sum(weight * math.prod(sizes[name]) for name, weight in self._weights.items())


def _positions(module: nn.Module, example: Tensor) -> dict[str, float]:
    """Name of each weight → how many positions of one sample it is multiplied at, over all calls."""
    names = {id(tensor): name for name, tensor in module.named_parameters()}
    found: dict[str, float] = defaultdict(float)

    def count(part: nn.Module, inputs: Any, output: Tensor) -> None:
        transposed = isinstance(part, nn.modules.conv._ConvTransposeNd)
        where: Tensor = inputs[0] if transposed else output
        weight: Any = part.weight
        channels = part.in_channels if transposed else weight.shape[0]
        found[names[id(weight)]] += where.numel() / (where.shape[0] * int(channels))

    handles = [
        part.register_forward_hook(count)
        for part in module.modules()
        if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd))
    ]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return dict(found)


def _latency(shrunk: Callable[[Mapping[str, Mask]], Network]) -> Callable[[Mapping[str, Mask]], float]:
    """Milliseconds of one sample in ONNX Runtime on one thread, the median of medians; each network is measured once."""
    known: dict[tuple[bytes, ...], float] = {}

    def cost(kept: Mapping[str, Mask]) -> float:
        key = tuple(mask.tobytes() for mask in kept.values())
        if key not in known:
            known[key] = measured(kept)
        return known[key]

    def measured(kept: Mapping[str, Mask]) -> float:
        from mapsto.nn.onnx_export import example_inputs, runner, to_onnx
        from mapsto.nn.timing import interleaved

        network = shrunk(kept)
        run = runner(to_onnx(network), threads=1)
        inputs = [tensor.numpy() for tensor in example_inputs(network.signature, 1)]
        return interleaved({"pruned": lambda: run(*inputs)}, rounds=5, seconds=0.05)["pruned"].p50

    return cost
