"""What a network costs with some of its channels gone: counted from shapes, or measured in a runtime."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mapsto.kinds import Network
from mapsto.nn.edits.channels import VALUES
from mapsto.nn.network.layer_calls import run_watched
from mapsto.nn.profile.counts import count_macs, taken_apart
from mapsto.nn.prune.budget import Budget
from mapsto.nn.prune.dependency_groups import Group, Mask, Member

__all__ = ["Costs", "latency_ms"]


class Costs:
    """Multiply-accumulates, parameters or bytes after pruning, counted from shapes.

    A convolution or linear layer multiplies each weight once at each position of its output (of its input, where it is
    transposed); pruning leaves the positions as they are. What else multiplies (attention) is taken to stay as it is, too.
    """

    def __init__(self, module: nn.Module, example: Tensor, groups: Sequence[Group], budget: Budget) -> None:
        self._places: dict[tuple[str, int], list[tuple[str, Member]]] = defaultdict(list)
        for group in groups:
            for member in (member for member in group.members if member.dim != VALUES):
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

    def share_of(self, path: str) -> float:
        """The share of the whole cost that the tensors of the module at `path` have by themselves, 0 to 1."""
        names = [name for name in self._weights if name.startswith(f"{path}.".lstrip("."))]
        own = sum(self._weights[name] * math.prod(self._shapes[name]) for name in names)
        return own / max(self._total({}), 1.0)

    @property
    def rest_share(self) -> float:
        """The share of the cost that is not a layer's, 0 to 1."""
        return max(self._rest, 0.0) / max(self._total({}), 1.0)

    def of_a_channel(self, groups: Sequence[Group]) -> dict[str, float]:
        """Group → what the cost falls by when one of its channels goes and all else stays."""
        whole = self({})
        return {group.name: whole - self({group.name: np.arange(group.channels) > 0}) for group in groups}

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

    def count(path: str, inputs: tuple[Any, ...], output: Tensor) -> None:
        part = layers[path]
        transposed = isinstance(part, nn.modules.conv._ConvTransposeNd)
        where: Tensor = inputs[0] if transposed else output
        weight: Any = part.weight
        channels = part.in_channels if transposed else weight.shape[0]
        found[names[id(weight)]] += where.numel() / (where.shape[0] * int(channels))

    layers: dict[str, Any] = {
        path: part for path, part in module.named_modules() if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd))
    }
    with taken_apart():
        run_watched(module, layers, [example], count)
    return dict(found)


def latency_ms(
    shrunk: Callable[[Mapping[str, Mask]], Network], runtime: str = "onnxruntime"
) -> Callable[[Mapping[str, Mask]], float]:
    """Milliseconds of one sample in a runtime on one thread, the median of medians; each network is measured once.

    Raises `MissingExtra` where the runtime is not installed, `DomainError` where it cannot compute the network.
    """
    known: dict[tuple[bytes, ...], float] = {}

    def cost(kept: Mapping[str, Mask]) -> float:
        key = tuple(mask.tobytes() for mask in kept.values())
        if key not in known:
            known[key] = measured(kept)
        return known[key]

    def measured(kept: Mapping[str, Mask]) -> float:
        from mapsto.nn.export.registry import run_network
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.profile.timing import interleaved

        network = shrunk(kept)
        inputs = [tensor.numpy() for tensor in example_inputs(network.signature, 1)]
        with tempfile.TemporaryDirectory() as folder:
            run = run_network(runtime, network, Path(folder))
            return interleaved({"pruned": lambda: run(*inputs)}, rounds=5, seconds=0.05)["pruned"].p50

    return cost
