"""Leave words out of a text, so that an answer does not hang on single ones.

Each word goes with a probability p, one of each text stays (Iyyer, Manjunatha, Boyd-Graber and Daumé, "Deep Unordered Composition Rivals
Syntactic Methods for Text Classification", 2015; random deletion in Wei and Zou, "EDA", 2019).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["WordDropout"]


class WordDropout(Augmentation):
    """Texts without some of their words.

    >>> WordDropout(probability=0.2)
    WordDropout(probability=0.2)
    """

    on: ClassVar[tuple[SampleKind, ...]] = ("texts",)
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"probability": 0.1}, {"probability": 0.3})

    probability: float = Field(default=0.1, ge=0, lt=1)
    """p, of each word to go."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._words import known_words, numpy_generator, padded
        from mapsto.data.text.word_pieces import drawn_words, kept_in_order

        words = known_words(drawn, name=self.name)
        ids = drawn.x.cpu().numpy().reshape(-1, drawn.x.shape[-1])
        numbers = words.pieces.numbers(ids)
        kept = drawn_words(numbers, 1 - self.probability, numpy_generator(generator))
        kept |= (numbers < 0) & (ids != words.padding)
        shorter = padded(kept_in_order(ids, kept, words.padding), ids.shape[1], words.padding)
        return dataclasses.replace(drawn, x=torch.as_tensor(shorter, device=drawn.x.device).view(drawn.x.shape))
