"""A static encoder of texts: a vector for each token, and their weighted mean; no token knows of the others.

``f(x) = Σ w_t E_t / |Σ w_t E_t|`` over the tokens of a text, with learnt weights w (Arora, Liang and Ma, "A Simple but Tough-to-Beat
Baseline for Sentence Embeddings", 2017, whose weights follow from frequencies).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["static_text"]


class StaticText(nn.Module):
    """Token ids to the weighted mean of their vectors, scaled to length 1, and a classifier."""

    def __init__(self, tokens: int, size: int, padding: int, dropout: float, classes: int | None) -> None:
        super().__init__()
        self.vectors = nn.Embedding(tokens, size)
        self.weights = nn.Embedding(tokens, 1)
        nn.init.zeros_(self.weights.weight)
        self.padding = padding
        self.dropout = dropout
        self.embedding = size
        self.classifier = classifier_of(size, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Token ids (N, L), int64, padded with the padding id → embeddings (N, D)."""
        mask = (x != self.padding).unsqueeze(-1).to(self.vectors.weight.dtype)
        if self.training and self.dropout:
            mask = mask * (torch.rand_like(mask) >= self.dropout)
        return nn.functional.normalize((self.vectors(x) * torch.exp(self.weights(x)) * mask).sum(1), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def static_text(
    *, tokens: int, size: int = 256, padding: int = 0, dropout: float = 0.0, classes: int | None = None
) -> nn.Module:
    """A static encoder.

    Parameters
    ----------
    tokens
        Rows of the table: tokens of the tokenizer.
    size
        Numbers of a token's vector and of the embedding.
    padding
        The id that fills texts up; it counts for nothing.
    dropout
        Share of the tokens that a text is trained without, 0 to below 1.
    classes
        Outputs of the linear classifier; None for an embedding, shape (N, size).

    Raises
    ------
    DomainError
        A size is no whole number from 1.
    """
    for name, value in (("tokens", tokens), ("size", size)):
        at_least(value, 1, name=name, where="static_text")
    return StaticText(tokens, size, padding, dropout, classes)
