"""SimCSE: two embeddings of one text under two dropout masks must be nearer to each other than to those of other texts.

``min_θ −mean_i log softmax_j(cos(h_i, h'_j) / τ)[i]`` over a batch (Gao, Yao and Chen, "SimCSE: Simple Contrastive Learning of Sentence
Embeddings", 2021): it spreads the texts of a domain, which an encoder of all the world's texts has close together, over the whole sphere.
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

__all__ = ["Simcse"]


class Simcse(Pretraining):
    """The encoder after telling texts apart by two dropout masks; architecture and signature stay."""

    version: ClassVar[int] = 1

    temperature: float = Field(default=0.05, gt=0)
    """τ: the smaller, the more only the nearest other texts count."""
    dropout: float = Field(default=0.1, gt=0, lt=1)
    """Probability of each dropout in the layers that are trained."""
    batch_size: int = Field(default=64, ge=2)
    """Texts of a step, each told apart from all others; they are of like length."""

    contract: ClassVar[dict[str, Any]] = {"data": {"text": {"file": __file__}}}
    contract_input: ClassVar[Any] = staticmethod(contract_encoder)

    def objective(self, encoder: TextEncoder, ids: NDArray[np.int64], value: Network) -> nn.Module:
        """Raises `DomainError` where what is trained has no dropout."""
        from torch.nn import Dropout

        from mapsto.errors import DomainError
        from mapsto.nn.train.language.encoder_parts import tuned_parts
        from mapsto.nn.train.language.objectives import DropoutContrast

        found = [
            each for part in tuned_parts(encoder, self.layers) for each in part.modules() if isinstance(each, Dropout)
        ]
        if not found:
            raise DomainError(
                "the encoder has no dropout, so that a text's two embeddings are one",
                where=self.name,
                hint="use train.tsdae or train.masked_language",
            )
        for each in found:
            each.p = self.dropout
        return DropoutContrast(encoder, temperature=self.temperature)

    def inputs(self, ids: NDArray[np.int64], value: Network, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        return (ids,)
