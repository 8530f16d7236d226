"""The head of a masked language model as an asset of its network: tensors by the names that `augment.masked_words` reads."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from safetensors.torch import save

from mapsto.data.text.masked_language_head import HEAD
from mapsto.nn.train.language.objectives import MaskedLanguage

if TYPE_CHECKING:
    from torch import nn

    from mapsto.kinds import Network

__all__ = ["with_head"]


def with_head(network: Network, objective: nn.Module) -> Network:
    """The network with the head of its trained objective, a `MaskedLanguage`."""
    trained = cast("MaskedLanguage", objective)
    linear, _, norm = trained.transform
    tensors = {
        "linear.weight": linear.weight,
        "linear.bias": linear.bias,
        "norm.weight": norm.weight,
        "norm.bias": norm.bias,
        "bias": trained.words.bias,
        "known": trained.words.known,
    }
    kept = {name: cast("nn.Parameter", tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}
    return dataclasses.replace(network, assets={**network.assets, HEAD: save(kept)})
