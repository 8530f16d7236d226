"""A network's head, the classifier, and what it is given, the embedding: where they are, and how to give a network another head or none.

A network of this package has ``embed(x)`` and ``classifier``; of any other module the last linear layer is the head, and what
flows into it is the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Network, Signature
from mapsto.nn.edits.head import Head
from mapsto.nn.edits.nearest_head import VotingLayer
from mapsto.nn.edits.root_head import RootHead, rooted, takes_root
from mapsto.nn.network.build import with_output
from mapsto.nn.network.dense_outputs import refuse_dense
from mapsto.nn.network.examples import example_batch
from mapsto.nn.network.layer_calls import watching
from mapsto.nn.networks.ensemble import Ensemble

__all__ = [
    "Embedding",
    "embed",
    "embed_and_classify",
    "embedding_size",
    "episode_features",
    "example_batch",
    "fits",
    "head",
    "head_path",
    "headed",
    "headless",
    "require_head_path",
    "set_head",
]

_NAMES = ("classifier", "linear", "fc", "head")


def head_path(module: nn.Module) -> str | None:
    """The dotted path of the head: ``classifier``, or another usual name, else a head that votes, else the last `nn.Linear`.

    None without any.

    >>> head_path(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    '2'
    """
    for name in _NAMES:
        if isinstance(getattr(module, name, None), (nn.Linear, nn.Identity, VotingLayer)):
            return name
    for name, part in module.named_modules():
        if isinstance(part, VotingLayer):
            return name
    return next((name for name, part in reversed(list(module.named_modules())) if isinstance(part, nn.Linear)), None)


def head(module: nn.Module) -> nn.Linear | None:
    """The linear head itself; None where the output is the embedding."""
    path = head_path(module)
    found = module.get_submodule(path) if path is not None else None
    return found if isinstance(found, nn.Linear) else None


def embed(module: nn.Module, inputs: Tensor) -> Tensor:
    """The embedding of a batch, shape (N, D): what the head is given.

    Raises `DomainError` where it is no matrix.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> embed(net, torch.ones(2, 1, 2, 2)).shape
    torch.Size([2, 8])
    """
    _require_one_head(module)
    own = cast("Callable[[Tensor], Tensor] | None", getattr(module, "embed", None))
    if not callable(own):
        return embed_and_classify(module, inputs)[0]
    embedding = _matrix(own(inputs))
    return rooted(embedding) if takes_root(head(module)) else embedding


class Embedding(nn.Module):
    """A network as one that gives its embedding, with the same tensors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        return embed(self.module, inputs)


def embed_and_classify(module: nn.Module, inputs: Tensor, *, through: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """The embedding (N, D) and the output of one forward pass, made by calling `through` (a wrapper of `module`)."""
    _require_one_head(module)
    path = head_path(module)
    seen: list[Tensor] = []
    if path is None:
        output: Tensor = (through or module)(inputs)
        return _matrix(output), output
    with watching({path: module.get_submodule(path)}, lambda _, given, __: seen.append(given[0]), before=True):
        output = (through or module)(inputs)
    if not seen:
        raise DomainError(f"the head '{path}' is never called", hint="give the module an embed(x) method")
    return _matrix(seen[-1]), output


def episode_features(module: nn.Module, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (B, S, D) and (B, Q, D) of a batch of tasks in one forward pass; `module` gives embeddings.

    >>> [part.shape for part in episode_features(nn.Flatten(), torch.ones(2, 5, 1, 2, 2), torch.ones(2, 3, 1, 2, 2))]
    [torch.Size([2, 5, 4]), torch.Size([2, 3, 4])]
    """
    tasks, shots = support.shape[:2]
    together = torch.cat([support, query], 1)
    features: Tensor = module(together.flatten(0, 1)).unflatten(0, (tasks, together.shape[1]))
    return features[:, :shots], features[:, shots:]


def embedding_size(module: nn.Module, example: Tensor) -> int:
    """D, from the head's inputs or else from one forward pass over `example`, shape (N, ...), in evaluation mode.

    An attribute ``embedding`` is not relied on: pruning changes D.
    """
    _require_one_head(module)
    linear = head(module)
    if linear is not None:
        return linear.in_features
    with torch.no_grad():
        return embed(module, example).shape[1]


def headed(
    network: Network,
    module: nn.Module,
    classes: Sequence[str],
    *,
    dropout: float = 0.0,
    fresh: bool = False,
    root: bool = False,
) -> tuple[Head | None, Signature]:
    """Make `module`, of `network`, end in one output a class; with `root` a fresh head takes the root of the embedding.

    Returns
    -------
    tuple[Head or None, Signature]
        The edit that was applied, None where the head fits already and `fresh` is false; and the new signature. A head that
        fits keeps its weights.

    Raises
    ------
    DomainError
        The network has no place for a head, or is an ensemble, which has several.
    """
    refuse_dense(network.signature, where=type(module).__name__)
    linear = head(module)
    keep = not fresh and fits(network, module, classes)
    signature = with_output(network.signature, len(classes), classes)
    if keep and not dropout:
        return None, signature
    kind = RootHead if (takes_root(linear) if keep else root) else Head
    edit = kind(path=require_head_path(module), inputs=_inputs(network, module), outputs=len(classes), dropout=dropout)
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
    path = head_path(module)
    if path is None or isinstance(module.get_submodule(path), nn.Identity):
        return None, signature
    edit = Head(path=path, inputs=size, outputs=None)
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


def _matrix(embedding: Tensor) -> Tensor:
    if embedding.ndim != 2:
        raise DomainError(
            f"the embedding has shape {tuple(embedding.shape)}, not (N, D)", hint="flatten or pool it before the head"
        )
    return embedding


def require_head_path(module: nn.Module) -> str:
    """The path of the head. Raises `DomainError` where there is no place for one."""
    path = head_path(module)
    if path is None:
        raise DomainError(
            "the network has neither a module `classifier` nor a linear layer",
            where=type(module).__name__,
            hint="give the class an attribute `classifier` (nn.Identity for an embedding)",
        )
    return path


def _require_one_head(module: nn.Module) -> None:
    """Raises `DomainError` for an ensemble: the last member's head and embedding are not the ensemble's."""
    if isinstance(module, Ensemble):
        raise DomainError(
            f"an ensemble has no embedding and no head of its own: each of its {len(module.members)} members has one",
            where=type(module).__name__,
            hint="adapt each member by itself, then make an ensemble of the results (networks.ensemble)",
        )


def _inputs(network: Network, module: nn.Module) -> int:
    return embedding_size(module, example_batch(network))
