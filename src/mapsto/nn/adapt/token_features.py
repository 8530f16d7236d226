"""Hidden states of the tokens that have a label, which a head for each token is fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto_runtime.preprocessing.texts import batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context

__all__ = ["TAGGED_EXAMPLE", "token_features"]

TAGGED_EXAMPLE = Path(__file__).parent / "tagged_words_example.txt"
"""A few sentences whose words have tags."""

_BATCH = 64


def token_features(
    value: Network, ids: NDArray[np.int64], labels: NDArray[np.int64], ctx: Context
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Of every token of ids (N, L) whose label in (N, L) is not negative: its hidden state (T, D), its label (T,) and its text (T,).

    They come text by text, in order. Raises `DomainError` for a network without hidden states of tokens.
    """
    import torch

    from mapsto.nn.network.inference import evaluating

    module: Any = value.module().to(ctx.device)
    if not hasattr(module, "hidden"):
        raise DomainError(
            "the network gives no hidden states of tokens",
            where="tagging",
            hint="give a text encoder, as networks.minilm",
        )
    rows: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(ids)
    parts = list(batches(ids, value.signature.preprocessing.padding, _BATCH))
    with evaluating(module), torch.no_grad():
        for places, part in ctx.track(parts, total=len(parts), what="embedding"):
            hidden = module.hidden(torch.as_tensor(part, device=ctx.device)).float().cpu().numpy()
            for place, states in zip(places.tolist(), hidden, strict=True):
                rows[place] = states[labels[place, : len(states)] >= 0]
    there = labels >= 0
    return np.concatenate(rows), labels[there], np.nonzero(there)[0]
