"""The losses of three pretraining objectives, each an encoder and what is trained beside it.

Masked language modelling: Devlin et al., "BERT", 2019. TSDAE: Wang, Reimers and Gurevych, "TSDAE: Using Transformer-based Sequential
Denoising Auto-Encoder for Unsupervised Sentence Embedding Learning", 2021. SimCSE: Gao, Yao and Chen, "SimCSE: Simple Contrastive Learning
of Sentence Embeddings", 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.nn.train.language.encoder_parts import hidden_size, word_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.networks.hf import TextEncoder

__all__ = ["Denoising", "DropoutContrast", "MaskedLanguage"]


class _Vocabulary(nn.Module):
    """Scores of words by the encoder's own table: only those that the texts hold are told apart, which saves most of the time.

    Parameters
    ----------
    rows
        Rows of the table.
    ids
        Texts (N, L).
    """

    places: Tensor
    known: Tensor

    def __init__(self, rows: int, ids: NDArray[np.int64]) -> None:
        super().__init__()
        known = np.unique(ids)
        places = np.zeros(rows, np.int64)
        places[known] = np.arange(len(known))
        self.register_buffer("known", torch.as_tensor(known), persistent=False)
        self.register_buffer("places", torch.as_tensor(places), persistent=False)
        self.bias = nn.Parameter(torch.zeros(len(known)))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Hidden states (M, D) → scores (M, words of the texts)."""
        return functional.linear(hidden, table[self.known], self.bias)


class MaskedLanguage(nn.Module):
    """``−log p(token | the text with drawn tokens masked)``, mean over the drawn tokens.

    A fresh transform, linear, GELU and layer norm, stands between the last hidden states and the table of words.
    """

    def __init__(self, network: TextEncoder, ids: NDArray[np.int64]) -> None:
        super().__init__()
        self.network = network
        table = word_table(network)
        size = table.embedding_dim
        self.transform = nn.Sequential(nn.Linear(hidden_size(network), size), nn.GELU(), nn.LayerNorm(size))
        with torch.no_grad():
            self.transform[2].weight.fill_(size**-0.5)  # type: ignore[union-attr]
        self.words = _Vocabulary(table.num_embeddings, ids)

    def forward(self, ids: Tensor, masked: Tensor, drawn: Tensor) -> Tensor:
        """Token ids (B, L) as they were, with drawn ones masked, and which are drawn → the loss."""
        hidden = self.network.hidden(masked)[drawn]
        scores = self.words(self.transform(hidden), word_table(self.network).weight)
        return functional.cross_entropy(scores, self.words.places[ids[drawn]])


class Denoising(nn.Module):
    """``−log p(text | embedding of the text without most of its words)``, mean over the tokens.

    The decoder, one transformer layer, sees the words before the next one and nothing of the noisy text but its embedding: attention to
    one vector is that vector, so that a linear map of it is added to each place. Words and what reads them are the encoder's table.
    """

    def __init__(self, network: TextEncoder, ids: NDArray[np.int64], *, heads: int) -> None:
        super().__init__()
        self.network = network
        table = word_table(network)
        size = table.embedding_dim
        self.positions = nn.Parameter(0.02 * torch.randn(ids.shape[1], size))
        self.enter = nn.LayerNorm(size)
        self.sentence = nn.Linear(hidden_size(network), size)
        self.layer = nn.TransformerEncoderLayer(size, heads, 4 * size, 0.1, "gelu", batch_first=True)
        with torch.no_grad():
            self.layer.norm2.weight.fill_(size**-0.5)
        self.words = _Vocabulary(table.num_embeddings, ids)

    def forward(self, ids: Tensor, noisy: Tensor) -> Tensor:
        """Token ids (B, L) and the same without most words, (B, M) → the loss."""
        table = word_table(self.network).weight
        before, after = ids[:, :-1], ids[:, 1:]
        count = before.shape[1]
        vector = self.network.embed_single(noisy)
        if self.network.normalize:
            vector = vector * vector.shape[1] ** 0.5
        states = self.enter(functional.embedding(before, table)) + self.positions[:count]
        states = states + self.sentence(vector).unsqueeze(1)
        causal = nn.Transformer.generate_square_subsequent_mask(count, device=ids.device)
        found = self.layer(states, src_mask=causal, is_causal=True)
        asked = after != self.network.padding
        scores = self.words(found[asked], table)
        return functional.cross_entropy(scores, self.words.places[after[asked]])


class DropoutContrast(nn.Module):
    """``−log softmax_j(cos(h_i, h'_j) / τ)[i]`` with h and h' of the same text under two dropout masks."""

    def __init__(self, network: TextEncoder, *, temperature: float) -> None:
        super().__init__()
        self.network, self._temperature = network, temperature

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) → the loss."""
        both = functional.normalize(self.network.embed_single(torch.cat([ids, ids])), dim=1)
        one, other = both.chunk(2)
        return functional.cross_entropy(one @ other.T / self._temperature, torch.arange(len(ids), device=ids.device))
