"""Masked language modelling on the user's own texts: an encoder learns their words by guessing those that are hidden from it.

``min_θ −mean log p_θ(x_t | x̃)`` over drawn tokens t, of which 80 % are masked in x̃, 10 % replaced by a token of the texts and 10 % left
(Devlin et al., "BERT", 2019; on a domain's texts: Gururangan et al., "Don't Stop Pretraining", 2020). The head that guesses is fresh, ends
in the encoder's own table of words, and is thrown away.
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

__all__ = ["MaskedLanguage"]


class MaskedLanguage(Pretraining):
    """The encoder after guessing masked words; architecture and signature stay."""

    version: ClassVar[int] = 1

    masked: float = Field(default=0.15, gt=0, lt=1)
    """Share of words (or tokens) to guess; one of each text at least."""
    whole_words: bool = True
    """Whether all pieces of a word are drawn together; with one piece hidden the others give it away."""
    keep_head: bool = False
    """Whether the network keeps the head that guesses, as an asset: `augment.masked_words` draws words by it."""

    contract: ClassVar[dict[str, Any]] = {"data": {"text": {"file": __file__}}}
    contract_input: ClassVar[Any] = staticmethod(contract_encoder)

    def objective(self, encoder: TextEncoder, ids: NDArray[np.int64], value: Network) -> nn.Module:
        """Raises `DomainError` where the tokenizer has no mask."""
        from mapsto.data.text.word_pieces import require_mask, word_pieces
        from mapsto.nn.train.language.objectives import MaskedLanguage as Objective

        require_mask(word_pieces(value.signature.preprocessing), where=self.name)
        return Objective(encoder, ids)

    def finished(self, value: Network, module: nn.Module) -> Network:
        from mapsto.nn.train.language.masked_language_head import with_head

        network = super().finished(value, module)
        return with_head(network, module) if self.keep_head else network

    def inputs(self, ids: NDArray[np.int64], value: Network, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        import numpy as np

        from mapsto.data.text.word_pieces import drawn_words, require_mask, word_pieces

        pieces = word_pieces(value.signature.preprocessing)
        numbers = pieces.numbers(ids)
        if not self.whole_words:
            numbers = np.where(numbers >= 0, np.arange(ids.shape[1]), -1)
        drawn = drawn_words(numbers, self.masked, rng)
        fate, others = rng.random(ids.shape), ids[numbers >= 0]
        mask = require_mask(pieces, where=self.name)
        replaced = rng.choice(others, ids.shape) if len(others) else ids
        shown = np.where(fate < 0.8, mask, np.where(fate < 0.9, replaced, ids))
        return ids, np.where(drawn, shown, ids), drawn
