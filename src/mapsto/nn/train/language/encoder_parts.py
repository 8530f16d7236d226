"""Of a text encoder of transformers: its table of words, its layers, and which of its parameters are trained."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.networks.hf import TextEncoder

__all__ = ["encoder_of", "hidden_size", "layers_of", "train_top", "tuned_parts", "word_table"]


def encoder_of(value: Network, *, where: str) -> TextEncoder:
    """A copy of the network's module. Raises `DomainError` where it is no encoder that reads texts."""
    module = value.module()
    if not isinstance(module, TextEncoder) or value.signature.preprocessing.kind != "text":
        raise DomainError(
            "pretraining on texts takes an encoder of transformers that carries its tokenizer",
            where=where,
            hint="begin with networks.minilm or networks.hf_text with a folder",
        )
    return module


def layers_of(module: TextEncoder) -> nn.ModuleList:
    """The encoder's layers, the lowest first: its longest list of modules. Raises `DomainError` where it has none."""
    lists = [part for part in module.encoder.modules() if isinstance(part, nn.ModuleList)]
    if not lists:
        raise DomainError("the encoder has no list of layers", hint="give an encoder of transformer layers")
    return max(lists, key=len)


def word_table(module: TextEncoder) -> nn.Embedding:
    """The table of word vectors (V, D)."""
    return cast("nn.Embedding", cast("Any", module.encoder).get_input_embeddings())


def hidden_size(module: TextEncoder) -> int:
    """D of the last hidden states, and of a single text's embedding."""
    return int(cast("Any", module.encoder).config.hidden_size)


def tuned_parts(module: TextEncoder, layers: int | None) -> list[nn.Module]:
    """The top `layers` of the encoder; None: the whole of it."""
    if layers is None:
        return [module.encoder]
    return list(layers_of(module)[-layers:])


def train_top(module: TextEncoder, layers: int | None) -> None:
    """Let only the top `layers` want gradients; None: the whole encoder. What pools behind the layers, unused here, wants none."""
    module.requires_grad_(False)
    for part in tuned_parts(module, layers):
        part.requires_grad_(True)
    if layers is None:
        pooler = getattr(module.encoder, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)
