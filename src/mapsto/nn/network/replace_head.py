"""Give a network another head, or none: the module and the edit that makes it, and the signature that goes with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Network, Signature
from mapsto.nn.edits.head import Head
from mapsto.nn.network.build import with_output
from mapsto.nn.network.dense_outputs import refuse_dense
from mapsto.nn.network.head import embedding_size, head, head_path

__all__ = ["example_input", "fits", "headed", "headless", "set_head"]


def example_input(network: Network, batch: int = 2) -> Tensor:
    """A batch of zeros that the network takes."""
    spec = network.signature.inputs[0]
    return torch.zeros(network.signature.input_shape(batch), dtype=getattr(torch, spec.dtype))


def headed(
    network: Network, module: nn.Module, classes: Sequence[str], *, dropout: float = 0.0, fresh: bool = False
) -> tuple[Head | None, Signature]:
    """Make `module`, of `network`, end in one output a class.

    Returns
    -------
    tuple[Head or None, Signature]
        The edit that was applied, None where the head fits already and `fresh` is false; and the new signature. A head that
        fits keeps its weights.

    Raises
    ------
    DomainError
        The network has no place for a head.
    """
    refuse_dense(network.signature, where=type(module).__name__)
    linear = head(module)
    keep = not fresh and fits(network, module, classes)
    signature = with_output(network.signature, len(classes), classes)
    if keep and not dropout:
        return None, signature
    edit = Head(path=_place(module), inputs=_inputs(network, module), outputs=len(classes), dropout=dropout)
    kept = (linear.weight.detach().clone(), linear.bias) if linear is not None and keep else None
    edit.apply(module)
    if kept is not None:
        set_head(module, *kept)
    return edit, signature


def fits(network: Network, module: nn.Module, classes: Sequence[str]) -> bool:
    """Whether the head of `module`, of `network`, is one for these classes: the same names, or as many and none named."""
    linear, named = head(module), network.signature.classes
    numbered = named is None or named == tuple(map(str, range(len(named))))
    return linear is not None and linear.out_features == len(classes) and (numbered or named == tuple(classes))


def headless(network: Network, module: nn.Module) -> tuple[Head | None, Signature]:
    """Make `module`, of `network`, give its embedding; the edit (None where it does so already) and the signature."""
    refuse_dense(network.signature, where=type(module).__name__)
    size = _inputs(network, module)
    signature = with_output(network.signature, size, None)
    if head(module) is None:
        return None, signature
    edit = Head(path=_place(module), inputs=size, outputs=None)
    edit.apply(module)
    return edit, signature


def set_head(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Put these values into the head of `module`."""
    linear = head(module)
    if linear is None:
        raise DomainError("the network has no head", hint="give it one first")
    with torch.no_grad():
        linear.weight.copy_(weight)
        if linear.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            linear.bias.copy_(bias if bias is not None else torch.zeros_like(linear.bias))


def _place(module: nn.Module) -> str:
    path = head_path(module)
    if path is None:
        raise DomainError(
            "the network has neither a module `classifier` nor a linear layer",
            where=type(module).__name__,
            hint="give the class an attribute `classifier` (nn.Identity for an embedding)",
        )
    return path


def _inputs(network: Network, module: nn.Module) -> int:
    return embedding_size(module, example_input(network))
