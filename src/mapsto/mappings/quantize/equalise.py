"""Even out the channels of neighbouring layers before quantizing: no data, and the network's output stays the same.

``relu(W₁x + b₁) → W₂`` equals ``relu((W₁x + b₁) / s) → W₂ s`` for any ``s > 0`` a channel; ``s_i = √(r₁ᵢ / r₂ᵢ)`` with the greatest
absolute weights r of channel i on either side gives both layers the range ``√(r₁ᵢ r₂ᵢ)``, so that no small channel shares a large
one's step. Pairs influence each other, so it goes over them until nothing moves.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from mapsto.nn.network.call_sites import SiteCall, Trace

__all__ = ["Equalise"]

_HOMOGENEOUS = frozenset(
    {
        *("relu", "leaky_relu", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "pad", "dropout"),
        *("flatten", "view", "reshape", "squeeze", "contiguous", "getitem"),
    }
)
"""Functions f of one channel each with f(x / s) = f(x) / s for s > 0; a clamp as in ReLU6 is none."""


class Equalise(Mapping[Network, Network]):
    """The float network with batch norm folded and its channels evened out; `quantize.static` comes next.

    Raises `DomainError` for a network that is quantized already, has weights that are not finite, or has no two layers in a row.

    >>> import torch
    >>> from mapsto.mappings.networks.mlp import Mlp
    >>> network = Mlp(inputs=4, classes=3, widths=(8,))()
    >>> even = Equalise()(network)
    >>> x = torch.randn(5, 4)
    >>> torch.allclose(even.module()(x), network.module()(x), atol=1e-5)
    True
    >>> first, second = (tensor for tensor in even.tensors.values() if tensor.ndim == 2)
    >>> torch.allclose(first.abs().amax(1), second.abs().amax(0), rtol=1e-3)
    True
    """

    version: ClassVar[int] = 2

    sweeps: int = Field(default=20, ge=1)
    """How often it goes over all pairs at most; it stops once no factor differs from 1 by more than 0.001."""
    skip: tuple[str, ...] = ()
    """Paths of modules that stay as they are, with all below them."""

    def apply(self, value: Network, ctx: Context) -> Network:
        import torch

        from mapsto.nn.edits._adapted_layer import require_none
        from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
        from mapsto.nn.network.call_sites import trace
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.quantize.float_layers import tell_all
        from mapsto.nn.quantize.post_training import require_float, require_paths

        module = require_float(value, where=self.name)
        require_none(module, where=self.name)
        require_paths(module, self.skip, where=self.name)
        example = example_inputs(value.signature, 2)[0]
        found = foldable_pairs(module, trace(module, example))
        fold = [FoldBatchNorm(pairs=found)] if found else []
        for edit in fold:
            module = edit.apply(module)
        pairs = [pair for pair in _pairs(module, trace(module, example)) if not self._skips(pair)]
        if not pairs:
            raise DomainError(
                "it has no two layers with only a rectifier or a pooling between them",
                where=self.name,
                hint="leave this step out: quantize.static has a scale for each output channel anyway",
            )
        with torch.no_grad():
            before = module(example)
            _equalise(module, pairs, self.sweeps, where=self.name)
            after = module(example)
        if not torch.allclose(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
            raise DomainError(
                f"its output changed by {float((after - before).abs().max()):.3g}: a reshape between two layers mixes channels",
                where=self.name,
                hint="put the layers behind that reshape into skip",
            )
        ctx.log(f"{len(pairs)} pairs of layers evened out")
        tell_all(value, ctx, why="this step changes their weights alone; put quantize.static behind it")
        return value.with_module(module, *fold)

    def _skips(self, pair: tuple[str, str]) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}.") for path in pair for prefix in self.skip)


def _pairs(module: nn.Module, graph: Trace) -> Iterator[tuple[str, str]]:
    """(path of a layer, path of the layer that alone takes its output, seen through what is homogeneous)."""
    consumers = graph.consumers()
    runs = [call.site.path for call in graph.calls if call.parameters]
    for call in graph.calls:
        if not _is_layer(module, call) or runs.count(call.site.path) > 1:
            continue
        takers, site = consumers.get(call.site, []), call.site
        while len(takers) == 1 and site not in graph.outputs and takers[0].site.function in _HOMOGENEOUS:
            site = takers[0].site
            takers = consumers.get(site, [])
        if len(takers) != 1 or site in graph.outputs or runs.count(takers[0].site.path) > 1:
            continue
        if _is_layer(module, takers[0]) and _fits(module, call.site.path, takers[0].site.path):
            yield call.site.path, takers[0].site.path


def _is_layer(module: nn.Module, call: SiteCall) -> bool:
    from torch import nn

    layer = module.get_submodule(call.site.path)
    return bool(call.parameters) and isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))


def _fits(module: nn.Module, first: str, second: str) -> bool:
    """Whether the second layer reads each channel by columns of its own: neither is grouped, but the second may be depthwise."""
    outputs = cast("Any", module.get_submodule(first)).weight.shape[0]
    weight, groups = _weight(module, second), getattr(module.get_submodule(second), "groups", 1)
    if groups > 1:
        return groups == outputs == weight.shape[0] and weight.shape[1] == 1
    return weight.shape[1] % outputs == 0


def _weight(module: nn.Module, path: str) -> Tensor:
    return cast("Any", module.get_submodule(path)).weight


def _equalise(module: nn.Module, pairs: Sequence[tuple[str, str]], sweeps: int, *, where: str) -> None:
    """Scale the layers of all pairs in place, in float64 until nothing moves."""
    import torch

    paths = list(dict.fromkeys(path for pair in pairs for path in pair))
    weights = {path: _weight(module, path).detach().double() for path in paths}
    factors = {path: torch.ones(len(weight), dtype=torch.float64) for path, weight in weights.items()}
    for path, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise DomainError("the weight is not finite (NaN or infinity)", where=path, hint="train the network again")
    for _ in range(sweeps):
        moved = 0.0
        for first, second in pairs:
            rows = weights[first].flatten(1)
            columns = _by_channel(weights[second], len(rows))
            own, read = rows.abs().amax(1), columns.abs().amax((0, 2))
            scale = torch.where((own > 0) & (read > 0), (own / read).sqrt(), 1.0)
            rows /= scale.view(-1, 1)
            columns *= scale.view(1, -1, 1)
            factors[first] *= scale
            moved = max(moved, float((scale - 1).abs().max()))
        if moved < 1e-3:
            break
    for path, weight in weights.items():
        layer: Any = module.get_submodule(path)
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(layer.bias.double() / factors[path])


def _by_channel(weight: Tensor, channels: int) -> Tensor:
    """A view of a weight by the channels that it reads, shape (outputs or 1, channels, rest)."""
    if weight.shape[1] == 1 and channels > 1:
        return weight.view(1, channels, -1)
    return weight.view(len(weight), channels, -1)
