"""Layer-wise learning rates: the nearer a block is to the input, the slower it learns, for it has the least to learn anew.

``η_l = η · ξ^(L − l)`` for block l of L, the head at η (Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification",
2018, with ξ = 1/2.6; Bao et al., "BEiT: BERT Pre-Training of Image Transformers", 2022, with 0.65 to 0.85).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["layer_rates"]


def layer_rates(blocks: Sequence[Sequence[str]], decay: float) -> dict[str, float]:
    """Parameter → what its rate is multiplied by; the last block, the head, has 1.

    >>> layer_rates([("stem",), ("block",), ("head.weight", "head.bias")], 0.5)
    {'stem': 0.25, 'block': 0.5, 'head.weight': 1.0, 'head.bias': 1.0}
    """
    return {name: decay ** (len(blocks) - 1 - place) for place, block in enumerate(blocks) for name in block}
