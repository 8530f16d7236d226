"""TSDAE: an encoder's embedding of a text without most of its words must be enough for a decoder to write the whole text.

``min_θ −mean_t log p_θ(x_t | x_<t, e(x̃))`` with e the embedding and x̃ the text without a share of its words (Wang, Reimers and Gurevych,
"TSDAE: Using Transformer-based Sequential Denoising Auto-Encoder for Unsupervised Sentence Embedding Learning", 2021). The decoder has one
layer, reads and writes by the encoder's table of words, and is thrown away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.kinds import Network
from mapsto.nn.train.language.contract_encoder import contract_encoder
from mapsto.nn.train.language.pretraining import Pretraining

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.nn.networks.hf import TextEncoder

__all__ = ["Tsdae"]


class Tsdae(Pretraining):
    """The encoder after writing texts from what is left of them; architecture and signature stay."""

    version: ClassVar[int] = 1

    deleted: float = Field(default=0.6, gt=0, lt=1)
    """Share of words that the encoder is not shown; 0.6 was best in the paper. One word of each text stays."""

    contract: ClassVar[dict[str, Any]] = {"data": {"text": {"file": __file__}}}
    contract_input: ClassVar[Any] = staticmethod(contract_encoder)

    def objective(self, encoder: TextEncoder, ids: NDArray[np.int64], value: Network) -> nn.Module:
        from mapsto.nn.train.language.objectives import Denoising

        heads = int(getattr(encoder.encoder.config, "num_attention_heads", 1))
        return Denoising(encoder, ids, heads=heads)

    def inputs(self, ids: NDArray[np.int64], value: Network, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        from mapsto.data.text.word_pieces import drawn_words, kept_in_order, word_pieces

        preprocessing = value.signature.preprocessing
        numbers = word_pieces(preprocessing).numbers(ids)
        kept = drawn_words(numbers, 1 - self.deleted, rng)
        ends = (numbers < 0) & (ids != preprocessing.padding)
        return ids, kept_in_order(ids, kept | ends, preprocessing.padding)
