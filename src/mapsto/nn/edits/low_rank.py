"""Factorise layers: two or three thin ones in the place of one, whose product has a low rank.

``W ≈ B A`` with A of shape (r, inputs) and B (outputs, r) for linear layers and 1×1 convolutions; ``W ≈ G ×₁ B ×₂ A`` for the
others: 1×1 to r_in channels, a core with the layer's kernel from r_in to r_out, 1×1 back (Tucker-2: Kim et al., "Compression of
Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", 2016). The tensors are those of `<layer>.0`,
`<layer>.1` and `<layer>.2`, new ones; whoever makes the edit sets them.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit, Frozen

__all__ = ["Factorable", "LowRank", "is_factorable", "is_pointwise"]

Factorable: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d


class Ranks(Frozen):
    """The ranks of one layer."""

    path: str
    """Path of the layer."""
    outputs: int = Field(ge=1)
    """r, or r_out of a convolution with a kernel."""
    inputs: int | None = Field(default=None, ge=1)
    """r_in of a convolution with a kernel; None for the others."""


class LowRank(Edit):
    """Layers in factors. No tensor follows a factorised layer's.

    >>> net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> _ = LowRank(layers=(Ranks(path="0", outputs=1),)).apply(net)
    >>> {name: tuple(tensor.shape) for name, tensor in net.state_dict().items() if name.startswith("0")}
    {'0.0.weight': (1, 6), '0.1.weight': (4, 1), '0.1.bias': (4,)}
    """

    layers: tuple[Ranks, ...] = Field(min_length=1)
    """The layers and their ranks."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a layer is not there, cannot be factorised, or has no such ranks."""
        for ranks in self.layers:
            place, _, name = ranks.path.rpartition(".")
            try:
                parent, layer = module.get_submodule(place), module.get_submodule(ranks.path)
            except AttributeError as error:
                raise DomainError(
                    str(error), where=f"low_rank: {ranks.path}", hint="edits replay in the order they were made"
                ) from error
            if not is_factorable(layer):
                raise DomainError(
                    f"it is a {type(layer).__name__}",
                    where=f"low_rank: {ranks.path}",
                    hint="a plain linear layer or a convolution without groups can be factorised",
                )
            known = cast("Factorable", layer)
            if is_pointwise(known) != (ranks.inputs is None):
                raise DomainError(
                    f"ranks {ranks.outputs} and {ranks.inputs} for a kernel of {tuple(known.weight.shape[2:])}",
                    where=f"low_rank: {ranks.path}",
                    hint="a kernel of more than one place has two ranks, all else one",
                )
            setattr(parent, name, _factors(known, ranks).train(layer.training))
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        return None if name.rpartition(".")[0] in {ranks.path for ranks in self.layers} else tensor


def is_factorable(layer: nn.Module) -> bool:
    """Whether a layer can be factorised: a plain linear layer, or a convolution of one or two dimensions without groups."""
    return type(layer) is nn.Linear or (type(layer) in (nn.Conv1d, nn.Conv2d) and cast("Any", layer).groups == 1)


def is_pointwise(layer: Factorable) -> bool:
    """Whether a layer's weight is a matrix: a linear layer, or a convolution whose kernel has one place."""
    return layer.weight[0, 0].numel() == 1


def _factors(layer: Factorable, ranks: Ranks) -> nn.Sequential:
    bias = layer.bias is not None  # pyright: ignore[reportUnnecessaryComparison]
    like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return nn.Sequential(
            nn.Linear(layer.in_features, ranks.outputs, bias=False, **like),
            nn.Linear(ranks.outputs, layer.out_features, bias=bias, **like),
        )
    kind: Any = type(layer)
    before = ranks.outputs if ranks.inputs is None else ranks.inputs
    core: dict[str, Any] = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "padding_mode": layer.padding_mode,
    }
    last = kind(ranks.outputs, layer.out_channels, 1, bias=bias, **like)
    if ranks.inputs is None:
        return nn.Sequential(kind(layer.in_channels, before, bias=False, **core, **like), last)
    return nn.Sequential(
        kind(layer.in_channels, before, 1, bias=False, **like),
        kind(before, ranks.outputs, bias=False, **core, **like),
        last,
    )
