"""Replace the head of a text encoder by one that answers for each token: a linear layer over its last hidden states.

``output[:, k, l] = W_k · h_l + b_k`` with W of shape (outputs, inputs): token ids (N, L) become scores (N, outputs, L) (Devlin et al.,
"BERT", 2019). The new layer's tensors are drawn from torch's global generator; whoever makes the edit sets them.
"""

from __future__ import annotations

from torch import nn

from mapsto.errors import DomainError
from mapsto.nn.edits.head import Head

__all__ = ["TokenHead"]


class TokenHead(Head):
    """A head at `path` for each token. No tensor follows the old one."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` as `Head` does, and where the network has no hidden states of tokens."""
        if not hasattr(module, "per_token"):
            raise DomainError(
                "the network gives no hidden states of tokens",
                where=type(module).__name__,
                hint="give a text encoder, as networks.minilm",
            )
        module = super().apply(module)
        object.__setattr__(module, "per_token", True)
        return module
