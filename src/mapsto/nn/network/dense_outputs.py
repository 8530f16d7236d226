"""What goes by one answer a sample says so where a network answers with a map: scores for every pixel, a vector for every token."""

from __future__ import annotations

from mapsto.errors import DomainError
from mapsto.kinds import Signature

__all__ = ["refuse_dense"]


def refuse_dense(signature: Signature, *, where: str, who: str = "the network") -> None:
    """Raises `DomainError` where the output is dense."""
    if signature.is_dense:
        raise DomainError(
            f"{who}'s output is dense, {tuple(signature.outputs[0].shape[1:])} for a sample, and this goes by one answer a sample",
            where=where,
            hint="what dense outputs allow: prune.magnitude, quantize.static, quantize.weight_only, distill.logits with alpha: 1, "
            "evaluate.difference, export.*",
        )
