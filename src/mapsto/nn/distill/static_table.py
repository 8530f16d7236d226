"""From an encoder of texts to a table of token vectors whose weighted means point where the encoder's embeddings do.

The table begins as the principal components of the encoder's embedding of each token alone, weighted by ``a / (a + p_t)`` with p_t the
share of the token (SIF), and is trained by Adam on ``1 − cos(Σ w_t E_t, f(x))`` over texts of the domain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.kinds import Network
from mapsto.nn.network.inference import embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Table", "fitted", "first_table", "principal"]

_SMOOTHING = 1e-3
"""The a of SIF; 1e-3 as in the paper."""
_SILENT = -20.0
"""The logarithm of the weight of tokens that begin and end a text."""
_BATCH = 256
_RISE = 0.1
"""Share of the steps over which the rate rises."""


class Table(NamedTuple):
    """A static encoder's numbers."""

    vectors: Tensor
    """(tokens, D)."""
    weights: Tensor
    """Logarithms, (tokens, 1)."""


def principal(rows: Tensor, size: int) -> Tensor:
    """The directions of greatest variance of rows (N, D), shape (D, at most size)."""
    centred = rows - rows.mean(0)
    return torch.linalg.eigh(centred.T.double() @ centred.double())[1].flip(1)[:, :size].float()


def first_table(network: Network, directions: Tensor, counts: NDArray[np.int64], ends: Sequence[int]) -> Table:
    """The table before training.

    Parameters
    ----------
    directions
        From the encoder's embedding to the table's, (embedding, D).
    counts
        How often each token occurs in the texts, (tokens,).
    ends
        The ids that the tokenizer puts around a text, the first before it, the others behind it.
    """
    read = network.signature.preprocessing
    tokens = np.arange(len(counts))
    rows = np.stack(
        [np.full_like(tokens, end) for end in ends[:1]] + [tokens] + [np.full_like(tokens, end) for end in ends[1:]], 1
    )
    rows[read.padding] = rows[(read.padding + 1) % len(rows)]  # padding alone has no embedding
    alone = embeddings(network.module(), rows, read, batch_size=_BATCH)
    vectors = (alone - alone.mean(0)) @ directions
    vectors = vectors / vectors.norm(dim=1).mean().clamp(min=1e-12)
    shares = torch.from_numpy(counts / max(int(counts.sum()), 1)).float()
    weights = (_SMOOTHING / (_SMOOTHING + shares)).log()
    weights[list(ends)] = _SILENT
    return Table(vectors, weights[:, None])


def fitted(
    start: Table,
    ids: NDArray[np.int64],
    aims: Tensor,
    *,
    padding: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    dropout: float,
    generator: np.random.Generator,
) -> tuple[Table, float]:
    """The trained table, and the mean cosine to the aims in the last epoch.

    Parameters
    ----------
    ids
        Texts as token ids (N, L).
    aims
        What they are to become, (N, D); their length does not count.
    dropout
        Share of the tokens of a text that are left out at random.
    """
    used, places_of = np.unique(ids, return_inverse=True)  # no other row ever gets a gradient
    ids = places_of.reshape(ids.shape)
    padding = int(np.searchsorted(used, padding)) if padding in used else -1
    rows = torch.from_numpy(used)
    vectors, weights = (nn.Parameter(part[rows]) for part in start)
    optimizer = torch.optim.Adam([vectors, weights], lr=learning_rate)
    steps = max(epochs * -(-len(ids) // batch_size), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    aims = nn.functional.normalize(aims, dim=1)
    near: list[float] = []
    for _ in range(epochs):
        order = generator.permutation(len(ids))
        near = []
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            batch = ids[places]
            known = batch != padding
            batch, known = batch[:, known.any(0)], known[:, known.any(0)]
            stays = known & (generator.random(batch.shape) >= dropout)
            stays |= known & ~stays.any(1, keepdims=True)
            given, mask = torch.from_numpy(batch), torch.from_numpy(stays)[..., None]
            mean = (nn.functional.embedding(given, vectors) * nn.functional.embedding(given, weights).exp() * mask).sum(
                1
            )
            cosine = (nn.functional.normalize(mean, dim=1) * aims[torch.from_numpy(places)]).sum(1).mean()
            optimizer.zero_grad()
            (1 - cosine).backward()
            optimizer.step()
            schedule.step()
            near.append(float(cosine.detach()))
    trained = Table(
        *(part.index_copy(0, rows, new.detach()) for part, new in zip(start, (vectors, weights), strict=True))
    )
    return trained, float(np.mean(near))


def _rate(share: float) -> float:
    """The rate after a share of the steps: up over the first tenth, down to 0 along a cosine."""
    return min(1.0, 0.05 + share / _RISE) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
