"""Exchange words of a text: most of what it is about stays, whatever the order.

Each of n = ⌈share · words⌉ times two places, drawn at random, exchange their words (random swap in Wei and Zou, "EDA: Easy Data
Augmentation Techniques for Boosting Performance on Text Classification Tasks", 2019, with a share of 0.1).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    from torch import Generator

    from mapsto.data.augment._words import Word

__all__ = ["WordSwap"]


class WordSwap(Augmentation):
    """Texts, some of whose words have changed places.

    >>> WordSwap(share=0.2)
    WordSwap(share=0.2)
    """

    on: ClassVar[tuple[SampleKind, ...]] = ("texts",)
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"share": 0.1}, {"share": 0.3})

    share: float = Field(default=0.1, ge=0, le=1)
    """Exchanges, as a share of the text's words."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        from mapsto.data.augment._words import known_words, numpy_generator, rewritten

        rng = numpy_generator(generator)

        def change(words: list[Word]) -> list[Word]:
            found = list(words)
            for _ in range(math.ceil(self.share * len(words)) if len(words) > 1 else 0):
                one, other = rng.choice(len(found), 2, replace=False).tolist()
                found[one], found[other] = found[other], found[one]
            return found

        return dataclasses.replace(drawn, x=rewritten(drawn.x, known_words(drawn, name=self.name), change))
